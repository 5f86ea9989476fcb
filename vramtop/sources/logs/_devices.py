"""Which GPU a log means: some name the index, some the UUID, some the bus, some nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from vramtop.sources.logs._notes import Notes
from vramtop.sources.logs._polls import DeviceRef, Poll


@dataclass(slots=True, eq=False)
class Device:
    """One GPU or MIG instance of the recording."""

    gpu: int
    uuid: str
    bus_id: str | None = None
    parent_uuid: str | None = None
    name: str | None = None
    announced: bool = False
    lost: bool = False


class Devices:
    """Finds the device that a log means, and makes it at first sight.

    Args:
        prefix: Begins the identity of a GPU whose UUID no log has.
        notes: Where guesses are said.
    """

    def __init__(self, prefix: str, notes: Notes) -> None:
        self._prefix = prefix
        self._notes = notes
        self._found: dict[DeviceRef, Device] = {}
        self._uuid_of_index: dict[int, str] = {}
        self._uuid_of_bus: dict[str, str] = {}
        self._all: list[Device] = []

    def learn(self, heads: Iterable[Iterable[Poll]]) -> None:
        """Take in which names belong to one GPU, from the first polls of every log."""
        # Dictionaries instead of sets: the order of strings in a set differs from run to run.
        refs: list[dict[DeviceRef, None]] = []
        for polls in heads:
            found = {
                ref: None
                for poll in polls
                for ref in (
                    *(device.ref for device in poll.devices),
                    *(process.ref for process in poll.processes),
                )
            }
            refs.append({ref: None for ref in found if ref.instance is None})
        every = {ref: None for found in refs for ref in found}
        uuid_of_bus = _one_to_one((r.bus_id, r.uuid) for r in every)
        index_of_bus = _one_to_one((r.bus_id, r.gpu) for r in every)
        self._uuid_of_bus = uuid_of_bus
        self._uuid_of_index = _one_to_one(
            [(r.gpu, r.uuid) for r in every]
            + [(index, uuid_of_bus.get(bus_id)) for bus_id, index in index_of_bus.items()]
        )
        self._learn_only_gpu(refs, list(every))

    def _learn_only_gpu(self, refs: list[dict[DeviceRef, None]], every: list[DeviceRef]) -> None:
        """With one GPU in every log, all of them mean the same."""
        if len(every) < 2 or any(len(found) != 1 for found in refs):
            return
        uuids = {ref.uuid for ref in every if ref.uuid is not None}
        indices = {ref.gpu for ref in every if ref.gpu is not None}
        buses = {ref.bus_id for ref in every if ref.bus_id is not None}
        if max(len(uuids), len(indices), len(buses)) > 1:
            return
        index = min(indices, default=0)
        uuid = next(iter(uuids), f"{self._prefix}:gpu{index}")
        only = Device(index, uuid, bus_id=next(iter(buses), None))
        self._all.append(only)
        self._notes.assume("each log is about one GPU; it is taken to be the same one")
        self._found.update(dict.fromkeys(every, only))

    def find(self, ref: DeviceRef, name: str | None = None) -> Device:
        """The device that `ref` means."""
        device = self._found.get(ref)
        if device is None:
            device = self._match(ref) or self._new(ref)
            self._found[ref] = device
        if device.name is None:
            device.name = name
        if device.bus_id is None:
            device.bus_id = ref.bus_id
        return device

    def _match(self, ref: DeviceRef) -> Device | None:
        uuid = self._uuid(ref)
        for device in self._all:
            if ref.instance is not None:
                if device.uuid == self._instance_uuid(ref):
                    return device
            elif device.parent_uuid is not None:
                continue
            elif uuid is not None:
                if device.uuid == uuid:
                    return device
            elif ref.bus_id is not None and device.bus_id is not None:
                if device.bus_id == ref.bus_id:
                    return device
            elif ref.gpu is not None:
                if device.gpu == ref.gpu:
                    return device
            elif ref.bus_id is None:
                # The log names no GPU at all: it means the first.
                return device
        return None

    def _uuid(self, ref: DeviceRef) -> str | None:
        if ref.uuid is not None:
            return ref.uuid
        if ref.bus_id is not None and ref.bus_id in self._uuid_of_bus:
            return self._uuid_of_bus[ref.bus_id]
        return None if ref.gpu is None else self._uuid_of_index.get(ref.gpu)

    def _instance_uuid(self, ref: DeviceRef) -> str:
        return f"{self.find(DeviceRef(ref.gpu)).uuid}:gi{ref.instance}"

    def _new(self, ref: DeviceRef) -> Device:
        if ref.instance is not None:
            parent = self.find(DeviceRef(ref.gpu))
            device = Device(parent.gpu, self._instance_uuid(ref), parent_uuid=parent.uuid)
            self._all.append(device)
            return device
        uuid = self._uuid(ref)
        index = ref.gpu
        if index is None:
            index = next((i for i, known in self._uuid_of_index.items() if known == uuid), None)
        if index is None:
            taken = {device.gpu for device in self._all}
            index = next(number for number in range(len(taken) + 1) if number not in taken)
        device = Device(index, uuid or f"{self._prefix}:gpu{index}", bus_id=ref.bus_id)
        if any(other.uuid == device.uuid for other in self._all):
            # Same index, another board: without UUIDs the bus is the difference.
            device.uuid = f"{device.uuid}:{ref.bus_id}"
        self._all.append(device)
        return device

    def __len__(self) -> int:
        return len(self._all)


_Name = TypeVar("_Name")
_Other = TypeVar("_Other")


def _one_to_one(pairs: Iterable[tuple[_Name | None, _Other | None]]) -> dict[_Name, _Other]:
    """The pairs whose first part goes with one second part only; a name of two GPUs is no name."""
    others: dict[_Name, dict[_Other, None]] = {}
    for name, other in pairs:
        if name is not None and other is not None:
            others.setdefault(name, {})[other] = None
    return {name: next(iter(found)) for name, found in others.items() if len(found) == 1}
