"""The process lists of a device: one native call each, whatever the driver calls them."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

from vramtop.sources.nvml import _compat as nvml

COMPUTE, GRAPHICS, MPS = 1, 2, 4
KINDS = {COMPUTE: "Compute", GRAPHICS: "Graphics", MPS: "MPSCompute"}

PID_LIMIT = 2**22
"""The kernel's own limit; drivers have returned 0 and 4294967295 (nvtop#76)."""

# pid, padding, bytes; what follows (instance ids, protected bytes) is not needed, because the
# lists of MIG instances are asked from the instances.
_ROWS = {stride: struct.Struct(f"<I4xQ{stride - 16}x") for stride in (16, 24, 32)}
_FILL = 0xAA
_MOST_ROWS = 2**16

Rows = list[tuple[int, int]]


def find_call(kind: int) -> tuple[nvml.Call, int, str] | None:
    """The newest list call this driver has for `kind`: function, bytes per process, name.

    Drivers 535.43 to 535.86 return 32 bytes from `_v3` without saying so. They are known by
    having the confidential-computing call but not yet the detail list (nvitop#88).
    """
    base = f"nvmlDeviceGet{KINDS[kind]}RunningProcesses"
    wide = (
        nvml.symbol("nvmlDeviceGetConfComputeMemSizeInfo") is not None
        and nvml.symbol("nvmlDeviceGetRunningProcessDetailList") is None
    )
    for name, stride in ((f"{base}_v3", 32 if wide else 24), (f"{base}_v2", 24), (base, 16)):
        function = nvml.symbol(name)
        if function is not None:
            return function, stride, name
    return None


class ProcessList:
    """One of a device's lists, read into a buffer of its own that grows when it must.

    Attributes:
        rows: (pid, bytes) of the last successful read, as the driver gave them.
        name: The NVML function.
        off: Not asked any more: the driver or the board has no such list.
        failing: The last call failed in a way that may pass.
        calls: Native calls made.
        rest: Looks for which it need not be read again.
    """

    __slots__ = (
        "_buffer", "_confirmed", "_count", "_count_ref", "_function", "_handles", "_room",
        "_rows", "_stride", "_view", "calls", "failing", "kind", "name", "off", "rest", "rows",
    )  # fmt: skip

    def __init__(self, kind: int, handles: Sequence[Any]) -> None:
        found = find_call(kind)
        self.kind = kind
        self.off = found is None
        self.failing = False
        self.calls = 0
        self.rest = 0
        self.rows: Rows = []
        self.name = f"nvmlDeviceGet{KINDS[kind]}RunningProcesses"
        if found is not None:
            self._function, self._stride, self.name = found
        self._handles = tuple(handles)
        self._confirmed = False
        self._rows = _ROWS[24]
        self._count = ctypes.c_uint(0)
        self._count_ref = ctypes.byref(self._count)
        self._reserve(32)

    def _reserve(self, room: int) -> None:
        self._room = room
        # 32 bytes each whatever the stride: a driver that writes more than it says must not
        # write past the end.
        self._buffer = (ctypes.c_char * (room * 32))()
        self._view = memoryview(self._buffer).cast("B")

    def read(self) -> int:
        """Read the list; returns NVML's code, and leaves the result in `rows`."""
        rows: Rows = []
        count = self._count
        for handle in self._handles:
            if not self._confirmed:
                ctypes.memset(self._buffer, _FILL, len(self._buffer))
            count.value = self._room
            self.calls += 1
            code = self._function(handle, self._count_ref, self._buffer)
            if code:
                if code == nvml.INSUFFICIENT_SIZE and self._room < _MOST_ROWS:
                    self._reserve(2 * max(count.value, self._room))
                    return self.read()
                return code
            found = count.value
            if found:
                if not self._confirmed:
                    self._confirm(found)
                rows += self._rows.iter_unpack(self._view[: found * self._stride])
        self.rows = rows
        return nvml.OK

    def _confirm(self, found: int) -> None:
        self._stride = measured_stride(self._view, found, self._stride)
        self._rows = _ROWS[self._stride]
        self._confirmed = True


def measured_stride(buffer: memoryview, count: int, expected: int) -> int:
    """Bytes per process, from how far `count` entries reached into a buffer filled with 0xAA.

    Some drivers return another layout than the name of the call promises: 550.127.08 inside
    a container wrote 16 bytes per process from `_v3` (nvitop#226), which read as 24 gives
    wrong PIDs without any error.

    >>> filled = memoryview(bytearray(bytes(32) + bytes([0xAA]) * 64))
    >>> measured_stride(filled, 2, 24), measured_stride(filled, 1, 24)
    (16, 32)
    """
    reached = len(buffer)
    while reached and buffer[reached - 1] == _FILL:
        reached -= 1
    for stride in _ROWS:
        if (count - 1) * stride < reached <= count * stride and reached > count * stride - 8:
            return stride
    return expected


def merged(lists: Sequence[ProcessList], limit_bytes: int) -> dict[int, tuple[int | None, int]]:
    """Each process once: pid to (bytes or None, kinds), from all lists of a device.

    A process that is in two lists holds its memory once, so the larger figure counts, not
    the sum (all-smi#123). Impossible PIDs are left out; a figure larger than the device, or
    NVML's mark for none, is None.
    """
    processes: dict[int, tuple[int | None, int]] = {}
    for one in lists:
        kind = one.kind
        for pid, raw in one.rows:
            if not 0 < pid <= PID_LIMIT:
                continue
            used = raw if raw <= limit_bytes else None
            known = processes.get(pid)
            if known is not None:
                before, kinds = known
                kind_mask = kinds | kind
                if used is None or (before is not None and before > used):
                    used = before
            else:
                kind_mask = kind
            processes[pid] = (used, kind_mask)
    return processes
