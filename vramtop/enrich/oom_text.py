"""Finds out-of-memory messages in what a program prints, while it prints it.

Bounded in memory and work whatever comes: colour codes, carriage returns, rank prefixes,
pasted HTML, lines torn in two or never ended. A message is held back for a few lines where
what follows may complete it or take it back (llama.cpp tries again, and says so later).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields, replace

from vramtop.enrich.oom_patterns import TRIGGERS, Family, OomMessage, classify
from vramtop.samples import OOM_EVIDENCE, Observation

MAX_LINE_BYTES = 16384
_TAIL = 512
_HOLD_LINES = 6
_REPEAT_LINES = 200
_MAX_TEXT = 2000
_LONGEST_TRIGGER = max(map(len, TRIGGERS))
_COLOUR = re.compile(
    r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]{0,512}(?:\x07|\x1b\\)?|[@-Z\\^_])"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LINE_END = re.compile(rb"[\r\n]+")
_RANK_PREFIX = re.compile(r"^\s*\[?rank ?\d{1,6}\]?:? ?", re.IGNORECASE)
_ESCAPES = (("&gt;", ">"), ("&lt;", "<"), ("&quot;", '"'), ("&#39;", "'"), ("&amp;", "&"))


def clean(raw: bytes) -> str:
    r"""One line as plain text.

    >>> clean(b"\x1b[31mCUDA &gt;&gt; out\x1b[0m")
    'CUDA >> out'
    """
    text = raw.decode("utf-8", "replace")
    if "\x1b" in text:
        text = _COLOUR.sub("", text)
    if "&" in text:
        for escaped, plain in _ESCAPES:
            text = text.replace(escaped, plain)
    return _CONTROL.sub(" ", text)


class OomScanner:
    """Takes a program's output in pieces of any size, gives the messages found in it.

    Args:
        keep_repeats: Give a message again when the same figures come once more within a few
            lines (logged by two loggers, then raised); otherwise only the first.
    """

    def __init__(self, *, keep_repeats: bool = False) -> None:
        self.line = 0
        """Lines taken so far."""
        self._keep_repeats = keep_repeats
        self._partial = b""
        self._torn = False
        self._tail = ""
        self._held: tuple[Family, OomMessage] | None = None
        self._held_until = 0
        self._held_line = 0
        self._seen: dict[OomMessage, int] = {}
        self._out: list[tuple[int, OomMessage]] = []

    def feed(self, data: bytes) -> list[OomMessage]:
        """Take the next piece; returns the messages that are complete now."""
        return [message for _, message in self.feed_lines(data)]

    def feed_lines(self, data: bytes) -> list[tuple[int, OomMessage]]:
        """As `feed`, with the number of the line, from 1, where each was found."""
        data = self._partial + data
        if self._held is None and not _may_matter(
            self._tail[-_LONGEST_TRIGGER:].encode() + b"\n" + data
        ):
            self._skip(data)
            return []
        *lines, self._partial = _LINE_END.split(data)
        for raw in lines:
            self._take_line(raw)
        while len(self._partial) > MAX_LINE_BYTES:
            piece, self._partial = self._partial[:MAX_LINE_BYTES], self._partial[MAX_LINE_BYTES:]
            self._take_line(piece)
            self._torn = True
        return self._take_out()

    def flush(self) -> list[OomMessage]:
        """Nothing came for a while, or nothing will: what is held back is given now."""
        return [message for _, message in self.flush_lines()]

    def flush_lines(self) -> list[tuple[int, OomMessage]]:
        """As `flush`, with line numbers."""
        if self._partial:
            raw, self._partial = self._partial, b""
            self._take_line(raw)
            self._torn = True
        self._release()
        return self._take_out()

    def _skip(self, data: bytes) -> None:
        """Pass over output without any trigger, keeping what a torn message needs."""
        done, newline, partial = data.rpartition(b"\n")
        if newline:
            self.line += done.count(b"\n") + 1
            self._tail = clean(done[-_TAIL:].rpartition(b"\n")[2])
            self._torn = False
        if len(partial) > MAX_LINE_BYTES:
            self._tail, self._torn = clean(partial[-_TAIL:]), True
            partial = b""
        self._partial = partial

    def _take_line(self, raw: bytes) -> None:
        for start in range(0, max(1, len(raw)), MAX_LINE_BYTES):
            self._take_text(clean(raw[start : start + MAX_LINE_BYTES]))
            self._torn = start + MAX_LINE_BYTES < len(raw)

    def _take_text(self, text: str) -> None:
        if not self._torn:
            self.line += 1
        continued = _RANK_PREFIX.sub("", text)
        if self._held is not None and self._complete(self._held, continued):
            self._tail = ""
            return
        found = classify(text) if _may_matter(text.encode()) else None
        if found is None and self._tail and _may_matter((self._tail + continued).encode()):
            found = self._across(continued)
        if found is not None:
            self._found(found[0], found[1])
            self._tail = ""
        else:
            self._tail = text[-_TAIL:]
        if self._held is not None and self.line >= self._held_until:
            self._release()

    def _across(self, continued: str) -> tuple[Family, OomMessage, int] | None:
        """A message that a line end or our own bound has torn in two."""
        for glue in ("",) if self._torn else (" ", ""):
            found = classify(self._tail + glue + continued)
            if found is not None and found[2] > len(self._tail):
                return found
        return None

    def _found(self, family: Family, message: OomMessage) -> None:
        if self._held is not None:
            held_family, held = self._held
            if not family.opens and held_family.framework == family.framework:
                self._held = (held_family, _joined(held, message))
                self._held_until = self.line + _HOLD_LINES
                return
            self._release()
        self._held = (family, message)
        self._held_line = self.line
        self._held_until = self.line + _HOLD_LINES
        if family.closes and not _may_go_on(family, message):
            self._release()

    def _complete(self, held: tuple[Family, OomMessage], continued: str) -> bool:
        """Whether this line completes the held message, torn in its middle."""
        family, message = held
        if not _may_go_on(family, message) or len(message.text) > MAX_LINE_BYTES:
            return False
        # Glued without a space first: a number torn in two must not lose its first half.
        glued = (classify(message.text + glue + continued) for glue in ("", " "))
        better = [
            found
            for found in glued
            if found is not None
            and found[2] > len(message.text)
            and _known(found[1]) > _known(message)
        ]
        if not better:
            return False
        best = max(better, key=lambda found: _known(found[1]))
        self._held = (best[0], best[1])
        if not _may_go_on(best[0], best[1]):
            self._release()
        return True

    def _release(self) -> None:
        if self._held is None:
            return
        message = self._held[1]
        message = replace(message, text=message.text.strip()[:_MAX_TEXT])
        self._held = None
        figures = replace(message, text="")
        last = self._seen.get(figures)
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[figures] = self.line
        if self._keep_repeats or last is None or self.line - last > _REPEAT_LINES:
            self._out.append((self._held_line, message))

    def _take_out(self) -> list[tuple[int, OomMessage]]:
        out, self._out = self._out, []
        return out


def _may_matter(data: bytes) -> bool:
    """Whether a pattern could match; a substring search, so that other output costs little."""
    lower = data.lower().replace(b"\r", b"\n")
    # Torn between two words, or within one; what is whole is in the first too.
    spaced = lower.replace(b"\n", b" ")
    if any(trigger in spaced for trigger in TRIGGERS):
        return True
    if b"\n" not in lower:
        return False
    flat = lower.replace(b"\n", b"")
    return any(trigger in flat for trigger in TRIGGERS)


def _may_go_on(family: Family, message: OomMessage) -> bool:
    """Whether the rest of the message may stand in the next line."""
    if family.name in {"torch", "torch.raised"}:
        return message.total_bytes is None or message.free_bytes is None
    return family.name == "tensorflow" and message.ordinal is None


def _known(message: OomMessage) -> int:
    return sum(getattr(message, field.name) not in {None, ()} for field in fields(message))


def _joined(held: OomMessage, later: OomMessage) -> OomMessage:
    """The held message with what a later line of the same incident adds."""
    if later.kind == "recoverable":
        return replace(held, kind=later.kind, fatal=False, text=f"{held.text} | {later.text}")
    return replace(
        held,
        requested_bytes=(
            later.requested_bytes if held.requested_bytes is None else held.requested_bytes
        ),
        ordinal=later.ordinal if held.ordinal is None else held.ordinal,
    )


def scan(pieces: Iterable[bytes]) -> list[tuple[int, OomMessage]]:
    r"""All messages of a finished log, with line numbers, repeats included.

    >>> [(line, found.family) for line, found in scan([b"step 1\nMemoryError\n"])]
    [(2, 'host.python')]
    """
    scanner = OomScanner(keep_repeats=True)
    found = []
    for piece in pieces:
        found += scanner.feed_lines(piece)
    return found + scanner.flush_lines()


def as_observation(
    message: OomMessage,
    *,
    pid: int | None = None,
    start_time: int | None = None,
    gpu: int | None = None,
    uuid: str | None = None,
    gpu_why: str | None = None,
) -> Observation:
    """The message as the recording keeps it.

    Args:
        message: What was found.
        pid: Whose output it was in.
        start_time: Of that process.
        gpu: The device, only where the CUDA ordinal leaves no doubt.
        uuid: Of that device.
        gpu_why: What the device was told from, or why it is not known.
    """
    data: dict[str, object] = {
        field.name: getattr(message, field.name)
        for field in fields(message)
        if field.name not in {"text", "neighbours"} and getattr(message, field.name) is not None
    }
    if message.neighbours:
        data["neighbours"] = [
            {"pid": neighbour, "used_bytes": held} for neighbour, held in message.neighbours
        ]
    if gpu_why is not None:
        data["gpu_why"] = gpu_why
    return Observation(
        what=OOM_EVIDENCE,
        pid=pid,
        start_time=start_time,
        gpu=gpu,
        uuid=uuid,
        name=message.family,
        text=message.text,
        data=data,
    )
