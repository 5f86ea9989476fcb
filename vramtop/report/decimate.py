"""Fewer points, every peak: a series small enough to draw, built block by block.

Time is cut into buckets of equal width; of each bucket the first, last, lowest and highest
sample are kept (the four that decide every pixel of a drawn line, Jugel et al. 2014, "M4",
PVLDB 7(10), 797-808). Choosing these four again from the four chosen before changes nothing,
so samples can be folded in as they arrive, and the result does not depend on how they were
split into blocks. Buckets double in width when there are too many, which bounds memory at
four points a bucket whatever the length of the recording.

A missing reading is `NULL`, lower than every reading, so that it survives as well as a peak.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vramtop.blocks import NULL, IntArray
from vramtop.units import NS_PER_S

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A decimated step function of time; each point is a sample that was taken.

    Attributes:
        elapsed_ns: Time since the first tick of the recording, shape (n,), ascending.
        value: Shape (n,); `NULL` says that from here on there is no reading.
    """

    elapsed_ns: IntArray
    value: IntArray

    @property
    def elapsed_s(self) -> FloatArray:
        """Times in seconds, shape (n,)."""
        return self.elapsed_ns / NS_PER_S

    @property
    def peak(self) -> tuple[int, int] | None:
        """(nanoseconds since the first tick, value) of the first highest sample; None if empty.

        >>> Series(np.array([0, 5, 9]), np.array([NULL, 7, 7])).peak
        (5, 7)
        """
        if not (self.value != NULL).any():
            return None
        index = int(self.value.argmax())
        return int(self.elapsed_ns[index]), int(self.value[index])

    @property
    def last(self) -> int | None:
        """The last reading; None if the series ends with a missing one or is empty."""
        if not len(self.value) or self.value[-1] == NULL:
            return None
        return int(self.value[-1])

    def held(self, elapsed_ns: IntArray) -> IntArray:
        """Value at each of these times: the latest sample holds; `NULL` before the first."""
        if not len(self.value):
            return np.full(len(elapsed_ns), NULL, np.int64)
        index = np.searchsorted(self.elapsed_ns, elapsed_ns, side="right") - 1
        return np.where(index >= 0, self.value[np.maximum(index, 0)], NULL)

    def held_at(self, elapsed_ns: int) -> int | None:
        """Value at one time; None where there is no reading."""
        value = int(self.held(np.array([elapsed_ns], np.int64))[0])
        return None if value == NULL else value


EMPTY = Series(np.zeros(0, np.int64), np.zeros(0, np.int64))


class Decimator:
    """Takes samples in time order and keeps at most four for each of `buckets` buckets.

    A series of up to `buckets` samples at distinct times is kept whole.

    Args:
        buckets: Most buckets kept; about the width in pixels of what will be drawn. None
            keeps every sample, for short stretches.
    """

    __slots__ = ("_buckets", "_pending", "_pending_count", "_shift", "_times", "_values")

    def __init__(self, *, buckets: int | None = 1000) -> None:
        self._buckets = buckets
        self._shift = 0
        self._times = EMPTY.elapsed_ns
        self._values = EMPTY.value
        self._pending: list[tuple[IntArray, IntArray]] = []
        self._pending_count = 0

    def add(self, elapsed_ns: IntArray, value: IntArray) -> None:
        """Take the next samples.

        Args:
            elapsed_ns: Times >= 0, shape (n,), ascending, none before the samples taken so far.
            value: Shape (n,), `NULL` or >= 0.
        """
        if not len(elapsed_ns):
            return
        # Copies: a slice would keep the whole block alive.
        self._pending.append((elapsed_ns.copy(), value.copy()))
        self._pending_count += len(elapsed_ns)
        if self._buckets is not None and self._pending_count > 4 * self._buckets:
            self._fold()

    def series(self) -> Series:
        """What has been kept so far; samples that repeat both their neighbours are dropped.

        With `buckets=None` nothing is dropped.
        """
        self._fold()
        series = Series(self._times, self._values)
        return series if self._buckets is None else _without_repeats(series)

    def _fold(self) -> None:
        if not self._pending:
            return
        times = np.concatenate([self._times, *(part for part, _ in self._pending)])
        values = np.concatenate([self._values, *(part for _, part in self._pending)])
        self._pending.clear()
        self._pending_count = 0
        if self._buckets is None:
            self._times, self._values = times, values
            return
        bucket = times >> self._shift
        while 1 + np.count_nonzero(np.diff(bucket)) > self._buckets:
            self._shift += 1
            bucket = times >> self._shift
        kept = _extremes(bucket, values)
        self._times, self._values = times[kept], values[kept]


def _extremes(bucket: IntArray, value: IntArray) -> npt.NDArray[np.bool_]:
    """Mask of the first, last, (first) lowest and (first) highest sample of each bucket."""
    keep = np.ones(len(value), np.bool_)
    if len(value) < 3:
        return keep
    change = bucket[1:] != bucket[:-1]
    starts = np.concatenate([[0], np.flatnonzero(change) + 1])
    sizes = np.diff(np.concatenate([starts, [len(value)]]))
    keep[1:-1] = change[:-1] | change[1:]
    group = np.repeat(np.arange(len(starts)), sizes)
    for lowest_or_highest in (np.minimum, np.maximum):
        extreme = lowest_or_highest.reduceat(value, starts)
        at_extreme = np.flatnonzero(value == np.repeat(extreme, sizes))
        first = np.concatenate([[True], np.diff(group[at_extreme]) != 0])
        keep[at_extreme[first]] = True
    return keep


def _without_repeats(series: Series) -> Series:
    """Drop samples equal to both neighbours: the step function stays the same."""
    value = series.value
    if len(value) < 3:
        return series
    keep = np.ones(len(value), np.bool_)
    keep[1:-1] = (value[1:-1] != value[:-2]) | (value[1:-1] != value[2:])
    return Series(series.elapsed_ns[keep], value[keep])
