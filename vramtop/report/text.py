"""Words of a report: text from outside made short enough for a cell, counts, lists."""

from __future__ import annotations

from vramtop.text import sanitise


def clean(text: str, limit: int = 200) -> str:
    r"""One line of printable text, at most `limit` characters.

    >>> clean("a\x1b[31m\nb"), clean("a" * 9, 6), clean("\u202egpj.exe"), clean("")
    ('a b', 'aaaaa…', 'gpj.exe', '')
    """
    return sanitise(text, limit)


def plural(count: int, noun: str, nouns: str | None = None) -> str:
    """A count and its noun.

    >>> plural(1, "gap"), plural(3, "gap"), plural(0, "process", "processes")
    ('1 gap', '3 gaps', '0 processes')
    """
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}".replace(",", "\u202f")


def listed(words: list[str], most: int = 4) -> str:
    """Words as an English list, cut with the count said.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdef"))
    ('a', 'a, b and c', 'a, b, c, d and 2 more')
    """
    if len(words) > most:
        words = [*words[:most], f"{len(words) - most} more"]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]
