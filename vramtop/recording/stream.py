"""The recording as a stream: what `record -o -` writes and `replay -` reads.

A stream is one part of the write-ahead log that goes through a pipe. `StreamWriter` runs in
the recorder process and needs only the standard library.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import vramtop
from vramtop.errors import CorruptError
from vramtop.recording.wal import (
    MAGIC,
    TickEncoder,
    boot_id,
    closed_payload,
    decode_header,
    encode_header,
    frame,
    header_size,
    scan_frames,
)
from vramtop.units import MIB

if TYPE_CHECKING:
    from vramtop.blocks import Block
    from vramtop.samples import Observation, Tick


class StreamWriter:
    """Writes ticks to a pipe; a `Sink`. A reader that is slow makes it wait.

    Args:
        file: A binary file, such as `sys.stdout.buffer`; it is flushed after every tick.
        recording_id: Made up if not given.

    Raises:
        BrokenPipeError: from any method, when the reader has gone away.
    """

    def __init__(self, file: BinaryIO, *, recording_id: str | None = None) -> None:
        self._file = file
        self._seed = random.SystemRandom().getrandbits(32)
        self._encoder = TickEncoder()
        self._closed = False
        info = {
            "recording_id": recording_id or uuid.uuid4().hex,
            "part": 0,
            "boot_id": boot_id(),
            "created_us": time.time_ns() // 1000,
            "vramtop": vramtop.__version__,
        }
        self._send(encode_header(info, seed=self._seed))

    def append(self, tick: Tick) -> None:
        """Send one tick."""
        self._send(frame(self._encoder.encode(tick), self._seed))

    def close(self) -> None:
        """Send the mark of an orderly end; the file stays open. Safe to call twice."""
        if not self._closed:
            self._closed = True
            self._send(frame(closed_payload(), self._seed))

    def _send(self, data: bytes) -> None:
        self._file.write(data)
        self._file.flush()


class Arriving(NamedTuple):
    """A stream of which the beginning has arrived.

    Attributes:
        blocks: All of it, to be read once.
        first_us: Wall clock of the first tick, None if it ended before one.
        introduction: The observations of the first tick.
    """

    blocks: Iterator[Block]
    first_us: int | None
    introduction: list[Observation]


def open_stream(file: BinaryIO, *, on_cut: Callable[[], None] | None = None) -> Arriving:
    """Wait for the first tick of a stream; arguments and errors are those of `read_stream`."""
    blocks = read_stream(file, on_cut=on_cut)
    for block in blocks:
        first = [seen for tick, seen in block.observations if tick == 0]
        return Arriving(chain([block], blocks), int(block.t_us[0]), first)
    return Arriving(blocks, None, [])


def read_stream(file: BinaryIO, *, on_cut: Callable[[], None] | None = None) -> Iterator[Block]:
    """Blocks of whatever has arrived, until the stream ends.

    A stream that breaks off within a tick ends with the tick before it.

    Args:
        file: A binary file, such as `sys.stdin.buffer`.
        on_cut: Called at the end if the writer did not end the stream in order.

    Raises:
        CorruptError: this is no stream of vramtop, or bytes in it are damaged; what came
            before the damage has been yielded.
        SchemaError: made by a newer vramtop.
    """
    from vramtop.recording.decode import PartDecoder

    pending = b""
    while (missing := header_size(pending) - len(pending)) > 0:
        chunk = file.read(missing)
        pending += chunk
        if not chunk or not pending.startswith(MAGIC[: len(pending)]):
            break
    _refuse_foreign(pending)
    header = decode_header(pending, name="the stream")
    decoder = PartDecoder(header)
    pending = pending[header.size :]
    # `read1` gives what is there; `read` of a buffered file would wait for all it was asked for.
    read = getattr(file, "read1", file.read)
    while not decoder.closed and (chunk := read(MIB)):
        pending += chunk
        scan = scan_frames(pending, 0, header.seed)
        rows = decoder.decode(scan.payloads)
        if len(rows):
            yield rows.to_block()
        if scan.damage == "corrupt":
            raise CorruptError(
                f"the stream is damaged after {'tick ' + str(rows.seq[-1]) if len(rows) else 'its last tick'}",
                hint="a terminal or a login script in between may have added to it",
            )
        pending = pending[scan.end :]
    if not decoder.closed and on_cut is not None:
        on_cut()


def _refuse_foreign(start: bytes) -> None:
    if start.startswith(MAGIC):
        return
    if not start:
        raise CorruptError("nothing came in", hint="did the recorder at the other end start?")
    hint = "make one with: vramtop record -o -"
    if start.startswith(b"PAR1"):
        hint = "give a finished recording by its name, not through a pipe"
    raise CorruptError(f"this is no stream of vramtop: it begins with {start[:16]!r}", hint=hint)
