"""A block with what analyzers share: changes of level, buckets, facts, and each other's signals.

Memory is mostly exactly constant, so analyzers are fed *changes*: the rows at which a level
differs from the one before, across block borders too. Those that need only the range of a level
over time are fed *buckets*, closed every few seconds of the boot-time clock. Both are found once
per block with NumPy, in integers, and never depend on where blocks end.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress, repeat
from typing import Any, NamedTuple

import numpy as np

from vramtop.blocks import NULL, Block, IntArray
from vramtop.samples import SeriesKey
from vramtop.stats.buckets import Closed
from vramtop.units import NS_PER_S

SHORT_NS = 5 * NS_PER_S
SHORT_COUNT = 120
"""Short buckets reach back ten minutes."""
MINUTE_NS = 60 * NS_PER_S
MINUTE_COUNT = 40
ALL, DEVICES, PROCESSES, NOTHING = "all", "devices", "processes", "nothing"
"""Whose changes an analyzer follows."""


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


class Ranges(NamedTuple):
    """Buckets that closed within a block, with the series they belong to.

    Attributes:
        keys: Identity of each row of `closed`.
        until: Per row, the block's tick from which on the series is gone; beyond the block's
            end where it lives on.
        closed: The levels.
    """

    keys: list[SeriesKey]
    until: IntArray
    closed: Closed


@dataclass(frozen=True, slots=True)
class Changed:
    """Rows at which a level changed, in order of (tick, series)."""

    tick: IntArray
    series: IntArray
    used: IntArray
    device: IntArray  # indices of those of devices
    columns: tuple[IntArray, IntArray, IntArray]  # free, total, reserved; of devices alone

    def objects(self, keys: tuple[SeriesKey, ...]) -> list[Change]:
        """One object each."""
        rest = []
        for column in self.columns:
            whole = np.full(len(self.tick), NULL, np.int64)
            whole[self.device] = column
            rest.append(whole.tolist())
        whose = [keys[index] for index in self.series.tolist()]
        rows = zip(self.tick.tolist(), whose, self.used.tolist(), *rest, strict=True)
        # The constructor is half of the cost of a restless block; this skips it.
        return list(map(_new, repeat(Change), rows))


_new: Any = tuple.__new__


class View:
    """One block as analyzers see it.

    Attributes:
        block: The ticks.
        facts: What is known so far; as of the block's end for names, which only grow.
        gone: In order of tick.
        short, minutes: Buckets of `SHORT_NS` and of `MINUTE_NS` that closed, in order of time.
        signals: By name, in order of tick; filled by analyzers while the block is worked on.
    """

    __slots__ = (
        "_changed",
        "_lists",
        "_mono",
        "block",
        "facts",
        "gone",
        "minutes",
        "short",
        "signals",
    )

    def __init__(
        self,
        block: Block,
        facts: Facts,
        changed: Changed | None,
        gone: list[Gone],
        short: list[Ranges],
        minutes: list[Ranges],
    ) -> None:
        self.block = block
        self.facts = facts
        self.gone = gone
        self.short = short
        self.minutes = minutes
        self.signals: dict[str, list[Signal]] = {}
        self._changed = changed
        self._lists: dict[str, list[Change]] = {}
        self._mono: list[int] | None = None

    @property
    def mono_ns(self) -> list[int]:
        """The block's boot-time clock as Python integers, made once."""
        if self._mono is None:
            self._mono = self.block.mono_ns.tolist()
        return self._mono

    @property
    def changes(self) -> list[Change]:
        """All changes of level, in order of (tick, series)."""
        return self.changes_of(ALL)

    def changes_of(self, whose: str) -> list[Change]:
        """Changes of `ALL`, `DEVICES`, `PROCESSES` or `NOTHING`; each list is made once."""
        found = self._lists.get(whose)
        if found is None:
            found = self._lists[whose] = self._make(whose)
        return found

    def _make(self, whose: str) -> list[Change]:
        changed = self._changed
        if changed is None or whose == NOTHING:
            return []
        if whose == ALL:
            return changed.objects(self.block.keys)
        wanted = np.zeros(len(changed.tick), bool)
        wanted[changed.device] = True
        if whose == PROCESSES:
            wanted = ~wanted
        return list(compress(self.changes_of(ALL), wanted.tolist()))

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
        self._split: dict[str, int] = {}
        self._names: dict[SeriesKey, list[tuple[int, str | None]]] = {}
        self._unsettled: set[SeriesKey] = set()

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

    def is_split(self, uuid: str, seq: int) -> bool:
        """Whether a GPU was known to be split into MIG instances by tick `seq`."""
        return self._split.get(uuid, seq + 1) <= seq

    def learn_host(self, seq: int, name: str) -> None:
        """The host's name is `name` from tick `seq` on."""
        if not self._host or self._host[-1][1] != name:
            self._host.append((seq, name))

    def learn_name(self, seq: int, key: SeriesKey, name: str | None) -> None:
        """A process's name is `name` from tick `seq` on."""
        known = self._names.setdefault(key, [])
        if not known or known[-1][1] != name:
            known.append((seq, name))
            self._unsettled.add(key)

    def learn_gpu(self, seq: int, uuid: str, gpu: int) -> None:
        """A GPU was first seen at tick `seq` as number `gpu`."""
        if uuid not in self._gpu:
            self._gpu[uuid] = (seq, gpu)

    def learn_split(self, seq: int, uuid: str) -> None:
        """An instance of this GPU was seen at tick `seq`."""
        self._split.setdefault(uuid, seq)

    def learn_gone(self, seq: int, key: SeriesKey) -> None:
        """A process has gone at tick `seq`; its name still holds at that tick."""
        if key in self._names:
            self.learn_name(seq + 1, key, None)

    def settle(self) -> None:
        """The block is done: drop what no later tick can ask for."""
        del self._host[:-1]
        for key in self._unsettled:
            known = self._names.get(key)
            if known is None:
                continue
            if known[-1][1] is None:
                del self._names[key]
            else:
                del known[:-1]
        self._unsettled.clear()


def _as_of(known: list[tuple[int, str | None]], seq: int) -> str | None:
    latest = None
    for since, value in known:
        if since > seq:
            break
        latest = value
    return latest
