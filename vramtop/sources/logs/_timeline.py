"""One time for all logs of a run: never backwards, polls of several logs side by side."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from vramtop.sources.logs._notes import Notes
from vramtop.sources.logs._polls import Poll
from vramtop.units import US_PER_S

_MOST_SHARED = 1000
_CLOSE_US = 1_000_000


@dataclass(slots=True)
class TimedPoll:
    """A poll in its place.

    Attributes:
        order_us: Like its wall time, but never decreasing within its log.
        step_us: By how much the wall clock moved against that since the poll before.
        log: Number of its log.
        poll: What was found.
        last: No poll of its log follows.
    """

    order_us: int
    step_us: int
    log: int
    poll: Poll
    last: bool = False


def in_order(polls: Iterable[Poll], log: int, name: str, notes: Notes) -> Iterator[TimedPoll]:
    """The polls of one log with a time that never goes back.

    Where the stamps go back (a clock was set, or summer time ended), the time between is taken
    as the spacing before. Several polls under one stamp are spread evenly until the next.
    """
    previous: Poll | None = None
    order_us = 0
    spacing_us = US_PER_S
    for run in _same_stamp(polls):
        step_us = 0
        first = run[0]
        if previous is None:
            order_us = first.t_us
        else:
            moved_us = first.t_us - previous.t_us
            if moved_us < 0:
                step_us = moved_us - spacing_us
                order_us += spacing_us
            else:
                order_us += moved_us
                spacing_us = moved_us
        if len(run) > 1:
            notes.assume(f"{name} has several polls under one stamp; they are spread evenly")
        previous = Poll(first.t_us)
        for poll in run:
            offset_us = poll.t_us - first.t_us
            yield TimedPoll(order_us + offset_us, step_us, log, poll)
            step_us = 0


def _same_stamp(polls: Iterable[Poll]) -> Iterator[list[Poll]]:
    """Runs of polls with one stamp, already spread until the stamp that follows."""
    run: list[Poll] = []
    spacing_us = US_PER_S
    for poll in polls:
        if run and (poll.t_us != run[0].t_us or len(run) >= _MOST_SHARED):
            if poll.t_us > run[0].t_us:
                spacing_us = poll.t_us - run[0].t_us
            yield _spread(run, spacing_us)
            run = []
        run.append(poll)
    if run:
        yield _spread(run, spacing_us)


def _spread(run: list[Poll], spacing_us: int) -> list[Poll]:
    # Stamps to the second say nothing beyond that second.
    room_us = min(spacing_us, US_PER_S)
    for position, poll in enumerate(run):
        poll.t_us += room_us * position // len(run)
    return run


def side_by_side(logs: Sequence[Iterable[TimedPoll]]) -> Iterator[list[TimedPoll]]:
    """Groups of polls that are one tick: at most one per log, close in time.

    Close is half the spacing of the quickest log so far, but no more than a second or a tenth
    of the spacing, whichever is longer.
    """
    last_us: dict[int, int] = {}
    spacing_us: dict[int, int] = {}
    group: list[TimedPoll] = []
    merged = heapq.merge(*logs, key=lambda timed: timed.order_us)
    for timed in merged:
        if len(logs) > 1:
            if timed.log in last_us and timed.order_us > last_us[timed.log]:
                spacing_us[timed.log] = timed.order_us - last_us[timed.log]
            last_us[timed.log] = timed.order_us
        if group and (
            any(other.log == timed.log for other in group)
            or timed.order_us - group[0].order_us > _close_us(spacing_us.values())
        ):
            yield group
            group = []
        group.append(timed)
    if group:
        yield group


def _close_us(spacings_us: Iterable[int]) -> int:
    quickest_us = min(spacings_us, default=2 * _CLOSE_US)
    return min(quickest_us // 2, max(_CLOSE_US, quickest_us // 10))
