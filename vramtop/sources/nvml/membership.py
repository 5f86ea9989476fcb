"""From process lists to rows, and to what is observed when processes come and go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vramtop.samples import FAULT, GONE, PROCESS, Observation, ProcessReading
from vramtop.sources.nvml import _compat as nvml
from vramtop.sources.nvml.devices import Device
from vramtop.sources.nvml.identity import Identities, Identity
from vramtop.sources.nvml.processes import COMPUTE, GRAPHICS, MPS
from vramtop.sources.nvml.sampler import Job

FactsReader = Callable[[int, int | None], Mapping[str, object]]
"""(pid, start time) to process facts; empty if they cannot be read or it is another process."""

_LETTERS = ((COMPUTE, "C"), (GRAPHICS, "G"), (MPS, "M"))


class _FactsJob:
    """Reads the facts of one process; /proc can block on a process that hangs in the driver."""

    def __init__(self, reader: FactsReader, identity: Identity) -> None:
        self.identity = identity
        self.facts: Mapping[str, object] = {}
        self._reader = reader

    def __call__(self) -> None:
        self.facts = self._reader(self.identity.pid, self.identity.start_time)


class _PeakJob:
    """Asks accounting mode what a process that has ended held at most."""

    def __init__(self, device: Device, pid: int) -> None:
        self.peak_bytes: int | None = None
        self._handle, self._pid = device.handle, pid

    def __call__(self) -> None:
        self.peak_bytes = nvml.accounted_peak_bytes(self._handle, self._pid)


class Membership:
    """Which process is on which device.

    Args:
        identities: Who a PID is.
        facts: Reads process facts; None records the name only.
    """

    def __init__(self, identities: Identities, facts: FactsReader | None) -> None:
        self._identities = identities
        self._facts = facts
        self._born: list[tuple[Device, Identity, int]] = []
        self._left: list[tuple[Device, Identity]] = []
        self._facts_jobs: dict[int, _FactsJob] = {}
        self._peak_jobs: dict[tuple[str, int], _PeakJob] = {}
        self._on: dict[str, dict[int, Identity]] = {}
        self._rows: dict[str, tuple[Any, int, tuple[ProcessReading, ...]]] = {}

    def look(self, devices: list[Device]) -> list[ProcessReading]:
        """Rows of `devices`, whose lists were read at this tick; notes births and deaths."""
        identities = self._identities
        identities.refresh()
        rows: list[ProcessReading] = []
        for device in devices:
            listed = device.listed
            cached = self._rows.get(device.uuid)
            # Memory is mostly constant: an unchanged list of unchanged processes gives the
            # same immutable rows.
            if cached is not None and cached[0] is listed and cached[1] == identities.epoch:
                rows += cached[2]
                continue
            mine = self._update(device, listed)
            self._rows[device.uuid] = (listed, identities.epoch, mine)
            rows += mine
        return rows

    def inquiries(self) -> list[Job]:
        """Jobs that find out about processes that came or went; `news` uses what they find."""
        self._facts_jobs = {}
        if self._facts is not None:
            for _, identity, _ in self._born:
                # Without a start time it may be anyone; facts would be a guess.
                if identity.start_time is not None:
                    self._facts_jobs[id(identity)] = _FactsJob(self._facts, identity)
        self._peak_jobs = {
            (device.uuid, identity.pid): _PeakJob(device, identity.pid)
            for device, identity in self._left
            if device.accounting
        }
        return [*self._peak_jobs.values(), *self._facts_jobs.values()]

    def news(self, stalled: Sequence[Job]) -> list[Observation]:
        """What is observed about processes that came or went since the last call."""
        observations = self._farewell() + self._introduce(stalled)
        self._born, self._left = [], []
        return observations

    @property
    def changed(self) -> bool:
        """Whether processes came or went in the last look."""
        return bool(self._born or self._left)

    def _update(
        self, device: Device, listed: Mapping[int, tuple[int | None, int]]
    ) -> tuple[ProcessReading, ...]:
        gpu, uuid = device.gpu, device.uuid
        before = self._on.get(uuid, {})
        now: dict[int, Identity] = {}
        rows = []
        for pid, (used, kinds) in listed.items():
            identity = self._identities.get(pid)
            now[pid] = identity
            if before.get(pid) is not identity:
                identity.uuids.add(uuid)
                self._born.append((device, identity, kinds))
            rows.append(
                ProcessReading(
                    gpu=gpu, uuid=uuid, pid=pid, start_time=identity.start_time,
                    life=identity.life, used_bytes=used,
                )
            )  # fmt: skip
        self._on[uuid] = now
        for pid, identity in before.items():
            if now.get(pid) is not identity:
                self._identities.leave(identity, uuid)
                self._left.append((device, identity))
        return tuple(rows)

    def _farewell(self) -> list[Observation]:
        observations = []
        for device, identity in self._left:
            job = self._peak_jobs.get((device.uuid, identity.pid))
            peak = None if job is None else job.peak_bytes
            data = None if peak is None else {"peak_bytes": peak}
            observations.append(
                _about(GONE, device.gpu, device.uuid, identity, name=identity.comm, data=data)
            )
        return observations

    def forget(self, gpu: int, uuid: str) -> list[Observation]:
        """A device is no more, as a MIG instance that was taken away: its processes left it."""
        self._rows.pop(uuid, None)
        left = []
        for identity in self._on.pop(uuid, {}).values():
            self._identities.leave(identity, uuid)
            left.append(_about(GONE, gpu, uuid, identity, name=identity.comm))
        return left

    def _introduce(self, stalled: Sequence[Job]) -> list[Observation]:
        facts: dict[int, Mapping[str, object]] = {}
        faults: list[Observation] = []
        for key, job in self._facts_jobs.items():
            if job in stalled:
                faults.append(
                    Observation(
                        what=FAULT, pid=job.identity.pid, start_time=job.identity.start_time,
                        name="process facts", text="reading them from /proc does not return",
                    )
                )  # fmt: skip
            else:
                facts[key] = job.facts
        observations = []
        for device, identity, kinds in self._born:
            data = dict(facts.get(id(identity), ()))
            name = data.pop("name", None)
            data["type"] = "+".join(letter for kind, letter in _LETTERS if kinds & kind)
            observations.append(
                _about(
                    PROCESS, device.gpu, device.uuid, identity,
                    name=name if isinstance(name, str) else identity.comm, data=data,
                )
            )  # fmt: skip
        return observations + faults

    def close(self) -> None:
        """Let go of every process."""
        self._identities.close()


def _about(
    what: str, gpu: int, uuid: str, identity: Identity, *, name: str | None = None,
    data: Mapping[str, object] | None = None,
) -> Observation:  # fmt: skip
    return Observation(
        what=what, gpu=gpu, uuid=uuid, pid=identity.pid, start_time=identity.start_time,
        life=identity.life, name=name, data=data,
    )  # fmt: skip
