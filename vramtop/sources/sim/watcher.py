"""Looks at a simulated machine as the NVML source looks at a driver: tiers, lists, who is gone."""

from __future__ import annotations

from vramtop import __version__
from vramtop.samples import (
    CLOCK_STEP,
    DEVICE,
    FAULT,
    GAP,
    GONE,
    GPU_BACK,
    GPU_LOST,
    HOST,
    INTERVAL,
    LOOKED_PROCESSES,
    LOOKED_SLOW,
    LOOKED_UTIL,
    MARK,
    PROCESS,
    SIMULATED,
    DeviceReading,
    Observation,
    ProcessReading,
    SeriesKey,
    Tick,
)
from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.faults import Loss, Missing
from vramtop.sources.sim.hardware import Device
from vramtop.sources.sim.machine import UPTIME_S, Machine, Process
from vramtop.sources.sim.scenario import Scenario
from vramtop.sources.sim.sensors import Sensors
from vramtop.units import MIB, NS_PER_S

BASE_MONO_NS = UPTIME_S * NS_PER_S
PROCESS_LOOK_NS = NS_PER_S
SLOW_LOOK_NS = 10 * NS_PER_S
JUMP_BYTES = 64 * MIB


class Watcher:
    """Makes ticks of what a machine is at an instant.

    Args:
        machine: What is looked at; its news are taken from it.
        scenario: Says who simulates what, and what goes wrong with the looking.
        seed: For the snapshot at the head.
        interval_ns: Spacing of ticks.
    """

    def __init__(self, machine: Machine, scenario: Scenario, seed: int, interval_ns: int) -> None:
        self._machine = machine
        self._scenario = scenario
        self._troubles = scenario.troubles
        self._seed = seed
        self._interval_ns = interval_ns
        name = f"{machine.name}/sensors"
        self._eyes = [
            _Eye(device, Sensors(device.board, Dice(f"{name}/{device.place}")))
            for device in machine.devices
        ]
        self._active_faults: set[Missing] = set()
        self._silence = ""
        self._done: set[object] = set()
        self._step_us = 0

    def silent(self, now_ns: int) -> bool:
        """Whether no tick is made now."""
        for silence in self._troubles.silences:
            if silence.covers(now_ns / NS_PER_S):
                self._silence = silence.reason
                return True
        return False

    def tick(
        self, seq: int, now_ns: int, start_t_us: int, limit_s: float | None, *, last: bool
    ) -> Tick:
        """Everything seen now.

        Args:
            seq: The tick's number.
            now_ns: Since the first tick; the machine stands at this instant.
            start_t_us: Wall time of the first tick.
            limit_s: How long the run will be, at the first tick; None later.
            last: No tick follows, so what is still open is told.
        """
        t_s = now_ns / NS_PER_S
        observations = [] if limit_s is None else self._introduction(limit_s)
        observations += self._incidents(t_s)
        devices: list[DeviceReading] = []
        processes: list[ProcessReading] = []
        for eye in self._eyes:
            if not self._reachable(eye, t_s, observations):
                continue
            missing = self._missing(eye, t_s, observations)
            devices.append(self._look(eye, now_ns, missing, processes, observations))
        if last:
            for process in self._machine.processes:
                self._machine.end_phase(process)
        observations += self._machine.news
        self._machine.news.clear()
        return Tick(
            seq=seq,
            mono_ns=BASE_MONO_NS + now_ns,
            t_us=start_t_us + self._step_us + now_ns // 1000,
            devices=tuple(devices),
            processes=tuple(processes),
            observations=tuple(observations),
        )

    def _look(
        self,
        eye: _Eye,
        now_ns: int,
        missing: frozenset[str],
        processes: list[ProcessReading],
        observations: list[Observation],
    ) -> DeviceReading:
        device, sensors = eye.device, eye.sensors
        used = device.used_bytes
        looked = 0
        lists_ns = max(self._interval_ns, PROCESS_LOOK_NS)
        jumped = abs(used - eye.used_at_look) > max(JUMP_BYTES, device.board.total_bytes // 200)
        if jumped or eye.due(LOOKED_PROCESSES, now_ns, lists_ns):
            looked |= LOOKED_PROCESSES
            eye.used_at_look = used
            self._list(eye, "processes" in missing, processes, observations)
        here = [process for process in self._machine.processes if device.place in process.shares]
        gpu_pct = mem_pct = power = temp = sm_clock = mem_clock = throttle = None
        if eye.due(LOOKED_UTIL, now_ns, lists_ns):
            looked |= LOOKED_UTIL
            gpu_pct, mem_pct, power = sensors.quick(
                now_ns,
                sum(process.gpu_busy_pct for process in here),
                sum(process.mem_busy_pct for process in here),
            )
            if device.parts or device.parent is not None:
                # In MIG mode the driver has no utilisation, and power for the GPU alone.
                gpu_pct = mem_pct = None
            if device.parent is not None:
                power = None
        if eye.due(LOOKED_SLOW, now_ns, max(self._interval_ns, SLOW_LOOK_NS)):
            looked |= LOOKED_SLOW
            temp, sm_clock, mem_clock, throttle = sensors.slow(now_ns)
            if device.parent is not None:
                temp = sm_clock = mem_clock = throttle = None
        columns: dict[str, int | None] = {
            "total_bytes": device.board.total_bytes,
            "reserved_bytes": device.board.reserved_bytes,
            "used_bytes": used,
            "free_bytes": device.free_bytes,
            "gpu_util_pct": gpu_pct,
            "mem_util_pct": mem_pct,
            "power_mw": power,
            "temp_c": temp,
            "sm_clock_mhz": sm_clock,
            "mem_clock_mhz": mem_clock,
            "throttle": throttle,
        }
        for name in columns.keys() & missing:
            columns[name] = None
        return DeviceReading(
            gpu=device.gpu,
            uuid=device.uuid,
            parent_uuid=None if device.parent is None else device.parent.uuid,
            looked=looked,
            **columns,
        )

    def _list(
        self,
        eye: _Eye,
        hidden: bool,  # noqa: FBT001
        processes: list[ProcessReading],
        observations: list[Observation],
    ) -> None:
        """Read one GPU's process list; say who came and who is gone."""
        device = eye.device
        seen: dict[SeriesKey, Process] = {}
        for process in self._machine.processes:
            share = process.shares.get(device.place)
            if share is None or process.job.hidden:
                continue
            reading = ProcessReading(
                gpu=device.gpu,
                uuid=device.uuid,
                pid=process.pid,
                start_time=process.start_time,
                life=process.life,
                used_bytes=None if hidden else share.held_bytes,
            )
            seen[reading.key] = process
            processes.append(reading)
        for key, process in eye.listed.items():
            if key not in seen:
                observations.append(_gone(device, process))
        for key, process in seen.items():
            if key not in eye.listed:
                observations.append(_arrived(device, process))
        eye.listed = seen

    def _introduction(self, limit_s: float) -> list[Observation]:
        """The snapshot that stands at the head of a stream."""
        scenario = self._scenario
        return [
            Observation(
                what=HOST,
                name="simulated",
                data={
                    "boot_id": self._machine.boot_id,
                    "zone": "UTC",
                    "utc_offset_s": 0,
                    "driver": None,
                    "nvml": None,
                    "vramtop": __version__,
                },
            ),
            Observation(
                what=SIMULATED,
                name=scenario.name,
                text=f"simulated, not measured: {scenario.text}",
                data={
                    "seed": self._seed,
                    "version": scenario.version,
                    "interval_ns": self._interval_ns,
                    "duration_s": limit_s,
                },
            ),
            Observation(what=INTERVAL, data={"interval_ns": self._interval_ns}),
            *(
                Observation(
                    what=DEVICE,
                    gpu=device.gpu,
                    uuid=device.uuid,
                    name=device.board.name,
                    data=_constants(device),
                )
                for device in self._machine.devices
            ),
        ]

    def _incidents(self, t_s: float) -> list[Observation]:
        """Gap, clock steps and marks that belong to this tick."""
        found = []
        if self._silence:
            found.append(Observation(what=GAP, text=self._silence))
            self._silence = ""
        for step in self._troubles.clock_steps:
            if t_s >= step.at_s and step not in self._done:
                self._done.add(step)
                self._step_us += step.step_ns // 1000
                found.append(Observation(what=CLOCK_STEP, data={"step_ns": step.step_ns}))
        for note in self._troubles.notes:
            if t_s >= note.at_s and note not in self._done:
                self._done.add(note)
                found.append(Observation(what=MARK, text=note.text))
        return found

    def _reachable(self, eye: _Eye, t_s: float, observations: list[Observation]) -> bool:
        device = eye.device
        losses = (loss for loss in self._troubles.losses if loss.gpu == device.gpu)
        loss: Loss | None = next((loss for loss in losses if loss.covers(t_s)), None)
        if loss is not None and not eye.lost:
            eye.lost = True
            observations.append(
                Observation(what=GPU_LOST, gpu=device.gpu, uuid=device.uuid, text=loss.reason)
            )
        elif loss is None and eye.lost:
            eye.lost = False
            eye.looked_ns.clear()
            observations.append(
                Observation(what=GPU_BACK, gpu=device.gpu, uuid=device.uuid, text="answers again")
            )
        return loss is None

    def _missing(self, eye: _Eye, t_s: float, observations: list[Observation]) -> frozenset[str]:
        """Columns of this GPU that have no answer now; the fault is told when it begins."""
        columns: set[str] = set()
        for missing in self._troubles.missing:
            if missing.gpu != eye.device.gpu or not missing.covers(t_s):
                continue
            columns.update(missing.columns)
            if missing not in self._done:
                self._done.add(missing)
                observations.append(
                    Observation(
                        what=FAULT,
                        gpu=eye.device.gpu,
                        uuid=eye.device.uuid,
                        name=", ".join(missing.columns),
                        text=missing.reason,
                    )
                )
        return frozenset(columns)


class _Eye:
    """What is remembered of one GPU between looks."""

    def __init__(self, device: Device, sensors: Sensors) -> None:
        self.device = device
        self.sensors = sensors
        self.listed: dict[SeriesKey, Process] = {}
        self.looked_ns: dict[int, int] = {}
        self.used_at_look = 0
        self.lost = False

    def due(self, tier: int, now_ns: int, every_ns: int) -> bool:
        """Whether a tier's turn has come; if so it counts as looked at now."""
        before = self.looked_ns.get(tier)
        if before is not None and now_ns - before < every_ns:
            return False
        self.looked_ns[tier] = now_ns
        return True


def _constants(device: Device) -> dict[str, object]:
    board = device.board
    if device.parent is not None:
        instance = device.parent.parts.index(device) + 1
        return {"parent_uuid": device.parent.uuid, "gpu_instance": instance}
    return {
        "power_limit_mw": board.limit_mw,
        "max_sm_clock_mhz": board.sm_clock_mhz,
        "max_mem_clock_mhz": board.mem_clock_mhz,
        "mig": bool(device.parts),
    }


def _arrived(device: Device, process: Process) -> Observation:
    job = process.job
    return Observation(
        what=PROCESS,
        gpu=device.gpu,
        uuid=device.uuid,
        pid=process.pid,
        start_time=process.start_time,
        life=process.life,
        name=job.command.split(" ", 1)[0].rsplit("/", 1)[-1],
        data={"command": job.command, "user": job.user, "framework": job.framework},
    )


def _gone(device: Device, process: Process) -> Observation:
    return Observation(
        what=GONE,
        gpu=device.gpu,
        uuid=device.uuid,
        pid=process.pid,
        start_time=process.start_time,
        life=process.life,
        data={"exit_code": process.exit_code} if process.job.watched else None,
    )
