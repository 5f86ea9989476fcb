"""Writes a recording while it happens. Standard library only.

Four things run here:

    the caller      encodes the tick, hands it over, and waits for the write, but only while
                    the disk answers quickly: a stalled filesystem never stalls the tick clock
    writer thread   one `write` per tick; on an error cuts the torn frame off and tries again
    sync thread     `fdatasync` about once a second, and whatever else may block
    seal child      `python -m vramtop.recording.seal`, for each finished part
"""

from __future__ import annotations

import errno
import os
import queue
import random
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import vramtop
from vramtop.errors import RecordingError
from vramtop.recording.lock import WriterLock, unwritable
from vramtop.recording.snapshot import Snapshot
from vramtop.recording.spawn import can_seal, spawn_seal
from vramtop.recording.wal import (
    TICK,
    TickEncoder,
    boot_id,
    closed_payload,
    encode_header,
    frame,
    list_parts,
    part_path,
)
from vramtop.samples import FAULT, Observation, Tick
from vramtop.units import MIB, NS_PER_S

ROTATE_BYTES = 8 * MIB
ROTATE_S = 3600
BUFFER_BYTES = 32 * MIB
_BACKOFF_S = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0)
_SEAL_TIMEOUT_S = 120.0
_MAX_CARRIED = 1000


class _Item(NamedTuple):
    """One payload on its way to the disk; `defined` counts the slots that came before it."""

    number: int
    encoder: TickEncoder
    defined: tuple[int, int]
    payload: bytes


