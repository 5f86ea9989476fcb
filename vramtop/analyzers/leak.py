"""Growth that does not stop."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.events import Leak
from vramtop.samples import SeriesKey
from vramtop.stats.envelope import Envelope
from vramtop.units import MIB, NS_PER_S, US_PER_S
from vramtop.view import Change

MINUTE_NS = 60 * NS_PER_S
WINDOWS_MIN = (10, 20, 40)
LEAST_RISES = 6


@dataclass(slots=True)
class _Series:
    floor: Envelope
    trusted_from_ns: int
    leaking: bool = False
    waking: bool = False
    # When the level last rose, newest last; fewer rises than these are no leak.
    risen_ns: tuple[int, ...] = (-(1 << 62),) * LEAST_RISES


class LeakAnalyzer(SweepAnalyzer):
    """Reports a process whose least memory per minute keeps rising.

    The floor of each minute is blind to sawteeth and to spikes. It must have risen over ten,
    twenty or forty minutes: in small steps spread over the whole window, never giving back much,
    and at the end not much slower than at the beginning, so that a cache that fills, a warm-up
    and a few large allocations are none. Reported once; again only after the growth has stopped.

    Args:
        least_bytes: Rises below this over a window are none.
        startup_s: The first seconds of a process are not looked at.
        slowing: The later half must rise at least so many times as fast as the earlier.
    """

    inputs = ("start",)

    def __init__(
        self, *, least_bytes: int = 48 * MIB, startup_s: float = 120.0, slowing: float = 0.5
    ) -> None:
        super().__init__()
        self.least_bytes = least_bytes
        self.startup_s = startup_s
        self.slowing = slowing
        self._series: dict[SeriesKey, _Series] = {}

    def on_change(self, tick: int, change: Change) -> None:
        """Follow the level of a process."""
        if change.key.pid is None:
            return
        now = self.now_ns(tick)
        series = self._series.get(change.key)
        if series is None:
            window = Envelope(width_ns=MINUTE_NS, count=WINDOWS_MIN[-1])
            series = self._series[change.key] = _Series(
                window, now + int(self.startup_s * NS_PER_S)
            )
        if series.floor.lows and change.used > series.floor.level:
            series.risen_ns = (*series.risen_ns[1:], now)
        series.floor.put(now, change.used)
        if not series.waking and self._moving(series, now):
            series.waking = True
            self.wake_at(series.floor.boundary_ns, change.key)

    def on_signal(self, tick: int, name: str, key: SeriesKey, value: bool) -> None:  # noqa: ARG002, FBT001
        """A process that ran already when it was first seen has its start-up behind it."""
        series = self._series.get(key)
        if series is not None and value:
            series.trusted_from_ns = self.now_ns(tick)

    def on_gone(self, tick: int, key: SeriesKey) -> None:  # noqa: ARG002
        """Forget the process."""
        self._series.pop(key, None)

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """A minute has passed."""
        series = self._series.get(key)
        if series is None or not series.waking:
            return
        now = self.now_ns(tick)
        series.floor.advance(now)
        if series.leaking:
            series.leaking = self._goes_on(series.floor.lows[:-1])
        else:
            self._look(tick, key, series, now)
        series.waking = series.leaking or self._moving(series, now)
        if series.waking:
            self.wake_at(series.floor.boundary_ns, key)

    def _moving(self, series: _Series, now: int) -> bool:
        return now - series.risen_ns[0] <= WINDOWS_MIN[-1] * MINUTE_NS

    def _look(self, tick: int, key: SeriesKey, series: _Series, now: int) -> None:
        lows = series.floor.lows[:-1]
        # The first minutes, in which it was still starting, are left out.
        known = (now - series.trusted_from_ns) // MINUTE_NS
        for window in WINDOWS_MIN:
            if window > min(known, len(lows)):
                return
            slopes = self._slopes(lows[-window:])
            if slopes is None:
                continue
            series.leaking = True
            begun = window
            while begun < len(lows) and lows[-begun - 1] < lows[-begun]:
                begun += 1
            ago_ns = now - (now // MINUTE_NS - begun) * MINUTE_NS
            t_us = int(self._present.block.t_us[tick])
            self.emit(
                Leak,
                tick,
                key,
                slope_low_bytes_per_s=slopes[0],
                slope_high_bytes_per_s=slopes[1],
                since=(t_us - ago_ns // 1000) / US_PER_S,
            )
            return

    def _slopes(self, lows: list[int]) -> tuple[float, float] | None:
        """(low, high) in bytes per second if the floor rises without end, else None."""
        grown = lows[-1] - lows[0]
        if grown < max(self.least_bytes, lows[-1] // 200):
            return None
        steps = [after - before for before, after in pairwise(lows)]
        rises = [step for step in steps if step > 0]
        if len(rises) < LEAST_RISES or max(rises) * 5 > 2 * grown:
            return None
        if -min(0, *steps) * 5 > grown:
            return None
        third = len(steps) // 3
        parts = [lows[third] - lows[0], lows[-1 - third] - lows[third], lows[-1] - lows[-1 - third]]
        counts = [third, len(steps) - 2 * third, third]
        if min(parts) <= 0:
            return None
        half = len(steps) // 2
        early, late = lows[half] - lows[0], lows[-1] - lows[-1 - half]
        if late < self.slowing * early:
            return None
        rates = [
            part * NS_PER_S / (count * MINUTE_NS) for part, count in zip(parts, counts, strict=True)
        ]
        return min(rates) * 0.8, max(rates) * 1.25

    def _goes_on(self, lows: list[int]) -> bool:
        """Whether the last ten minutes still rose."""
        recent = lows[-WINDOWS_MIN[0] :]
        return recent[-1] > recent[0] and recent[-1] * 10 >= max(lows) * 9
