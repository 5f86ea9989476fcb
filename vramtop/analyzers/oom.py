"""Memory ran out: confirmed by a message, or inferred from how a process ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL
from vramtop.events import Oom
from vramtop.samples import EXIT, OOM_EVIDENCE, Observation, SeriesKey
from vramtop.units import MIB, NS_PER_S, format_bytes, format_duration
from vramtop.view import Change


@dataclass(slots=True)
class _Process:
    used: int
    peak: int
    risen_ns: int


@dataclass(slots=True)
class _Device:
    total: int = NULL
    # (since, used, free) of the last seconds, oldest first; the first entry holds from before.
    recent: list[tuple[int, int, int]] = field(default_factory=list)
    processes: dict[SeriesKey, _Process] = field(default_factory=dict)


class OomAnalyzer(SweepAnalyzer):
    """Says that memory ran out.

    *Confirmed*: the recording holds a message that says so. *Inferred*: a process that held a
    good part of the device vanished within `look_back_s` of the device being nearly full while
    still rising. The look-back matters because PyTorch frees its cache before it fails, so the
    last reading dips; the request that failed is never visible in the readings.

    Args:
        look_back_s: How far back the device may have been full.
        asking_s: How long ago the process itself may have grown last.
        rise_s: Over which time the device must have risen.
        full_share: Less free than this share of the device counts as full.
        brim_bytes: With no more free than this, a rise of a quarter of it is enough.
        repeat_s: Messages of one process within this time are one failure.
    """

    observes = (OOM_EVIDENCE, EXIT)

    def __init__(
        self,
        *,
        look_back_s: float = 15.0,
        asking_s: float = 30.0,
        rise_s: float = 120.0,
        full_share: float = 0.03,
        brim_bytes: int = 64 * MIB,
        repeat_s: float = 30.0,
    ) -> None:
        super().__init__()
        self.look_back_s = look_back_s
        self.asking_s = asking_s
        self.rise_s = rise_s
        self.full_share = full_share
        self.brim_bytes = brim_bytes
        self.repeat_s = repeat_s
        self._devices: dict[str, _Device] = {}
        self._confirmed_ns: dict[tuple[str | None, int | None], int] = {}
        self._clean: set[int] = set()

    def on_observation(self, tick: int, seen: Observation) -> None:
        """A message, or the clean end of the recorded command."""
        data = seen.data or {}
        if seen.what == EXIT:
            if seen.pid is not None and data.get("exit_code") == 0:
                self._clean.add(seen.pid)
            return
        if data.get("fatal", True) is not True:
            return
        about = (seen.uuid, seen.pid)
        now = self.now_ns(tick)
        last = self._confirmed_ns.get(about)
        self._confirmed_ns[about] = now
        if last is not None and now - last < int(self.repeat_s * NS_PER_S):
            return
        requested = data.get("requested_bytes")
        key = None
        if seen.uuid is not None:
            key = SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
        self.emit(
            Oom,
            tick,
            key,
            certainty="confirmed",
            evidence=(seen.text or "an out-of-memory message",),
            requested_bytes=requested if isinstance(requested, int) else None,
        )

    def on_change(self, tick: int, change: Change) -> None:
        """Keep the last minutes of the device and the peak of each process."""
        device = self._devices.setdefault(change.key.uuid, _Device())
        now = self.now_ns(tick)
        if change.key.pid is not None:
            process = device.processes.get(change.key)
            if process is None:
                process = device.processes[change.key] = _Process(0, 0, now)
            if change.used > process.used:
                process.risen_ns = now
            process.used = change.used
            process.peak = max(process.peak, change.used)
            return
        device.total = change.total
        if change.total == NULL and change.free != NULL:
            device.total = change.used + change.free  # some logs have these two columns alone
        free = change.free
        if free == NULL and change.total != NULL:
            free = max(0, change.total - max(change.reserved, 0) - change.used)
        device.recent.append((now, change.used, free))
        oldest = now - int(self.rise_s * NS_PER_S)
        drop = 0
        while drop + 1 < len(device.recent) and device.recent[drop + 1][0] <= oldest:
            drop += 1
        if drop:
            del device.recent[:drop]

    def on_gone(self, tick: int, key: SeriesKey) -> None:
        """A process vanished: was the device full and rising?"""
        device = self._devices.get(key.uuid)
        if device is None:
            return
        process = device.processes.pop(key, None)
        now = self.now_ns(tick)
        if process is None or key.pid in self._clean or self._known(key, now):
            return
        if device.total == NULL or process.peak * 20 < device.total:
            return
        if now - process.risen_ns > int(self.asking_s * NS_PER_S):
            return  # it had asked for nothing of late, so nothing was refused to it
        found = self._full(device, now)
        if found is None:
            return
        least_free, when_ns, rise = found
        ago = format_duration((now - when_ns) / NS_PER_S)
        self.emit(
            Oom,
            tick,
            key,
            certainty="inferred",
            evidence=(
                f"the process vanished {ago} after the device had {format_bytes(least_free)} free",
                f"used memory had risen by {format_bytes(rise)} in the {format_duration(self.rise_s)} before",
                f"the process had held up to {format_bytes(process.peak)}",
            ),
            requested_bytes=None,
        )

    def _known(self, key: SeriesKey, now: int) -> bool:
        """Whether a message has said it already, for this process or for one it cannot name."""
        window = int(4 * self.repeat_s * NS_PER_S)
        return any(
            now - when < window
            for (uuid, pid), when in self._confirmed_ns.items()
            if uuid in (None, key.uuid) and pid in (None, key.pid)
        )

    def _full(self, device: _Device, now: int) -> tuple[int, int, int] | None:
        """(least free bytes, until when, rise before) if the device was full of late."""
        limit = max(int(device.total * self.full_share), 512 * MIB)
        since = now - int(self.look_back_s * NS_PER_S)
        best: tuple[int, int, int] | None = None
        floor = device.recent[0][1] if device.recent else 0
        low = floor
        for (start, used, free), following in zip(
            device.recent, [*device.recent[1:], None], strict=True
        ):
            low = min(low, used)
            until = now if following is None else following[0]
            if until < since or free == NULL or free > limit:
                continue
            rise = used - low
            # The last megabytes leave no room for doubt, however slowly they were taken.
            slow = free <= self.brim_bytes and rise >= self.brim_bytes // 4
            if (slow or rise * 50 >= device.total) and (best is None or free <= best[0]):
                best = (free, max(start, min(until, now)), rise)
        return best
