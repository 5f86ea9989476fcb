"""One GPU, or one MIG instance: what is read from it, and what it cannot give.

`Device.read` runs on the sampler thread and may be left behind there in the middle of a call,
so every buffer belongs to one device and nothing here is shared between devices.
"""

from __future__ import annotations

import ctypes
import struct
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vramtop.samples import (
    FAULT,
    LOOKED_PCIE,
    LOOKED_PROCESSES,
    LOOKED_SLOW,
    LOOKED_UTIL,
    DeviceReading,
    Observation,
)
from vramtop.sources.nvml import _compat as nvml
from vramtop.sources.nvml.processes import COMPUTE, GRAPHICS, MPS, ProcessList, merged
from vramtop.units import MIB

TIERS = {LOOKED_UTIL: "utilisation", LOOKED_PROCESSES: "process lists",
         LOOKED_SLOW: "slow counters", LOOKED_PCIE: "PCIe throughput", 0: "memory"}  # fmt: skip

_MEMORY_V2 = struct.Struct("<I4xQQQQ")
_MEMORY_V1 = struct.Struct("<QQQ")
_PAIR = struct.Struct("<II")
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_MEMORY_V2_VERSION = 0x02000028
_TOO_MUCH = 2**56
"""No device has this much; guards figures where the device's total is unknown."""
_REST_LOOKS = 4
"""An empty graphics or MPS list is left alone for so many looks, unless memory has moved: each
list takes the driver's locks of all GPUs, and on servers these two are empty for ever."""
_PATIENCE = 3
"""Failed memory readings in a row until a GPU counts as lost."""
_MOVED_BYTES, _MOVED_PARTS = 64 * MIB, 200


class Sensor:
    """One call that gives one or two small numbers.

    Attributes:
        name: For the fault that says it cannot be read.
        off: Not asked any more.
        failing: The last call failed in a way that may pass.
        call: Asks; returns NVML's code.
        unpack: What the last call gave.
        last: The largest possible value.
    """

    __slots__ = ("call", "failing", "last", "name", "off", "out", "unpack")

    def __init__(
        self, name: str, handle: Any, functions: Sequence[str], layout: struct.Struct,
        *arguments: int, last: int,
    ) -> None:  # fmt: skip
        self.name = name
        self.failing = False
        function = next((f for f in map(nvml.symbol, functions) if f is not None), None)
        self.off = function is None
        self.out = (ctypes.c_char * layout.size)()
        given = [ctypes.c_uint(argument) for argument in arguments]
        self.call: Callable[[], int] = partial(
            function or _absent, handle, *given, ctypes.byref(self.out)
        )
        self.unpack: Callable[[], tuple[int, ...]] = partial(
            layout.unpack_from, memoryview(self.out).cast("B")
        )
        self.last = last


def _absent(*_: object) -> int:
    return nvml.FUNCTION_NOT_FOUND


