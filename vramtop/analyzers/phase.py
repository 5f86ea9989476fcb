"""The phase of every device and process: stable, growing, shrinking or volatile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.events import PhaseChanged
from vramtop.samples import SeriesKey
from vramtop.stats.motion import DOWN, REACH, STILL, UP, Motion, judge
from vramtop.units import MIB, NS_PER_S
from vramtop.view import NOTHING, SHORT_COUNT, SHORT_NS, Ranges, View

STABLE, GROWING, SHRINKING, VOLATILE = "stable", "growing", "shrinking", "volatile"
_PHASES = (STABLE, GROWING, SHRINKING, VOLATILE)
assert SHORT_COUNT == REACH  # noqa: S101 - what is judged is what is kept

_WORTH_SAYING = 0.1


@dataclass(slots=True)
class _Series:
    """What is said of a series, and what is thought of it since."""

    phase: int | None = None
    said_rate: float = 0.0
    kind: int = STILL
    step: int = 0
    rate: float = 0.0
    confidence: float = 0.0
    since_ns: int = 0
    unsettled_ns: int | None = None
    # How long each kind was judged since the phase was first doubted.
    judged_ns: list[int] = field(default_factory=lambda: [0, 0, 0, 0])


class _Judged(NamedTuple):
    """How a series was judged last: the kind, the rate in steps, and since when."""

    kind: int
    step: int
    since_ns: int


_UNKNOWN = _Judged(-1, 0, 0)


class PhaseAnalyzer(SweepAnalyzer):
    """Judges how a level moves, from its range per five seconds (see `vramtop.stats.motion`).

    A judgement that differs from the phase becomes the phase once it has stood for `hold_s`.
    Judgements that take turns cannot keep an old phase alive: if it was judged to hold for less
    than a third of six times that long, the one that stood most of the time is taken. The signal `phase` also carries a new rate when it
    has moved by a tenth; an event is emitted for a new phase only.

    Args:
        floor_bytes: Movement below this is none; several segments of an allocator fit into it.
        hold_s: How long a new phase must stand before it is reported.
    """

    follows: ClassVar[str] = NOTHING

    def __init__(self, *, floor_bytes: int = 16 * MIB, hold_s: float = 10.0) -> None:
        super().__init__()
        self.floor_bytes = floor_bytes
        self.hold_s = hold_s
        self._series: dict[SeriesKey, _Series] = {}

    def on_block(self, view: View) -> None:
        """Judge every series at every bucket that closed; note where a judgement changed."""
        latest: dict[SeriesKey, _Judged] = {}
        for ranges in view.short:
            closed = ranges.closed
            if len(closed.last) and len(ranges.keys):
                motion = judge(closed.low, closed.high, floor=self.floor_bytes)
                self._read(view, ranges, motion, latest)

    def _read(
        self, view: View, ranges: Ranges, motion: Motion, latest: dict[SeriesKey, _Judged]
    ) -> None:
        """Hand on what is new; `latest` is how series were judged earlier in this block."""
        closed = ranges.closed
        last, ticks = closed.last, closed.tick[closed.last]
        kind, rate = motion.kind[:, last], motion.rate[:, last]
        known = [latest.get(key) or self._judged(key) for key in ranges.keys]
        # An identity that was gone and is back starts anew.
        fresh = (closed.high[:, REACH - 1] < 0).tolist()
        known = [_UNKNOWN if new else judged for judged, new in zip(known, fresh, strict=True)]
        before = np.array(known, np.int64)
        mantissa, exponent = np.frexp(rate)
        step = exponent.astype(np.int64) * 8 + (np.abs(mantissa) * 16).astype(np.int64)
        turned: npt.NDArray[np.bool_] = np.ones(kind.shape, bool)
        turned[:, 0] = kind[:, 0] != before[:, 0]
        np.not_equal(kind[:, 1:], kind[:, :-1], out=turned[:, 1:])
        clock = view.block.mono_ns[ticks]
        since = np.where(turned, clock, 0)
        since[:, 0] = np.maximum(since[:, 0], before[:, 2])
        since = np.maximum.accumulate(since, axis=1)
        # A rate is followed closely until it is said, from there on in steps of a tenth or so.
        moved = clock - since <= int(2 * self.hold_s * NS_PER_S)
        moved[:, 0] |= step[:, 0] != before[:, 1]
        moved[:, 1:] |= step[:, 1:] != step[:, :-1]
        began = closed.high[:, REACH + last] >= 0
        lives = ticks < ranges.until[:, None]
        new = (turned | (moved & ((kind == UP) | (kind == DOWN)))) & began & lives
        # Before its first bucket a series is judged to be still, and not told.
        first = len(last) - began.sum(axis=1)
        unknown = np.flatnonzero((before[:, 0] < 0) & (first < len(last)))
        new[unknown, first[unknown]] = lives[unknown, first[unknown]]
        newest = zip(kind[:, -1].tolist(), step[:, -1].tolist(), since[:, -1].tolist(), strict=True)
        latest.update(
            {
                key: _Judged(*judged)
                for key, judged, alive in zip(
                    ranges.keys, newest, lives[:, -1].tolist(), strict=True
                )
                if alive
            }
        )
        rows, columns = np.nonzero(new)
        if not len(rows):
            return
        order = sorted(set(rows.tolist()), key=lambda row: ranges.keys[row].sort_key)
        rank = np.zeros(len(kind), np.int64)
        rank[order] = np.arange(len(order))
        by_tick = np.lexsort((rank[rows], columns))
        rows, columns = rows[by_tick], columns[by_tick]
        for tick, row, *judged in zip(
            ticks[columns].tolist(),
            rows.tolist(),
            kind[rows, columns].tolist(),
            step[rows, columns].tolist(),
            (rate[rows, columns] * NS_PER_S / SHORT_NS).tolist(),
            motion.confidence[rows, last[columns]].tolist(),
            strict=True,
        ):
            self.found(tick, ranges.keys[row], judged)

    def _judged(self, key: SeriesKey) -> _Judged:
        series = self._series.get(key)
        return _UNKNOWN if series is None else _Judged(series.kind, series.step, series.since_ns)

    def on_found(self, tick: int, key: SeriesKey, value: tuple[int, int, float, float]) -> None:
        """A judgement that differs from the one before, or has a rate."""
        now = self.now_ns(tick)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series()
            series.kind, series.step, series.rate, series.confidence = value
            self._say(tick, key, series, series.kind)
            return
        kind, series.step, series.rate, series.confidence = value
        if kind != series.kind:
            if series.unsettled_ns is None:
                series.unsettled_ns = now
                series.judged_ns = [0, 0, 0, 0]
            else:
                series.judged_ns[series.kind] += now - series.since_ns
            series.kind, series.since_ns = kind, now
            self.wake_at(now + int(self.hold_s * NS_PER_S), key)
            doubted_ns = now - series.unsettled_ns
            if doubted_ns >= int(6 * self.hold_s * NS_PER_S):
                if series.judged_ns[series.phase or STILL] * 3 < doubted_ns:
                    most = max(range(4), key=lambda which: series.judged_ns[which])
                    self._settle(tick, key, series, most)
                series.unsettled_ns = now
                series.judged_ns = [0, 0, 0, 0]
        elif kind == series.phase and kind in (UP, DOWN):
            self._tell(tick, key, series)

    def on_gone(self, tick: int, key: SeriesKey) -> None:  # noqa: ARG002
        """Forget the process."""
        self._series.pop(key, None)

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """A judgement may have stood long enough."""
        series = self._series.get(key)
        if series is None or series.unsettled_ns is None:
            return
        if self.now_ns(tick) - series.since_ns >= int(self.hold_s * NS_PER_S):
            series.unsettled_ns = None
            self._settle(tick, key, series, series.kind)

    def _settle(self, tick: int, key: SeriesKey, series: _Series, kind: int) -> None:
        if kind != series.phase:
            self._say(tick, key, series, kind)

    def _say(self, tick: int, key: SeriesKey, series: _Series, kind: int) -> None:
        series.phase = kind
        rate = series.said_rate = series.rate if kind == series.kind else 0.0
        self.emit(
            PhaseChanged,
            tick,
            key,
            phase=_PHASES[kind],
            rate_bytes_per_s=rate,
            confidence=series.confidence,
        )
        self.publish("phase", tick, key, (_PHASES[kind], rate))

    def _tell(self, tick: int, key: SeriesKey, series: _Series) -> None:
        moved = abs(series.rate - series.said_rate)
        if moved >= _WORTH_SAYING * abs(series.said_rate):
            series.said_rate = series.rate
            self.publish("phase", tick, key, (_PHASES[series.kind], series.rate))
