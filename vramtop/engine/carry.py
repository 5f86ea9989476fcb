"""Blocks to views: what must cross from one block to the next."""

from __future__ import annotations

import heapq

import numpy as np

from vramtop.blocks import NULL, Block, IntArray
from vramtop.samples import GONE, HOST, PROCESS, SeriesKey
from vramtop.stats.buckets import Buckets, Closed
from vramtop.view import (
    MINUTE_COUNT,
    MINUTE_NS,
    SHORT_COUNT,
    SHORT_NS,
    Changed,
    Facts,
    Gone,
    Ranges,
    View,
)


class Carry:
    """Turns blocks into views; holds what must cross from one block to the next.

    Every series that is alive has a slot, a row of the tables below. An identity that comes back
    after it was gone starts anew, in a slot of its own.
    """

    def __init__(self) -> None:
        self.facts = Facts()
        self._slots: dict[SeriesKey, int] = {}
        self._keys: list[SeriesKey | None] = []
        self._free: list[int] = []
        # Used, free, total, reserved.
        self._level = np.empty((0, 4), np.int64)
        self._short = Buckets(width_ns=SHORT_NS, count=SHORT_COUNT)
        self._minutes = Buckets(width_ns=MINUTE_NS, count=MINUTE_COUNT)

    def __getstate__(self) -> dict[str, object]:
        """State between blocks, without free slots; which slot is whose means nothing."""
        self._compact()
        return self.__dict__

    def view(self, block: Block) -> View:
        """The view of `block`, which follows the last one."""
        gone = self._learn(block)
        slot, ended = self._rows_to_slots(block, gone)
        changed, moved = self._changes(block, slot)
        short, minutes = (
            [
                self._ranges(closed, ended, len(block))
                for closed in buckets.advance(block.mono_ns, *moved)
            ]
            for buckets in (self._short, self._minutes)
        )
        self._free_slots(list(ended))
        return View(block, self.facts, changed, gone, short, minutes)

    def _learn(self, block: Block) -> list[Gone]:
        facts, seqs = self.facts, block.seq
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
        return gone

    # -- slots -----------------------------------------------------------------------------

    def _rows_to_slots(self, block: Block, gone: list[Gone]) -> tuple[IntArray, dict[int, int]]:
        """The slot of each row, and at which tick slots ended."""
        known = self._slots
        slots = []
        for index, key in enumerate(block.keys):
            slot = known.get(key)
            if slot is None:
                slot = self._new_slot(key)
                first = block.tick[block.offsets[index]]
                self.facts.learn_gpu(int(block.seq[first]), key.uuid, block.gpus[index])
                parent = block.parents[index] if index < block.n_devices else None
                if parent is not None:
                    self.facts.learn_split(int(block.seq[first]), parent)
            slots.append(slot)
        rows = np.repeat(np.array(slots, np.int64), np.diff(block.offsets))
        ended: dict[int, int] = {}
        if gone:
            series = {key: index for index, key in enumerate(block.keys)}
            for tick, key in gone:
                slot = known.pop(key, None)
                if slot is None:
                    continue
                ended[slot] = tick
                if key in series:
                    span = block.series_rows(series[key])
                    later = span.start + int(np.searchsorted(block.tick[span], tick))
                    if later < span.stop:
                        rows[later : span.stop] = self._new_slot(key)
        more = len(self._keys) - len(self._level)
        if more > 0:
            self._level = np.vstack((self._level, np.full((more, 4), NULL, np.int64)))
            self._short.reserve(len(self._keys))
            self._minutes.reserve(len(self._keys))
        return rows, ended

    def _new_slot(self, key: SeriesKey) -> int:
        if self._free:
            slot = heapq.heappop(self._free)
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
        self._slots[key] = slot
        return slot

    def _free_slots(self, ended: list[int]) -> None:
        for slot in ended:
            self._keys[slot] = None
            self._level[slot] = NULL
            self._short.clear(slot)
            self._minutes.clear(slot)
            heapq.heappush(self._free, slot)
        if len(self._keys) > 4 * len(self._slots) + 16:
            # A long block with thousands of short lives must not leave its tables behind.
            self._compact()

    def _compact(self) -> None:
        kept = np.array(list(self._slots.values()), np.int64)
        self._level = self._level[kept]
        self._short.keep(kept)
        self._minutes.keep(kept)
        keys = list(self._slots)
        self._slots = {key: slot for slot, key in enumerate(keys)}
        self._keys, self._free = [*keys], []

    def _ranges(self, closed: Closed, ended: dict[int, int], ticks: int) -> Ranges:
        keys = self._keys
        slots = closed.slots.tolist()
        until = np.array([ended.get(slot, ticks) for slot in slots], np.int64)
        return Ranges([key for slot in slots if (key := keys[slot]) is not None], until, closed)

    # -- changes ---------------------------------------------------------------------------

    def _changes(
        self, block: Block, slot: IntArray
    ) -> tuple[Changed | None, tuple[IntArray, IntArray, IntArray]]:
        """Rows at which anything changed; (slot, tick, used) of those at which `used` did."""
        tick, used = block.tick, block.used
        series = np.repeat(np.arange(len(block.keys)), np.diff(block.offsets))
        device_rows = int(block.offsets[block.n_devices])
        columns = [block.device[name] for name in ("free_bytes", "total_bytes", "reserved_bytes")]
        read = used != NULL
        if not read.all():
            rows = np.flatnonzero(read)
            slot, tick, used, series = slot[rows], tick[rows], used[rows], series[rows]
            rows = rows[rows < device_rows]
            columns = [column[rows] for column in columns]
            device_rows = len(rows)
        if not len(used):
            return None, (_NO_ROWS, _NO_ROWS, _NO_ROWS)
        starts = np.flatnonzero(np.concatenate((_TRUE, slot[1:] != slot[:-1])))
        before = self._level[slot[starts]]
        moved = np.empty(len(used), bool)
        np.not_equal(used[1:], used[:-1], out=moved[1:])
        moved[starts] = before[:, 0] != used[starts]
        changed = moved.copy()
        device_starts = starts[: int(np.searchsorted(starts, device_rows))]
        ends = np.concatenate((starts[1:], [len(used)])) - 1
        level = np.full((len(starts), 4), NULL, np.int64)
        level[:, 0] = used[ends]
        for number, column in enumerate(columns, 1):
            other = np.empty(device_rows, bool)
            np.not_equal(column[1:], column[:-1], out=other[1:])
            other[device_starts] = before[: len(device_starts), number] != column[device_starts]
            changed[:device_rows] |= other
            level[: len(device_starts), number] = column[ends[: len(device_starts)]]
        self._level[slot[starts]] = level
        rows = np.flatnonzero(moved)
        movement = (slot[rows], tick[rows], used[rows])
        rows = np.flatnonzero(changed)
        rows = rows[np.argsort(tick[rows], kind="stable")]
        device = np.flatnonzero(rows < device_rows)
        mine = rows[device]
        free, total, reserved = (column[mine] for column in columns)
        return (
            Changed(tick[rows], series[rows], used[rows], device, (free, total, reserved)),
            movement,
        )


_TRUE = np.array([True])
_NO_ROWS = np.empty(0, np.int64)
