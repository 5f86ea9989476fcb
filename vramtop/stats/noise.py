"""How much a series wobbles: the scale that a change must exceed to mean something.

Memory is mostly exactly constant and moves in quanta, so the usual estimate (the median of
absolute first differences) is zero, and on a ramp it takes the ramp for noise. Counted here are
*excursions*: a level that was left in the direction it was come from. A ramp and a staircase
have none; in noise two of three levels are one.
"""

from __future__ import annotations

from math import gcd

HALVE_AT = 512
"""Counts are halved here, so the recent past weighs more and the state stays small."""


class NoiseScale:
    """The typical height and length of excursions, from the past only.

    Both are medians over powers of two, which is coarse (a factor of two) and needs neither a
    logarithm nor a window of samples.

    Attributes:
        count: How many levels were judged, the older ones with half, quarter... weight.
        quantum: Greatest common divisor of all changes, in units of the values; 0 before any.
    """

    __slots__ = ("_delta", "_heights", "_lengths", "_still", "count", "quantum")

    def __init__(self) -> None:
        self.count = 0
        self.quantum = 0
        self._heights = [0] * 64
        self._lengths = [0] * 64
        self._still = 0
        self._delta = 0

    def add(self, delta: int, lasted: int) -> None:
        """The level moved by `delta` after it had stood for `lasted`; both integers."""
        before = self._delta
        self._delta = delta
        if before == 0:
            self.quantum = abs(delta)
            return
        if self.quantum > 1:
            self.quantum = gcd(self.quantum, delta)
        self.count += 1
        if (before > 0) == (delta > 0):
            self._still += 1
        else:
            height = min(abs(before), abs(delta))
            self._heights[min(height.bit_length(), 63)] += 1
            self._lengths[min(lasted.bit_length(), 63)] += 1
        if self.count >= HALVE_AT:
            self._heights = [one // 2 for one in self._heights]
            self._lengths = [one // 2 for one in self._lengths]
            self._still //= 2
            self.count = self._still + sum(self._heights)

    def excursion(self) -> tuple[float, float]:
        """Height and length of the middle one of all levels; zeros if most are no excursion."""
        height = _median(self._heights, self._still)
        return (height, _median(self._lengths, 0)) if height > 0.0 else (0.0, 0.0)


def _median(counts: list[int], zeros: int) -> float:
    """Middle of the power of two that holds the median."""
    half = (zeros + sum(counts)) / 2
    seen = zeros
    if seen >= half:
        return 0.0
    for power, count in enumerate(counts):
        seen += count
        if seen >= half:
            return 0.75 * (1 << power)
    return 0.0
