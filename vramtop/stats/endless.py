"""Growth without end, told from growth that is about to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

PARTS = 5
LONG_ENOUGH = 11
"""Lows of a window that a load of ten minutes cannot fill."""
_MANY, _TEETH = 7, 20
_MOST_DOUBT_SOON, _MOST_DOUBT, _MOST_EXCUSED = 0.12, 0.4, 0.15
_QUANTUM = 1 << 20
"""Half of what drivers hand out at a time: the least noise there is."""


def endless(
    lows: Sequence[int], highs: Sequence[int], *, least: int, slowing: float
) -> tuple[float, float] | None:
    """The slope of a floor that rises without end, as a range.

    The window is cut into five parts and the lowest of each part is taken, which is blind to
    sawteeth and spikes. Every part must be higher than the one before, by no less than a third
    of the mean and no more than two and a half times. Seven buckets must rise (nine of 40), none
    by more than three sevenths (a third) of the way, or six by the same at regular intervals,
    which settles it; and none may give back a fifth. The rises of the parts may not shrink by more than `slowing`
    over the window, apart from what their scatter explains: twice the standard error of the
    trend in them, 0.15 at most. Where that is more than 0.4 nothing can be said yet, and in a
    window of ten minutes where it is more than 0.12: a filling cache would pass. That window
    must be rising in its first bucket and in its last, so that a load of ten minutes does not
    fill it. Under teeth twenty times as high as the way, slow beats between their period and
    the sampling look like growth, so nothing is said.

    Args:
        lows: Lowest level per bucket in bytes, oldest first, 11 or more; the buckets that do not
            fill five equal parts are the oldest.
        highs: Highest, of the same buckets.
        least: Rises below this over the window are none, in bytes.
        slowing: Share of the rise that may be lost over the window.

    Returns:
        (low, high) in bytes per bucket, or None where the growth is none or may end.
    """
    size = len(lows) // PARTS
    grown = lows[-1] - lows[0]
    if size < 2 or grown < least:
        return None
    swings = sorted(high - low for low, high in zip(lows, highs, strict=True))
    if grown * _TEETH < swings[len(swings) // 2]:
        return None
    used = lows[-PARTS * size :]
    floors = [min(used[start : start + size]) for start in range(0, PARTS * size, size)]
    rises = [after - before for before, after in pairwise(floors)]
    total = floors[-1] - floors[0]
    if min(rises) * 3 * len(rises) < total or max(rises) * 2 * len(rises) > 5 * total:
        return None
    steps = [after - before for before, after in pairwise(lows)]
    if -min(0, *steps) * 5 > grown:
        return None
    clockwork = not _many_rises(steps, grown)
    if clockwork and not _like_a_clock(steps, grown):
        return None
    mean = total / len(rises)
    short = len(lows) <= LONG_ENOUGH
    if short:
        pace = 0.7 * mean / size
        if steps[0] < pace or 2 * steps[-1] < pace or highs[-1] - lows[-1] < pace:
            return None
    tilt, scatter = _tilt(rises)
    lost = -3 * tilt / mean
    doubt = 6 * scatter / mean
    unclear = doubt > (_MOST_DOUBT_SOON if short else _MOST_DOUBT)
    if not clockwork and (unclear or lost > slowing + min(doubt, _MOST_EXCUSED)):
        return None
    # The scatter of one rise, not of the tilt; and what comes in steps is known to a step.
    margin = max(2 * scatter * 2.2360679774997896, max(steps) / len(rises))
    return (
        max(0.0, min(*rises, mean - margin)) / size * 0.95,
        max(*rises, mean + margin) / size * 1.05,
    )


def _many_rises(steps: Sequence[int], grown: int) -> bool:
    """Whether it rose often enough, and by no large part at once."""
    many = _MANY + (len(steps) + 1) // 20
    return len(_rises(steps, grown)) >= many and max(steps) * many <= 3 * grown


def _like_a_clock(steps: Sequence[int], grown: int) -> bool:
    """Whether it rises rarely, but by the same at regular intervals, and not ever later."""
    rises = _rises(steps, grown)
    if len(rises) < _MANY - 1:
        return False
    pauses = [after - before for before, after in pairwise(rises)]
    sizes = [steps[place] for place in rises]
    return 4 * max(pauses) <= 5 * min(pauses) + 4 and 4 * max(sizes) <= 5 * min(sizes)


def _rises(steps: Sequence[int], grown: int) -> list[int]:
    """Where it rose; what is lost in the whole, such as a wobble, is no rise."""
    return [place for place, step in enumerate(steps) if step * 5 * len(steps) > grown]


def slowing_down(lows: Sequence[int], *, slowing: float) -> bool:
    """Whether the later four fifths of a history rose ever more slowly.

    The oldest rise is left out: what came before a leak, such as a load, was often faster.

    Args:
        lows: Lowest level per bucket in bytes, oldest first.
        slowing: Share of the rise whose loss is none.
    """
    size = len(lows) // PARTS
    used = lows[-PARTS * size :]
    floors = [min(used[start : start + size]) for start in range(0, PARTS * size, size)]
    two, three, four = (after - before for before, after in pairwise(floors[1:]))
    mean = (two + three + four) / 3
    if min(two, three, four) <= 0:
        return False
    bend = abs(two - 2 * three + four) / 6
    return two - four > 2 * slowing * mean + 4 * bend


def _tilt(rises: Sequence[int]) -> tuple[float, float]:
    """Least-squares trend of four rises and its standard error, in bytes per part."""
    one, two, three, four = rises
    tilt = (3 * (four - one) + (three - two)) / 10
    mean = (one + two + three + four) / 4
    squares = 0.0
    for place, rise in zip((-1.5, -0.5, 0.5, 1.5), rises, strict=True):
        off = rise - mean - place * tilt
        squares += off * off
    return tilt, math.sqrt(max(squares / 2, float(_QUANTUM) * _QUANTUM) / 5)
