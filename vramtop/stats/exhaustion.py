"""How a level approaches its limit: what the last minutes and hours say, as a few numbers.

The highest and lowest level per bucket of time is kept at three widths. The newer half of a
window is compared with its older half: a ramp lifts both ceiling and floor, a sawtooth neither,
a load that has ended lifts one of them too much. The window whose growth has lasted longest in
terms of the time it has left, and was spread most evenly, gives the outlook.

An allocator that empties its cache when it meets the limit survives there; from then on the
ceiling says nothing and the floor, what was still held after a flush, takes its place.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

from vramtop.stats.envelope import Envelope

NS_PER_S = 1_000_000_000

WIDTHS_S = (5, 20, 120)
NARROWEST_NS = WIDTHS_S[0] * NS_PER_S
COUNTS = (24, 30, 45)
WINDOWS = ((0, 12), (0, 24), (1, 15), (1, 30), (2, 15), (2, 45))
"""Windows of 1, 2, 5, 10, 30 and 90 minutes: which width, how many of its buckets."""
TOUCH_SHARE = 100
"""Nearer to the limit than a hundredth of it is touching it."""
BRIM_SHARE, BRIM_BYTES, BRIM_NS = 1000, 32 << 20, 20 * NS_PER_S
"""A level so near to the limit that has not risen for so long lives on what its cache holds."""
REMEMBER_NS = 1200 * NS_PER_S
"""How long a touch that was survived counts."""


class Outlook(NamedTuple):
    """When a level would meet its limit, and what speaks for that; shares are 0-1.

    Attributes:
        left_s: Seconds until then if growth goes on as before; infinite if nothing grows.
        lasted: Time for which it has grown, over that time plus `left_s`.
        spread: 1 if the four quarters of the window rose alike, 0 if one of them rose alone.
        recent: Share of the rise that came in the newer half.
        steps: 1 minus the share of the rise that came in its largest bucket.
        agreement: Slower over faster of the rates of floor and ceiling.
        flushed: The limit was touched and survived of late; `left_s` is from the floor alone.
        swing: Largest fall of the level of late, over itself plus what is free: one half means
            that going up again by as much would just fit. A rise that stays is no swing.
        rate: Bytes per second behind `left_s`.
        window_s: Length of the window it was seen in, seconds.
    """

    left_s: float = inf
    lasted: float = 0.0
    spread: float = 0.0
    recent: float = 0.0
    steps: float = 0.0
    agreement: float = 0.0
    flushed: bool = False
    swing: float = 0.0
    rate: float = 0.0
    window_s: float = 0.0


class History:
    """The level of a device over the last ninety minutes."""

    __slots__ = (
        "_envelopes",
        "_flushed_ns",
        "_high",
        "_low",
        "_pending_ns",
        "_risen_ns",
        "_touched_ns",
        "_touching",
        "level",
        "limit",
        "since_ns",
    )

    def __init__(self, now_ns: int, level: int, limit: int) -> None:
        self._envelopes = tuple(
            Envelope(width_ns=width * NS_PER_S, count=count)
            for width, count in zip(WIDTHS_S, COUNTS, strict=True)
        )
        self._flushed_ns: int | None = None
        self._touching = False
        self._touched_ns = now_ns
        self._risen_ns = now_ns
        self.since_ns = now_ns
        self.level = self._low = self._high = level
        self.limit = limit
        self._pending_ns = now_ns
        for envelope in self._envelopes:
            envelope.put(now_ns, level)
        self.put(now_ns, level, limit)

    def put(self, now_ns: int, level: int, limit: int) -> None:
        """The level is `level` of at most `limit` bytes from `now_ns` on."""
        before = self.level
        if now_ns // NARROWEST_NS == self._pending_ns // NARROWEST_NS:
            if level < self._low:
                self._low = level
            elif level > self._high:
                self._high = level
        else:
            self._settle()
            self._pending_ns = now_ns
            self._low, self._high = min(before, level), max(before, level)
        self.level, self.limit = level, limit
        left = (limit - level) * TOUCH_SHARE
        if left <= limit:
            if not self._touching and not self._flushed(now_ns):
                self._touched_ns = now_ns
            self._touching = True
        elif self._touching and left > 2 * limit:
            self._touching = False
            self._flushed_ns = now_ns
        if level > before:
            self._risen_ns = now_ns

    def _settle(self) -> None:
        """Hand what the narrowest bucket has seen to all widths; most changes need no more."""
        for envelope in self._envelopes:
            envelope.take(self._pending_ns, self._low, self._high, self.level)
        self._low = self._high = self.level  # or it would be counted again, in a later bucket

    def _flushed(self, now_ns: int) -> bool:
        """Whether the limit was touched and survived of late, or is being survived now."""
        if self._flushed_ns is not None and now_ns - self._flushed_ns <= REMEMBER_NS:
            return True
        brim = max(self.limit // BRIM_SHARE, BRIM_BYTES)
        return self.limit - self.level <= brim and now_ns - self._risen_ns >= BRIM_NS

    def release(self, now_ns: int, held: int) -> None:
        """From `now_ns` on the level is lower by what something constant had held all along."""
        self._touching = False
        self._settle()
        self.level = self._low = self._high = max(self.level - held, 0)
        self._pending_ns = now_ns
        for envelope in self._envelopes:
            envelope.advance(now_ns)
            envelope.lows = [max(low - held, 0) for low in envelope.lows]
            envelope.highs = [max(high - held, 0) for high in envelope.highs]
            envelope.level = max(envelope.level - held, 0)

    def outlook(self, now_ns: int) -> Outlook:
        """What is to be expected at `now_ns`, not before the last `put`."""
        self._settle()
        for envelope in self._envelopes:
            envelope.advance(now_ns)
        survived = self._flushed(now_ns)
        touched_s = (now_ns - self._touched_ns) / NS_PER_S
        free = max(self.limit - self.level, 0)
        best, quality = Outlook(), 0.0
        swing = max(_fall(envelope.highs, envelope.lows) for envelope in self._envelopes)
        for which, count in WINDOWS:
            envelope = self._envelopes[which]
            highs, lows = envelope.highs[-count:], envelope.lows[-count:]
            half = len(highs) // 2
            if half < 2:
                continue
            if len(highs) % 2:
                del highs[0], lows[0]
            ceiling, floor = max(highs[half:]), min(lows[half:])
            lift, rise = floor - min(lows[:half]), ceiling - max(highs[:half])
            if lift <= 0 or (rise <= 0 and not survived):
                continue
            width_ns = envelope.width_ns
            half_s = half * width_ns / NS_PER_S
            # The newest bucket is still open: its ceiling is younger than half a window.
            climb = rise * NS_PER_S / ((half - 1) * width_ns + now_ns % width_ns)
            rate = lift / half_s
            slow, fast = (rate, climb) if rate < climb else (climb, rate)
            agreement = max(slow, 0.0) / fast
            # Teeth that come nearer to the limit each time are no flushes of a cache.
            flushed = survived and not (agreement >= 0.5 and 2 * half_s <= touched_s)
            if flushed:
                # What rises is lowest where the newer half begins.
                left_s = max((self.limit - floor) / rate - half_s, 0.0)
            else:
                rate = slow
                left_s = max(self.limit - ceiling, 0) / rate
            lasted = 2 * half_s / (2 * half_s + left_s)
            spread, recent, steps = _shape(lows if flushed else highs, half)
            score = lasted * spread * (1.0 + agreement)
            if score > quality:
                quality = score
                best = Outlook(
                    left_s,
                    lasted,
                    spread,
                    recent,
                    steps,
                    agreement,
                    flushed,
                    0.0,
                    rate,
                    2 * half_s,
                )
        return best._replace(
            flushed=best.flushed or (survived and best.left_s == inf),
            swing=swing / (swing + free) if swing + free > 0 else 0.0,
        )


def _fall(highs: list[int], lows: list[int]) -> int:
    """How far the level has fallen below what it had reached before."""
    reached = largest = 0
    for high, low in zip(highs, lows, strict=True):
        # Not max(): this loop is a third of what a judgement costs.
        if reached - low > largest:  # noqa: PLR1730
            largest = reached - low
        if high > reached:  # noqa: PLR1730
            reached = high
    return largest


def _shape(levels: list[int], half: int) -> tuple[float, float, float]:
    """(spread, recent, steps) of the rise of the record high over the buckets of a window."""
    reached = levels[0]
    quarters = [0, 0, 0, 0]
    largest = 0
    for index, level in enumerate(levels):
        if level > reached:
            rise = level - reached
            quarters[index * 2 // half] += rise
            largest = max(largest, rise)
            reached = level
    whole = reached - levels[0]
    if whole <= 0:
        return 0.0, 0.0, 0.0
    return (
        4 * (whole - max(quarters)) / (3 * whole),
        (quarters[2] + quarters[3]) / whole,
        1.0 - largest / whole,
    )
