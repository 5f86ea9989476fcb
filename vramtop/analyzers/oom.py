"""Memory ran out: confirmed by a message, or inferred from how a process ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vramtop.analyzers.blame import Ledger
from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL
from vramtop.events import Oom
from vramtop.samples import EXIT, GONE, OOM_EVIDENCE, Observation, SeriesKey
from vramtop.units import MIB, NS_PER_S, format_bytes, format_duration
from vramtop.view import Change

STOPPED_BY = frozenset((0, 129, 130, 137, 143, -1, -2, -9, -15))
"""Exit codes that a failed allocation does not leave: done, or ended by a signal from outside."""


@dataclass(slots=True)
class _Device:
    total: int = NULL
    # (since, used, free) of the last seconds, oldest first; the first entry holds from before.
    recent: list[tuple[int, int, int]] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)


class OomAnalyzer(SweepAnalyzer):
    """Says that memory ran out, of whom, through whom, and who held the rest.

    *Confirmed*: the recording holds a message that says so. *Inferred*: a process that held a
    good part of the device vanished within `look_back_s` of the device being nearly full while
    still rising. The look-back matters because PyTorch frees its cache before it fails, so the
    last reading dips; the request that failed is never visible in the readings. A process that
    ended with code 0, or was ended by a signal, has not failed for want of memory.

    To blame is who went furthest beyond what it held before the last `blame_s`: a newcomer with
    all it has, a resident with its new highs only, so that a spike it has had before is not held
    against it.

    Args:
        look_back_s: How far back the device may have been full.
        asking_s: How long ago the process itself may have grown last.
        rise_s: Over which time the device must have risen.
        full_share: Less free than this share of the device counts as full.
        failed_share: The same for a process whose exit code says that it failed; what was
            refused to it is often large, and does not show.
        brim_bytes: With no more free than this, a rise of a quarter of it is enough.
        repeat_s: Messages of one process within this time are one failure.
        blame_s: How recent the growth of the one to blame must be.
    """

    observes = (OOM_EVIDENCE, EXIT, GONE)

    def __init__(
        self,
        *,
        look_back_s: float = 15.0,
        asking_s: float = 30.0,
        rise_s: float = 120.0,
        full_share: float = 0.03,
        failed_share: float = 0.15,
        brim_bytes: int = 64 * MIB,
        repeat_s: float = 30.0,
        blame_s: float = 900.0,
    ) -> None:
        super().__init__()
        self.look_back_s = look_back_s
        self.asking_s = asking_s
        self.rise_s = rise_s
        self.full_share = full_share
        self.failed_share = failed_share
        self.brim_bytes = brim_bytes
        self.repeat_s = repeat_s
        self.blame_s = blame_s
        self._devices: dict[str, _Device] = {}
        self._confirmed_ns: dict[tuple[str | None, int | None], int] = {}
        # (when, pid, whether it failed) of processes whose end is known, of the last minute.
        self._ends: list[tuple[int, int, bool]] = []

    def on_observation(self, tick: int, seen: Observation) -> None:
        """A message, or how a process ended."""
        data = seen.data or {}
        now = self.now_ns(tick)
        if seen.what != OOM_EVIDENCE:
            if seen.pid is not None and data.get("exit_code", data.get("signal")) is not None:
                self._ended(seen.pid, data, now)
            return
        if data.get("fatal", True) is not True:
            return
        about = (seen.uuid, seen.pid)
        last = self._confirmed_ns.get(about)
        window = int(4 * self.repeat_s * NS_PER_S)
        self._confirmed_ns = {
            key: when for key, when in self._confirmed_ns.items() if now - when < window
        }
        self._confirmed_ns[about] = now
        if last is not None and now - last < int(self.repeat_s * NS_PER_S):
            return
        self._confirm(tick, seen, data)

    def _ended(self, pid: int, data: Mapping[str, object], now: int) -> None:
        code, signal = _size(data.get("exit_code")), _size(data.get("signal"))
        stopped = code in STOPPED_BY or (signal is not None and -signal in STOPPED_BY)
        self._ends = [
            entry for entry in self._ends if now - entry[0] < 60 * NS_PER_S and entry[1] != pid
        ]
        self._ends.append((now, pid, not stopped))

    def _confirm(self, tick: int, seen: Observation, data: Mapping[str, object]) -> None:
        requested = _size(data.get("requested_bytes"))
        evidence = [seen.text or "an out-of-memory message"]
        key, blamed, holders = None, None, _told_holders(seen, data)
        device = None
        if seen.uuid is not None:
            key = SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
            device = self._devices.get(seen.uuid)
        if device is not None and key is not None and data.get("kind", "device") == "device":
            now = self.now_ns(tick)
            blamed, why = device.ledger.blamed(now, self.blame_s)
            holders = holders or device.ledger.holders()
            if requested is not None:
                free = _size(data.get("free_bytes"))
                left = "" if free is None else f" with {format_bytes(free)} free"
                evidence.append(
                    f"{self._named(tick, key)} asked for {format_bytes(requested)}{left}"
                )
            evidence += self._accusation(tick, key, blamed, why)
        evidence += self._shares(key, holders)
        self.emit(
            Oom,
            tick,
            key,
            certainty="confirmed",
            evidence=tuple(evidence),
            requested_bytes=requested,
            blamed_pid=None if blamed is None else blamed.pid,
            holders=holders,
        )

    def on_change(self, tick: int, change: Change) -> None:
        """Keep the last minutes of the device and the peaks of each process."""
        device = self._devices.setdefault(change.key.uuid, _Device())
        now = self.now_ns(tick)
        if change.key.pid is not None:
            device.ledger.level(change.key, now, change.used)
            return
        device.ledger.device_used = change.used
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
        now = self.now_ns(tick)
        blamed, why = device.ledger.blamed(now, self.blame_s)
        before = device.ledger.holders()
        process = device.ledger.gone(key)
        ends = [
            bad for when, pid, bad in self._ends if pid == key.pid and now - when < 60 * NS_PER_S
        ]
        if process is None or False in ends or self._told(key, now):
            return
        if device.total == NULL or process.peak * 20 < device.total:
            return
        if now - process.risen_ns > int(self.asking_s * NS_PER_S):
            return  # it had asked for nothing of late, so nothing was refused to it
        share = self.failed_share if ends else self.full_share
        found = self._full(device, now, share)
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
                f"{self._named(tick, key)} vanished {ago} after the device had {format_bytes(least_free)} free",
                f"used memory had risen by {format_bytes(rise)} in the {format_duration(self.rise_s)} before",
                f"the process had held up to {format_bytes(process.peak)}",
                *(("its exit code says that it failed",) if ends else ()),
                *self._accusation(tick, key, blamed, why),
                *self._shares(key, before),
            ),
            requested_bytes=None,
            blamed_pid=None if blamed is None else blamed.pid,
            holders=before,
        )

    def _named(self, tick: int, key: SeriesKey) -> str:
        if key.pid is None:
            return "a process"
        name = self.name_of(tick, key)
        return f"pid {key.pid}" if name is None else f"pid {key.pid} ({name})"

    def _accusation(
        self, tick: int, failed: SeriesKey, blamed: SeriesKey | None, why: str
    ) -> tuple[str, ...]:
        if blamed is None:
            return ()
        if blamed.pid == failed.pid:
            return (f"it is to blame itself: {why}",)
        return (f"to blame is {self._named(tick, blamed)}: {why}",)

    def _shares(
        self, failed: SeriesKey | None, holders: tuple[tuple[int | None, int], ...]
    ) -> tuple[str, ...]:
        own = None if failed is None else failed.pid
        others = [(pid, held) for pid, held in holders if pid != own or pid is None]
        if not others:
            return ()
        words = [
            f"{'no visible process' if pid is None else f'pid {pid}'} {format_bytes(held)}"
            for pid, held in others[:4]
        ]
        more = "" if len(others) <= 4 else f" and {len(others) - 4} more"
        return (f"the rest was held by {', '.join(words)}{more}",)

    def _told(self, key: SeriesKey, now: int) -> bool:
        """Whether a message has said it already, for this process or for one it cannot name."""
        window = int(4 * self.repeat_s * NS_PER_S)
        return any(
            now - when < window
            for (uuid, pid), when in self._confirmed_ns.items()
            if uuid in (None, key.uuid) and pid in (None, key.pid)
        )

    def _full(self, device: _Device, now: int, share: float) -> tuple[int, int, int] | None:
        """(least free bytes, until when, rise before) if the device was full of late."""
        limit = max(int(device.total * share), 512 * MIB)
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


def _size(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _told_holders(
    seen: Observation, data: Mapping[str, object]
) -> tuple[tuple[int | None, int], ...]:
    """Who held how much, as the message itself says; empty if it does not."""
    found: list[tuple[int | None, int]] = []
    own = _size(data.get("process_bytes"))
    if own is not None and seen.pid is not None:
        found.append((seen.pid, own))
    neighbours = data.get("neighbours")
    for entry in neighbours if isinstance(neighbours, list | tuple) else ():
        if isinstance(entry, Mapping):
            pid, held = _size(entry.get("pid")), _size(entry.get("used_bytes"))
            if pid is not None and held is not None:
                found.append((pid, held))
    if not neighbours:
        return ()  # the message names only whom it concerns; the readings know more
    return tuple(sorted(found, key=lambda entry: -entry[1]))
