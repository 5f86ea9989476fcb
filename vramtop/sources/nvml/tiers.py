"""Which tiers are due at a tick, and backing off when one gets expensive."""

from __future__ import annotations

from collections import deque

_WINDOW = 20
_EXPENSIVE = 5  # a fifth of the period
_MAX_FACTOR = 64


class Tier:
    """A class of calls that is read periodically.

    Reading is expensive when it takes more than a fifth of its period in more than 5 % of the
    last 20 reads. Then the period doubles; it halves again when reading would be no more than
    half as expensive as that.

    Args:
        bit: Its `LOOKED_*` bit; 0 is memory, which has no schedule of its own.
        period_ns: Its normal period.

    Attributes:
        factor: The period is this many times the normal one.
    """

    def __init__(self, bit: int, period_ns: int) -> None:
        self.bit = bit
        self.factor = 1
        self._period_ns = period_ns
        self._due_ns: int | None = None
        self._spent: deque[int] = deque(maxlen=_WINDOW)

    @property
    def period_ns(self) -> int:
        """The period now."""
        return self._period_ns * self.factor

    def due(self, slot_ns: int) -> bool:
        """Whether to read it at the tick scheduled for `slot_ns`; True starts the next period.

        By the schedule, not by when the tick really came: a tick that is a little early after
        one that was a little late must not be skipped.
        """
        if self._due_ns is not None and slot_ns < self._due_ns:
            return False
        self._due_ns = slot_ns + self.period_ns
        return True

    def spent(self, duration_ns: int) -> bool:
        """Note what a read took; returns whether the period changed."""
        self._spent.append(duration_ns)
        period = self.period_ns
        if duration_ns * _EXPENSIVE > period and self.factor < _MAX_FACTOR:
            if self._above(period // _EXPENSIVE) < 2:
                return False
            self.factor *= 2
        elif self.factor > 1 and len(self._spent) == _WINDOW:
            if self._above(period // (4 * _EXPENSIVE)) > 1:
                return False
            self.factor //= 2
        else:
            return False
        self._spent.clear()
        return True

    def cheap(self) -> None:
        """Note a read that took next to nothing."""
        self._spent.append(0)

    def _above(self, limit_ns: int) -> int:
        return sum(duration > limit_ns for duration in self._spent)
