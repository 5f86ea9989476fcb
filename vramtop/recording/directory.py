"""Which recording a directory holds."""

from __future__ import annotations

import re
from pathlib import Path

from vramtop.errors import RecordingError, UsageError
from vramtop.recording.reader import open_recording

_WAL = re.compile(r"(.+)\.wal-\d{6}")


def recording_in(directory: Path) -> Path:
    """The one recording in `directory`, sealed or not; other files there do not matter.

    Raises:
        RecordingError: it holds none, or cannot be read.
        UsageError: it holds several.
    """
    try:
        entries = [entry.name for entry in directory.iterdir() if entry.is_file()]
    except OSError as error:
        raise RecordingError(
            f"cannot read {directory}: {error.strerror}", hint="look at it with ls -ld"
        ) from error
    names = sorted({name for entry in entries if (name := _name(entry)) is not None})
    found = [directory / name for name in names if _is_recording(directory / name)]
    if not found:
        raise RecordingError(f"{directory} holds no recording", hint="name a recording")
    if len(found) > 1:
        listed = ", ".join(path.name for path in found[:3]) + (", …" if len(found) > 3 else "")
        raise UsageError(
            f"{directory} holds {len(found)} recordings: {listed}", hint="name one of them"
        )
    return found[0]


def _name(entry: str) -> str | None:
    part = _WAL.fullmatch(entry)
    if part is not None:
        return part[1]
    return entry if entry.endswith(".parquet") else None


def _is_recording(path: Path) -> bool:
    try:
        open_recording(path)
    except RecordingError:
        return False
    return True