class Device:
    """A GPU or MIG instance with its handle.

    Args:
        gpu: Index at capture.
        handle: NVML's handle.
        uuid, parent_uuid: Identity, and that of its GPU for a MIG instance.
        list_handles: Whose process lists to read; none for a GPU in MIG mode, whose processes
            are those of its instances.
        pcie: Whether PCIe throughput may be read.

    Attributes:
        ask: Tiers to read next time, a mask of `LOOKED_*`.
        slot_ns: The instant the tick is scheduled for.
        jump_gap_ns: When memory has moved far since the last list, the lists are read without
            being asked for, but no sooner after the last than this.
        reading: The device row of the last read, None if there was none.
        listed: pid to (bytes, kinds) at the last read of the lists. The same object as long
            as nothing in the lists changes.
        code: NVML's code for the memory call of the last read.
        lost: Why the handle must not be used again.
        faults: What began to fail in the last read.
        stage: The tier being read, for the watchdog to name.
        spent_ns: Time the last read took, by tier; 0 is memory.
        calls: Native calls, ever.
        accounting: The driver keeps the true peak of each process.
        misses: Failed memory readings in a row.
    """

    # Slots, on every class that is read at each tick: at one tick a second all data are cold,
    # and a dict per object is more to fetch than what stands in it.
    __slots__ = (
        "_listed_bytes", "_listed_ns", "_mem_clock", "_memory_call", "_memory_off",
        "_memory_out", "_memory_unpack", "_memory_v2", "_pcie", "_power", "_raw", "_sm_clock",
        "_temp", "_throttle", "_util", "accounting", "ask", "calls", "code", "faults", "gpu",
        "handle", "jump_gap_ns", "listed", "lists", "lists_off", "lost", "misses",
        "parent_uuid", "reading", "slot_ns", "spent_ns", "stage", "uuid",
    )  # fmt: skip

    def __init__(
        self, *, gpu: int, handle: Any, uuid: str, parent_uuid: str | None = None,
        list_handles: Sequence[Any] = (), pcie: bool = False,
    ) -> None:  # fmt: skip
        self.gpu, self.handle, self.uuid, self.parent_uuid = gpu, handle, uuid, parent_uuid
        self.ask = 0
        self.slot_ns = 0
        self.jump_gap_ns = 0
        self.reading: DeviceReading | None = None
        self.listed: dict[int, tuple[int | None, int]] = {}
        self.code = nvml.OK
        self.lost: str | None = None
        self.faults: list[Observation] = []
        self.stage = 0
        self.spent_ns: dict[int, int] = {}
        self.calls = 0
        self.misses = 0
        self._memory_off = False
        self._listed_bytes: int | None = None
        self._listed_ns = 0
        self._raw: list[list[tuple[int, int]]] = []
        self.lists = [ProcessList(kind, list_handles) for kind in (COMPUTE, GRAPHICS, MPS)]
        self.lists_off = not list_handles or self.lists[0].off
        self.accounting = nvml.number("nvmlDeviceGetAccountingMode", handle) == 1
        self._use_memory(v2=nvml.symbol("nvmlDeviceGetMemoryInfo_v2") is not None)
        sensor = partial(Sensor, handle=handle)
        self._util = sensor(
            "utilisation", functions=["nvmlDeviceGetUtilizationRates"], layout=_PAIR, last=100
        )
        self._power = sensor(
            "power", functions=["nvmlDeviceGetPowerUsage"], layout=_U32, last=10_000_000
        )
        self._temp = Sensor("temperature", handle, ["nvmlDeviceGetTemperature"], _U32, 0, last=200)
        self._sm_clock = Sensor("SM clock", handle, ["nvmlDeviceGetClockInfo"], _U32, 1, last=20000)
        self._mem_clock = Sensor(
            "memory clock", handle, ["nvmlDeviceGetClockInfo"], _U32, 2, last=50000
        )
        self._throttle = sensor(
            "throttle reasons", layout=_U64, last=2**63 - 1,
            # The second name is the older one, and ends with CUDA 14.
            functions=["nvmlDeviceGetCurrentClocksEventReasons",
                       "nvmlDeviceGetCurrentClocksThrottleReasons"],
        )  # fmt: skip
        self._pcie = [
            Sensor(name, handle, ["nvmlDeviceGetPcieThroughput"], _U32, way, last=2**31)
            for way, name in enumerate(("PCIe transmit", "PCIe receive"))
            if pcie
        ]

    def _use_memory(self, *, v2: bool) -> None:
        layout = _MEMORY_V2 if v2 else _MEMORY_V1
        name = "nvmlDeviceGetMemoryInfo_v2" if v2 else "nvmlDeviceGetMemoryInfo"
        self._memory_v2 = v2
        self._memory_out = (ctypes.c_char * layout.size)()
        view = memoryview(self._memory_out).cast("B")
        if v2:
            struct.pack_into("<I", view, 0, _MEMORY_V2_VERSION)
        function = nvml.symbol(name) or _absent
        self._memory_call = partial(function, self.handle, ctypes.byref(self._memory_out))
        self._memory_unpack: Callable[[], tuple[int, ...]] = partial(layout.unpack_from, view)

    @property
    def memory_version(self) -> str:
        """Which memory call is in use: v2 tells the driver's reservation apart, v1 does not."""
        return "v2" if self._memory_v2 else "v1"

    def read(self) -> None:
        """Read memory and the tiers asked for; leaves the result in the attributes."""
        clock = time.monotonic_ns
        self.reading = None
        if self.faults:
            self.faults = []
        self.stage = 0
        began = clock()
        memory = self._read_memory()
        ended = clock()
        spent = self.spent_ns = {0: ended - began}
        if memory is None:
            return
        total, reserved, used, free = memory
        ask, looked = self.ask, 0
        gpu_util = mem_util = power = temp = sm = mem = throttle = tx = rx = None
        if ask & LOOKED_UTIL:
            self.stage, began = LOOKED_UTIL, ended
            sensor = self._util
            gpu_util = self._ask(sensor)
            if not (sensor.off or sensor.failing):
                mem_util = sensor.unpack()[1]
                if mem_util > sensor.last:
                    mem_util = None
            power = self._ask(self._power)
            looked |= LOOKED_UTIL
            ended = clock()
            spent[LOOKED_UTIL] = ended - began
        moved = self._moved(used, total)
        if (ask & LOOKED_PROCESSES or moved) and not self.lists_off and self.lost is None:
            self.stage, began = LOOKED_PROCESSES, ended
            if self._read_lists(total, every=moved):
                looked |= LOOKED_PROCESSES
                self._listed_bytes = used
                self._listed_ns = self.slot_ns
            ended = clock()
            spent[LOOKED_PROCESSES] = ended - began
        if ask & LOOKED_SLOW and self.lost is None:
            self.stage, began = LOOKED_SLOW, ended
            temp, sm = self._ask(self._temp), self._ask(self._sm_clock)
            mem, throttle = self._ask(self._mem_clock), self._ask(self._throttle)
            looked |= LOOKED_SLOW
            ended = clock()
            spent[LOOKED_SLOW] = ended - began
        if ask & LOOKED_PCIE and self._pcie and self.lost is None:
            self.stage, began = LOOKED_PCIE, ended
            kib_per_s = [self._ask(sensor) for sensor in self._pcie]
            tx, rx = (None if value is None else value * 1024 for value in kib_per_s)
            looked |= LOOKED_PCIE
            spent[LOOKED_PCIE] = clock() - began
        if self.lost is None:
            self.reading = DeviceReading(
                gpu=self.gpu, uuid=self.uuid, parent_uuid=self.parent_uuid,
                total_bytes=total, reserved_bytes=reserved, used_bytes=used, free_bytes=free,
                looked=looked, gpu_util_pct=gpu_util, mem_util_pct=mem_util, power_mw=power,
                temp_c=temp, sm_clock_mhz=sm, mem_clock_mhz=mem, throttle=throttle,
                pcie_tx_bytes_per_s=tx, pcie_rx_bytes_per_s=rx,
            )  # fmt: skip

    def untroubled(self) -> bool:
        """Whether the last read gave a row, no fault and no sign of trouble to come."""
        return self.reading is not None and not self.faults and not self.code

    def _read_memory(self) -> tuple[int | None, int | None, int | None, int | None] | None:
        """Total, reserved, used, free; None if the GPU is lost."""
        if self._memory_off:
            return None, None, None, None
        self.calls += 1
        code = self._memory_call()
        if code and self._memory_v2 and code in nvml.NEVER:
            # Drivers before R510 have no v2 call, and some have it and refuse it.
            self._use_memory(v2=False)
            self.calls += 1
            code = self._memory_call()
        self.code = code
        if code:
            return self._memory_failed(code)
        self.misses = 0
        if self._memory_v2:
            _, total, reserved, free, used = self._memory_unpack()
            if 0 < total < _TOO_MUCH and used <= total and free <= total and reserved <= total:
                return total, reserved, used, free
            return plausible(total, reserved, used, free)
        total, free, used = self._memory_unpack()
        return plausible(total, None, used, free)

    def _memory_failed(self, code: int) -> tuple[None, None, None, None] | None:
        if code in nvml.GONE_FOR_GOOD:
            self.lost = nvml.error_text(code)
            return None
        if code in nvml.NEVER:
            if self.parent_uuid is not None:
                # What a handle says whose MIG instance was taken away.
                self.lost = f"the MIG instance is gone: {nvml.error_text(code)}"
                return None
            self._memory_off = True
            self._fault("memory", f"{nvml.error_text(code)}; not asked again")
            return None, None, None, None
        self.misses += 1
        if self.misses == 1:
            self._fault("memory", nvml.error_text(code))
        if self.misses >= _PATIENCE:
            self.lost = f"no memory reading {self.misses} times in a row: {nvml.error_text(code)}"
            return None
        return None, None, None, None

    def _moved(self, used: int | None, total: int | None) -> bool:
        before = self._listed_bytes
        if used is None or total is None or before is None:
            return False
        return (
            abs(used - before) > max(_MOVED_BYTES, total // _MOVED_PARTS)
            and self.slot_ns - self._listed_ns >= self.jump_gap_ns
        )

    def _ask(self, sensor: Sensor) -> int | None:
        """The value of a sensor; None without one, and for an impossible one."""
        if sensor.off or self.lost is not None:
            return None
        self.calls += 1
        code = sensor.call()
        if code:
            self._degrade(sensor, code)
            return None
        if sensor.failing:
            sensor.failing = False
        value = sensor.unpack()[0]
        return value if value <= sensor.last else None

    def _degrade(self, one: Sensor | ProcessList, code: int) -> None:
        """Remember what a failed call says about the calls to come."""
        if code in nvml.GONE_FOR_GOOD:
            self.lost = nvml.error_text(code)
        elif code in nvml.NEVER:
            one.off = True
            self._fault(one.name, f"{nvml.error_text(code)}; not asked again")
        elif not one.failing:
            one.failing = True
            self._fault(one.name, nvml.error_text(code))

    def _read_lists(self, total: int | None, *, every: bool) -> bool:
        """Read the lists, those at rest only if `every`; False without a complete answer."""
        complete = True
        for one in self.lists:
            if one.off:
                continue
            if one.rest and not every:
                one.rest -= 1
                continue
            before = one.calls
            code = one.read()
            self.calls += one.calls - before
            if code == nvml.OK:
                one.failing = False
                one.rest = _REST_LOOKS if one.kind != COMPUTE and not one.rows else 0
                continue
            self._degrade(one, code)
            if self.lost is not None:
                return False
            complete = complete and one.off
        if self.lists[0].off:
            self.lists_off = True
            return False
        if complete:
            raw = [one.rows for one in self.lists]
            if raw != self._raw:
                self._raw = raw
                self.listed = merged(self.lists, total if total is not None else _TOO_MUCH)
                self._check_pids(raw)
        return complete

    def _check_pids(self, raw: Sequence[Sequence[tuple[int, int]]]) -> None:
        for rows in raw:
            for pid, _ in rows:
                if pid not in self.listed:
                    self._fault("process list", f"the driver lists an impossible PID, {pid}")
                    return

    def _fault(self, name: str, text: str) -> None:
        self.faults.append(
            Observation(what=FAULT, gpu=self.gpu, uuid=self.uuid, name=name, text=text)
        )


def plausible(
    total: int, reserved: int | None, used: int, free: int
) -> tuple[int | None, int | None, int | None, int | None]:
    """The four figures, None for those that cannot be: NVML's mark for none, or over total.

    >>> plausible(100, 1, 2**64 - 1, 40)
    (100, 1, None, 40)
    """
    if not 0 < total < _TOO_MUCH:
        # A board with unified memory says total 0; its other figures mean nothing then.
        return None, None, None, None
    return (
        total,
        reserved if reserved is not None and reserved <= total else None,
        used if used <= total else None,
        free if free <= total else None,
    )
