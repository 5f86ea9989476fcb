"""Memory that stays in use although the processes that held it have gone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vramtop.analyzers.holders import Holding
from vramtop.analyzers.sight import hidden_steps
from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL
from vramtop.events import Orphan
from vramtop.samples import GPU_LOST, Observation, SeriesKey
from vramtop.units import MIB, NS_PER_S, US_PER_S
from vramtop.view import Change, View

MAX_PIDS = 8


@dataclass(slots=True)
class _Watch:
    """What was left over when processes went.

    `base` is what nobody accounted for before, `cap` what the processes held.
    """

    base: int
    cap: int
    holding: Holding
    pids: tuple[int, ...]
    said: bool = False


@dataclass(slots=True)
class _Device:
    used: int = NULL
    listed: int = 0
    levels: dict[SeriesKey, int] = field(default_factory=dict)
    hidden: set[SeriesKey] = field(default_factory=set)
    at_ns: int = -(1 << 62)
    # The most that nobody accounted for, in this window of time and the one before.
    window_ns: int = -(1 << 62)
    high: int = NULL
    high_before: int = NULL
    watch: _Watch | None = None


class OrphanAnalyzer(SweepAnalyzer):
    """Finds memory that a process left behind on its device.

    What a device uses beyond what its processes hold is nobody's: the driver's, a context's, or
    that of processes which cannot be seen. It is an orphan's only as far as it rose when a
    process went, by no more than that process held, and has stood for `hold_s` since. While the
    bytes of any process on the device are hidden nothing is said.

    Args:
        least_bytes: Less than this is not worth a word.
        hold_s: How long it must have stood; a driver takes seconds to clear up.
        window_s: Over which time before a going the memory of nobody is looked at.
    """

    observes = (GPU_LOST,)

    def __init__(
        self, *, least_bytes: int = 512 * MIB, hold_s: float = 60.0, window_s: float = 30.0
    ) -> None:
        super().__init__()
        self.least_bytes = least_bytes
        self.hold_s = hold_s
        self.window_s = window_s
        self._devices: dict[str, _Device] = {}
        self._null: set[SeriesKey] = set()

    def on_block(self, view: View) -> None:
        """Find where readings are hidden."""
        for tick, key, hidden in hidden_steps(view, self._null):
            self.found(tick, key, hidden)

    def on_observation(self, tick: int, seen: Observation) -> None:
        """A GPU is lost: what was going on there is not known any more."""
        device = self._devices.get(seen.uuid or "")
        if device is not None:
            self._drop(tick, seen.uuid or "", device, self.now_ns(tick))
            device.high = device.high_before = NULL

    def on_found(self, tick: int, key: SeriesKey, value: bool) -> None:  # noqa: FBT001
        """The bytes of a series are hidden, or can be seen again."""
        device = self._devices.setdefault(key.uuid, _Device())
        self._settle(tick, key.uuid, device)
        (device.hidden.add if value else device.hidden.discard)(key)
        if value:
            self._drop(tick, key.uuid, device, self.now_ns(tick))
            device.high = device.high_before = NULL

    def on_change(self, tick: int, change: Change) -> None:
        """Follow what the device uses and what its processes hold."""
        key = change.key
        device = self._devices.get(key.uuid)
        if device is None:
            device = self._devices[key.uuid] = _Device()
        self._settle(tick, key.uuid, device)
        if key.pid is None:
            device.used = change.used
        else:
            device.listed += change.used - device.levels.get(key, 0)
            device.levels[key] = change.used
        if device.watch is not None:
            # Judged when the whole tick is known, which is at the next one.
            self.wake_at(device.at_ns + 1, SeriesKey(key.uuid))

    def on_gone(self, tick: int, key: SeriesKey) -> None:
        """A process went: from now on its memory should be free."""
        device = self._devices.get(key.uuid)
        if device is None:
            return
        self._settle(tick, key.uuid, device)
        device.hidden.discard(key)
        held = device.levels.pop(key, 0)
        device.listed -= held
        if device.hidden or key.pid is None or held <= 0:
            return
        base = max(device.high, device.high_before)
        now = self.now_ns(tick)
        watch = device.watch
        if watch is not None and not watch.said:
            base, held = watch.base, held + watch.cap
        elif watch is not None or base == NULL or held < self.least_bytes:
            return
        pids = (*(() if watch is None else watch.pids), key.pid)[-MAX_PIDS:]
        since_us = int(self._present.block.t_us[tick])
        device.watch = _Watch(base, held, Holding(now, since_us, held, now), pids)
        self.wake_at(now + int(self.hold_s * NS_PER_S), SeriesKey(key.uuid))

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """Has it stood long enough?"""
        device = self._devices.get(key.uuid)
        if device is None:
            return
        self._settle(tick, key.uuid, device)
        watch = device.watch
        now = self.now_ns(tick)
        if (
            watch is None
            or watch.said
            or now - watch.holding.since_ns < int(self.hold_s * NS_PER_S)
        ):
            return
        left = device.used - device.listed - watch.base
        if left < self.least_bytes or device.used == NULL or device.hidden:
            device.watch = None
            return
        watch.said = True
        watch.holding.used = min(left, watch.cap)
        self.emit(Orphan, tick, SeriesKey(key.uuid), **_figures("orphaned", watch))

    def on_finish(self) -> None:
        """What still stands is told with its figures so far."""
        for uuid, device in self._devices.items():
            if device.watch is not None and device.watch.said:
                device.watch.holding.until(self._clock_ns)
                self.emit_last(Orphan, SeriesKey(uuid), **_figures("open", device.watch))

    def _settle(self, tick: int, uuid: str, device: _Device) -> None:
        """Take in the instant before this one, all of whose rows are known now."""
        now = self.now_ns(tick)
        if now <= device.at_ns:
            return
        before, device.at_ns = device.at_ns, now
        if device.used == NULL or device.hidden or before < 0:
            return
        nobodys = max(0, device.used - device.listed)
        if before - device.window_ns > int(self.window_s * NS_PER_S):
            device.window_ns, device.high_before, device.high = before, device.high, nobodys
        device.high = max(device.high, nobodys)
        watch = device.watch
        if watch is None:
            return
        left = min(nobodys - watch.base, watch.cap)
        if left < self.least_bytes:
            self._drop(tick, uuid, device, before)
        elif watch.said:
            watch.holding.until(before)
            watch.holding.used = left

    def _drop(self, tick: int, uuid: str, device: _Device, until: int) -> None:
        watch, device.watch = device.watch, None
        if watch is not None and watch.said:
            watch.holding.until(until)
            self.emit(Orphan, tick, SeriesKey(uuid), **_figures("ended", watch))


def _figures(state: str, watch: _Watch) -> dict[str, Any]:
    return {
        "state": state,
        "held_bytes": watch.holding.used,
        "since": watch.holding.since_us / US_PER_S,
        "gib_hours": watch.holding.gib_hours,
        "former_pids": watch.pids,
    }
