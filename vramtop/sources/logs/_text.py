"""A log file as lines of text, whatever wrote it: gzip, UTF-16 from PowerShell, CRLF, ANSI colours."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vramtop.errors import LogFormatError
from vramtop.sources.logs._notes import Notes

if TYPE_CHECKING:
    from typing_extensions import Buffer

LONGEST_LINE = 1 << 20
"""Characters; a longer line is no line of any log that can be imported."""
_HEAD_LINES = 400
_HEAD_CHARS = 1 << 18
_PEEK_BYTES = 1 << 16
_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROL = bytes(set(range(32)) - set(b"\t\n\r\f\b\x1b"))


class LogText:
    """One log, read once from front to back.

    Args:
        path: A regular file or a pipe.
        notes: Where a torn end or an endless line is said.

    Attributes:
        name: Base name of the file, for messages.
        head: Its first lines that are not blank, for telling the form.

    Raises:
        LogFormatError: missing, unreadable, a directory, empty, or no text.
    """

    def __init__(self, path: Path, notes: Notes) -> None:
        self.name = path.name
        self._path = path
        self._notes = notes
        try:
            raw = path.open("rb")
        except OSError as error:
            raise _unreadable(path, error) from error
        self._raw = raw
        try:
            self._text = self._decoded(raw)
            taken: list[str] = []
            self.head: list[str] = []
            size = 0
            for line in self._read():
                taken.append(line)
                size += len(line)
                if line.strip():
                    self.head.append(line)
                if len(taken) >= _HEAD_LINES or size >= _HEAD_CHARS:
                    break
        except BaseException:
            raw.close()
            raise
        self._taken = taken
        if not self.head:
            raw.close()
            raise LogFormatError(f"{path} is empty", hint="nothing was logged to it")

    def lines(self) -> Iterator[str]:
        """Every line without its end, colours and NUL bytes; only the first call has any."""
        taken, self._taken = self._taken, []
        return chain(taken, self._read())

    def close(self) -> None:
        """Let the file go."""
        self._raw.close()

    def _decoded(self, raw: io.BufferedReader) -> io.TextIOWrapper:
        stream: io.BufferedReader[Any] = raw
        try:
            start = stream.peek(_PEEK_BYTES)
            if start.startswith(b"\x1f\x8b"):
                stream = io.BufferedReader(_Unpacked(stream, self.name, self._notes), _PEEK_BYTES)
                start = stream.peek(_PEEK_BYTES)
        except OSError as error:
            raise _unreadable(self._path, error) from error
        return io.TextIOWrapper(
            stream, encoding=self._encoding(start), errors="replace", newline=None
        )

    def _encoding(self, start: bytes) -> str:
        if not start:
            raise LogFormatError(f"{self._path} is empty", hint="nothing was logged to it")
        if start.startswith(b"PAR1"):
            raise LogFormatError(
                f"{self._path} is a Parquet file, no log", hint="vramtop info FILE reads recordings"
            )
        if start.startswith(b"\xff\xfe"):
            return "utf-16-le"
        if start.startswith(b"\xfe\xff"):
            return "utf-16-be"
        if start[1:1000:2].count(0) > len(start[1:1000:2]) * 0.9 > 2:
            return "utf-16-le"
        controls = len(start) - len(start.translate(None, _CONTROL))
        undecodable = start.decode("utf-8", "replace").count("\ufffd")
        if controls > len(start) * 0.1 or undecodable > len(start) * 0.3:
            raise LogFormatError(
                f"{self._path} is binary, no log", hint="vramtop import reads text logs"
            )
        return "utf-8"

    def _read(self) -> Iterator[str]:
        endless = False
        while True:
            try:
                line = self._text.readline(LONGEST_LINE)
            except OSError as error:
                raise _unreadable(self._path, error) from error
            if not line:
                return
            complete = line.endswith("\n")
            if endless or (not complete and len(line) >= LONGEST_LINE):
                if not endless:
                    self._notes.skip("longer than 1 Mi characters", line)
                endless = not complete
                continue
            if "\x1b" in line:
                line = _ANSI.sub("", line)
            yield line.rstrip("\r\n").replace("\0", "").removeprefix("\ufeff")


class _Unpacked(io.RawIOBase):
    """The content of a gzip stream, as far as it goes: a torn end is an end, and said."""

    def __init__(self, packed: io.BufferedReader[Any], name: str, notes: Notes) -> None:
        self._unpacked = gzip.GzipFile(fileobj=packed)
        self._name = name
        self._notes = notes

    def readable(self) -> bool:
        return True

    def readinto(self, target: Buffer) -> int:
        """Fill `target`; 0 at the end."""
        view = memoryview(target)
        try:
            # read1 hands out what is unpacked before it meets the tear; read would lose it.
            found = self._unpacked.read1(len(view))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._notes.fact(f"{self._name} ends early: {error}")
            return 0
        view[: len(found)] = found
        return len(found)


def _unreadable(path: Path, error: Exception) -> LogFormatError:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    hint = (
        "name the log file itself"
        if isinstance(error, IsADirectoryError)
        else "check the path and its permissions"
    )
    return LogFormatError(f"cannot read {path}: {reason}", hint=hint)
