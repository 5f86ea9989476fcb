"""Ticks from NVML."""

from __future__ import annotations

import time
from collections import deque
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
    DeviceReading,
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
_MADE_LIMIT = 16
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
        self._members = Membership(Identities(visible=visible), facts)
        often = max(self._interval_ns, _OFTEN_PERIOD_NS)
        slow = max(self._interval_ns, _SLOW_PERIOD_NS)
        self._memory = Tier(0, self._interval_ns)
        self._lists = Tier(LOOKED_PROCESSES, often)
        # A whole round that is shorter than this cannot hold anything too expensive.
        self._worth_a_look_ns = self._interval_ns // 10
        self._due: list[Tier] = []
        self._tiers = [Tier(LOOKED_UTIL, often), self._lists, Tier(LOOKED_SLOW, slow)]
        if pcie:
            self._tiers.append(Tier(LOOKED_PCIE, often))
        self._visible = visible
        self._lateness_ns = self._spent_ns = 0
        self._told: dict[str, int] = {}
        # The tick in the making.
        self._seq = self._last_ns = self._now_ns = self._wall_ns = self._began_ns = 0
        self._made: deque[Tick] = deque()
        self._jobs: list[Job] = []
        self._round: list[Job] = []
        self._seen: list[Observation] = []
        self._readings: tuple[DeviceReading, ...] = ()
        self._process_rows: list[ProcessReading] = []

    def ticks(self) -> Iterator[Tick]:
        """Ticks in order; sleeps until the next is due; ends after `close`.

        Reading goes on while the consumer is busy: up to 16 ticks wait for it, and only then
        are ticks skipped and counted as missed.
        """
        sampler, made = self._sampler, self._made
        patient = (self._conclude, self._report)
        sampler.start(self._begin, [], limit_s=self._limit_s, patient=patient)
        try:
            going = True
            while going and not self._alarm.rung:
                going = sampler.wait(self._clock.left_ns() / NS_PER_S)
                while made:
                    yield made.popleft()
        finally:
            self._alarm.ring()
            if sampler.finish():
                self._members.close()
            self._fleet.close()

    def close(self) -> None:
        """End `ticks` soon, from any thread or a signal handler; safe to call twice."""
        self._alarm.ring()

    def stats(self) -> dict[str, int]:
        """What reading has cost since the last call.

        Returns:
            ticks; missed (ticks skipped because their time had passed); lateness_max_ns;
            nvml_ns (time in rounds of reading, start to end); nvml_calls (native calls).
        """
        now = {
            "ticks": self._seq,
            "missed": self._clock.missed,
            "nvml_ns": self._spent_ns,
            "nvml_calls": self._fleet.calls,
        }
        figures = {name: value - self._told.get(name, 0) for name, value in now.items()}
        figures["lateness_max_ns"], self._lateness_ns = self._lateness_ns, 0
        self._told = now
        return figures

    # Jobs of the sampler thread ----------------------------------------------------------

    def _begin(self) -> list[Job]:
        """Sleep until a tick is due; returns the jobs that make it."""
        while True:
            if not self._clock.wait(self._alarm):
                return []
            if len(self._made) < _MADE_LIMIT:
                break
            self._clock.missed += 1
        now_ns, wall_ns = boot_ns(), time.time_ns()
        seen = self._seen = self._snapshot(now_ns) if self._seq == 0 else []
        self._note_time(now_ns, wall_ns, seen)
        self._now_ns, self._wall_ns = now_ns, wall_ns
        slot_ns, ask = self._clock.due_ns, 0
        due = self._due = [self._memory]
        for tier in self._tiers:
            if tier.due(slot_ns):
                ask |= tier.bit
                due.append(tier)
        self._began_ns = time.monotonic_ns()
        self._round = self._fleet.plan(
            ask, slot_ns=slot_ns, jump_gap_ns=_JUMP_GAP_NS * self._lists.factor,
            now_ns=now_ns, seen=seen,
        )  # fmt: skip
        self._jobs = [*self._round, self._conclude]
        return self._jobs

    def _conclude(self) -> None:
        """Take what the round gave; find out about processes that came or went."""
        seen = self._seen
        devices = self._fleet.collect(
            self._round, limit_s=self._limit_s, now_ns=self._now_ns, seen=seen
        )
        round_ns = time.monotonic_ns() - self._began_ns
        self._spent_ns += round_ns
        for gpu, uuid in self._fleet.removed:
            seen += self._members.forget(gpu, uuid)
        if round_ns < self._worth_a_look_ns:
            for tier in self._due:
                tier.cheap()
        else:
            self._back_off(devices, seen)
        # A list, then a tuple of it: quicker than a generator, and this is every tick.
        self._readings = tuple([device.reading for device in devices if device.reading])
        listed = [
            device
            for device, reading in zip(devices, self._readings, strict=True)
            if reading.looked & LOOKED_PROCESSES
        ]
        self._process_rows = self._members.look(listed) if listed else []
        if listed and self._members.changed:
            self._jobs += self._members.inquiries()
            self._jobs.append(self._report)
        else:
            self._make_tick()

    def _report(self) -> None:
        """Say which processes came and went."""
        self._seen += self._members.news(self._sampler.stalled)
        self._make_tick()

    def _make_tick(self) -> None:
        self._made.append(
            Tick(
                seq=self._seq,
                mono_ns=self._now_ns,
                t_us=self._wall_ns // 1000,
                devices=self._readings,
                processes=tuple(self._process_rows),
                observations=tuple(self._seen),
            )
        )
        self._seq += 1
        self._last_ns = self._now_ns
        self._sampler.signal()

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

    def _note_time(self, now_ns: int, wall_ns: int, seen: list[Observation]) -> None:
        last_ns = self._last_ns
        clock = self._clock
        self._lateness_ns = max(self._lateness_ns, now_ns - clock.due_ns)
        step_ns = clock.step_ns(now_ns, wall_ns)
        if step_ns is not None:
            seen.append(Observation(what=CLOCK_STEP, data={"step_ns": step_ns}))
        if last_ns and now_ns - last_ns > max(_GAP_INTERVALS * clock.interval_ns, _GAP_NS):
            slept_ns = clock.slept_ns()
            if slept_ns > NS_PER_S:
                text = f"the machine was suspended for {format_duration(slept_ns / NS_PER_S)}"
            else:
                text = "the recorder was held up (machine overloaded, stopped or paused)"
            seen.append(Observation(what=GAP, text=text))

    def _back_off(self, devices: list[Device], seen: list[Observation]) -> None:
        """Read less often what has become expensive, and say so."""
        # While anything is read less often, look closely, to see when it is cheap again.
        self._worth_a_look_ns = 0
        total: dict[int, int] = {}
        for device in devices:
            for bit, spent_ns in device.spent_ns.items():
                total[bit] = total.get(bit, 0) + spent_ns
        for bit, limit_ns in self._fleet.stalls:
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
        if all(tier.factor == 1 for tier in (self._memory, *self._tiers)):
            self._worth_a_look_ns = self._interval_ns // 10