class RecordingWriter:
    """A recording that is being made; a `Sink`.

    When `append` returns, the tick has been handed to the kernel, so that a kill of this
    process does not lose it. The exception is a disk that does not answer within
    `patience_s`: then ticks wait in memory, up to `buffer_bytes`; what does not fit is
    dropped, counted, and said in a `fault` observation of the next tick that is kept, which
    also takes over their observations.

    Args:
        path: The recording; its directory must exist, and itself must not.
        recording_id: Made up if not given.
        seal: Turn finished parts into Parquet, in child processes, if pyarrow is installed.
        on_fault: Called with a sentence when writing fails, once per episode, from a thread.
        rotate_bytes, rotate_s: Size and stream time after which a part is finished.
        buffer_bytes: Memory for ticks that wait for a disk.
        sync_s: Seconds between two `fdatasync`.
        patience_s: How long `append` waits for a write.

    Attributes:
        faults: What went wrong with writing, in sentences.
        dropped: Ticks that were lost because the buffer was full.

    Raises:
        LockedError: another process writes this recording.
        RecordingError: it exists already, or the directory cannot be written to.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        recording_id: str | None = None,
        seal: bool = True,
        on_fault: Callable[[str], None] | None = None,
        rotate_bytes: int = ROTATE_BYTES,
        rotate_s: float = ROTATE_S,
        buffer_bytes: int = BUFFER_BYTES,
        sync_s: float = 1.0,
        patience_s: float = 0.05,
    ) -> None:
        try:
            self.path = Path(path).absolute()
        except FileNotFoundError as error:
            raise RecordingError(
                "the working directory has been removed", hint="give -o a path from / on"
            ) from error
        self.faults: list[str] = []
        self.dropped = 0
        self._recording_id = recording_id or uuid.uuid4().hex
        self._on_fault = on_fault
        self._rotate = rotate_bytes, int(rotate_s * NS_PER_S)
        self._buffer_bytes = buffer_bytes
        self._sync_s = sync_s
        self._patience_s = patience_s
        self._seals = seal and can_seal()

        # The caller's side.
        self._encoder = TickEncoder()
        self._snapshot = Snapshot()
        self._encoded_bytes = 0
        self._part_began_ns: int | None = None
        self._last_seq = -1
        self._number = 0
        self._dropped_unsaid = 0
        self._carried: list[Observation] = []
        self._stalled = False
        self._closed = False

        # The writer thread's side.
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._acknowledged: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._waiting_lock = threading.Lock()
        self._writing: TickEncoder | None = None
        self._fd = -1
        self._seed = 0
        self._size = 0
        self._torn = False
        self._next_part = 0
        self._failing_since: float | None = None

        # Descriptors to flush and close, each with the part that came after it.
        self._retired: list[tuple[int, int]] = []
        self._dirty = False
        self._synced_at = time.monotonic()
        self._ending = threading.Event()
        self._give_up_at: float | None = None
        self._children: list[subprocess.Popen[bytes]] = []

        self._lock = WriterLock(self.path)
        try:
            self._refuse_existing()
            self._open_part(self._encoder, (0, 0))
        except OSError as error:
            self._lock.release()
            raise unwritable(self.path.parent, error) from error
        except RecordingError:
            self._lock.release()
            raise
        self._writer = threading.Thread(target=self._write_loop, name="wal-writer", daemon=True)
        try:
            self._writer.start()
        except RuntimeError as error:
            os.close(self._fd)
            part_path(self.path, 0).unlink(missing_ok=True)
            self._lock.release()
            raise RecordingError(
                f"cannot write {self.path.name}: {error}", hint="look at the limits: ulimit -a"
            ) from error

    def append(self, tick: Tick) -> None:
        """Take one tick; their `seq` must ascend. Never raises for a failing disk.

        Raises:
            ValueError: `seq` does not ascend.
        """
        if tick.seq <= self._last_seq:
            raise ValueError(f"tick {tick.seq} after tick {self._last_seq}")
        self._last_seq = tick.seq
        if self._waiting_bytes >= self._buffer_bytes:
            self._drop(tick)
            return
        if self._dropped_unsaid:
            seen = (*self._carried, *tick.observations, self._fault_of_drops())
            tick = replace(tick, observations=seen)
            self._dropped_unsaid = 0
            self._carried = []
        began = self._part_began_ns
        if began is not None and (
            self._encoded_bytes >= self._rotate[0] or tick.mono_ns - began >= self._rotate[1]
        ):
            self._encoder = TickEncoder()
            self._encoded_bytes = 0
            began = None
        if began is None:
            self._part_began_ns = tick.mono_ns
        encoder = self._encoder
        defined = len(encoder.devices), len(encoder.processes)
        payload = encoder.encode(tick)
        self._snapshot.update(tick.observations)
        self._encoded_bytes += len(payload) + 8
        self._hand_over(encoder, defined, payload)

    def _hand_over(self, encoder: TickEncoder, defined: tuple[int, int], payload: bytes) -> None:
        self._number += 1
        with self._waiting_lock:
            self._waiting_bytes += len(payload)
        self._queue.put(_Item(self._number, encoder, defined, payload))
        if self._stalled:
            # Do not wait again for a disk that is behind, until it has caught up.
            while not self._acknowledged.empty():
                self._stalled = self._acknowledged.get() < self._number - 1
            return
        try:
            while self._acknowledged.get(timeout=self._patience_s) < self._number:
                pass
        except queue.Empty:
            self._stalled = True

    def _drop(self, tick: Tick) -> None:
        # Readings come again; who a process is and what went wrong is said but once.
        self._carried += tick.observations[: max(0, _MAX_CARRIED - len(self._carried))]
        self.dropped += 1
        self._dropped_unsaid += 1
        if self._dropped_unsaid == 1 and self._failing_since is None:
            self._say(f"writing {self.path.name} takes too long; ticks are being lost")

    def _fault_of_drops(self) -> Observation:
        return Observation(
            what=FAULT,
            name="recording",
            text=f"{self._dropped_unsaid} ticks could not be written and are lost",
            data={"dropped_ticks": self._dropped_unsaid, "dropped_ticks_total": self.dropped},
        )

    def _say(self, sentence: str) -> None:
        self.faults.append(sentence)
        if self._on_fault is not None:
            self._on_fault(sentence)

    # The writer thread.

    def _write_loop(self) -> None:
        while (item := self._next()) is not None:
            delay = iter(_BACKOFF_S)
            pause = 0.0
            while not self._try_write(item):
                pause = next(delay, pause)
                if self._give_up_at is not None and time.monotonic() >= self._give_up_at:
                    self.dropped += item.payload[0] == TICK
                    break
                # While `close` waits, retry quickly: room may appear, and time is short.
                time.sleep(min(pause, 0.1) if self._ending.is_set() else pause)
            with self._waiting_lock:
                self._waiting_bytes -= len(item.payload)
            self._acknowledged.put(item.number)
            if time.monotonic() - self._synced_at >= self._sync_s:
                self._sync()
        self._sync()

    def _next(self) -> _Item | None:
        """The next item; flushes what is written if none comes in time."""
        if self._dirty:
            due_s = self._synced_at + self._sync_s - time.monotonic()
            try:
                return self._queue.get(timeout=max(0.0, due_s))
            except queue.Empty:
                self._sync()
        return self._queue.get()

    def _try_write(self, item: _Item) -> bool:
        try:
            if item.encoder is not self._writing:
                self._open_part(item.encoder, item.defined)
            if self._torn:
                os.ftruncate(self._fd, self._size)
                self._torn = False
            self._write(frame(item.payload, self._seed))
        except OSError as error:
            self._failed(error)
            return False
        self._failing_since = None
        return True

    def _write(self, data: bytes) -> None:
        try:
            _write_whole(self._fd, data)
        except OSError:
            self._torn = True
            os.ftruncate(self._fd, self._size)
            self._torn = False
            raise
        self._size += len(data)
        self._dirty = True

    def _failed(self, error: OSError) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()
            self._say(f"cannot write {self.path.name}: {error.strerror}; trying again")
        if error.errno != errno.ENOSPC:
            # A file at its size limit, or one gone stale, will never take more: go on in a
            # new part, which first defines the slots that later frames use.
            self._writing = None

    def _open_part(self, encoder: TickEncoder, defined: tuple[int, int]) -> None:
        """Open the next part; all but the first begin with what a reader must know."""
        number = self._next_part
        self._next_part += 1
        seed = random.SystemRandom().getrandbits(32)
        info = {
            "recording_id": self._recording_id,
            "part": number,
            "boot_id": boot_id(),
            "created_us": time.time_ns() // 1000,
            "vramtop": vramtop.__version__,
        }
        start = encode_header(info, seed=seed)
        if number:
            known = self._snapshot.observations()
            start += frame(encoder.introduction(*defined, known), seed)
        name = part_path(self.path, number)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        try:
            _write_whole(fd, start)
        except OSError:
            os.close(fd)
            name.unlink(missing_ok=True)
            raise
        if self._fd >= 0:
            self._retired.append((self._fd, number))
        self._fd = fd
        self._seed, self._size, self._torn = seed, len(start), False
        self._writing = encoder
        self._dirty = True

    def _sync(self) -> None:
        """Flush to the disk, and have finished parts sealed.

        On the writer thread, because a thread of its own costs more to wake than it does; ticks
        that come meanwhile wait in memory, as they do for any slow disk.
        """
        self._synced_at = time.monotonic()
        retired, self._retired = self._retired, []
        for old, _ in retired:
            self._flush(old)
            os.close(old)
        if self._dirty:
            self._dirty = False
            status = os.fstat(self._fd)
            if not status.st_nlink or status.st_size < self._size:
                # What is written to a removed file is gone with this process, and what comes
                # behind a hole in the log cannot be trusted.
                self._writing = None
                what = "cut off" if status.st_nlink else "removed"
                self._say(f"the log of {self.path.name} was {what}; beginning another")
            self._flush(self._fd)
        if retired and self._seals:
            self._spawn_seal(retired[-1][1] - 1)
        self._children = [child for child in self._children if child.poll() is None]

    def _flush(self, fd: int) -> None:
        try:
            os.fdatasync(fd)
        except OSError as error:
            self._say(f"cannot flush {self.path.name} to the disk: {error.strerror}")

    def _spawn_seal(self, part: int) -> subprocess.Popen[bytes] | None:
        child = spawn_seal(self.path, part)
        if child is None:
            self._say(f"cannot start the process that seals {self.path.name}")
        else:
            self._children.append(child)
        return child

    def close(self, *, timeout_s: float = 10.0) -> None:
        """End in order: write what waits, flush, seal, give the lock back. Safe to call twice.

        An `END` observation is the caller's: it belongs into the last tick appended.

        Args:
            timeout_s: How long to wait for a disk that does not take what is waiting.

        Raises:
            RecordingError: nothing of the recording is where it was begun.
        """
        if self._closed:
            return
        self._closed = True
        encoder = self._encoder
        defined = len(encoder.devices), len(encoder.processes)
        self._give_up_at = time.monotonic() + timeout_s
        self._hand_over(encoder, defined, closed_payload())
        self._queue.put(None)
        self._ending.set()
        self._writer.join(timeout_s + 1.0)
        if self._writer.is_alive():
            self._say(f"the disk under {self.path.name} does not answer; left unsealed")
            return
        if self.dropped:
            self._say(f"{self.dropped} ticks of {self.path.name} could not be written")
        os.close(self._fd)
        self._fd = -1
        if self._seals:
            self._seal_rest()
        self._lock.release()
        if not os.path.lexists(self.path) and not list_parts(self.path):
            raise RecordingError(
                f"{self.path} was moved or removed while it was written",
                hint="if it was moved: vramtop recover, where it is now",
            )

    def _seal_rest(self) -> None:
        if self._spawn_seal(self._next_part - 1) is None:
            return
        deadline = time.monotonic() + _SEAL_TIMEOUT_S
        try:
            # Earlier ones may still be at work; the last waits for them by the part's lock.
            codes = [child.wait(max(0.0, deadline - time.monotonic())) for child in self._children]
        except subprocess.TimeoutExpired:
            self._say(f"sealing {self.path.name} takes long; it goes on in the background")
            return
        if list_parts(self.path):
            self._say(
                f"{self.path.name} could not be sealed (exit {codes[-1]}); nothing more is lost: "
                f"it can be read as it is, and `vramtop recover` seals it"
            )

    def _refuse_existing(self) -> None:
        if list_parts(self.path):
            raise RecordingError(
                f"{self.path} was interrupted and is not sealed yet",
                hint=f"vramtop recover {self.path.name}, or choose another file with -o",
            )
        if os.path.lexists(self.path):
            raise RecordingError(
                f"{self.path} exists already", hint="choose another file with -o, or remove it"
            )


def _write_whole(fd: int, data: bytes) -> None:
    # A full disk takes a part of it first; the next call then says why not the rest.
    written = os.write(fd, data)
    while written < len(data):
        written += os.write(fd, data[written:])
