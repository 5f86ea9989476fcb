"""How servers that take their memory at once fared: device memory and service, told apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from vramtop.analyzers.peak import Job, job_of
from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL
from vramtop.events import ServiceSummary
from vramtop.samples import PROCESS, SERVICE, Observation, SeriesKey
from vramtop.units import NS_PER_S, format_bytes, format_pct
from vramtop.view import Change

DEFAULT_SETTING = {"vllm": 0.9, "jax": 0.75}
"""What a server takes where its command line does not say."""
UNKNOWN = "not known, for the recording has no figures from the server"


@dataclass(slots=True)
class _Figures:
    """What the server said of itself, weighed by time."""

    at_ns: int = 0
    full: bool = False
    waiting: bool = False
    known_ns: int = 0
    full_ns: int = 0
    waiting_ns: int = 0
    counter: int | None = None
    preemptions: int = 0


@dataclass(slots=True)
class _Server:
    job: Job
    seen_ns: int
    used: int = 0
    peak: int = 0
    settled: int = 0
    others: int = 0
    figures: _Figures | None = None


@dataclass(slots=True)
class _Device:
    used: int = NULL
    total: int = NULL
    reserved: int = 0
    at_ns: int = -1
    servers: dict[SeriesKey, _Server] = field(default_factory=dict)


class ServiceAnalyzer(SweepAnalyzer):
    """Sums up a server that takes its memory at once, when it ends.

    Memory: what it and the others on its device took at most, and hence which share of the device
    it could have been told to take: up to what was left at the worst moment (high), or that less
    a margin and what it moved beside its pool (low). Service: how full its cache was, whether
    requests waited or were thrown out; known only where the recording has its own figures.

    Args:
        full_pct: From this usage on the cache is full, 0-100.
        hold_s: For how long one of the server's figures holds.
        least_s: A server is to have lived so long before its settings are judged.
        margin_share: Share of the device to be left free.
    """

    observes = (PROCESS, SERVICE)

    def __init__(
        self,
        *,
        full_pct: float = 95.0,
        hold_s: float = 60.0,
        least_s: float = 300.0,
        margin_share: float = 0.03,
    ) -> None:
        super().__init__()
        self.full_pct = full_pct
        self.hold_s = hold_s
        self.least_s = least_s
        self.margin_share = margin_share
        self._devices: dict[str, _Device] = {}

    def on_observation(self, tick: int, seen: Observation) -> None:
        """Facts of a process, or figures of a server."""
        if seen.pid is None:
            return
        now = self.now_ns(tick)
        if seen.what == SERVICE:
            for uuid, device in self._devices.items():
                for key, server in device.servers.items():
                    if key.pid == seen.pid and seen.uuid in (None, uuid):
                        self._take(server, seen, now)
            return
        if seen.uuid is None:
            return
        job = job_of(seen.name, seen.data)
        key = SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
        servers = self._devices.setdefault(seen.uuid, _Device()).servers
        if job.preallocates and key not in servers:
            servers[key] = _Server(job, now)

    def on_change(self, tick: int, change: Change) -> None:
        """Follow what the device and its servers hold."""
        key = change.key
        device = self._devices.get(key.uuid)
        if device is None:
            device = self._devices[key.uuid] = _Device()
        self._settle(device, self.now_ns(tick))
        if key.pid is None:
            device.used, device.reserved = change.used, max(change.reserved, 0)
            if change.total != NULL:
                device.total = change.total
            return
        server = device.servers.get(key)
        if server is not None:
            server.used = change.used
            server.peak = max(server.peak, change.used)

    def on_gone(self, tick: int, key: SeriesKey) -> None:
        """The server has ended."""
        device = self._devices.get(key.uuid)
        if device is None:
            return
        now = self.now_ns(tick)
        self._settle(device, now)
        server = device.servers.pop(key, None)
        if server is not None and server.peak:
            self.emit(ServiceSummary, tick, key, **self._summary(device, server, now))

    def on_finish(self) -> None:
        """The servers that still run."""
        for device in self._devices.values():
            self._settle(device, self._clock_ns + 1)
            for key, server in device.servers.items():
                if server.peak:
                    fields = self._summary(device, server, self._clock_ns)
                    self.emit_last(ServiceSummary, key, **fields)

    def _settle(self, device: _Device, now: int) -> None:
        """Take in the instant before this one, all of whose rows are known now."""
        if now <= device.at_ns:
            return
        device.at_ns = now
        if device.used == NULL:
            return
        for server in device.servers.values():
            server.others = max(server.others, device.used - server.used)
            # What it held least once it had started is its pool.
            if now - server.seen_ns >= int(self.least_s * NS_PER_S):
                server.settled = min(server.settled or server.used, server.used)

    def _take(self, server: _Server, seen: Observation, now: int) -> None:
        data = seen.data or {}
        figures = server.figures
        if figures is None:
            figures = server.figures = _Figures(now)
        self._weigh(figures, now)
        usage, waiting = data.get("kv_usage_pct"), data.get("waiting")
        figures.full = isinstance(usage, int | float) and usage >= self.full_pct
        figures.waiting = isinstance(waiting, int | float) and waiting > 0
        count = data.get("preemptions")
        if isinstance(count, int):
            if figures.counter is not None:
                # A counter that falls has begun anew.
                figures.preemptions += (
                    count - figures.counter if count >= figures.counter else count
                )
            figures.counter = count

    def _weigh(self, figures: _Figures, now: int) -> None:
        span = min(now - figures.at_ns, int(self.hold_s * NS_PER_S))
        figures.known_ns += span
        figures.full_ns += span if figures.full else 0
        figures.waiting_ns += span if figures.waiting else 0
        figures.at_ns = now

    def _summary(self, device: _Device, server: _Server, now: int) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "framework": server.job.framework,
            "memory": f"it held up to {format_bytes(server.peak)}",
            "service": UNKNOWN,
        }
        if device.total != NULL:
            left = device.total - device.reserved - server.others - server.peak
            # The two need not have been at their most at once.
            fields["memory"] += (
                f" and others up to {format_bytes(server.others)}"
                f", which leaves {format_bytes(max(0, left))}"
            )
            if now - server.seen_ns >= int(self.least_s * NS_PER_S) and server.settled:
                fields |= self._setting(device.total, device.reserved, left, server)
        figures = server.figures
        if figures is not None:
            self._weigh(figures, now)
            if figures.known_ns:
                full = figures.full_ns / figures.known_ns
                waiting = figures.waiting_ns / figures.known_ns
                fields |= {
                    "kv_full_share": full,
                    "waiting_share": waiting,
                    "preemptions": figures.preemptions,
                    "service": (
                        f"its cache was full {format_pct(full)} of the time, requests waited "
                        f"{format_pct(waiting)} of it, {figures.preemptions} were thrown out"
                    ),
                }
        return fields

    def _setting(self, total: int, reserved: int, left: int, server: _Server) -> dict[str, float]:
        setting = server.job.setting
        if setting is None:
            taken = server.peak / total
            setting = DEFAULT_SETTING.get(server.job.framework or "", taken)
            if abs(setting - taken) > 0.1:
                setting = taken  # it was told otherwise
        moved = server.peak - server.settled
        margin = total * self.margin_share
        high = setting + left / total
        low = setting + (left - moved - margin) / total
        most = (total - reserved) / total
        return {
            "setting_low": min(max(low, 0.0), most),
            "setting_high": min(max(high, 0.0), most),
        }
