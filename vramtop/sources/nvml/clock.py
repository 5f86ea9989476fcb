"""When the next tick is due: an absolute schedule on the boot-time clock.

The boot-time clock counts while the machine sleeps and is never set, so a suspend or a
corrected wall clock can neither shift the schedule nor hide.
"""

from __future__ import annotations

import os
import select
import time
import weakref

from vramtop.units import NS_PER_S

_STEP_NS = NS_PER_S // 2


def boot_ns() -> int:
    """Nanoseconds since boot, time asleep included."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Alarm:
    """Sleeps that any thread or signal handler can end for good."""

    def __init__(self) -> None:
        # An eventfd rather than threading.Event: setting an Event takes a lock, and a signal
        # handler that interrupts the holder of that lock would wait for itself.
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self.rung = False
        weakref.finalize(self, os.close, self._fd)

    def ring(self) -> None:
        """End every sleep, now and later."""
        self.rung = True
        os.eventfd_write(self._fd, 1)

    def sleep(self, duration_ns: int) -> bool:
        """Sleep; returns whether the alarm rang."""
        if self.rung:
            return True
        if duration_ns > 0:
            # Milliseconds, rounded up: a tick is never early.
            self._poll.poll(-(-duration_ns // 1_000_000))
        return self.rung


class TickClock:
    """The schedule of ticks.

    Attributes:
        interval_ns: Spacing; may be changed by `set_interval`.
        due_ns: The scheduled instant of the current tick.
        missed: Ticks that were skipped because their time had passed, ever.
    """

    def __init__(self, interval_ns: int) -> None:
        self.interval_ns = interval_ns
        self.due_ns = boot_ns()
        self.missed = 0
        self._offset_ns: int | None = None
        self._asleep_ns = self.due_ns - time.monotonic_ns()
        self._first = True

    def set_interval(self, interval_ns: int) -> None:
        """Change the spacing from the current tick on."""
        self.interval_ns = interval_ns

    def left_ns(self) -> int:
        """How long until the next tick is due; 0 if it is."""
        return 0 if self._first else max(0, self.due_ns + self.interval_ns - boot_ns())

    def wait(self, alarm: Alarm) -> bool:
        """Sleep until the next tick is due; returns False when the alarm rang instead."""
        if self._first:
            self._first = False
            self.due_ns = boot_ns()
            return not alarm.rung
        due = self.due_ns + self.interval_ns
        while True:
            left = due - boot_ns()
            if alarm.sleep(left):
                return False
            if left <= 0 or boot_ns() >= due:
                break
        late = boot_ns() - due
        skipped = late // self.interval_ns
        self.missed += skipped
        self.due_ns = due + skipped * self.interval_ns
        return True

    def step_ns(self, mono_ns: int, wall_ns: int) -> int | None:
        """How far the wall clock was set since the last tick; None for drift and slewing."""
        offset = wall_ns - mono_ns
        previous, self._offset_ns = self._offset_ns, offset
        if previous is None or abs(offset - previous) <= _STEP_NS:
            return None
        return offset - previous

    def slept_ns(self) -> int:
        """How long the machine was suspended since the last call."""
        asleep = boot_ns() - time.monotonic_ns()
        slept, self._asleep_ns = asleep - self._asleep_ns, asleep
        return slept
