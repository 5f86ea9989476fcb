"""Growth that does not stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import IntArray
from vramtop.events import Leak
from vramtop.samples import SeriesKey
from vramtop.stats.buckets import NO_LOW
from vramtop.stats.endless import LONG_ENOUGH, PARTS, endless, slowing_down
from vramtop.units import MIB, NS_PER_S, US_PER_S
from vramtop.view import MINUTE_COUNT, MINUTE_NS, NOTHING, Ranges, View

WINDOWS = (LONG_ENOUGH, 20, MINUTE_COUNT)
"""Minutes looked back on, the shortest first."""


class _Minutes(NamedTuple):
    """The floor and ceiling of the last minutes of a series, oldest first."""

    lows: list[int]
    highs: list[int]
    end_ns: int


@dataclass(slots=True)
class _Growth:
    """A leak that goes on: the window it was found in, and the highest floor since."""

    window: int
    peak: int

    def ended(self, lows: list[int]) -> bool:
        """Whether the floor rose no more over that window, or much was given back."""
        third = self.window // 3
        newer = lows[-third:]
        self.peak = max(self.peak, min(newer))
        return min(newer) <= min(lows[-self.window :][:third]) or max(newer) * 10 < self.peak * 9


class LeakAnalyzer(SweepAnalyzer):
    """Reports a process whose least memory per minute keeps rising, once per episode.

    Looks back 11, 20 and 40 minutes (see `vramtop.stats.endless`). The start of a process is
    left out unless it ran already when it was first seen. A device is reported where less than
    half of its growth is that of its processes: memory that no visible process accounts for.

    Args:
        least_bytes: Rises below this over a window are none.
        startup_s: The first seconds of a process are not looked at.
        slowing: Share of the rise that may be lost over a window; more is growth that ends.
    """

    follows: ClassVar[str] = NOTHING
    inputs = ("start",)

    def __init__(
        self, *, least_bytes: int = 48 * MIB, startup_s: float = 120.0, slowing: float = 0.06
    ) -> None:
        super().__init__()
        self.least_bytes = least_bytes
        self.startup_s = startup_s
        self.slowing = slowing
        self._leaks: dict[SeriesKey, _Growth] = {}
        # When a process was born, of those whose birth is not long past.
        self._births_ns: dict[SeriesKey, int] = {}

    def on_block(self, view: View) -> None:
        """Find the minutes at which a floor may have risen without end, or a leak stopped."""
        watched = set(self._leaks)
        for ranges in view.minutes:
            self._read(ranges, watched)

    def _read(self, ranges: Ranges, watched: set[SeriesKey]) -> None:
        """Look at the series of `watched`, which leak or may, and those that may now."""
        closed = ranges.closed
        rising = _rising(closed.low, closed.last, self.least_bytes)
        rows = [
            row for row, key in enumerate(ranges.keys) if key in self._leaks or rising[row].any()
        ]
        rows.sort(key=lambda row: ranges.keys[row].sort_key)
        watched.update(ranges.keys[row] for row in rows)
        for place, column in enumerate(closed.last.tolist()):
            tick = int(closed.tick[column])
            for row in rows:
                began = closed.low[row, column + MINUTE_COUNT] != NO_LOW
                if began and tick < ranges.until[row]:
                    key = ranges.keys[row]
                    maybe = bool(rising[row, place]) and self._its_own(tick, key, ranges, column)
                    window = slice(column + 1, column + 1 + MINUTE_COUNT)
                    minutes = _Minutes(
                        closed.low[row, window].tolist(),
                        closed.high[row, window].tolist(),
                        int(closed.end[column]) * MINUTE_NS,
                    )
                    self.found(tick, key, (maybe, minutes))

    def _its_own(self, tick: int, key: SeriesKey, ranges: Ranges, column: int) -> bool:
        """Whether growth is to be said of this series: a device's is mostly its processes'."""
        if key.pid is not None:
            return True
        if self.is_split(tick, key.uuid):
            return False
        low = ranges.closed.low
        now, then = column + MINUTE_COUNT, column + MINUTE_COUNT - LONG_ENOUGH + 1
        own = explained = 0
        for row, other in enumerate(ranges.keys):
            if other.uuid != key.uuid or tick >= ranges.until[row] or low[row, now] == NO_LOW:
                continue
            before = int(low[row, then])
            grown = int(low[row, now]) - (0 if before == NO_LOW else before)
            if other.pid is None:
                own = grown
            else:
                explained += grown
        return explained * 2 < own

    def on_signal(self, tick: int, name: str, key: SeriesKey, value: bool) -> None:  # noqa: ARG002, FBT001
        """A process that ran already when it was first seen has its start-up behind it."""
        if not value:
            self._births_ns[key] = self.now_ns(tick)

    def on_gone(self, tick: int, key: SeriesKey) -> None:  # noqa: ARG002
        """Forget the process."""
        self._leaks.pop(key, None)
        self._births_ns.pop(key, None)

    def on_found(self, tick: int, key: SeriesKey, value: tuple[bool, _Minutes]) -> None:
        """A minute has closed in which a floor may be rising, or of a leak."""
        maybe, minutes = value
        leak = self._leaks.get(key)
        if leak is not None:
            if leak.ended(minutes.lows):
                del self._leaks[key]
        elif maybe:
            self._look(tick, key, minutes)

    def _look(self, tick: int, key: SeriesKey, minutes: _Minutes) -> None:
        lows, highs, end_ns = minutes
        known = sum(low != NO_LOW for low in lows)
        born_ns = self._births_ns.get(key)
        if born_ns is not None:
            trusted_ns = born_ns + int(self.startup_s * NS_PER_S)
            known = min(known, (end_ns - trusted_ns) // MINUTE_NS)
        for window in WINDOWS:
            if window > known:
                return
            slopes = endless(
                lows[-window:], highs[-window:], least=self.least_bytes, slowing=self.slowing
            )
            if slopes is None:
                continue
            if known >= window + PARTS and slowing_down(lows[-known:], slowing=self.slowing):
                return
            begun = window
            pace = slopes[0] / 2
            while begun < known and lows[-begun] - lows[-begun - 1] > pace:
                begun += 1
            self._leaks[key] = _Growth(window, lows[-1])
            ago_ns = self.now_ns(tick) - end_ns + begun * MINUTE_NS
            self.emit(
                Leak,
                tick,
                key,
                slope_low_bytes_per_s=slopes[0] * NS_PER_S / MINUTE_NS,
                slope_high_bytes_per_s=slopes[1] * NS_PER_S / MINUTE_NS,
                since=(int(self._present.block.t_us[tick]) - ago_ns // 1000) / US_PER_S,
            )
            return


def _rising(
    low: IntArray, last: IntArray, least: int
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Where `endless` may say yes: a quick look at all series and minutes at once."""
    at = MINUTE_COUNT + last
    found = np.zeros((len(low), len(last)), bool)
    for window in WINDOWS:
        size = window // PARTS
        enough = (low[:, at] - low[:, at - window + 1] >= least) & (
            low[:, at - window + 1] != NO_LOW
        )
        above = None
        for part in range(PARTS):
            floor = low[:, at - part * size]
            for back in range(1, size):
                floor = np.minimum(floor, low[:, at - part * size - back])
            if above is not None:
                enough &= floor < above
            above = floor
        found |= enough
    return found
