"""Ticks from NVML."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from vramtop.errors import UsageError
from vramtop.samples import (
    CLOCK_STEP,
    FAULT,
    GAP,
    INTERVAL,
    LOOKED_PCIE,
    LOOKED_PROCESSES,
    LOOKED_SLOW,
    LOOKED_UTIL,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.sources.nvml import _compat as nvml
from vramtop.sources.nvml.clock import Alarm, TickClock, boot_ns
from vramtop.sources.nvml.devices import TIERS, Device
from vramtop.sources.nvml.fleet import Fleet
from vramtop.sources.nvml.host import host_facts, start_nvml
from vramtop.sources.nvml.identity import Identities, pid_namespace, pids_are_local
from vramtop.sources.nvml.membership import FactsReader, Membership
from vramtop.sources.nvml.sampler import Job, Sampler
from vramtop.sources.nvml.tiers import Tier
from vramtop.units import NS_PER_S, format_duration

_OFTEN_PERIOD_NS = NS_PER_S
_SLOW_PERIOD_NS = 15 * NS_PER_S
_JUMP_GAP_NS = NS_PER_S // 4
_GAP_INTERVALS, _GAP_NS = 3, 2 * NS_PER_S
_INTERVAL_RANGE_S = (0.01, 3600.0)


class NvmlSource:
    """Reads every GPU of this machine at a fixed pace.

    Args:
        interval_s: Spacing of ticks, 0.01 to 3600 s. Memory is read at each.
        gpus: NVML indices; empty means all.
        pcie: Also read PCIe throughput, which blocks 20 ms per direction and GPU.
        facts: Reads the facts of a process when it is first seen; None records its name only.

    Raises:
        UsageError: the interval is out of range, or there is no such GPU.
        DriverError: there is no driver, or it refuses.
    """

    def __init__(
        self,
        *,
        interval_s: float = 1.0,
        gpus: Sequence[int] = (),
        pcie: bool = False,
        facts: FactsReader | None = None,
    ) -> None:
        low, high = _INTERVAL_RANGE_S
        if not low <= interval_s <= high:
            raise UsageError(
                f"an interval of {interval_s} s is outside {low} to {high:.0f} s",
                hint="10 times a second (--interval 0.1) is as fast as memory usually matters",
            )
        start_nvml()
        self._alarm = Alarm()
        self._sampler = Sampler(lambda: self._alarm.rung)
        self._fleet = Fleet(self._sampler, gpus=gpus, pcie=pcie)
        driver = nvml.text("nvmlSystemGetDriverVersion", size=80)
        self._host = host_facts(driver)
        self._interval_ns = round(interval_s * NS_PER_S)
        self._clock = TickClock(self._interval_ns)
        self._limit_s = min(0.5, max(0.1, interval_s / 2))
        visible = pids_are_local(driver, pid_namespace())
        self._members = Membership(Identities(visible=visible), facts, self._run_aside)
        often = max(self._interval_ns, _OFTEN_PERIOD_NS)
        slow = max(self._interval_ns, _SLOW_PERIOD_NS)
        self._memory = Tier(0, self._interval_ns)
        self._lists = Tier(LOOKED_PROCESSES, often)
        self._tiers = [Tier(LOOKED_UTIL, often), self._lists, Tier(LOOKED_SLOW, slow)]
        if pcie:
            self._tiers.append(Tier(LOOKED_PCIE, often))
        self._visible = visible
        self._ticks = self._lateness_ns = self._spent_ns = 0
        self._calls_before = self._missed_before = 0

    def _run_aside(self, jobs: list[Job]) -> list[Job]:
        return self._sampler.run(jobs, self._limit_s)

    def ticks(self) -> Iterator[Tick]:
        """Ticks in order; sleeps until the next is due; ends after `close`."""
        clock = self._clock
        seq, last_ns = 0, 0
        try:
            while clock.wait(self._alarm):
                now_ns, wall_ns = boot_ns(), time.time_ns()
                seen = self._snapshot(now_ns) if seq == 0 else []
                self._note_time(now_ns, last_ns, wall_ns, seen)
                devices, rows = self._read(now_ns, seen)
                if self._alarm.rung:
                    return
                yield Tick(
                    seq=seq,
                    mono_ns=now_ns,
                    t_us=wall_ns // 1000,
                    devices=tuple([device.reading for device in devices if device.reading]),
                    processes=tuple(rows),
                    observations=tuple(seen),
                )
                seq, last_ns = seq + 1, now_ns
        finally:
            self._fleet.close()
            self._sampler.close()
            self._members.close()

    def close(self) -> None:
        """End `ticks` soon, from any thread or a signal handler; safe to call twice."""
        self._alarm.ring()

    def stats(self) -> dict[str, int]:
        """What reading has cost since the last call.

        Returns:
            ticks; missed (ticks skipped because their time had passed); lateness_max_ns;
            nvml_ns (time in rounds of reading, start to end); nvml_calls (native calls).
        """
        calls, missed = self._fleet.calls, self._clock.missed
        figures = {
            "ticks": self._ticks,
            "missed": missed - self._missed_before,
            "lateness_max_ns": self._lateness_ns,
            "nvml_ns": self._spent_ns,
            "nvml_calls": calls - self._calls_before,
        }
        self._calls_before, self._missed_before = calls, missed
        self._ticks = self._lateness_ns = self._spent_ns = 0
        return figures

    # ------------------------------------------------------------------------------------

    def _snapshot(self, now_ns: int) -> list[Observation]:
        seen = [
            self._host,
            Observation(what=INTERVAL, data={"interval_ns": self._interval_ns}),
            *self._fleet.first(now_ns),
        ]
        if not self._visible:
            text = (
                "this driver reports the host's PIDs inside containers; "
                "processes have no names here (drivers from 535.113 on do better)"
            )
            seen.append(Observation(what=FAULT, name="process facts", text=text))
        return seen

    def _note_time(self, now_ns: int, last_ns: int, wall_ns: int, seen: list[Observation]) -> None:
        clock = self._clock
        self._ticks += 1
        self._lateness_ns = max(self._lateness_ns, now_ns - clock.due_ns)
        step_ns = clock.step_ns(now_ns, wall_ns)
        if step_ns is not None:
            seen.append(Observation(what=CLOCK_STEP, data={"step_ns": step_ns}))
        slept_ns = clock.slept_ns()
        if last_ns and now_ns - last_ns > max(_GAP_INTERVALS * clock.interval_ns, _GAP_NS):
            if slept_ns > NS_PER_S:
                text = f"the machine was suspended for {format_duration(slept_ns / NS_PER_S)}"
            else:
                text = "the recorder was held up (machine overloaded, stopped or paused)"
            seen.append(Observation(what=GAP, text=text))

    def _read(
        self, now_ns: int, seen: list[Observation]
    ) -> tuple[list[Device], list[ProcessReading]]:
        slot_ns = self._clock.due_ns
        ask = 0
        for tier in self._tiers:
            if tier.due(slot_ns):
                ask |= tier.bit
        began = time.monotonic_ns()
        devices, observed, removed = self._fleet.read(
            ask,
            slot_ns=slot_ns,
            jump_gap_ns=_JUMP_GAP_NS * self._lists.factor,
            limit_s=self._limit_s,
            now_ns=now_ns,
        )
        self._spent_ns += time.monotonic_ns() - began
        seen += observed
        for gpu, uuid in removed:
            seen += self._members.forget(gpu, uuid)
        rows: list[ProcessReading] = []
        listed = [
            device
            for device in devices
            if device.reading is not None and device.reading.looked & LOOKED_PROCESSES
        ]
        if listed:
            rows, born = self._members.look(listed)
            seen += born
        self._back_off(devices, seen)
        return devices, rows

    def _back_off(self, devices: list[Device], seen: list[Observation]) -> None:
        """Read less often what has become expensive, and say so."""
        total: dict[int, int] = {}
        for device in devices:
            for bit, spent_ns in device.spent_ns.items():
                total[bit] = total.get(bit, 0) + spent_ns
        for bit, limit_ns in self._fleet.stalled:
            total[bit] = total.get(bit, 0) + limit_ns
        for tier in self._tiers:
            spent = total.get(tier.bit)
            if spent is not None and tier.spent(spent):
                period = format_duration(tier.period_ns / NS_PER_S)
                text = f"{TIERS[tier.bit]} now read every {period}, by what reading costs"
                seen.append(
                    Observation(
                        what=FAULT, name=TIERS[tier.bit], text=text,
                        data={"period_ns": tier.period_ns},
                    )
                )  # fmt: skip
        memory = total.get(0)
        if memory is not None and self._memory.spent(memory):
            self._clock.set_interval(self._memory.period_ns)
            text = "reading memory takes too much of the interval"
            if self._memory.factor == 1:
                text = "reading memory is cheap again"
            seen.append(
                Observation(what=INTERVAL, text=text, data={"interval_ns": self._memory.period_ns})
            )
