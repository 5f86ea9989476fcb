"""Lowest and highest level per bucket of time, for many series at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
NO_LOW = 1 << 62
NO_HIGH = -1
"""Of a bucket that ended before its series began."""

_NEVER = -(1 << 62)
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Closed:
    """Buckets that closed within a run of ticks.

    Attributes:
        slots: The series that moved of late, shape (series,). All others have stood still for
            longer than a row reaches back.
        low, high: Levels in bytes, shape (series, count + closed): what was closed before, then
            what closed now; `NO_LOW` and `NO_HIGH` before a series began.
        tick: When each bucket of the latter part closed, shape (closed,): the first tick at or
            after its end.
        last: Which of these are the newest closed at their tick, indices into `tick`. After a
            gap a tick closes many; only the newest can be acted upon.
        end: Clock in buckets just after each bucket of the latter part, shape (closed,).
    """

    slots: IntArray
    low: IntArray
    high: IntArray
    tick: IntArray
    last: IntArray
    end: IntArray


class Buckets:
    """The range of held levels per bucket aligned to the clock.

    Between readings the last level is held, so a bucket does not depend on how often a level was
    sampled, only on when it changed. All is integers and exact: the closed buckets are the same
    however the stream is cut. A series is a slot, a small number given by the caller.

    Args:
        width_ns: Length of a bucket.
        count: How many closed buckets are kept.
    """

    def __init__(self, *, width_ns: int, count: int) -> None:
        self.width_ns = width_ns
        self.count = count
        self._open: int | None = None
        self._low = np.full((0, count), NO_LOW, np.int64)
        self._high = np.full((0, count), NO_HIGH, np.int64)
        # Columns: lowest and highest of the open bucket, present level, bucket of last change.
        self._now = np.empty((0, 4), np.int64)

    def reserve(self, slots: int) -> None:
        """Make room for slots `0:slots`."""
        more = slots - len(self._now)
        if more > 0:
            self._low = np.vstack((self._low, np.full((more, self.count), NO_LOW, np.int64)))
            self._high = np.vstack((self._high, np.full((more, self.count), NO_HIGH, np.int64)))
            blank = np.tile(_BLANK, (more, 1))
            self._now = np.vstack((self._now, blank))

    def clear(self, slot: int) -> None:
        """The series has ended; the slot is free."""
        self._low[slot] = NO_LOW
        self._high[slot] = NO_HIGH
        self._now[slot] = _BLANK

    def keep(self, slots: IntArray) -> None:
        """Keep these slots alone and number them from 0 in this order."""
        self._low, self._high, self._now = self._low[slots], self._high[slots], self._now[slots]

    def advance(
        self, clock_ns: IntArray, slot: IntArray, tick: IntArray, level: IntArray
    ) -> Iterator[Closed]:
        """Take in a run of ticks and the changes of level in it.

        Args:
            clock_ns: Boot-time clock per tick, ascending.
            slot: Of each change; changes are grouped by slot and ascend in tick within one.
            tick: Of each change, an index into `clock_ns`.
            level: From each change on, in bytes.

        Yields:
            What closed, in order of time.
        """
        index = clock_ns // self.width_ns
        if self._open is None:
            self._open = int(index[0])
        # A clock that was set back stands still here.
        index = np.maximum.accumulate(np.maximum(index, self._open))
        before = np.concatenate((np.array([self._open], np.int64), index[:-1]))
        # A gap closes as many buckets as are looked back on, and one that is not.
        closes = np.minimum(index - before, self.count + 1)
        column = np.add.accumulate(closes)
        if not column[-1]:
            self._put(slot, level, int(index[-1]))
            return
        start = 0
        while start < len(index):
            base = int(column[start - 1]) if start else 0
            stop = max(int(np.searchsorted(column, base + _LONGEST)), start + 1)
            if start == 0 and stop >= len(index):
                yield self._close(index, column, closes, slot, tick, level, 0)
                return
            mine = (tick >= start) & (tick < stop)
            yield self._close(
                index[start:stop], column[start:stop] - base, closes[start:stop],
                slot[mine], tick[mine] - start, level[mine], start,
            )  # fmt: skip
            start = stop

    def _put(self, slot: IntArray, level: IntArray, index: int) -> None:
        """Changes within the open bucket."""
        if not len(slot):
            return
        starts = np.flatnonzero(np.concatenate((_TRUE, slot[1:] != slot[:-1])))
        ends = np.concatenate((starts[1:], [len(slot)])) - 1
        mine = slot[starts]
        now = self._now[mine]
        now[:, 0] = np.minimum(now[:, 0], np.minimum.reduceat(level, starts))
        now[:, 1] = np.maximum(now[:, 1], np.maximum.reduceat(level, starts))
        now[:, 2] = level[ends]
        now[:, 3] = index
        self._now[mine] = now

    def _close(
        self,
        index: IntArray,
        column: IntArray,
        closes: IntArray,
        slot: IntArray,
        tick: IntArray,
        level: IntArray,
        shift: int,
    ) -> Closed:
        width = int(column[-1]) + 1  # the last column is the bucket that stays open
        active = self._now[:, 3] >= (self._open or 0) - self.count
        active[slot] = True
        slots = np.flatnonzero(active)
        now = self._now[slots]
        # Where each cell's level comes from: the series' own before, or the last change of an
        # earlier cell; filled forward along the row.
        source = np.zeros((len(slots), width), np.int64)
        source[:, 0] = np.arange(len(slots))
        values = now[:, 2]
        cells = np.empty(0, np.int64)
        if len(slot):
            position = np.zeros(len(active), np.int64)
            position[slots] = np.arange(len(slots))
            cell = position[slot] * width + column[tick]
            starts = np.flatnonzero(np.concatenate((_TRUE, cell[1:] != cell[:-1])))
            ends = np.concatenate((starts[1:], [len(cell)])) - 1
            cells, last, mine = cell[starts], level[ends], slot[starts]
            entering = np.empty_like(last)
            entering[1:] = last[:-1]
            first = np.flatnonzero(np.concatenate((_TRUE, mine[1:] != mine[:-1])))
            entering[first] = self._now[mine[first], 2]
            low = np.minimum(np.minimum.reduceat(level, starts), _as_low(entering))
            high = np.maximum(np.maximum.reduceat(level, starts), entering)
            source.ravel()[cells] = len(slots) + np.arange(len(cells))
            values = np.concatenate((values, last))
            final = np.concatenate((first[1:], [len(mine)])) - 1
            now[position[mine[final]], 3] = index[tick[ends[final]]]
        held = values[np.maximum.accumulate(source, axis=1)]
        lows, highs = _as_low(held), held.copy()
        if len(slot):
            lows.ravel()[cells], highs.ravel()[cells] = low, high
        lows[:, 0] = np.minimum(lows[:, 0], now[:, 0])
        highs[:, 0] = np.maximum(highs[:, 0], now[:, 1])
        now[:, 0], now[:, 1], now[:, 2] = lows[:, -1], highs[:, -1], held[:, -1]
        self._now[slots] = now
        all_low = np.concatenate((self._low[slots], lows[:, :-1]), axis=1)
        all_high = np.concatenate((self._high[slots], highs[:, :-1]), axis=1)
        self._low[slots], self._high[slots] = all_low[:, -self.count :], all_high[:, -self.count :]
        self._open = int(index[-1])
        closing = np.flatnonzero(closes)
        many = closes[closing]
        newest = column[closing] - 1
        end = np.repeat(index[closing], many)
        end -= np.repeat(newest, many) - np.arange(width - 1)
        return Closed(slots, all_low, all_high, np.repeat(closing + shift, many), newest, end)


_TRUE = np.array([True])
_BLANK = np.array([NO_LOW, NO_HIGH, NO_HIGH, _NEVER], np.int64)


def _as_low(level: IntArray) -> IntArray:
    return np.where(level < 0, NO_LOW, level)
