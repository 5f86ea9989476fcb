"""How levels move, judged from their range per bucket: still, up, down, or to and fro."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
STILL, UP, DOWN, FRO = range(4)
REACH = 120
"""So many buckets are looked back on."""

_SHORT, _SHORT_GROUPS = np.array((6, 3, 1)), 6
_LONG, _LONG_GROUPS = np.array((12,)), 10
"""Buckets in a group, on each scale, the longest first; and groups in a window."""
_PART = 12
_CLEAR = 0.8
_PLACES = 4096
_SURE = 12
"""A judgement is as good as it gets once so many buckets have been seen."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Of each series and each judged bucket, shape (series, judged).

    Attributes:
        kind: `STILL`, `UP`, `DOWN` or `FRO`.
        rate: Bytes per bucket while it moves one way, else 0.
        confidence: See `judge`.
    """

    kind: npt.NDArray[np.int8]
    rate: FloatArray
    confidence: FloatArray


def judge(low: IntArray, high: IntArray, *, floor: int) -> Motion:
    """Judge a level at the end of each bucket, from it and the `REACH - 1` before it.

    A level *goes one way* if, on one of four time scales, both its edges do: they are further by
    more than `floor` at the end of the window than at its beginning, at least half of all
    movement of the edges was forward, each edge moved on in at least two thirds of the groups of
    buckets and made no more than half of its way in one, and it has not rested for long: not over
    the last two groups, nor three times as long as it usually pauses. It goes *to and
    fro* if it has travelled three times its range or more. While it has done so over the whole
    reach, one way counts on the shorter scales only where the level has not been before, and
    where the way is longer than the teeth: the flank of a tooth is no growth.

    Confidence is between 0 and 1: the share of movement that was forward; for to and fro,
    1 - range / travel; for still, 1 - travel / (3 x range), where a range below that which counts
    stands for one that just does. All times the share of the first minute that has been seen.

    Args:
        low: Of each bucket in bytes, shape (series, REACH + judged).
        high: The same; -1 marks a bucket before the series began.
        floor: Movement in bytes up to this is none; 4 x floor, and 2 % of the level, is the
            least that counts as to and fro.
    """
    count = low.shape[1] - REACH
    shape = (len(low), count)
    kind = np.zeros(shape, np.int8)
    rate = np.zeros(shape)
    seen = _in_window(high >= 0, _SURE)[:, 1:]
    confidence = np.minimum(seen, _SURE) / _SURE
    if not count:
        return Motion(kind, rate, confidence)
    swings = np.maximum(high - low, 0)
    moved = swings > 0
    # To and fro takes three movements within five minutes, one way six on the longest scale and
    # four on the others; fewer, or none of late, are steps.
    busy = (_in_window(moved, 60) >= 3) | (_in_window(moved, REACH) >= 6)
    busy &= _in_window(moved, 3 * _PART) >= 1
    busy = busy[:, 1:]
    chosen = np.flatnonzero(busy.any(axis=1))
    # Some thousand places at a time, so that the tables stay in the processor's cache.
    many = max(1, _PLACES // count)
    for start in range(0, len(chosen), many):
        part = chosen[start : start + many]
        rows, columns = np.nonzero(busy[part])
        found = _judge(low[part], high[part], swings[part], rows, columns + REACH, floor)
        rows = part[rows]
        kind[rows, columns], rate[rows, columns] = found[0], found[1]
        confidence[rows, columns] *= np.maximum(found[2], 0.0)
    return Motion(kind, rate, confidence)


def _judge(
    low: IntArray, high: IntArray, swings: IntArray, rows: IntArray, at: IntArray, floor: int
) -> tuple[npt.NDArray[np.int8], FloatArray, FloatArray]:
    """(kind, bytes per bucket, how sure) at each of the places (rows, at)."""
    edges = _Edges(low, high, rows, at)
    travel = np.zeros((len(low), low.shape[1] + 1), np.int64)
    np.add.accumulate(swings, axis=1, out=travel[:, 1:])
    upto = travel[rows, at + 1]
    far, middling, near = (upto - travel[rows, at + 1 - width] for width in (REACH, 60, _PART))
    uppers, lowers = edges.groups(_LONG, _LONG_GROUPS)
    # Highest and lowest of the last 1, 2, ... 10 minutes' worth of buckets.
    top = np.maximum.accumulate(uppers[::-1], axis=0)
    spread = np.maximum(top - np.minimum.accumulate(lowers[::-1], axis=0), 0)
    least = np.maximum(4 * floor, top[0] // 50)
    fro = (spread[0] > least) & (near >= 3 * spread[0])
    fro |= (spread[4] > least) & (middling >= 3 * spread[4]) & (spread[1] > least)
    wide = np.maximum(spread[4], least)
    sure = np.where(
        fro,
        1 - spread[4] / np.maximum(middling, 1),
        1 - np.minimum(middling, 3 * wide) / (3 * wide),
    )
    kind = np.where(fro, FRO, STILL).astype(np.int8)
    slope = np.zeros(len(rows))
    restless = far >= 3 * spread[-1]
    steps: tuple[_Steps, _Steps] | None = None
    older = np.maximum.accumulate(uppers, axis=0), np.minimum.accumulate(lowers, axis=0)
    for widths, groups in ((_LONG, _LONG_GROUPS), (_SHORT, _SHORT_GROUPS)):
        upper, lower = edges.groups(widths, groups)
        which, up, forward, per_group = _one_way(upper, lower, floor)
        if not len(which):
            continue
        if steps is None:
            steps = _Steps(high[:, 1:] > high[:, :-1]), _Steps(low[:, 1:] < low[:, :-1])
        scale, place = which // len(rows), which % len(rows)
        width = widths[scale]
        goes_on = (step.goes_on(rows[place], at[place], width * groups) for step in steps)
        good = np.where(up, *goes_on)
        if widths is _SHORT:
            # Teeth larger than the way are seen whole on the longest scale only.
            drift = np.abs((upper[-1] - upper[0] + lower[-1] - lower[0])[which])
            before = REACH // _PART - 1 + -width * groups // _PART
            new = np.where(
                up,
                edges.upper[place] > older[0][before, place],
                edges.lower[place] < older[1][before, place],
            )
            new &= drift >= (upper[-1] - lower[-1])[which]
            good &= new | ~restless[place]
        way = np.where(up, UP, DOWN).astype(np.int8)
        per_bucket = per_group / width
        for number in range(len(widths)):
            mine = np.flatnonzero(good & (scale == number))
            there = place[mine]
            # A way that is hard to see on this scale is measured on a longer one, where it shows.
            blurred = (forward[mine] < _CLEAR) & (kind[there] == way[mine])
            slope[there] = np.where(blurred, slope[there], per_bucket[mine])
            kind[there] = way[mine]
            sure[there] = forward[mine]
    return kind, slope, sure


class _Edges:
    """Both edges of the level over groups of buckets that end with the judged one."""

    def __init__(self, low: IntArray, high: IntArray, rows: IntArray, at: IntArray) -> None:
        self._rows, self._at = rows, at
        by_width = self._by_width = {1: (low, high), 3: _rolled(low, high, 1, 2)}
        by_width[6] = _rolled(*by_width[3], 3)
        by_width[12] = _rolled(*by_width[6], 6)
        self.lower, self.upper = low[rows, at], high[rows, at]

    def groups(self, widths: IntArray, count: int) -> tuple[IntArray, IntArray]:
        """(upper, lower) edges, oldest first, shape (count, scales x judged)."""
        back = np.arange(count - 1, -1, -1)[:, None]
        uppers, lowers = [], []
        for width in widths.tolist():
            low, high = self._by_width[width]
            places = self._at - width * back
            uppers.append(high[self._rows, places])
            lowers.append(low[self._rows, places])
        if len(uppers) == 1:
            return uppers[0], lowers[0]
        return np.concatenate(uppers, axis=1), np.concatenate(lowers, axis=1)


class _Steps:
    """The buckets at which an edge moved on, and the pauses between."""

    def __init__(self, moved: npt.NDArray[np.bool_]) -> None:
        count = moved.shape[1] + 1
        self._many = np.zeros((len(moved), count), np.int64)
        np.add.accumulate(moved, axis=1, out=self._many[:, 1:], dtype=np.int64)
        self._newest = np.zeros((len(moved), count), np.int64)
        self._newest[:, 1:] = np.where(moved, np.arange(1, count), 0)
        np.maximum.accumulate(self._newest, axis=1, out=self._newest)

    def goes_on(self, rows: IntArray, at: IntArray, window: IntArray) -> npt.NDArray[np.bool_]:
        """Whether the present pause is no more than three times the mean one of the window."""
        pause = at - self._newest[rows, at]
        many = self._many[rows, at] - self._many[rows, np.maximum(at - window, 0)]
        goes_on: npt.NDArray[np.bool_] = (pause * many <= 3 * window) | (pause <= 3)
        return goes_on


def _rolled(low: IntArray, high: IntArray, *by: int) -> tuple[IntArray, IntArray]:
    """Ranges joined with those so many buckets earlier; the first buckets stay as they are."""
    out_low, out_high = low.copy(), high.copy()
    for shift in by:
        np.minimum(out_low[:, shift:], low[:, :-shift], out=out_low[:, shift:])
        np.maximum(out_high[:, shift:], high[:, :-shift], out=out_high[:, shift:])
    return out_low, out_high


def _one_way(
    upper: IntArray, lower: IntArray, floor: int
) -> tuple[IntArray, npt.NDArray[np.bool_], FloatArray, FloatArray]:
    """Where it goes one way: (which, whether up, share of movement forward, bytes per group)."""
    groups = len(upper)
    rise, lift = upper[-1] - upper[0], lower[-1] - lower[0]
    # Before a series began its lower edge lies above its upper one.
    far = (np.abs(rise + lift) > 2 * floor) & ((rise > 0) == (lift > 0)) & (lower[0] <= upper[0])
    which = np.flatnonzero(far)
    if len(which) < len(far):
        upper, lower = upper[:, which], lower[:, which]
    drift = (rise + lift)[which]
    up = drift > 0
    sign = np.where(up, 1, -1)
    ahead = sign * np.diff(upper, axis=0), sign * np.diff(lower, axis=0)
    whole = np.abs(ahead[0]).sum(axis=0) + np.abs(ahead[1]).sum(axis=0)
    leading = np.where(up, upper[-1] - upper[-3], lower[-3] - lower[-1])
    good = (rise[which] != 0) & (lift[which] != 0) & (leading > 0) & (2 * np.abs(drift) >= whole)
    least = -(-2 * (groups - 1) // 3)
    for edge in ahead:
        forward = np.maximum(edge, 0)
        good &= (forward > 0).sum(axis=0) >= least
        good &= 2 * forward.max(axis=0) <= forward.sum(axis=0)
    weights = 2 * np.arange(groups) - (groups - 1)
    # Least squares over groups of equal length; the sum of both edges is twice the middle.
    moment = (weights[:, None] * (upper + lower)).sum(axis=0)
    slope = moment / int((weights * weights).sum())
    share = np.minimum(np.abs(drift) / np.maximum(whole, 1), 1.0)
    return which[good], up[good], share[good], slope[good]


def _in_window(flags: npt.NDArray[np.bool_], width: int) -> IntArray:
    """How many of the last `width` are set, at bucket REACH - 1 and each one after it."""
    total = np.zeros((len(flags), flags.shape[1] + 1), np.int64)
    np.add.accumulate(flags, axis=1, out=total[:, 1:], dtype=np.int64)
    return total[:, REACH:] - total[:, REACH - width : total.shape[1] - width]
