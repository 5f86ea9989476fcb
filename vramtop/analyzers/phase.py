"""The phase of every device and process: stable, growing, shrinking or volatile."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.events import PhaseChanged
from vramtop.samples import SeriesKey
from vramtop.stats.envelope import Envelope
from vramtop.units import MIB, NS_PER_S
from vramtop.view import Change

_NEVER = -(1 << 62)
STABLE, GROWING, SHRINKING, VOLATILE = "stable", "growing", "shrinking", "volatile"


@dataclass(slots=True)
class _Series:
    fine: Envelope
    coarse: Envelope
    since_ns: int
    phase: str | None = None
    candidate: str | None = None
    candidate_since_ns: int = 0
    unsettled_since_ns: int | None = None
    due_ns: int | None = None
    # When the level last changed, newest last; three changes are the least that is a movement.
    changed_ns: tuple[int, int, int] = (_NEVER, _NEVER, _NEVER)


class PhaseAnalyzer(SweepAnalyzer):
    """Judges how a level moves, from the range it keeps per bucket of time.

    The newer half of a window is compared with the older half. A level grows if both its upper
    and its lower edge rise and the rise is spread over several buckets: a single step to a new
    level is no growth, and a sawtooth around a level has edges that stay. The short window sees
    fast movement, the long one slow leaks.

    Args:
        bucket_s: Length of a bucket of the short window.
        buckets: Buckets in the short window; the long one has ten of a minute each.
        floor_bytes: Movement below this is none; several segments of an allocator fit into it.
        hold_s: How long a new phase must stand before it is reported.
    """

    def __init__(
        self,
        *,
        bucket_s: float = 5.0,
        buckets: int = 12,
        floor_bytes: int = 16 * MIB,
        hold_s: float = 10.0,
    ) -> None:
        super().__init__()
        self.bucket_s = bucket_s
        self.buckets = buckets
        self.floor_bytes = floor_bytes
        self.hold_s = hold_s
        self._series: dict[SeriesKey, _Series] = {}

    def on_change(self, tick: int, change: Change) -> None:
        """Note the level; phases are judged when a bucket closes."""
        now = self.now_ns(tick)
        series = self._series.get(change.key)
        if series is None:
            series = self._series[change.key] = _Series(
                Envelope(width_ns=int(self.bucket_s * NS_PER_S), count=self.buckets),
                Envelope(width_ns=60 * NS_PER_S, count=10),
                now,
            )
        if not series.fine.lows or change.used != series.fine.level:
            series.changed_ns = (*series.changed_ns[1:], now)
        series.fine.put(now, change.used)
        series.coarse.put(now, change.used)
        if series.due_ns is None or series.fine.boundary_ns < series.due_ns:
            # Also while a slow series waits for its next minute: it may have become a fast one.
            self._judge_at(series.fine.boundary_ns, change.key, series)

    def on_gone(self, tick: int, key: SeriesKey) -> None:  # noqa: ARG002
        """Forget the process."""
        self._series.pop(key, None)

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """A bucket has closed: judge."""
        series = self._series.get(key)
        now = self.now_ns(tick)
        if series is None or series.due_ns is None or now < series.due_ns:
            return  # an earlier bucket was asked for since
        series.due_ns = None
        series.fine.advance(now)
        series.coarse.advance(now)
        fine, coarse = _moving(series, series.fine, now), _moving(series, series.coarse, now)
        phase, rate = self._judge(series, fine) if fine or coarse else (STABLE, 0.0)
        self._settle(tick, key, series, phase, rate)
        if fine or series.candidate is not None:
            self._judge_at(series.fine.boundary_ns, key, series)
        elif coarse:
            self._judge_at(series.coarse.boundary_ns, key, series)

    def _judge_at(self, due_ns: int, key: SeriesKey, series: _Series) -> None:
        series.due_ns = due_ns
        self.wake_at(due_ns, key)

    def _judge(self, series: _Series, fine: bool) -> tuple[str, float]:  # noqa: FBT001
        level = series.fine.highs[-1]
        floor = max(self.floor_bytes, level // 200)
        trend = _trend(series.fine, floor) if fine else 0.0
        if trend == 0.0 or _been_there(series, trend):
            trend = _trend(series.coarse, floor)
        if trend != 0.0:
            return (GROWING if trend > 0 else SHRINKING), trend
        if not fine:
            return STABLE, 0.0
        lows, highs = series.fine.lows[:-1], series.fine.highs[:-1]
        if _goes_both_ways(lows, highs, floor) and max(highs) - min(lows) > max(
            4 * floor, level // 50
        ):
            return VOLATILE, 0.0
        return STABLE, 0.0

    def _settle(self, tick: int, key: SeriesKey, series: _Series, phase: str, rate: float) -> None:
        now = self.now_ns(tick)
        if phase == series.phase:
            series.candidate = None
            series.unsettled_since_ns = None
            return
        if phase != series.candidate:
            series.candidate, series.candidate_since_ns = phase, now
        if series.unsettled_since_ns is None:
            series.unsettled_since_ns = now
        hold_ns = int(self.hold_s * NS_PER_S)
        # Candidates that take turns must not keep the old phase alive for ever.
        starved = now - series.unsettled_since_ns >= 3 * hold_ns
        if series.phase is None or starved or now - series.candidate_since_ns >= hold_ns:
            series.phase, series.candidate, series.unsettled_since_ns = phase, None, None
            age_s = (now - series.since_ns) / NS_PER_S
            self.emit(
                PhaseChanged,
                tick,
                key,
                phase=phase,
                rate_bytes_per_s=rate,
                confidence=min(1.0, age_s / (self.bucket_s * self.buckets)),
            )
            self.publish("phase", tick, key, (phase, rate))


def _goes_both_ways(lows: list[int], highs: list[int], floor: int) -> bool:
    """Whether the level went up and down, three times at least; a ramp or a step does not."""
    up = down = 0
    for (low, high), (next_low, next_high) in pairwise(zip(lows, highs, strict=True)):
        rises = next_low - low > floor or next_high - high > floor
        falls = low - next_low > floor or high - next_high > floor
        if not rises and not falls and next_high - next_low > floor:
            rises = falls = True  # within the bucket
        up += rises
        down += falls
    return up > 0 and down > 0 and up + down >= 3


def _been_there(series: _Series, trend: float) -> bool:
    """Whether the last minutes, the latest two left out, went as far already."""
    older = slice(None, -3)
    if trend > 0:
        return max(series.fine.highs) <= max(series.coarse.highs[older], default=-1)
    lows = series.coarse.lows[older]
    return bool(lows) and min(series.fine.lows) >= min(lows)


def _moving(series: _Series, window: Envelope, now: int) -> bool:
    """Whether the window holds enough changes to be anything but stable."""
    return series.changed_ns[0] > now - (window.count + 1) * window.width_ns


def _trend(window: Envelope, floor: int) -> float:
    """Bytes per second by which the edges moved between the halves; 0.0 if it is no trend."""
    lows, highs = window.lows[:-1], window.highs[:-1]
    half = min(len(lows) // 2, window.count // 2)
    if half < 2:
        return 0.0
    older_low, older_high = min(lows[-2 * half : -half]), max(highs[-2 * half : -half])
    newer_low, newer_high = min(lows[-half:]), max(highs[-half:])
    rise = newer_high - older_high
    lift = newer_low - older_low
    if rise * lift <= 0:
        return 0.0
    drift = (rise + lift) // 2
    if abs(drift) <= floor:
        return 0.0
    edge = highs[-2 * half :] if drift > 0 else lows[-2 * half :]
    steps = [after - before for before, after in pairwise(edge)]
    forward = [index for index, step in enumerate(steps) if step * drift > 0]
    if len(forward) < 3 or forward[-1] < len(steps) - half:
        return 0.0
    largest = max(abs(steps[index]) for index in forward)
    if largest * 4 > 3 * sum(abs(steps[index]) for index in forward):
        return 0.0  # one step, not growth
    return drift * NS_PER_S / (half * window.width_ns)
