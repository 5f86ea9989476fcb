"""Lowest and highest level per bucket of time over a sliding window."""

from __future__ import annotations


class Envelope:
    """The range of a held level in buckets aligned to the clock.

    Between readings the last level is held, so the buckets do not depend on how often the
    level was sampled, only on when it changed.

    Args:
        width_ns: Length of a bucket.
        count: How many closed buckets are kept.

    Attributes:
        level: What is held now.
        lows, highs: Of the closed buckets and, last, the open one.
    """

    __slots__ = ("_index", "count", "highs", "level", "lows", "width_ns")

    def __init__(self, *, width_ns: int, count: int) -> None:
        self.width_ns = width_ns
        self.count = count
        self.lows: list[int] = []
        self.highs: list[int] = []
        self._index = 0
        self.level = 0

    def put(self, now_ns: int, level: int) -> None:
        """The level is `level` from `now_ns` on."""
        if not self.lows:
            self._index = now_ns // self.width_ns
            self.lows.append(level)
            self.highs.append(level)
        else:
            self.advance(now_ns)
            self.lows[-1] = min(self.lows[-1], level)
            self.highs[-1] = max(self.highs[-1], level)
        self.level = level

    def take(self, now_ns: int, low: int, high: int, level: int) -> None:
        """In the bucket of `now_ns` the level went from `low` to `high` and is `level` at last."""
        self.advance(now_ns)
        self.lows[-1] = min(self.lows[-1], low)
        self.highs[-1] = max(self.highs[-1], high)
        self.level = level

    def advance(self, now_ns: int) -> None:
        """Hold the level until `now_ns`."""
        index = now_ns // self.width_ns
        steps = index - self._index
        if steps <= 0:
            return
        self._index = index
        held = [self.level] * min(steps, self.count + 1)
        self.lows += held
        self.highs += held
        excess = len(self.lows) - self.count - 1
        if excess > 0:
            del self.lows[:excess], self.highs[:excess]

    @property
    def boundary_ns(self) -> int:
        """When the open bucket closes."""
        return (self._index + 1) * self.width_ns
