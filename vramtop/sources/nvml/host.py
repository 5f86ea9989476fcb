"""Starting NVML, and what is recorded about this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

from vramtop import __version__
from vramtop.errors import DriverError
from vramtop.samples import HOST, Observation
from vramtop.sources.nvml import _compat as nvml

_MODULE_VERSION = Path("/proc/driver/nvidia/version")


def start_nvml() -> None:
    """Load and start NVML.

    Raises:
        DriverError: it is missing or refuses, with what to do about it.
    """
    if not nvml.is_nvidia_ml_py():
        raise DriverError(
            "the Python module pynvml is not NVIDIA's nvidia-ml-py",
            hint="pip uninstall pynvml nvidia-ml-py3; pip install --force-reinstall nvidia-ml-py",
        )
    try:
        nvml.start()
    except nvml.NvmlCallError as error:
        raise explained(error.code) from None


def explained(code: int) -> DriverError:
    """Why NVML does not start, and what to do.

    >>> explained(9).message
    'the NVIDIA kernel module is not loaded (Driver Not Loaded (9))'
    """
    says = nvml.error_text(code)
    if code == nvml.LIBRARY_NOT_FOUND:
        return DriverError(
            "libnvidia-ml.so.1 not found: there is no NVIDIA driver here",
            hint="install the NVIDIA driver (in a container: run it with the NVIDIA runtime), "
            "or try --source sim:steady-training",
        )
    if code == nvml.DRIVER_NOT_LOADED:
        return DriverError(
            f"the NVIDIA kernel module is not loaded ({says})",
            hint="sudo modprobe nvidia, and see what dmesg says; "
            "or try --source sim:steady-training",
        )
    if code == nvml.VERSION_MISMATCH:
        loaded = kernel_module_version()
        module = "the loaded kernel module" if loaded is None else f"the loaded module {loaded}"
        return DriverError(
            f"the NVIDIA library and {module} have different versions ({says})",
            hint="the driver was upgraded under a running system: jobs that hold GPUs go on, "
            "but nothing can look at them until the module is reloaded or the machine rebooted",
        )
    if code == nvml.NO_PERMISSION:
        return DriverError(
            f"no permission to use the NVIDIA driver ({says})",
            hint="the device files /dev/nvidia* must be readable: check their group, or the "
            "device rules of the container or job",
        )
    if code == nvml.UNKNOWN:
        return DriverError(
            f"the NVIDIA driver does not start ({says})",
            hint="in a container this follows a systemctl daemon-reload on the host: "
            "start the container again",
        )
    return DriverError(f"the NVIDIA driver does not start ({says})", hint="nvidia-smi may say more")


def kernel_module_version() -> str | None:
    """Version of the loaded kernel module, from the line that names it in /proc."""
    try:
        words = _MODULE_VERSION.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    versions = [word for word in words[:16] if word[:1].isdigit() and word.count(".") >= 1]
    return versions[0] if versions else None


def host_facts(driver: str | None) -> Observation:
    """The observation that a recording begins with."""
    return Observation(
        what=HOST,
        name=os.uname().nodename,
        data={
            "boot_id": _read_line("/proc/sys/kernel/random/boot_id"),
            "zone": zone_name(),
            "utc_offset_s": time.localtime().tm_gmtoff,
            "driver": driver,
            "nvml": nvml.text("nvmlSystemGetNVMLVersion"),
            "vramtop": __version__,
        },
    )


def zone_name() -> str | None:
    """IANA name of the local time zone; None where the system does not name it."""
    zone = os.environ.get("TZ", "").lstrip(":")
    if "/" in zone and not zone.startswith("/"):
        return zone
    if zone:
        return "UTC" if zone in ("UTC", "UTC0") else None
    try:
        _, found, name = str(Path("/etc/localtime").readlink()).rpartition("zoneinfo/")
    except OSError:
        return _read_line("/etc/timezone")
    return name if found else None


def _read_line(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip() or None
    except OSError:
        return None
