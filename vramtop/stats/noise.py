"""How much a series wobbles: the scale that a change must exceed to mean something.

Memory is mostly exactly constant and moves in quanta, so the usual estimate (the median of
absolute first differences) is zero, and on a ramp it takes the ramp for noise. Counted here are
*excursions*: a level that was left in the direction it was come from. A ramp and a staircase
have none; in noise two of three levels are one. Each counts for the time it lasted, so a burst
of changes in a calm hour is no noise.
"""

from __future__ import annotations

from collections.abc import Iterable

LAST = 63
"""Place for all that has so many bits or more."""

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
        self._heights = [0] * (LAST + 1)
        self._lengths = [0] * (LAST + 1)
        self._still = 0
        self._delta = 0

    def add(self, delta: int, lasted: int) -> None:
        """The level moved by `delta` after it had stood for `lasted`; both integers."""
        self.add_all(((delta, lasted),))

    def add_all(self, moves: Iterable[tuple[int, int]]) -> None:
        """As `add`, with one move after the other."""
        before, below, count, still = self._delta, self.below, self.count, self._still
        heights, lengths = self._heights, self._lengths
        for delta, lasted in moves:
            last, before = before, delta
            if last == 0:
                continue
            count += 1
            if (last > 0) == (delta > 0) or lasted >= below:
                still += lasted
            else:
                # The smaller magnitude has the fewer bits.
                height, other = last.bit_length(), delta.bit_length()
                if other < height:  # noqa: PLR1730 - calls of min cost more than all of this
                    height = other
                length = lasted.bit_length()
                heights[height if height < LAST else LAST] += lasted  # noqa: FURB136
                lengths[length if length < LAST else LAST] += lasted  # noqa: FURB136
            if count >= HALVE_AT:
                heights = self._heights = [one // 2 for one in heights]
                lengths = self._lengths = [one // 2 for one in lengths]
                still //= 2
                count //= 2
        self._delta, self.count, self._still = before, count, still

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
