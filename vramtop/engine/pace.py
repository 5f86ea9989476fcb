"""Playing a stream at a speed. A viewer's clock, never an analyzer's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from vramtop.events import Event
from vramtop.units import US_PER_S

EventT = TypeVar("EventT", bound=Event)

LONGEST_PAUSE_S = 1.0


def paced(events: Iterable[EventT], speed: float) -> Iterator[EventT]:
    """Events at `speed` seconds of recording per second, from the first event on."""
    start_s: float | None = None
    first_us = 0
    for event in events:
        if start_s is None:
            start_s, first_us = time.monotonic(), event.t_us
        due = start_s + (event.t_us - first_us) / US_PER_S / speed
        while (left := due - time.monotonic()) > 0:
            time.sleep(min(left, LONGEST_PAUSE_S))
        yield event
