"""Text from outside, made safe to keep and to show.

Process names and command lines are data that any user of the machine chooses. They must not
move a terminal's cursor, reverse the reading order or break a row. They are cleaned once at
capture, and again where they are shown, because a recording may come from anywhere.
"""

from __future__ import annotations

import re

NAME_CHARACTERS = 64
LINE_CHARACTERS = 2048

# Escape sequences go as a whole, or their letters would stay behind as litter: CSI; OSC, DCS
# and the other strings up to their end; single-character escapes. Both the 7-bit and the
# C1 forms.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|(?:\x1b[PX\]^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]?"
)
_SPACES = re.compile(r"\s+")


def sanitise(text: str, limit: int = LINE_CHARACTERS) -> str:
    """One line of printable characters, at most `limit` of them.

    Escape sequences, control, C1, bidirectional, zero-width and other invisible characters
    are removed; white space becomes one space. Doing it twice changes nothing.

    >>> sanitise("evil" + chr(27) + "[31mred" + chr(0x202e) + chr(10) + "row")
    'evilred row'
    >>> sanitise("abcdef", 4)
    'abc…'
    """
    # White space first: a line feed between two words is a space, not nothing.
    flat = _SPACES.sub(" ", _ESCAPES.sub("", text))
    visible = "".join(character for character in flat if character.isprintable())
    line = _SPACES.sub(" ", visible).strip()
    if len(line) > limit:
        line = line[: limit - 1] + "…"
    return line


def decode(raw: bytes) -> str:
    """Bytes from the kernel as text; names are cut in mid-character at times."""
    return raw.decode("utf-8", "replace")
