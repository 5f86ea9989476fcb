"""Whether a process will fit: OK, TIGHT or OOM."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL
from vramtop.events import VerdictChanged
from vramtop.samples import SeriesKey
from vramtop.units import MIB, NS_PER_S, format_bytes
from vramtop.view import Change

OK, TIGHT, OOM = "OK", "TIGHT", "OOM"


@dataclass(slots=True)
class _Process:
    used: int
    peak: int
    moved_ns: int
    verdict: str | None = None
    candidate: str | None = None
    candidate_ns: int = 0


@dataclass(slots=True)
class _Device:
    used: int = 0
    free: int = NULL
    total: int = NULL
    risk: Any = None
    processes: dict[SeriesKey, _Process] = field(default_factory=dict)


class VerdictAnalyzer(SweepAnalyzer):
    """Compares what a process may ask for again with what its device has left.

    A process may at any time ask again for what it once held: its peak minus what it holds now.
    If that does not fit into free memory the process is TIGHT before anything grows. It is OOM
    while the device's risk is critical and this process drives it. A process that has always
    been flat asks for nothing and is OK.

    Args:
        margin_share: Less room than this share of the device above the peak is tight.
        flat_bytes: Movement that still counts as flat.
        flat_s: How long it must have been flat.
        hold_s: How long a better verdict must stand before it is given.
    """

    inputs = ("risk",)

    def __init__(
        self,
        *,
        margin_share: float = 0.02,
        flat_bytes: int = 64 * MIB,
        flat_s: float = 60.0,
        hold_s: float = 10.0,
    ) -> None:
        super().__init__()
        self.margin_share = margin_share
        self.flat_bytes = flat_bytes
        self.flat_s = flat_s
        self.hold_s = hold_s
        self._devices: dict[str, _Device] = {}

    def on_gone(self, tick: int, key: SeriesKey) -> None:  # noqa: ARG002
        """Forget the process."""
        device = self._devices.get(key.uuid)
        if device is not None:
            device.processes.pop(key, None)

    def on_change(self, tick: int, change: Change) -> None:
        """Note levels and peaks; judge the device's processes."""
        device = self._devices.setdefault(change.key.uuid, _Device())
        now = self.now_ns(tick)
        if change.key.pid is None:
            device.used, device.free, device.total = change.used, change.free, change.total
            for key, process in device.processes.items():
                self._judge(tick, key, device, process)
            return
        found = device.processes.get(change.key)
        if found is None:
            found = device.processes[change.key] = _Process(change.used, change.used, now)
            self.wake_at(now + int(self.flat_s * NS_PER_S), change.key)
        elif abs(change.used - found.used) > self.flat_bytes:
            found.moved_ns = now
            self.wake_at(now + int(self.flat_s * NS_PER_S), change.key)
        found.used = change.used
        found.peak = max(found.peak, change.used)
        self._judge(tick, change.key, device, found)

    def on_signal(self, tick: int, name: str, key: SeriesKey, value: Any) -> None:  # noqa: ARG002
        """The device's risk changed."""
        device = self._devices.setdefault(key.uuid, _Device())
        device.risk = value
        for process_key, process in device.processes.items():
            self._judge(tick, process_key, device, process)

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """A hold has passed."""
        device = self._devices.get(key.uuid)
        process = None if device is None else device.processes.get(key)
        if device is not None and process is not None:
            self._judge(tick, key, device, process)

    def _judge(self, tick: int, key: SeriesKey, device: _Device, process: _Process) -> None:
        if device.free == NULL and device.total == NULL:
            return  # how much is left is not known, so nothing is said
        now = self.now_ns(tick)
        free = device.free if device.free != NULL else max(0, device.total - device.used)
        verdict, need_high = self._verdict(key, device, process, free, now)
        if verdict == process.verdict:
            process.candidate = None
            return
        if process.verdict is not None and _RANK[verdict] < _RANK[process.verdict]:
            # Relief must last; trouble is said at once.
            if process.candidate != verdict:
                process.candidate, process.candidate_ns = verdict, now
                self.wake_at(now + int(self.hold_s * NS_PER_S), key)
            if now - process.candidate_ns < int(self.hold_s * NS_PER_S):
                return
        process.verdict, process.candidate = verdict, None
        back = process.peak - process.used
        self.emit(
            VerdictChanged,
            tick,
            key,
            verdict=verdict,
            reason=self._reason(verdict, key, device, process, free),
            need_low_bytes=back,
            need_high_bytes=max(back, need_high),
            free_bytes=free,
        )
        self.publish("verdict", tick, key, verdict)

    def _verdict(
        self, key: SeriesKey, device: _Device, process: _Process, free: int, now: int
    ) -> tuple[str, int]:
        back = process.peak - process.used
        risk = device.risk
        if risk is not None and risk.level != "none" and risk.driver == key:
            grown = back + round(risk.rate * 900)
            return (OOM if risk.level == "critical" else TIGHT), grown
        if back > free:
            return TIGHT, back
        flat = now - process.moved_ns >= int(self.flat_s * NS_PER_S) and back <= self.flat_bytes
        if not flat and device.total != NULL and free - back < device.total * self.margin_share:
            return TIGHT, back
        return OK, back

    def _reason(
        self, verdict: str, key: SeriesKey, device: _Device, process: _Process, free: int
    ) -> str:
        back = process.peak - process.used
        if verdict == OK:
            if back == 0:
                return f"at its peak of {format_bytes(process.peak)} with {format_bytes(free)} free"
            return f"its peak of {format_bytes(process.peak)} fits: {format_bytes(back)} more of {format_bytes(free)} free"
        if device.risk is not None and device.risk.driver == key and device.risk.level != "none":
            return "it drives the device towards its limit"
        if back > free:
            return (
                f"its peak of {format_bytes(process.peak)} would no longer fit: "
                f"{format_bytes(back)} more, {format_bytes(free)} free"
            )
        return f"only {format_bytes(free - back)} above its peak of {format_bytes(process.peak)}"


_RANK = {OK: 0, TIGHT: 1, OOM: 2}
