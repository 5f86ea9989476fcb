"""Polls of all logs of one run to ticks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from zoneinfo import ZoneInfo

from vramtop import __version__
from vramtop.errors import LogFormatError
from vramtop.samples import (
    CLOCK_STEP,
    DEVICE,
    GONE,
    GPU_BACK,
    GPU_LOST,
    HOST,
    IMPORTED,
    LOOKED_PROCESSES,
    PROCESS,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.sources.logs._devices import Device, Devices
from vramtop.sources.logs._notes import Notes
from vramtop.sources.logs._polls import DeviceSample, Log, LogOptions, Poll, ProcessSample
from vramtop.sources.logs._timeline import TimedPoll, in_order, side_by_side
from vramtop.sources.logs._times import parse_zone
from vramtop.units import format_bytes, format_duration

_HEAD_POLLS = 64
"""Polls of each log read before the first tick, to learn what the GPUs are called."""


@dataclass(slots=True)
class _Life:
    """A process on a GPU as long as the list has it."""

    device: Device
    pid: int
    life: int
    name: str | None

    def observation(self, what: str, facts: dict[str, object] | None = None) -> Observation:
        return Observation(
            what=what,
            gpu=self.device.gpu,
            uuid=self.device.uuid,
            pid=self.pid,
            life=self.life,
            name=self.name,
            data=facts,
        )


@dataclass(slots=True)
class _Found:
    """What one tick has of one device."""

    values: dict[str, int | None] = field(default_factory=dict)
    looked: int = 0
    processes: dict[int, ProcessSample] = field(default_factory=dict)


class Assembler:
    """Makes ticks of the polls of one or more logs.

    Args:
        logs: The logs and the polls of each, not yet read.
        forms: Name of the form of each log.
        options: What the user said.
        notes: What is to be said.
    """

    def __init__(
        self,
        logs: Sequence[tuple[Log, Iterable[Poll]]],
        forms: Sequence[str],
        options: LogOptions,
        notes: Notes,
    ) -> None:
        self._logs = logs
        self._forms = forms
        self._options = options
        self._notes = notes
        self.devices = Devices(f"import:{options.host or options.recording}", notes)
        self._alive: dict[str, dict[int, _Life]] = {}
        self._lives: dict[tuple[str, int], int] = {}
        self._scope: dict[int, dict[str, Device]] = {}

    def ticks(self) -> Iterator[Tick]:
        """The ticks, `seq` from 0; the first carries the snapshot.

        Raises:
            LogFormatError: a log has no poll at all, or its times cannot be known.
        """
        heads, streams = [], []
        for number, (log, polls) in enumerate(self._logs):
            stream = iter(polls)
            head = list(islice(stream, _HEAD_POLLS))
            if not head:
                raise LogFormatError(
                    f"{log.name} is taken as {self._forms[number]} and has no reading",
                    hint="; ".join(["--form names another form", *self._notes.lines()[-1:]]),
                )
            heads.append(head)
            streams.append(_with_last(in_order(chain(head, stream), number, log.name, self._notes)))
        self.devices.learn(heads)
        first_us: int | None = None
        sized = False
        for seq, group in enumerate(side_by_side(streams)):
            if first_us is None:
                first_us = group[0].order_us
            found, observations = self._gather(group)
            if seq == 0:
                observations = [*self._snapshot(), *observations]
            processes = self._processes(found, observations)
            sized = sized or any(
                entry.values.get("total_bytes") is not None
                or entry.values.get("free_bytes") is not None
                for entry in found.values()
            )
            yield Tick(
                seq=seq,
                mono_ns=(group[0].order_us - first_us) * 1000,
                t_us=group[0].poll.t_us,
                devices=tuple(_reading(device, entry) for device, entry in found.items()),
                processes=tuple(processes),
                observations=tuple(observations),
            )
        if not sized:
            self._notes.fact(
                "no log says how much memory a GPU has, so no risk can be judged (--total 24GiB)"
            )

    def _snapshot(self) -> list[Observation]:
        """Host and origin; assumptions made later are said on stderr only."""
        hosts = [log.host for log, _ in self._logs if log.host is not None]
        drivers = [log.driver for log, _ in self._logs if log.driver is not None]
        if self._options.host is None and len(set(hosts)) > 1:
            raise LogFormatError(
                "the logs are of several hosts: " + ", ".join(sorted(set(hosts))),
                hint="a recording is of one host; import them one by one",
            )
        host = self._options.host or next(iter(hosts), None)
        zone = parse_zone(self._options.zone or "UTC")
        offset = zone.utcoffset(None)
        return [
            Observation(
                what=HOST,
                name=host,
                data={
                    "boot_id": None,
                    "zone": zone.key if isinstance(zone, ZoneInfo) else None,
                    "utc_offset_s": None if offset is None else round(offset.total_seconds()),
                    "driver": next(iter(drivers), None),
                    "nvml": None,
                    "vramtop": __version__,
                },
            ),
            Observation(
                what=IMPORTED,
                name="+".join(dict.fromkeys(self._forms)),
                text="; ".join(self._notes.assumptions) or None,
                data={
                    "files": [log.name for log, _ in self._logs],
                    "zone": self._options.zone,
                    "columns": list(self._options.columns) or None,
                    "total_bytes": self._options.total_bytes,
                    "not_kept": list(self._notes.not_kept),
                },
            ),
        ]

    def _gather(self, group: list[TimedPoll]) -> tuple[dict[Device, _Found], list[Observation]]:
        """The devices of one tick in order, and what happened to them."""
        found: dict[Device, _Found] = {}
        observations: list[Observation] = []
        for timed in group:
            if timed.step_us:
                observations.append(self._clock_step(timed))
            for sample in timed.poll.devices:
                self._take_device(sample, timed, found, observations)
            for process in timed.poll.processes:
                self._take_process(process, found)
            if timed.poll.lists_devices and not timed.last:
                observations += self._missing(timed.log, found)
        for device in found:
            observations += self._announce(device)
        ordered = sorted(found, key=lambda d: (d.gpu, d.parent_uuid is not None, d.uuid))
        return {device: found[device] for device in ordered}, observations

    def _take_device(
        self,
        sample: DeviceSample,
        timed: TimedPoll,
        found: dict[Device, _Found],
        observations: list[Observation],
    ) -> None:
        device = self.devices.find(sample.ref, sample.name)
        if timed.poll.lists_devices and device.parent_uuid is None:
            self._scope.setdefault(timed.log, {})[device.uuid] = device
        if sample.lost is not None:
            if not device.lost:
                device.lost = True
                observations += [*self._announce(device), _about(GPU_LOST, device, sample.lost)]
            return
        if device.lost and timed.poll.lists_devices:
            device.lost = False
            observations.append(_about(GPU_BACK, device, "the log has it again"))
        entry = found.setdefault(device, _Found())
        entry.looked |= sample.looked
        for name, value in sample.values.items():
            if entry.values.get(name) is None:
                entry.values[name] = value
        if self._options.total_bytes is not None and entry.values.get("total_bytes") is None:
            entry.values["total_bytes"] = self._options.total_bytes
            self._notes.assume(
                f"total memory is {format_bytes(self._options.total_bytes)} where no log has it"
                " (--total)"
            )

    def _take_process(self, process: ProcessSample, found: dict[Device, _Found]) -> None:
        entry = found.setdefault(self.devices.find(process.ref), _Found())
        entry.looked |= LOOKED_PROCESSES
        known = entry.processes.get(process.pid)
        # A process in the compute and in the graphics list is one process, with the larger figure.
        if known is None or known.used_bytes is None:
            entry.processes[process.pid] = process
        elif process.used_bytes is not None:
            known.used_bytes = max(known.used_bytes, process.used_bytes)

    def _missing(self, log: int, found: dict[Device, _Found]) -> Iterator[Observation]:
        for device in self._scope.get(log, {}).values():
            if device not in found and not device.lost:
                device.lost = True
                yield _about(GPU_LOST, device, f"{self._logs[log][0].name} has no row of it here")

    def _announce(self, device: Device) -> Iterator[Observation]:
        if not device.announced:
            device.announced = True
            yield Observation(
                what=DEVICE,
                gpu=device.gpu,
                uuid=device.uuid,
                name=device.name,
                data={"pci_bus_id": device.bus_id},
            )

    def _clock_step(self, timed: TimedPoll) -> Observation:
        name = self._logs[timed.log][0].name
        step = format_duration(abs(timed.step_us) / 1_000_000)
        self._notes.fact(
            f"the stamps of {name} go back; the time between is taken as the spacing before"
        )
        return Observation(
            what=CLOCK_STEP,
            text=f"the stamps of {name} go back by about {step}; the time between is taken as the"
            " spacing before",
            data={"step_ns": timed.step_us * 1000},
        )

    def _processes(
        self, found: dict[Device, _Found], observations: list[Observation]
    ) -> list[ProcessReading]:
        """Process rows of one tick; adds PROCESS and GONE where a list changed."""
        readings = []
        for device, entry in found.items():
            if not entry.looked & LOOKED_PROCESSES:
                continue
            alive = self._alive.setdefault(device.uuid, {})
            gone = [pid for pid in alive if pid not in entry.processes]
            observations += [alive.pop(pid).observation(GONE) for pid in gone]
            for pid, sample in sorted(entry.processes.items()):
                if pid not in alive:
                    life = self._lives.get((device.uuid, pid), 0)
                    self._lives[device.uuid, pid] = life + 1
                    alive[pid] = _Life(device, pid, life, sample.name)
                    observations.append(alive[pid].observation(PROCESS, sample.facts))
                readings.append(
                    ProcessReading(
                        gpu=device.gpu,
                        uuid=device.uuid,
                        pid=pid,
                        life=alive[pid].life,
                        used_bytes=sample.used_bytes,
                    )
                )
        return readings


def _about(what: str, device: Device, text: str) -> Observation:
    return Observation(what=what, gpu=device.gpu, uuid=device.uuid, text=text)


def _reading(device: Device, entry: _Found) -> DeviceReading:
    return DeviceReading(
        gpu=device.gpu,
        uuid=device.uuid,
        parent_uuid=device.parent_uuid,
        looked=entry.looked,
        **entry.values,
    )


def _with_last(polls: Iterable[TimedPoll]) -> Iterator[TimedPoll]:
    """The polls, with the last one marked: it may be torn."""
    before: TimedPoll | None = None
    for timed in polls:
        if before is not None:
            yield before
        before = timed
    if before is not None:
        before.last = True
        yield before
