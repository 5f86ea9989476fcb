"""A GPU with its MIG instances: the unit that is opened, read, parked and lost as a whole."""

from __future__ import annotations

from typing import Any

from vramtop.samples import DEVICE, LOOKED_SLOW, Observation
from vramtop.sources.nvml import _compat as nvml
from vramtop.sources.nvml.devices import Device

OK, LOST, PARKED = "ok", "lost", "parked"

Layout = list[tuple[str, int, list[Any]]]
"""Of a GPU in MIG mode: UUID, GPU instance id and handles of each GPU instance."""


class Board:
    """One physical GPU.

    Args:
        index: NVML's index at the start; display only.
        pcie: Whether PCIe throughput may be read.

    Attributes:
        uuid: None until it was opened once.
        devices: The GPU itself, then its MIG instances; empty while it is not open.
        state: `ok`, `lost`, or `parked` while a call on it does not return.
        since_ns: When it entered that state, boot-time clock.
        probe_ns: When to look for it again.
        reason: Why it was lost.
        fresh: It was (re)opened: every tier is due.
        changed: What it consists of changed in the last read or open.
        gone: UUIDs of MIG instances that were taken away in the last read.
        facts: The constants of each device, as observations.
    """

    def __init__(self, index: int, *, pcie: bool) -> None:
        self.index = index
        self.uuid: str | None = None
        self.devices: list[Device] = []
        self.state = LOST
        self.since_ns = 0
        self.probe_ns = 0
        self.probing = False
        self.reason: str | None = None
        self.refusal_code = nvml.OK
        self.fresh = True
        self.changed = False
        self.gone: list[str] = []
        self.facts: list[Observation] = []
        self.ask = 0
        self.slot_ns = 0
        self.jump_gap_ns = 0
        self._opened: list[Device] | None = None
        self._pcie = pcie
        self._mig_able = True
        self._layout: Layout | None = None
        self._retired_calls = 0

    @property
    def calls(self) -> int:
        """Native calls so far."""
        return self._retired_calls + sum(device.calls for device in self.devices)

    # Jobs for the sampler thread --------------------------------------------------------

    def open(self) -> None:
        """Find the GPU and set up its devices; `adopt` takes them over."""
        self._opened = None
        try:
            if self.uuid is None:
                handle = nvml.handle_by_index(self.index)
            else:
                handle = nvml.handle_by_uuid(self.uuid)
            self._opened = self._build(handle)
        except nvml.NvmlCallError as error:
            self.reason, self.refusal_code = str(error), error.code

    def read(self) -> None:
        """Read every device; finds out, too, when MIG instances came or went."""
        self.changed = False
        self.gone = []
        stale = False
        for device in self.devices:
            device.ask = self.ask
            device.slot_ns = self.slot_ns
            device.jump_gap_ns = self.jump_gap_ns
            device.read()
            if device.lost is not None:
                if device.parent_uuid is None:
                    return
                stale = True
        if stale or (self.ask & LOOKED_SLOW and self._mig_able):
            self._look_at_layout()

    # ------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Take over what `open` found; False if it found nothing."""
        if self._opened is None:
            return False
        self.devices = self._opened
        self.uuid = self.devices[0].uuid
        self._opened = None
        self.fresh = True
        return True

    def drop(self) -> None:
        """Let go of every handle."""
        self._retired_calls = self.calls
        self.devices = []

    def is_wanted(self, now_ns: int) -> bool:
        """Whether it is lost and should be looked for now."""
        return self.state == LOST and not self.probing and now_ns >= self.probe_ns

    def lost(self) -> str | None:
        """Why the GPU is lost, after a read; None if it is not."""
        return self.devices[0].lost if self.devices else self.reason

    def _look_at_layout(self) -> None:
        root = self.devices[0].handle
        layout = self._find_layout(root)
        if _shape(layout) == _shape(self._layout) and all(d.lost is None for d in self.devices):
            return
        before = {device.uuid for device in self.devices}
        self._retired_calls = self.calls
        try:
            self.devices = self._build(root)
        except nvml.NvmlCallError:
            return
        now = {device.uuid for device in self.devices}
        self.gone = sorted(before - now)
        self.changed = self.fresh = True

    def _find_layout(self, handle: Any) -> Layout | None:
        if not nvml.mig_enabled(handle):
            return None
        by_instance: dict[int, tuple[str, int, list[Any]]] = {}
        for index in range(nvml.number("nvmlDeviceGetMaxMigDeviceCount", handle) or 0):
            instance = nvml.mig_handle(handle, index)
            uuid = None if instance is None else nvml.text("nvmlDeviceGetUUID", instance)
            if uuid is None:
                continue
            gi = nvml.number("nvmlDeviceGetGpuInstanceId", instance)
            key = index if gi is None else gi
            # Compute instances of one GPU instance share its memory: one row for all of them.
            by_instance.setdefault(key, (uuid, key, []))[2].append(instance)
        return [by_instance[key] for key in sorted(by_instance)]

    def _build(self, handle: Any) -> list[Device]:
        uuid = nvml.text("nvmlDeviceGetUUID", handle)
        if uuid is None:
            raise nvml.NvmlCallError(nvml.UNKNOWN)
        self._mig_able = nvml.number("nvmlDeviceGetMaxMigDeviceCount", handle) not in (None, 0)
        layout = self._layout = self._find_layout(handle)
        lists = [handle] if layout is None else []
        devices = [
            Device(gpu=self.index, handle=handle, uuid=uuid, list_handles=lists, pcie=self._pcie)
        ]
        for instance_uuid, _, handles in layout or ():
            devices.append(
                Device(
                    gpu=self.index, handle=handles[0], uuid=instance_uuid, parent_uuid=uuid,
                    list_handles=handles,
                )
            )  # fmt: skip
        instances = {uuid: gi for uuid, gi, _ in layout or ()}
        # Here, on the sampler thread: these are calls too, and may stall.
        self.facts = [
            Observation(
                what=DEVICE, gpu=self.index, uuid=device.uuid,
                name=nvml.text("nvmlDeviceGetName", device.handle),
                data=_constants(device, instances.get(device.uuid), mig=layout is not None),
            )
            for device in devices
        ]  # fmt: skip
        return devices


def _shape(layout: Layout | None) -> list[tuple[str, int, int]] | None:
    if layout is None:
        return None
    return [(uuid, instance, len(handles)) for uuid, instance, handles in layout]


def _constants(device: Device, instance: int | None, *, mig: bool) -> dict[str, object]:
    handle = device.handle
    facts: dict[str, object] = {"memory_call": device.memory_version}
    if device.lists_off:
        facts["process_call"] = None
    else:
        facts["process_call"] = device.lists[0].name
    if device.parent_uuid is not None:
        facts |= {"parent_uuid": device.parent_uuid, "gpu_instance": instance}
    else:
        accounting = nvml.number("nvmlDeviceGetAccountingMode", handle)
        facts |= {
            "bus_id": nvml.pci_bus_id(handle),
            "compute_capability": nvml.compute_capability(handle),
            "power_limit_mw": nvml.number("nvmlDeviceGetPowerManagementLimit", handle),
            "max_sm_clock_mhz": nvml.number("nvmlDeviceGetMaxClockInfo", handle, 1),
            "max_mem_clock_mhz": nvml.number("nvmlDeviceGetMaxClockInfo", handle, 2),
            "persistence": _flag(nvml.number("nvmlDeviceGetPersistenceMode", handle)),
            "accounting": _flag(accounting),
            "mig": mig,
        }
    return {name: value for name, value in facts.items() if value is not None}


def _flag(value: int | None) -> bool | None:
    return None if value is None else value == 1
