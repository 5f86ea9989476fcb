"""Turns finished parts of the write-ahead log into row groups of the sealed file.

    python -m vramtop.recording.seal run.parquet --part 3     seals parts 0 to 3

Sealing can be killed at any instant and repeated: a tick is added only if its `seq` is
beyond the sealed file's, and a part is removed only after the file that holds its ticks is on
the disk. Whoever seals holds a lock on the oldest part, which is the next to go.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from vramtop.recording.part import WalPart
from vramtop.recording.sealed import open_sealed
from vramtop.recording.store import file_metadata, sync_directory, write_sealed
from vramtop.recording.wal import list_parts, part_number


def seal_parts(path: Path, last_part: int | None = None) -> int:
    """Seal the parts of `path` up to `last_part`, all if None; returns the ticks added.

    Raises:
        OSError: the disk refuses. What was not sealed is still there.
    """
    added = 0
    while (part := _lock_oldest(path, last_part)) is not None:
        name, fd = part
        try:
            _remove_leftovers(path)
            added += _seal_part(path, name)
        finally:
            os.close(fd)
    return added


@contextlib.contextmanager
def sealing_held(path: Path) -> Iterator[None]:
    """Let nobody seal parts of `path` meanwhile; waits for one who does."""
    part = _lock_oldest(path, None)
    try:
        yield
    finally:
        if part is not None:
            os.close(part[1])


def _lock_oldest(path: Path, last_part: int | None) -> tuple[Path, int] | None:
    while True:
        parts = list_parts(path)
        if not parts or (last_part is not None and part_number(parts[0]) > last_part):
            return None
        try:
            fd = _open_to_lock(parts[0])
        except FileNotFoundError:
            continue
        fcntl.flock(fd, fcntl.LOCK_EX)
        # Whoever had it before us may have removed it.
        if os.fstat(fd).st_nlink:
            return parts[0], fd
        os.close(fd)


def _open_to_lock(part: Path) -> int:
    """A descriptor of `part` to lock; NFS wants one that could write, as fcntl locks do."""
    try:
        return os.open(part, os.O_RDWR)
    except FileNotFoundError:
        raise
    except OSError:  # a read-only medium, from which somebody recovers into another file
        return os.open(part, os.O_RDONLY)


def _seal_part(path: Path, name: Path) -> int:
    part = WalPart(name)
    sealed = open_sealed(path) if path.exists() else None
    rows = part.rows_after(-1 if sealed is None else sealed.last)
    if sealed is None or len(rows):
        recording_id = part.header.recording_id if part.header is not None else ""
        write_sealed(
            path,
            None if sealed is None else path,
            [rows] if len(rows) else [],
            file_metadata(recording_id),
        )
    if part.damage == "corrupt":
        # What cannot be trusted is kept aside: it may be the only trace there is.
        name.rename(path.with_name(f"{path.name}.damaged-{part.number:06d}"))
    else:
        name.unlink()
    sync_directory(path.parent)
    return len(rows)


def _remove_leftovers(path: Path) -> None:
    """What a killed seal left aside; nobody else seals while the oldest part is locked."""
    for entry in path.parent.glob(f"{path.name}.tmp-*"):
        with contextlib.suppress(FileNotFoundError):
            entry.unlink()


def be_unimportant() -> None:
    """Give way to everything else on the machine, and be the first that memory pressure ends."""
    os.nice(10)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def main() -> None:
    """Entry point of the seal child."""
    # The recorder holds its signals back, and its children inherit that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    parser = argparse.ArgumentParser(prog="vramtop.recording.seal")
    parser.add_argument("path", type=Path)
    parser.add_argument("--part", type=int)
    arguments = parser.parse_args()
    be_unimportant()
    seal_parts(arguments.path, arguments.part)
    sys.exit(0)


if __name__ == "__main__":
    main()
