"""A block with what analyzers share: changes of level, facts so far, and each other's signals.

Memory is mostly exactly constant, so analyzers are fed *changes*: the rows at which a level
differs from the one before, across block borders too. A change is found once per block with
NumPy and never depends on where blocks end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vramtop.blocks import NULL, Block
from vramtop.samples import GONE, HOST, PROCESS, SeriesKey


class Change(NamedTuple):
    """The level of a series from one tick on.

    Attributes:
        tick: Index into the block's ticks.
        key: The series.
        used: Bytes in use.
        free, total, reserved: Of a device; `NULL` for a process, or where not reported.
    """

    tick: int
    key: SeriesKey
    used: int
    free: int = NULL
    total: int = NULL
    reserved: int = NULL


class Gone(NamedTuple):
    """A process left its device's list."""

    tick: int
    key: SeriesKey


class Signal(NamedTuple):
    """What one analyzer tells the others: a value that holds from `tick` on."""

    tick: int
    key: SeriesKey
    value: object


class View:
    """One block as analyzers see it.

    Attributes:
        block: The ticks.
        facts: What is known so far; as of the block's end for names, which only grow.
        changes: In order of (tick, series).
        gone: In order of tick.
        signals: By name, in order of tick; filled by analyzers while the block is worked on.
    """

    __slots__ = ("_mono", "block", "changes", "facts", "gone", "signals")

    def __init__(self, block: Block, facts: Facts, changes: list[Change], gone: list[Gone]) -> None:
        self.block = block
        self.facts = facts
        self.changes = changes
        self.gone = gone
        self.signals: dict[str, list[Signal]] = {}
        self._mono: list[int] | None = None

    @property
    def mono_ns(self) -> list[int]:
        """The block's boot-time clock as Python integers, made once."""
        if self._mono is None:
            self._mono = self.block.mono_ns.tolist()
        return self._mono

    def publish(self, name: str, tick: int, key: SeriesKey, value: object) -> None:
        """Tell the analyzers that run later in this block."""
        self.signals.setdefault(name, []).append(Signal(tick, key, value))


class Facts:
    """What the observations have said so far, each with the tick that said it.

    A block may be long, so a fact is asked for *as of* a tick: otherwise a name recorded later
    in the same block would be known too early, and live and replay would differ.
    """

    def __init__(self) -> None:
        self._host: list[tuple[int, str | None]] = []
        self._gpu: dict[str, tuple[int, int]] = {}
        self._names: dict[SeriesKey, list[tuple[int, str | None]]] = {}

    def host(self, seq: int) -> str | None:
        """Host name as of tick `seq`."""
        return _as_of(self._host, seq)

    def name(self, key: SeriesKey, seq: int) -> str | None:
        """A process's name as of tick `seq`."""
        return _as_of(self._names.get(key, []), seq)

    def gpu(self, uuid: str, seq: int) -> int | None:
        """A GPU's index at capture, if it had been seen by tick `seq`."""
        first = self._gpu.get(uuid)
        return first[1] if first is not None and first[0] <= seq else None

    def learn_host(self, seq: int, name: str) -> None:
        """The host's name is `name` from tick `seq` on."""
        self._host.append((seq, name))

    def learn_name(self, seq: int, key: SeriesKey, name: str | None) -> None:
        """A process's name is `name` from tick `seq` on."""
        known = self._names.setdefault(key, [])
        if not known or known[-1][1] != name:
            known.append((seq, name))

    def learn_gpu(self, seq: int, uuid: str, gpu: int) -> None:
        """A GPU was first seen at tick `seq` as number `gpu`."""
        if uuid not in self._gpu:
            self._gpu[uuid] = (seq, gpu)

    def learn_gone(self, seq: int, key: SeriesKey) -> None:
        """A process has gone at tick `seq`; its name still holds at that tick."""
        if key in self._names:
            self.learn_name(seq + 1, key, None)

    def settle(self) -> None:
        """The block is done: drop what no later tick can ask for."""
        for key in [key for key, known in self._names.items() if known[-1][1] is None]:
            del self._names[key]


def _as_of(known: list[tuple[int, str | None]], seq: int) -> str | None:
    latest = None
    for since, value in known:
        if since > seq:
            break
        latest = value
    return latest


class Carry:
    """Turns blocks into views; holds what must cross from one block to the next."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._level: dict[SeriesKey, tuple[int, int, int, int]] = {}

    def view(self, block: Block) -> View:
        """The view of `block`, which follows the last one."""
        facts = self.facts
        seqs = block.seq
        firsts = block.tick[block.offsets[:-1]].tolist()
        for key, gpu, first in zip(block.keys, block.gpus, firsts, strict=True):
            facts.learn_gpu(int(seqs[first]), key.uuid, gpu)
        gone: list[Gone] = []
        for tick, seen in block.observations:
            if seen.what == HOST and seen.name is not None:
                facts.learn_host(int(seqs[tick]), seen.name)
            elif seen.uuid is not None and seen.pid is not None:
                key = SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
                if seen.what == PROCESS and seen.name is not None:
                    facts.learn_name(int(seqs[tick]), key, seen.name)
                elif seen.what == GONE:
                    gone.append(Gone(tick, key))
                    facts.learn_gone(int(seqs[tick]), key)
        return View(block, facts, list(self._changes(block, gone)), gone)

    def _changes(self, block: Block, gone: list[Gone]) -> Iterator[Change]:
        if not block.rows:
            for entry in gone:
                self._level.pop(entry.key, None)
            return
        rows = np.flatnonzero(_candidates(block, gone))
        rows = rows[np.argsort(block.tick[rows], kind="stable")]
        series = (np.searchsorted(block.offsets, rows, side="right") - 1).tolist()
        device_rows = int(block.offsets[block.n_devices])
        columns = [
            block.device[name][np.minimum(rows, max(device_rows - 1, 0))].tolist()
            if device_rows
            else [NULL] * len(rows)
            for name in ("free_bytes", "total_bytes", "reserved_bytes")
        ]
        level = self._level
        ended = iter(gone)
        end = next(ended, None)
        for tick, index, used, free, total, reserved in zip(
            block.tick[rows].tolist(), series, block.used[rows].tolist(), *columns, strict=True
        ):
            while end is not None and end.tick <= tick:
                level.pop(end.key, None)
                end = next(ended, None)
            if used == NULL:
                continue
            key = block.keys[index]
            now = (used, free, total, reserved) if key.pid is None else (used, NULL, NULL, NULL)
            if level.get(key) != now:
                level[key] = now
                yield Change(tick, key, *now)
        while end is not None:
            level.pop(end.key, None)
            end = next(ended, None)


def _candidates(block: Block, gone: list[Gone]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Rows that differ from the row before in their series, and each series' first row."""
    differs = np.ones(block.rows, bool)
    np.not_equal(block.used[1:], block.used[:-1], out=differs[1:])
    device_rows = int(block.offsets[block.n_devices])
    for name in ("free_bytes", "total_bytes", "reserved_bytes"):
        column = block.device[name]
        differs[1:device_rows] |= column[1:] != column[:-1]
    differs[block.offsets[:-1]] = True
    if gone:
        # An identity that comes back after it was gone starts anew, even at the same level.
        series = {key: index for index, key in enumerate(block.keys)}
        for entry in gone:
            index = series.get(entry.key)
            if index is not None:
                span = block.series_rows(index)
                row = span.start + int(np.searchsorted(block.tick[span], entry.tick))
                if row < span.stop:
                    differs[row] = True
    return differs
