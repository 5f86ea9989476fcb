"""Draws that come out the same on every Python and every machine.

Only `random()` and `getrandbits()` of the Mersenne Twister are used: their bits are fixed
by the seed, while the library's distributions may change between versions, and `exp` and
`log` differ in the last bit between C libraries.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


class Dice:
    """One stream of draws, named so that streams do not disturb each other.

    Args:
        name: Seeds the stream, for instance `"slow-leak/7/pid 4711"`.

    >>> Dice("a/0").integer(1, 6), Dice("a/0").integer(1, 6) == Dice("a/0").integer(1, 6)
    (2, True)
    """

    def __init__(self, name: str) -> None:
        self._random = random.Random(name)  # noqa: S311 - reproducible, not secret

    def share(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def between(self, low: float, high: float) -> float:
        """A number in [low, high), every one as likely."""
        return low + (high - low) * self._random.random()

    def scale(self, low: float, high: float) -> float:
        """A number from low to high, small ones as likely as large ones by ratio.

        Log-uniform at eight steps of equal ratio and linear between: square roots are the
        same on every machine, powers are not.

        >>> sorted(round(Dice(f"s/{n}").scale(1.0, 100.0)) for n in range(5))
        [2, 9, 14, 28, 39]
        """
        ratio = math.sqrt(math.sqrt(math.sqrt(high / low)))
        place = self._random.random() * 8.0
        value = low
        while place >= 1.0:
            value *= ratio
            place -= 1.0
        return value + value * (ratio - 1.0) * place

    def integer(self, low: int, high: int) -> int:
        """An integer from low to high, both included."""
        return low + int(self._random.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self._random.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[int(self._random.random() * len(items))]

    def curve(self, quantiles: Sequence[tuple[float, float]]) -> float:
        """A draw from a distribution given by points of its quantile function.

        Args:
            quantiles: (probability, value), ascending from probability 0 to 1; linear between.
        """
        drawn = self._random.random()
        low_p, low = quantiles[0]
        for high_p, high in quantiles[1:]:
            if drawn < high_p:
                return low + (high - low) * (drawn - low_p) / (high_p - low_p)
            low_p, low = high_p, high
        return low

    def hexadecimal(self, digits: int) -> str:
        """A hexadecimal number of so many digits."""
        return f"{self._random.getrandbits(4 * digits):0{digits}x}"

    def uuid(self) -> str:
        """Text in the form of a UUID."""
        digits = self.hexadecimal(32)
        return "-".join(digits[a:b] for a, b in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
