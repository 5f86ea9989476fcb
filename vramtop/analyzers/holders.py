"""Memory held in vain: a process keeps gigabytes on a GPU that has nothing to do."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vramtop.analyzers.sight import IDLE, UNKNOWN, Utilisation
from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.events import IdleHolder
from vramtop.samples import SeriesKey
from vramtop.units import GIB, NS_PER_S, US_PER_S
from vramtop.view import PROCESSES, Change, View

GIB_HOUR = GIB * 3600 * NS_PER_S
"""A GiB-hour in byte-nanoseconds."""


@dataclass(slots=True)
class Holding:
    """Bytes held over time, summed exactly.

    Attributes:
        since_ns, since_us: When it began, on the boot-time and the wall clock.
        used: Bytes held now.
        area: Byte-nanoseconds up to `at_ns`.
    """

    since_ns: int
    since_us: int
    used: int
    at_ns: int
    area: int = 0

    def until(self, now: int) -> None:
        """Add what was held up to `now`."""
        if now > self.at_ns:
            self.area += self.used * (now - self.at_ns)
            self.at_ns = now

    @property
    def gib_hours(self) -> float:
        """Of what was added so far."""
        return self.area / GIB_HOUR


@dataclass(slots=True)
class _Process:
    used: int = 0
    holding: Holding | None = None
    said: bool = False
    due: bool = False


@dataclass(slots=True)
class _Device:
    idle: bool = False
    processes: dict[SeriesKey, _Process] = field(default_factory=dict)


class IdleHolderAnalyzer(SweepAnalyzer):
    """Names who holds much memory on a GPU that was idle at every look for long.

    Utilisation is known per GPU only, so nothing is said while the GPU works for anybody. What
    is not known is not idle: no reading, or a pause in reading, ends an episode and begins the
    time anew.

    Args:
        least_bytes: Less than this is not worth a word.
        idle_pct: Up to this utilisation the GPU is idle, 0-100.
        idle_s: How long it must have lasted.
        unseen_s: After this long without a reading of utilisation it is not known.
    """

    follows = PROCESSES

    def __init__(
        self,
        *,
        least_bytes: int = 2 * GIB,
        idle_pct: int = 1,
        idle_s: float = 1800.0,
        unseen_s: float = 120.0,
    ) -> None:
        super().__init__()
        self.least_bytes = least_bytes
        self.idle_pct = idle_pct
        self.idle_s = idle_s
        self.unseen_s = unseen_s
        self._devices: dict[str, _Device] = {}
        self._utilisation = Utilisation(idle_pct=idle_pct, unseen_s=unseen_s)

    def on_block(self, view: View) -> None:
        """Find where utilisation changes between idle, busy and unknown."""
        for tick, key, state, before in self._utilisation.steps(view):
            self.found(tick, key, (state, before))

    def on_change(self, tick: int, change: Change) -> None:
        """A process holds another amount."""
        key = change.key
        device = self._devices.setdefault(key.uuid, _Device())
        process = device.processes.get(key)
        if process is None:
            process = device.processes[key] = _Process()
        if process.holding is not None:
            process.holding.until(self.now_ns(tick))
            if change.used < self.least_bytes:
                self._end(tick, key, process)
            else:
                process.holding.used = change.used
        process.used = change.used
        if device.idle and process.holding is None:
            self._begin(tick, key, process)

    def on_gone(self, tick: int, key: SeriesKey) -> None:
        """What it held is free again."""
        device = self._devices.get(key.uuid)
        process = None if device is None else device.processes.pop(key, None)
        if process is not None and process.holding is not None:
            process.holding.until(self.now_ns(tick))
            self._end(tick, key, process)

    def on_found(self, tick: int, key: SeriesKey, value: tuple[str, int]) -> None:
        """The device's utilisation changed between idle, busy and unknown."""
        state, before = value
        device = self._devices.setdefault(key.uuid, _Device())
        device.idle = state == IDLE
        # What is not known of the time since the last look is not counted.
        until = before if state == UNKNOWN else self.now_ns(tick)
        for one in sorted(device.processes, key=lambda one: one.sort_key):
            process = device.processes[one]
            if process.holding is not None:
                process.holding.until(until)
                self._end(tick, one, process)
            if device.idle:
                self._begin(tick, one, process)

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """It may have lasted long enough."""
        device = self._devices.get(key.uuid)
        process = None if device is None else device.processes.get(key)
        if process is None:
            return
        process.due = False
        holding = process.holding
        if holding is None or process.said:
            return
        now = self.now_ns(tick)
        look = self._utilisation.last_look_ns(key.uuid, now)
        if look - holding.since_ns < int(self.idle_s * NS_PER_S):
            # Not long enough yet, or nobody has looked since: ask again.
            again_s = 1 if now - look < 10 * NS_PER_S else 30
            due = max(holding.since_ns + int(self.idle_s * NS_PER_S), now + again_s * NS_PER_S)
            process.due = True
            self.wake_at(due, key)
            return
        process.said = True
        holding.until(now)
        self.emit(IdleHolder, tick, key, **_figures("idle", holding))

    def on_finish(self) -> None:
        """Those that still stand are told with their figures so far."""
        for device in self._devices.values():
            for key, process in device.processes.items():
                if process.said and process.holding is not None:
                    process.holding.until(self._clock_ns)
                    self.emit_last(IdleHolder, key, **_figures("open", process.holding))

    def _begin(self, tick: int, key: SeriesKey, process: _Process) -> None:
        if process.used < self.least_bytes:
            return
        now = self.now_ns(tick)
        since_us = int(self._present.block.t_us[tick])
        process.holding = Holding(now, since_us, process.used, now)
        if not process.due:
            process.due = True
            self.wake_at(now + int(self.idle_s * NS_PER_S), key)

    def _end(self, tick: int, key: SeriesKey, process: _Process) -> None:
        if process.said and process.holding is not None:
            self.emit(IdleHolder, tick, key, **_figures("ended", process.holding))
        process.holding, process.said = None, False


def _figures(state: str, holding: Holding) -> dict[str, Any]:
    return {
        "state": state,
        "held_bytes": holding.used,
        "since": holding.since_us / US_PER_S,
        "gib_hours": holding.gib_hours,
    }
