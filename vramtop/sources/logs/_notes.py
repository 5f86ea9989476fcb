"""What an import has to say about itself: assumptions, lines left out, columns not kept."""

from __future__ import annotations

from collections import Counter


class Notes:
    """Collects what is said on stderr, each thing once and in the order it came up.

    Attributes:
        assumptions: What was taken to be so without the log saying it.
        facts: What the log itself says about how it is to be read, worth repeating.
        not_kept: Columns that a recording has no place for, or that nobody here knows.
        skipped: Lines left out, by reason.
        examples: The first line left out, by reason.
        impossible: Readings that cannot be true and became null, by column.
    """

    def __init__(self) -> None:
        self.assumptions: list[str] = []
        self.facts: list[str] = []
        self.not_kept: list[str] = []
        self.skipped: Counter[str] = Counter()
        self.examples: dict[str, str] = {}
        self.impossible: Counter[str] = Counter()

    def assume(self, text: str) -> None:
        """Something was taken to be so."""
        if text not in self.assumptions:
            self.assumptions.append(text)

    def fact(self, text: str) -> None:
        """Something the reader should know."""
        if text not in self.facts:
            self.facts.append(text)

    def keep_not(self, column: str) -> None:
        """A column is left out."""
        if column not in self.not_kept:
            self.not_kept.append(column)

    def skip(self, reason: str, line: str) -> None:
        """A line is left out."""
        self.skipped[reason] += 1
        self.examples.setdefault(reason, line[:80])

    def lines(self) -> list[str]:
        """All of it as lines of text, most important first."""
        said = [f"assumed: {text}" for text in self.assumptions]
        said += self.facts
        if self.not_kept:
            said.append("columns not kept: " + ", ".join(self.not_kept))
        said += [
            f"left out {count} line{'s' if count > 1 else ''}: {reason}"
            f" (first: {_printable(self.examples[reason])!r})"
            for reason, count in self.skipped.most_common()
        ]
        said += [
            f"impossible values of {column} taken as missing: {count}"
            for column, count in self.impossible.most_common()
        ]
        return said


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)
