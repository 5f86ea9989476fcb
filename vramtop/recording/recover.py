"""Seals what a crash left behind, and says what was found and what was lost."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vramtop.errors import LockedError, RecordingError
from vramtop.recording.lock import WriterLock, is_locked, lock_path, unwritable
from vramtop.recording.reader import Recording, TickTime, open_recording
from vramtop.recording.seal import seal_parts, sealing_held
from vramtop.recording.store import file_metadata, write_sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What a recovery found and did.

    Attributes:
        path: The sealed file.
        ticks: In it now.
        ticks_added: Of those, from the write-ahead log.
        closed: The writer had ended in order; only the sealing was missing.
        last: The last tick.
        lost: For each part of the log that was damaged, a sentence.
    """

    path: Path
    ticks: int
    ticks_added: int
    closed: bool
    last: TickTime | None
    lost: tuple[str, ...]


def recover(path: str | os.PathLike[str], output: str | os.PathLike[str] | None = None) -> Recovery:
    """Seal an interrupted recording; safe to repeat after it was killed itself.

    Args:
        path: The recording.
        output: Write the whole recording there instead, and leave `path` as it is.

    Raises:
        LockedError: it is still being written.
        RecordingError: there is none, or the directory cannot be written to.
    """
    source = Path(path).absolute()
    if output is not None:
        return _recover_into(source, Path(output).absolute())
    found = open_recording(source)
    if not found.parts and not lock_path(source).exists():
        return _report(source, found, found)
    try:
        lock = WriterLock(source)
    except LockedError:
        raise
    except RecordingError as error:
        raise RecordingError(
            error.message, hint="recover into a file elsewhere with -o OUT"
        ) from error
    try:
        found = open_recording(source)
        seal_parts(source)
    except OSError as error:
        raise RecordingError(
            f"cannot seal {source.name}: {error.strerror}; nothing is lost",
            hint="make room and try again, or recover into a file elsewhere with -o OUT",
        ) from error
    finally:
        lock.release()
    return _report(source, found, open_recording(source))


def _recover_into(source: Path, output: Path) -> Recovery:
    if is_locked(source):
        raise LockedError(
            f"{source.name} is still being written", hint="recover it when the recorder has ended"
        )
    # A seal that outlived its recorder must not add to the file between our look and the copy.
    with sealing_held(source):
        return _write_copy(source, output)


def _write_copy(source: Path, output: Path) -> Recovery:
    found = open_recording(source)
    lock = WriterLock(output)
    try:
        if os.path.lexists(output):
            raise RecordingError(f"{output} exists already", hint="choose another file with -o")
        write_sealed(
            output,
            source if found.sealed_last >= 0 else None,
            found.tail,
            file_metadata(found.id),
        )
    except OSError as error:
        raise unwritable(output.parent, error) from error
    finally:
        lock.release()
    return _report(output, found, open_recording(output))


def _report(path: Path, found: Recording, sealed: Recording) -> Recovery:
    lost = []
    for part in found.parts:
        if part.damage is None:
            continue
        what = "an incomplete last tick" if part.damage == "torn" else "altered bytes"
        after = f"after tick {part.rows.seq[-1]}" if len(part.rows) else "at its start"
        lost.append(
            f"part {part.number} of the log ends in {what} {after}: "
            f"{part.size - part.end} bytes were not used"
        )
    return Recovery(
        path=path,
        ticks=sealed.ticks,
        ticks_added=sum(len(rows) for rows in found.tail),
        closed=not found.parts or found.parts[-1].closed,
        last=sealed.last,
        lost=tuple(lost),
    )
