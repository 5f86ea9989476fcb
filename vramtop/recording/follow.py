"""Follows a recording that is being written, across rotation and sealing.

The frames that come are read from the part of the log that is being written; whenever that
part is finished, the recording is opened anew from the next tick on, so it does not matter
whether the parts in between have been sealed or removed meanwhile.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vramtop.recording.lock import is_locked
from vramtop.recording.part import WalPart
from vramtop.recording.reader import open_recording
from vramtop.recording.wal import list_parts, part_number, scan_frames

if TYPE_CHECKING:
    from vramtop.blocks import Block
    from vramtop.recording.rows import Rows


def follow(
    path: str | os.PathLike[str], *, stop: threading.Event, poll_s: float = 0.2
) -> Iterator[Block]:
    """Blocks of a recording from its first tick, and then of every tick that comes.

    Ends when the writer has closed, or is gone, or `stop` is set. No tick is left out or
    comes twice. A finished recording is simply read to its end.

    Args:
        path: The recording.
        stop: Ends it soon, from another thread.
        poll_s: How often to look, in seconds.

    Raises:
        RecordingError: there is no such recording, or it cannot be read.
    """
    target = Path(path).absolute()
    next_seq = 0
    tail: _Tail | None = None
    try:
        while not stop.is_set():
            # Both are asked before reading: what was written until then is read below.
            writing = is_locked(target)
            finished = tail is None or tail.is_finished()
            rows = None if tail is None else tail.read(next_seq)
            if rows is not None:
                yield rows.to_block()
                next_seq = int(rows.seq[-1]) + 1
                continue
            if tail is not None and tail.closed:
                return
            if finished or not writing:
                recording = open_recording(target)
                if tail is not None:
                    tail.close()
                tail = _Tail.of(target, recording.parts)
                for block in recording.blocks(next_seq):
                    yield block
                    next_seq = int(block.seq[-1]) + 1
                if not writing:
                    return
            stop.wait(poll_s)
    finally:
        if tail is not None:
            tail.close()


class _Tail:
    """The part that is being written, beyond what has been read of it."""

    def __init__(self, target: Path, part: WalPart, fd: int) -> None:
        self._target = target
        self._part = part
        self._fd = fd
        self._end = part.end

    @classmethod
    def of(cls, target: Path, parts: Sequence[WalPart]) -> _Tail | None:
        """The tail of the last of `parts`; None if it cannot be read on."""
        if not parts or parts[-1].decoder is None:
            return None
        try:
            return cls(target, parts[-1], os.open(parts[-1].path, os.O_RDONLY))
        except FileNotFoundError:
            return None

    @property
    def closed(self) -> bool:
        """The writer has said that nothing follows."""
        return self._part.closed

    def is_finished(self) -> bool:
        """Whether the writer has gone on to another part."""
        number = self._part.number
        return not os.fstat(self._fd).st_nlink or any(
            part_number(part) > number for part in list_parts(self._target)
        )

    def read(self, next_seq: int) -> Rows | None:
        """The ticks from `next_seq` on that have come; None if there are none."""
        header, decoder = self._part.header, self._part.decoder
        size = os.fstat(self._fd).st_size
        if header is None or decoder is None or size <= self._end:
            return None
        # From the last good frame each time: a frame that could not be written whole is cut
        # off again, and another may stand in its place.
        scan = scan_frames(os.pread(self._fd, size - self._end, self._end), 0, header.seed)
        self._end += scan.end
        rows = decoder.decode(scan.payloads).between(next_seq, None)
        return rows if len(rows) else None

    def close(self) -> None:
        """Give the file back."""
        os.close(self._fd)
