"""What the binding and the drivers get wrong, and the calls made around it.

NVML is loaded, started and stopped by nvidia-ml-py; its constants and structures are used.
Its wrappers are not used on the hot path: each allocates its structures anew and asks a list
in two calls. `symbol` gives the same functions with nothing around them.

Binding bugs worked around here, all present in nvidia-ml-py 13.615.71 and none fixed yet:

* `nvmlDeviceGetRunningProcessDetailList` assigns None to a `c_ulonglong`: TypeError exactly
  when a figure is not available; its second call leaves no room for a new process.
* `nvmlDeviceGetAccountingStats` does the same with `maxMemoryUsage`.
* `nvmlDeviceGetProcessUtilization` raises `NVMLError(0)` on success without samples.

Driver quirks are beside the code that handles them, in `processes.py`.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pynvml

NOT_AVAILABLE = 2**64 - 1
"""What NVML puts where it has no figure."""

OK = 0
UNINITIALIZED: int = pynvml.NVML_ERROR_UNINITIALIZED
INVALID_ARGUMENT: int = pynvml.NVML_ERROR_INVALID_ARGUMENT
NOT_SUPPORTED: int = pynvml.NVML_ERROR_NOT_SUPPORTED
NO_PERMISSION: int = pynvml.NVML_ERROR_NO_PERMISSION
NOT_FOUND: int = pynvml.NVML_ERROR_NOT_FOUND
INSUFFICIENT_SIZE: int = pynvml.NVML_ERROR_INSUFFICIENT_SIZE
DRIVER_NOT_LOADED: int = pynvml.NVML_ERROR_DRIVER_NOT_LOADED
LIBRARY_NOT_FOUND: int = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
FUNCTION_NOT_FOUND: int = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
GPU_IS_LOST: int = pynvml.NVML_ERROR_GPU_IS_LOST
RESET_REQUIRED: int = pynvml.NVML_ERROR_RESET_REQUIRED
VERSION_MISMATCH: int = pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH
ARGUMENT_VERSION_MISMATCH: int = pynvml.NVML_ERROR_ARGUMENT_VERSION_MISMATCH
DEPRECATED: int = pynvml.NVML_ERROR_DEPRECATED
GPU_NOT_FOUND: int = pynvml.NVML_ERROR_GPU_NOT_FOUND
UNKNOWN: int = pynvml.NVML_ERROR_UNKNOWN

GONE_FOR_GOOD = frozenset((GPU_IS_LOST, RESET_REQUIRED, GPU_NOT_FOUND))
"""The handle must not be used again: that was seen to crash the process (nvitop#139)."""

NEVER = frozenset(
    (
        NOT_SUPPORTED, NO_PERMISSION, FUNCTION_NOT_FOUND, INVALID_ARGUMENT,
        ARGUMENT_VERSION_MISMATCH, DEPRECATED,
    )
)  # fmt: skip
"""Asking again will not help."""

DOWN = frozenset((UNINITIALIZED, DRIVER_NOT_LOADED, VERSION_MISMATCH, UNKNOWN))
"""From every GPU at once: NVML as a whole fails, as in a container after a daemon-reload."""

Call = Callable[..., int]


class NvmlCallError(Exception):
    """A call outside the hot path returned `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(error_text(code))
        self.code = code


def error_text(code: int) -> str:
    """What NVML calls this return code.

    >>> error_text(15)
    'GPU is lost (15)'
    """
    return f"{pynvml.NVMLError(code)} ({code})"


def clean(raw: bytes) -> str:
    r"""A driver's string as text; drivers have returned bytes that are not UTF-8 (nvitop#127).

    >>> clean(b"NVIDIA " + bytes([0xff]) + b"A100" + bytes([27, 0]))
    'NVIDIA �A100'
    """
    text = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
    return "".join(character for character in text if character.isprintable()).strip()


def start() -> None:
    """Load the library and start it. Raises `NvmlCallError`."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlCallError(error.value) from None


def stop() -> None:
    """End what `start` began; an NVML that is down already is no matter."""
    function = symbol("nvmlShutdown")
    if function is not None:
        function()


def is_nvidia_ml_py() -> bool:
    """Whether the module named pynvml is NVIDIA's, and new enough (gpustat#153)."""
    return hasattr(pynvml, "nvmlMemory_v2") and hasattr(pynvml, "nvmlInitWithFlags")


def symbol(name: str) -> Call | None:
    """A function of the loaded library, None where the driver lacks it.

    `CDLL[...]` makes a function object of its own, so nothing set on it reaches the binding.
    """
    try:
        function: Call = pynvml.nvmlLib[name]
    except AttributeError:
        return None
    return function


def needed(name: str) -> Call:
    """A function that every supported driver has."""
    function = symbol(name)
    if function is None:
        raise NvmlCallError(FUNCTION_NOT_FOUND)
    return function


def check(code: int) -> None:
    """Raise `NvmlCallError` unless `code` is success."""
    if code:
        raise NvmlCallError(code)


def number(name: str, handle: Any, *arguments: int, kind: Any = ctypes.c_uint) -> int | None:
    """One constant of a device, None where the driver or the board has it not."""
    function = symbol(name)
    if function is None:
        return None
    out = kind()
    code = function(handle, *(ctypes.c_uint(value) for value in arguments), ctypes.byref(out))
    return None if code else int(out.value)


def text(name: str, handle: Any = None, *, size: int = 96) -> str | None:
    """One string of a device, or of the system without `handle`; None where there is none."""
    function = symbol(name)
    if function is None:
        return None
    out = ctypes.create_string_buffer(size)
    arguments = (out, ctypes.c_uint(size))
    code = function(*arguments) if handle is None else function(handle, *arguments)
    return None if code else clean(out.raw)


def handle_by_index(index: int) -> Any:
    """The GPU at `index`; initialises it, which can take seconds. Raises `NvmlCallError`."""
    handle = pynvml.c_nvmlDevice_t()
    check(needed("nvmlDeviceGetHandleByIndex_v2")(ctypes.c_uint(index), ctypes.byref(handle)))
    return handle


def handle_by_uuid(uuid: str) -> Any:
    """The GPU with this UUID, wherever it is now. Raises `NvmlCallError`."""
    handle = pynvml.c_nvmlDevice_t()
    name = ctypes.c_char_p(uuid.encode())
    check(needed("nvmlDeviceGetHandleByUUID")(name, ctypes.byref(handle)))
    return handle


def mig_handle(handle: Any, index: int) -> Any | None:
    """The MIG device `index` of a GPU, None where there is none."""
    out = pynvml.c_nvmlDevice_t()
    function = symbol("nvmlDeviceGetMigDeviceHandleByIndex")
    if function is None or function(handle, ctypes.c_uint(index), ctypes.byref(out)):
        return None
    return out


def device_count() -> int:
    """How many GPUs there are. Raises `NvmlCallError`."""
    out = ctypes.c_uint()
    check(needed("nvmlDeviceGetCount_v2")(ctypes.byref(out)))
    return out.value


def pci_bus_id(handle: Any) -> str | None:
    """Such as 00000000:3B:00.0."""
    function = symbol("nvmlDeviceGetPciInfo_v3")
    info = pynvml.nvmlPciInfo_t()
    if function is None or function(handle, ctypes.byref(info)):
        return None
    offset = pynvml.nvmlPciInfo_t.busId.offset
    return clean(bytes(info)[offset : offset + pynvml.nvmlPciInfo_t.busId.size])


def compute_capability(handle: Any) -> str | None:
    """Such as 9.0."""
    function = symbol("nvmlDeviceGetCudaComputeCapability")
    major, minor = ctypes.c_int(), ctypes.c_int()
    if function is None or function(handle, ctypes.byref(major), ctypes.byref(minor)):
        return None
    return f"{major.value}.{minor.value}"


def mig_enabled(handle: Any) -> bool:
    """Whether this GPU is in MIG mode now."""
    function = symbol("nvmlDeviceGetMigMode")
    current, pending = ctypes.c_uint(), ctypes.c_uint()
    if function is None or function(handle, ctypes.byref(current), ctypes.byref(pending)):
        return False
    return current.value == 1


# The three wrappers of the binding that fail, done again -----------------------------------


def accounted_peak_bytes(handle: Any, pid: int) -> int | None:
    """The most memory a process ever held, from accounting mode; None where not available.

    The driver keeps this at every allocation, so it catches peaks between samples.
    """
    function = symbol("nvmlDeviceGetAccountingStats")
    if function is None:
        return None
    stats = pynvml.c_nvmlAccountingStats_t()
    if function(handle, ctypes.c_uint(pid), ctypes.byref(stats)):
        return None
    peak = int(stats.maxMemoryUsage)
    return None if peak == NOT_AVAILABLE else peak


def process_details(handle: Any, mode: int) -> list[tuple[int, int | None, int | None]]:
    """(pid, used bytes, protected bytes) of each process; mode 0 compute, 1 graphics, 2 MPS.

    Raises `NvmlCallError`.
    """
    function = needed("nvmlDeviceGetRunningProcessDetailList")
    room = 32
    while True:
        request = pynvml.c_nvmlProcessDetailList_v1_t()
        request.version, request.mode, request.numProcArrayEntries = 0x1000018, mode, room
        rows = (pynvml.c_nvmlProcessDetail_v1_t * room)()
        request.procArray = ctypes.cast(rows, ctypes.POINTER(pynvml.c_nvmlProcessDetail_v1_t))
        code = function(handle, ctypes.byref(request))
        if code != INSUFFICIENT_SIZE:
            check(code)
            break
        room = 2 * max(request.numProcArrayEntries, room)
    return [
        (row.pid, _or_none(row.usedGpuMemory), _or_none(row.usedGpuCcProtectedMemory))
        for row in rows[: request.numProcArrayEntries]
    ]


def process_utilization(handle: Any, since_us: int) -> list[tuple[int, int, int]]:
    """(pid, SM %, memory %) of processes that ran since `since_us`; none is an empty list.

    Raises `NvmlCallError`.
    """
    function = needed("nvmlDeviceGetProcessUtilization")
    count, since = ctypes.c_uint(0), ctypes.c_ulonglong(since_us)
    code = function(handle, None, ctypes.byref(count), since)
    if code in (OK, NOT_FOUND):
        return []
    if code != INSUFFICIENT_SIZE:
        raise NvmlCallError(code)
    count.value = 2 * count.value + 8
    rows = (pynvml.c_nvmlProcessUtilizationSample_t * count.value)()
    check(function(handle, rows, ctypes.byref(count), since))
    # Drivers have returned 37100 % and PID 0 (nvtop#110).
    return [
        (row.pid, row.smUtil, row.memUtil)
        for row in rows[: count.value]
        if row.pid and row.smUtil <= 100 and row.memUtil <= 100
    ]


def _or_none(value: int) -> int | None:
    return None if value == NOT_AVAILABLE else int(value)
