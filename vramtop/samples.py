"""What a source observes: readings, observations, ticks. Standard library only.

The recorder process imports this module, so it must stay free of NumPy.

A tick is everything observed at one instant. It has one device row per reachable GPU
(and per MIG instance); `looked` on that row says which of the slower tiers were read.
*Not looked* is no row, or a null outside `looked`. *Looked, no answer* is a null inside
it. *Gone* is an observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

LOOKED_UTIL = 1
"""Utilisation and power were read at this tick."""
LOOKED_PROCESSES = 2
"""The process lists were read at this tick."""
LOOKED_SLOW = 4
"""Temperature, clocks and throttle reasons were read at this tick."""
LOOKED_PCIE = 8
"""PCIe throughput was read at this tick."""


class SeriesKey(NamedTuple):
    """Identity of one memory series: a device (`pid` is None) or a process on a device.

    Attributes:
        uuid: NVML UUID of the GPU or MIG instance.
        pid: Process id as the driver reports it.
        start_time: Field 22 of `/proc/PID/stat` (clock ticks since boot); None if unknown.
        life: Counts the lives of a PID whose start time is unknown; otherwise 0.
    """

    uuid: str
    pid: int | None = None
    start_time: int | None = None
    life: int = 0

    @property
    def sort_key(self) -> tuple[bool, str, int, int, int]:
        """Devices before processes, then by UUID, PID, start time and life; nulls first."""
        return (
            self.pid is not None,
            self.uuid,
            -1 if self.pid is None else self.pid,
            -1 if self.start_time is None else self.start_time,
            self.life,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceReading:
    """One GPU, or one MIG instance, at one instant, as NVML reported it.

    Attributes:
        gpu: Index at capture. Not stable across reboots; for display only.
        uuid: NVML UUID, the identity.
        parent_uuid: For a MIG instance, the UUID of its GPU.
        total_bytes, reserved_bytes, used_bytes, free_bytes: Raw figures. With the v2 call
            `used` excludes the driver's reservation; with v1 `reserved` is None.
        looked: Bit mask of `LOOKED_*`.
        gpu_util_pct: Share of time a kernel ran, 0-100.
        mem_util_pct: Share of time memory was read or written (bandwidth, not occupancy).
        power_mw, temp_c, sm_clock_mhz, mem_clock_mhz: As named.
        throttle: Bit mask of NVML's clocks-event reasons.
        pcie_tx_bytes_per_s, pcie_rx_bytes_per_s: Throughput over the last 20 ms.
    """

    gpu: int
    uuid: str
    parent_uuid: str | None = None
    total_bytes: int | None = None
    reserved_bytes: int | None = None
    used_bytes: int | None = None
    free_bytes: int | None = None
    looked: int = 0
    gpu_util_pct: int | None = None
    mem_util_pct: int | None = None
    power_mw: int | None = None
    temp_c: int | None = None
    sm_clock_mhz: int | None = None
    mem_clock_mhz: int | None = None
    throttle: int | None = None
    pcie_tx_bytes_per_s: int | None = None
    pcie_rx_bytes_per_s: int | None = None

    @property
    def key(self) -> SeriesKey:
        """Identity of this device's series."""
        return SeriesKey(self.uuid)


DEVICE_COLUMNS = (
    "total_bytes", "reserved_bytes", "used_bytes", "free_bytes", "looked",
    "gpu_util_pct", "mem_util_pct", "power_mw", "temp_c", "sm_clock_mhz", "mem_clock_mhz",
    "throttle", "pcie_tx_bytes_per_s", "pcie_rx_bytes_per_s",
)  # fmt: skip
"""Numeric columns of a device row, in recording order; all but `looked` may be null."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessReading:
    """One process on one GPU at an instant when that GPU's process lists were read.

    Attributes:
        gpu, uuid: As in the device row of the same tick.
        pid: As the driver reports it.
        start_time: Clock ticks since boot, None if unknown.
        life: See `SeriesKey`.
        used_bytes: None where the driver hides it.
    """

    gpu: int
    uuid: str
    pid: int
    start_time: int | None = None
    life: int = 0
    used_bytes: int | None = None

    @property
    def key(self) -> SeriesKey:
        """Identity of this process's series."""
        return SeriesKey(self.uuid, self.pid, self.start_time, self.life)


# What an observation can say. Later versions add; readers ignore what they do not know.
HOST = "host"  # name: host name; data: boot_id, zone, utc_offset_s, driver, nvml, vramtop
DEVICE = "device"  # name: board name; data: GPU constants
INTERVAL = "interval"  # data: interval_ns; text: why it changed
SIMULATED = "simulated"  # name: scenario; data: seed and parameters
IMPORTED = "imported"  # name: log form; text: what was assumed
PROCESS = "process"  # name; data: process facts
GONE = "gone"  # the process left the GPU's list; data: exit_code where known
GPU_LOST = "gpu_lost"  # text: reason
GPU_BACK = "gpu_back"  # text
GAP = "gap"  # text: the reason for a gap that ends at this tick; uuid where it is one GPU's
CLOCK_STEP = "clock_step"  # data: step_ns, wall clock against the boot-time clock
FAULT = "fault"  # name: what could not be read; text: why
MARK = "mark"  # text, from the user or the recorded program
OOM_EVIDENCE = "oom_evidence"  # text: the message; data: framework, requested_bytes, ...
SELF = "self"  # data: the recorder's own cost
TRUTH = "truth"  # ground truth of a simulated run
DIGEST = "digest"  # live digest; never analyzer input
ACTION = "action"  # an --on-risk action fired
SERVICE = "service"  # a server's own figures; data: kv_usage_pct, waiting, running, preemptions
EXIT = "exit"  # the recorded COMMAND ended; pid; data: exit_code or signal
END = "end"  # the recording was closed in order; text: why


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Something that is no periodic reading: a fact, a mark, a fault, a change.

    Attributes:
        what: One of the constants of this module.
        gpu, uuid, pid, start_time, life: What it is about, as far as it is about that.
        name, text: For people.
        data: JSON-able details.
    """

    what: str
    gpu: int | None = None
    uuid: str | None = None
    pid: int | None = None
    start_time: int | None = None
    life: int = 0
    name: str | None = None
    text: str | None = None
    data: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Everything observed at one instant.

    Attributes:
        seq: Number from 0; orders, deduplicates, bisects.
        mono_ns: Boot-time clock, for intervals; never decreases.
        t_us: Wall clock, microseconds since 1970 UTC, for people.
    """

    seq: int
    mono_ns: int
    t_us: int
    devices: tuple[DeviceReading, ...] = ()
    processes: tuple[ProcessReading, ...] = ()
    observations: tuple[Observation, ...] = ()
