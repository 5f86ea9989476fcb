"""Whether a process will fit: OK, TIGHT or OOM."""

from __future__ import annotations

from typing import Any, NamedTuple

from vramtop.analyzers.peak import job_of
from vramtop.analyzers.pressure import NEVER_NS, Device, Process, Recent
from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL
from vramtop.events import VerdictChanged
from vramtop.samples import PROCESS, Observation, SeriesKey
from vramtop.units import MIB, NS_PER_S, format_bytes, format_pct
from vramtop.view import Change

OK, TIGHT, OOM = "OK", "TIGHT", "OOM"
_RANK = {OK: 0, TIGHT: 1, OOM: 2}


class Judgement(NamedTuple):
    """A verdict, why, and the range of what the process may still ask for."""

    verdict: str
    reason: str
    low: int
    high: int


class VerdictAnalyzer(SweepAnalyzer):
    """Compares what a process may ask for with what its device has left.

    A process may at any time ask again for what it once held: its peak less what it holds now. A
    process that has always been flat asks for nothing and is OK, however full the device is. It
    is TIGHT, before anything grows, where there would be no room for

    * its own peak,
    * another rise beyond its peak, of a size that has come twice in the last half hour,
    * its peak and those of others that have been reached in the same half hour,
    * its peak once a newcomer like one that has come before is there too,
    * the peak of a training whose model's size is known, until its first steps are over.

    It is TIGHT as well while the device is likely to run out and this process drives it, and OOM
    while that risk is critical. Nothing is multiplied by what a process holds.

    Args:
        margin_share: Less room than this share of the device above the peak is tight for a
            process that moves.
        flat_bytes: Movement that still counts as flat.
        flat_s: How long it must have been flat.
        tight_at: P(out of memory within 900 s) at which whoever drives the device is tight.
        recent_s: How long ago a peak or a rise still counts as lately.
        peak_s: How long peaks are remembered, at least.
        tenant_s: How long ago a newcomer may have come for another one like it to be expected.
        stage_s: How long a training may take until its first steps are over.
        raise_s: How long TIGHT must stand before it is given: the readings of a device and of
            its processes are not of one instant.
        hold_s: How long a better verdict must stand before it is given.
    """

    inputs = ("start", "forecast")
    observes = (PROCESS,)

    def __init__(
        self,
        *,
        margin_share: float = 0.02,
        flat_bytes: int = 64 * MIB,
        flat_s: float = 60.0,
        tight_at: float = 0.15,
        recent_s: float = 1800.0,
        peak_s: float = 21600.0,
        tenant_s: float = 14400.0,
        stage_s: float = 600.0,
        raise_s: float = 2.0,
        hold_s: float = 30.0,
    ) -> None:
        super().__init__()
        self.margin_share = margin_share
        self.flat_bytes = flat_bytes
        self.flat_s = flat_s
        self.tight_at = tight_at
        self.recent_s = recent_s
        self.peak_s = peak_s
        self.tenant_s = tenant_s
        self.stage_s = stage_s
        self.raise_s = raise_s
        self.hold_s = hold_s
        self._devices: dict[str, Device] = {}

    # -- what is seen ----------------------------------------------------------------------

    def on_observation(self, tick: int, seen: Observation) -> None:  # noqa: ARG002
        """Facts of a process."""
        if seen.uuid is None or seen.pid is None:
            return
        key = SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
        device = self._devices.setdefault(seen.uuid, Device())
        job = job_of(seen.name, seen.data)
        process = device.processes.get(key)
        if process is None:
            device.jobs[key] = job
        else:
            process.job = job

    def on_gone(self, tick: int, key: SeriesKey) -> None:  # noqa: ARG002
        """Forget the process."""
        device = self._devices.get(key.uuid)
        if device is not None:
            device.forget(key)

    def on_signal(self, tick: int, name: str, key: SeriesKey, value: Any) -> None:
        """A process came, or the device's risk was judged."""
        device = self._devices.setdefault(key.uuid, Device())
        if name == "start":
            process = device.processes.get(key)
            if process is None:
                return
            if not value:
                process.moved_ns = self.now_ns(tick)
                device.arrive(key, process, self.now_ns(tick), self.name_of(tick, key))
            self._judge(tick, key, device, process)
            if process.newcomer and device.free < device.room:
                self._judge_all(tick, device)
            return
        # Once it is likely it stays so until it is half as likely.
        at = self.tight_at / 2 if device.trouble[1] else self.tight_at
        trouble: tuple[str, bool, SeriesKey | None] = (
            value.level,
            value.p_oom[2] >= at,
            value.driver,
        )
        if trouble[0] == "none" and not trouble[1]:
            trouble = ("none", False, None)  # who drives it is of no matter then
        device.rate, device.p_oom = value.rate, value.p_oom[2]
        if trouble != device.trouble:
            device.trouble = trouble
            self._judge_all(tick, device)

    def on_change(self, tick: int, change: Change) -> None:
        """Note levels and peaks; judge whom it concerns."""
        key = change.key
        device = self._devices.get(key.uuid)
        if device is None:
            device = self._devices[key.uuid] = Device()
        now = self.now_ns(tick)
        if key.pid is None:
            device.used, device.free, device.total = change.used, change.free, change.total
            if device.free == NULL and device.total != NULL:
                device.free = max(0, device.total - max(change.reserved, 0) - device.used)
            if not device.calm or device.free < device.room:
                self._judge_all(tick, device)
            return
        process = device.processes.get(key)
        if process is None:
            process = device.processes[key] = self._process(change.used, now)
            process.job = device.jobs.pop(key, None)
            # Next to nothing is held at a start only, whether or not it was seen to begin.
            process.born = device.total != NULL and change.used * 20 < device.total
            device.calm = False
            # Whether it has just come is said later in this tick, if at all.
            self._again(process, key, now)
        tenant = device.worst_tenant
        device.follow(key, process, now, change.used, self.flat_bytes)
        if device.worst_tenant != tenant and device.free < device.room:
            self._judge_all(tick, device)
        elif process.verdict is not None and (not device.calm or device.free < device.room):
            self._judge(tick, key, device, process)

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """Time has passed: a hold, or what was lately is so no more."""
        device = self._devices.get(key.uuid)
        process = None if device is None else device.processes.get(key)
        if device is None or process is None or process.due_ns is None:
            return
        if process.due_ns <= self.now_ns(tick):
            process.due_ns = None
            self._judge(tick, key, device, process)

    def _process(self, used: int, now: int) -> Process:
        recent = int(self.recent_s * NS_PER_S)
        # What is there at the first sight counts as flat until it moves.
        return Process(
            used=used, seen_ns=now, level=used, moved_ns=now - int(self.flat_s * NS_PER_S),
            peaks=Recent(int(self.peak_s * NS_PER_S)), lately=Recent(recent), top=used,
            rise_from=used, rise_ns=now, risen_ns=NEVER_NS, streak_ns=now,
        )  # fmt: skip

    # -- what is said ----------------------------------------------------------------------

    def _judge_all(self, tick: int, device: Device) -> None:
        now = self.now_ns(tick)
        for key, process in device.processes.items():
            if process.verdict is not None or process.due_ns is None:
                self._judge(tick, key, device, process)
        device.calm = device.trouble[0] == "none" and not device.trouble[1] and all(
            process.verdict == OK and process.due_ns is None and not self._expected(process, now)
            for process in device.processes.values()
        )  # fmt: skip
        if device.calm:
            device.settle_room(int(max(device.total, 0) * self.margin_share))

    def _expected(self, process: Process, now: int) -> tuple[int, int] | None:
        """The peak of a training whose first steps may still be to come."""
        if process.job is None or not process.born:
            return None
        young = now - process.seen_ns < int(self.stage_s * NS_PER_S)
        return process.job.peak() if young else None

    def _judge(self, tick: int, key: SeriesKey, device: Device, process: Process) -> None:
        if device.free == NULL:
            return  # how much is left is not known, so nothing is said
        now = self.now_ns(tick)
        device.sum_back += process.refresh(now)
        judged = self._judgement(key, device, process, now)
        if judged is None:
            if process.verdict == OK:
                process.candidate = None
                return
            judged = self._fits(device, process)
        if judged.verdict != OK:
            device.calm = False
        if judged.verdict == process.verdict:
            process.candidate = None
            if judged.verdict != OK:
                self._again(process, key, now + 60 * NS_PER_S)
            return
        if process.verdict is not None and judged.verdict != OOM:
            better = _RANK[judged.verdict] < _RANK[process.verdict]
            hold = int((self.hold_s if better else self.raise_s) * NS_PER_S)
            if process.candidate != judged.verdict:
                process.candidate, process.candidate_ns = judged.verdict, now
            if now - process.candidate_ns < hold:
                self._again(process, key, process.candidate_ns + hold)
                return
        process.verdict, process.candidate = judged.verdict, None
        self.emit(
            VerdictChanged,
            tick,
            key,
            verdict=judged.verdict,
            reason=judged.reason,
            need_low_bytes=judged.low,
            need_high_bytes=judged.high,
            free_bytes=device.free,
        )
        self.publish("verdict", tick, key, judged.verdict)
        if judged.verdict != OK:
            self._again(process, key, now + 60 * NS_PER_S)

    def _again(self, process: Process, key: SeriesKey, due_ns: int) -> None:
        if process.due_ns is None or due_ns < process.due_ns:
            process.due_ns = due_ns
            self.wake_at(due_ns, key)

    # -- the rules -------------------------------------------------------------------------

    def _judgement(
        self, key: SeriesKey, device: Device, process: Process, now: int
    ) -> Judgement | None:
        """What is wrong, the worst first; None where all is well."""
        return (
            self._driven(key, device, process, now)
            or self._own_peak(device, process)
            or self._rising(device, process, now)
            or self._together(key, device, process, now)
            or self._newcomers(key, device, process, now)
            or self._first_steps(device, process, now)
        )

    def _driven(
        self, key: SeriesKey, device: Device, process: Process, now: int
    ) -> Judgement | None:
        level, likely, driver = device.trouble
        # Below a warning only a process that does grow is concerned.
        if level == "none" and not (likely and process.grows(now)):
            return None
        if driver != key and not (driver is None and process.grows(now)):
            return None
        if level != "critical" and process.job is not None and process.job.preallocates:
            return None  # it takes its pool and stays there
        rested = now - process.risen_ns > int(self.flat_s * NS_PER_S)
        if level == "warning" and rested and not process.grows(now):
            return None  # it was a load, and that is over
        high = max(process.back, round(max(device.rate, 0.0) * 900))
        odds = format_pct(device.p_oom)
        reason = f"it drives the device towards its limit: P(out of memory within 15 min) {odds}"
        if driver is None:
            reason = f"the device goes towards its limit: P(out of memory within 15 min) {odds}"
        verdict = OOM if level == "critical" and driver == key else TIGHT
        return Judgement(verdict, reason, process.back, high)

    def _own_peak(self, device: Device, process: Process) -> Judgement | None:
        if process.back <= device.free:
            return None
        peak = process.used + process.back
        return Judgement(
            TIGHT,
            f"its peak of {format_bytes(peak)} would no longer fit: "
            f"{format_bytes(process.back)} more, {format_bytes(device.free)} free",
            process.back,
            process.back,
        )

    def _rising(self, device: Device, process: Process, now: int) -> Judgement | None:
        room = device.free - process.back
        rise = process.rise(now - int(self.recent_s * NS_PER_S))
        if rise > self.flat_bytes and rise > room:
            return Judgement(
                TIGHT,
                f"another rise of {format_bytes(rise)}, as there have been of late, would not "
                f"fit: {format_bytes(room)} are left above its peak",
                process.back,
                process.back + rise,
            )
        moving = now - process.moved_ns < int(self.flat_s * NS_PER_S)
        takes_all = process.job is not None and process.job.preallocates
        if moving and not takes_all and room < int(device.total * self.margin_share):
            peak = format_bytes(process.used + process.back)
            return Judgement(
                TIGHT,
                f"only {format_bytes(room)} are left above its peak of {peak}, and it moves",
                process.back,
                process.back + self.flat_bytes,
            )
        return None

    def _together(
        self, key: SeriesKey, device: Device, process: Process, now: int
    ) -> Judgement | None:
        """Peaks of several processes, each reached lately, may come together by chance."""
        if device.sum_back <= device.free or process.back <= self.flat_bytes:
            return None
        total, others, own = 0, 0, 0
        for one, other in device.processes.items():
            lately = min(max(other.lately.top(now), other.used) - other.used, other.back)
            if lately <= self.flat_bytes:
                continue
            total += lately
            if one == key:
                own = lately
            else:
                others += 1
        if not own or not others or total <= device.free:
            return None
        return Judgement(
            TIGHT,
            f"its peak and those of {others} other{'s' * (others > 1)} have all been reached of "
            f"late and would not fit together: {format_bytes(total)} more, "
            f"{format_bytes(device.free)} free",
            process.back,
            total,
        )

    def _newcomers(
        self, key: SeriesKey, device: Device, process: Process, now: int
    ) -> Judgement | None:
        """One more tenant like the last: who would fail then?"""
        if not device.tenants:
            return None
        since = now - int(self.tenant_s * NS_PER_S)
        size = device.tenant_bytes(key, since)
        if size <= self.flat_bytes:
            return None
        lately = max(process.lately.top(now), process.used) - process.used
        if size <= device.free < process.back + size and lately > self.flat_bytes:
            # It would fit, and this one's next peak would not any more.
            return Judgement(
                TIGHT,
                f"with one more newcomer of {format_bytes(size)}, as has come before, its peak "
                f"would not fit: {format_bytes(process.back)} more of {format_bytes(device.free)}",
                process.back,
                process.back + size,
            )
        moving = now - process.moved_ns < int(self.flat_s * NS_PER_S)
        fresh = process.newcomer and now - process.seen_ns < int(self.stage_s * NS_PER_S)
        if not (fresh and moving):
            return None
        size = device.tenant_bytes(key, since, alike=True)
        if size - process.used > device.free:
            return Judgement(
                TIGHT,
                f"a newcomer before it took {format_bytes(size)}; this one holds "
                f"{format_bytes(process.used)} and {format_bytes(device.free)} are free",
                process.back,
                max(process.back, size - process.used),
            )
        return None

    def _first_steps(self, device: Device, process: Process, now: int) -> Judgement | None:
        """The weights are there, the first optimizer step has not come."""
        job = process.job
        peak = self._expected(process, now)
        if peak is None or job is None or job.weights is None:
            return None
        if process.used * 5 < job.weights[0] * 4:
            return None  # they are still being loaded
        flat = now - process.moved_ns >= int(self.flat_s * NS_PER_S)
        if flat and process.used * 2 >= job.weights[0] * 3:
            return None  # more than the weights is there, and the plateau stands
        low, high = max(0, peak[0] - process.used), max(0, peak[1] - process.used)
        if (low + high) // 2 <= device.free:
            return None
        return Judgement(
            TIGHT,
            f"training ({job.method}) a model of {format_bytes(job.weights[0])} may need "
            f"{format_bytes(low)} to {format_bytes(high)} more at its first steps, "
            f"{format_bytes(device.free)} are free",
            max(process.back, low),
            max(process.back, high),
        )

    def _fits(self, device: Device, process: Process) -> Judgement:
        free, back = format_bytes(device.free), process.back
        peak = format_bytes(process.used + back)
        if process.job is not None and process.job.preallocates:
            reason = (
                f"it holds {format_bytes(process.used)}, its pool included, with {free} free "
                "beside it; how full the pool is the readings do not tell"
            )
        elif back == 0:
            reason = f"at its peak of {peak} with {free} free"
        else:
            reason = f"its peak of {peak} fits: {format_bytes(back)} more of {free} free"
        return Judgement(OK, reason, back, back)
