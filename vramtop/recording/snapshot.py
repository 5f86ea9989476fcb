"""What a reader must know who did not see the beginning. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable

from vramtop.samples import (
    DEVICE,
    GONE,
    HOST,
    IMPORTED,
    INTERVAL,
    PROCESS,
    SIMULATED,
    Observation,
)

_ONCE = (HOST, SIMULATED, IMPORTED, INTERVAL)
_Subject = tuple[str, "str | None", "int | None", "int | None", int]


class Snapshot:
    """The latest word on the host, the interval, each GPU and each live process.

    Every part of a log but the first begins with one, so that it stands alone if the parts
    before it are lost; a slice of a recording begins with one too.
    """

    def __init__(self) -> None:
        self._latest: dict[_Subject, Observation] = {}

    def update(self, observations: Iterable[Observation]) -> None:
        """Take in the observations of the next tick."""
        for seen in observations:
            if seen.what in _ONCE:
                self._latest[seen.what, None, None, None, 0] = seen
            elif seen.what in (DEVICE, PROCESS):
                self._latest[subject(seen)] = seen
            elif seen.what == GONE:
                gone = (PROCESS, seen.uuid, seen.pid, seen.start_time, seen.life)
                self._latest.pop(gone, None)

    def observations(self) -> tuple[Observation, ...]:
        """The observations that say it all again."""
        return tuple(self._latest.values())

    def missing_from(self, said: Iterable[Observation]) -> tuple[Observation, ...]:
        """Those of `observations` about which `said` says nothing."""
        known = {subject(seen) for seen in said}
        return tuple(seen for seen in self._latest.values() if subject(seen) not in known)


def subject(seen: Observation) -> _Subject:
    """What an observation is about."""
    if seen.what in _ONCE:
        return seen.what, None, None, None, 0
    return seen.what, seen.uuid, seen.pid, seen.start_time, seen.life
