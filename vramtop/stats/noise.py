"""How much a series wobbles: the scale that a change must exceed to mean something.

Memory is mostly exactly constant and moves in quanta, so the usual estimate (the median of
absolute first differences) is zero, and on a ramp it takes the ramp for noise. Counted here are
*excursions*: a level that was left in the direction it was come from. A ramp and a staircase
have none; in noise two of three levels are one. Each counts for the time it lasted, so a burst
of changes in a calm hour is no noise.
"""

from __future__ import annotations

HALVE_AT = 512
"""Counts are halved here, so the recent past weighs more and the state stays small."""


class NoiseScale:
    """The typical height and length of excursions, from the past only.

    Both are medians over time and over powers of two, which is coarse (a factor of two) and needs
    neither a logarithm nor a window of samples.

    Args:
        below: What lasted so long is a level, not an excursion.

    Attributes:
        count: How many levels were judged, the older ones with half, quarter... weight.
    """

    __slots__ = ("_delta", "_heights", "_lengths", "_still", "below", "count")

    def __init__(self, *, below: int) -> None:
        self.below = below
        self.count = 0
        self._heights = [0] * 64
        self._lengths = [0] * 64
        self._still = 0
        self._delta = 0

    def add(self, delta: int, lasted: int) -> None:
        """The level moved by `delta` after it had stood for `lasted`; both integers."""
        before = self._delta
        self._delta = delta
        if before == 0:
            return
        self.count += 1
        if (before > 0) == (delta > 0) or lasted >= self.below:
            self._still += lasted
        else:
            height = min(abs(before), abs(delta))
            self._heights[min(height.bit_length(), 63)] += lasted
            self._lengths[min(lasted.bit_length(), 63)] += lasted
        if self.count >= HALVE_AT:
            self._heights = [one // 2 for one in self._heights]
            self._lengths = [one // 2 for one in self._lengths]
            self._still //= 2
            self.count //= 2

    def excursion(self) -> tuple[float, float]:
        """Typical height and length of an excursion; zeros unless most of the time is one."""
        moving = sum(self._heights)
        if moving <= self._still or moving == 0:
            return 0.0, 0.0
        return _median(self._heights, moving), _median(self._lengths, moving)


def _median(weights: list[int], total: int) -> float:
    """Middle of the power of two that holds the median."""
    seen = 0
    for power, weight in enumerate(weights):
        seen += weight
        if 2 * seen >= total:
            return 0.75 * (1 << power)
    raise ValueError(f"weights add up to less than {total}")
