"""`gpustat --json`, one object a line or pretty-printed, one after the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from vramtop.errors import LogFormatError
from vramtop.samples import LOOKED_PROCESSES, LOOKED_SLOW, LOOKED_UTIL
from vramtop.sources.logs import _values as values
from vramtop.sources.logs._polls import DeviceRef, DeviceSample, Log, Poll, ProcessSample
from vramtop.sources.logs._times import parse_stamp
from vramtop.units import MIB

NAME = "gpustat"
TITLE = "gpustat --json"

_MOST_CHARS = 1 << 24
"""Characters of one object; more is no answer of gpustat."""
_BRACES = re.compile(r'"(?:[^"\\]|\\.)*"|[{}]')
_READINGS = (
    ("memory.total", "total_bytes", MIB),
    ("memory.used", "used_bytes", MIB),
    ("memory.free", "free_bytes", MIB),
    ("utilization.gpu", "gpu_util_pct", 1),
    ("power.draw", "power_mw", 1000),
    ("temperature.gpu", "temp_c", 1),
)
_GPU_KEYS = frozenset(("index", "uuid", "name", "processes", *(name for name, _, _ in _READINGS)))
_PROCESS_KEYS = frozenset(("pid", "command", "username", "gpu_memory_usage"))


def recognise(head: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether these first lines are of this form."""
    del columns
    return any(line.lstrip().startswith("{") for line in head) and any(
        '"gpus"' in line or '"query_time"' in line for line in head
    )


def read(log: Log) -> Iterator[Poll]:
    """The polls of the log.

    Raises:
        LogFormatError: two hosts in one log, or no times and no interval.
    """
    for text in _objects(log):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            log.notes.skip("no complete JSON object", text)
            continue
        if not isinstance(found, dict) or not isinstance(found.get("gpus"), list):
            log.notes.skip("no answer of gpustat", text)
            continue
        poll = _poll(found, log)
        if poll.devices:
            yield poll


def _objects(log: Log) -> Iterator[str]:
    """The texts of the objects at the top level; a torn one ends where the next begins."""
    parts: list[str] = []
    depth = size = 0
    for line in log.lines():
        if depth and (line.startswith("{") or size > _MOST_CHARS):
            log.notes.skip("no complete JSON object", parts[0])
            parts, depth, size = [], 0, 0
        if not depth and not line.lstrip().startswith("{"):
            if line.strip():
                log.notes.skip("between the objects", line)
            continue
        for mark in _BRACES.findall(line):
            depth += (mark == "{") - (mark == "}")
        parts.append(line)
        size += len(line)
        if depth <= 0:
            yield "\n".join(parts)
            parts, depth, size = [], 0, 0
    if parts:
        log.notes.skip("no complete JSON object", parts[0])


def _poll(found: dict[str, object], log: Log) -> Poll:
    host = found.get("hostname")
    if isinstance(host, str) and host:
        if log.host is not None and host != log.host:
            raise LogFormatError(
                f"{log.name} has polls of two hosts, {log.host} and {host}",
                hint="a recording is of one host: split the log",
            )
        log.host = host
    driver = found.get("driver_version")
    if log.driver is None and isinstance(driver, str):
        log.driver = driver
    stamp = parse_stamp(str(found.get("query_time", "")))
    t_us = log.untimed_us() if stamp is None else log.clock.utc_us(stamp)
    poll = Poll(t_us, lists_devices=True)
    gpus = found["gpus"]
    for position, gpu in enumerate(gpus if isinstance(gpus, list) else []):
        if isinstance(gpu, dict):
            _take_gpu(gpu, position, poll, log)
        else:
            log.notes.skip("no GPU of gpustat", str(gpu))
    return poll


def _take_gpu(gpu: dict[str, object], position: int, poll: Poll, log: Log) -> None:
    index, uuid, name = gpu.get("index"), gpu.get("uuid"), gpu.get("name")
    known_index = isinstance(index, int) and not isinstance(index, bool) and 0 <= index < 10_000
    ref = DeviceRef(
        gpu=index if known_index and isinstance(index, int) else position,
        uuid=uuid[:64] if isinstance(uuid, str) and uuid else None,
    )
    readings = {
        field: _integer(gpu.get(column), factor)
        for column, field, factor in _READINGS
        if column in gpu
    }
    for key in gpu:
        if key not in _GPU_KEYS:
            log.notes.keep_not(str(key))
    sample = DeviceSample(
        ref,
        values.plausible(readings, log.notes),
        LOOKED_UTIL | LOOKED_SLOW,
        name[:256] if isinstance(name, str) else None,
    )
    poll.devices.append(sample)
    processes = gpu.get("processes")
    # gpustat writes null where the driver does not give the list.
    if not isinstance(processes, list):
        return
    sample.looked |= LOOKED_PROCESSES
    for process in processes:
        _take_process(process, ref, poll, log)


def _take_process(process: object, ref: DeviceRef, poll: Poll, log: Log) -> None:
    pid = process.get("pid") if isinstance(process, dict) else None
    if not isinstance(process, dict) or isinstance(pid, bool) or not isinstance(pid, int):
        log.notes.skip("no process of gpustat", str(process))
        return
    if not 0 < pid <= values.MOST_PID:
        log.notes.impossible["pid"] += 1
        return
    for key in process:
        if key not in _PROCESS_KEYS:
            log.notes.keep_not(f"processes.{key}")
    used = _integer(process.get("gpu_memory_usage"), MIB)
    if used is not None and not 0 <= used <= values.MOST_BYTES:
        log.notes.impossible["gpu_memory_usage"] += 1
        used = None
    command, user = process.get("command"), process.get("username")
    poll.processes.append(
        ProcessSample(
            ref,
            pid,
            command[:256] if isinstance(command, str) and command else None,
            used,
            {"user": user[:64]} if isinstance(user, str) and user else {},
        )
    )


def _integer(value: object, factor: int) -> int | None:
    # Infinity and NaN are JSON to Python; both fail the comparison.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e15:
        return None
    return round(value * factor)
