"""Plain CSV for anybody's own script: `t_s,gpu,pid,used_mib,total_mib,util_pct`.

A row with an empty pid is about the GPU, any other about a process on it. pid, total and util
may be missing. Rows of one time belong together, and where the column pid is there a time
holds all processes of the GPUs it has rows of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vramtop.errors import LogFormatError
from vramtop.samples import LOOKED_PROCESSES, LOOKED_UTIL
from vramtop.sources.logs import _values as values
from vramtop.sources.logs._polls import DeviceRef, DeviceSample, Log, Poll, ProcessSample
from vramtop.sources.logs.vramtop_csv import csv_cells, seconds_us

NAME = "plain-csv"
TITLE = "CSV with t_s,gpu,pid,used_mib,total_mib,util_pct"

_KNOWN = ("t_s", "gpu", "pid", "used_mib", "total_mib", "util_pct")
_EPOCH_US = 500_000_000_000_000
"""Times above this many µs (1985) are Unix time, those below seconds since the log began."""


def _header(line: str) -> list[str] | None:
    names = [cell.strip().lower() for cell in line.split(",")]
    return names if "t_s" in names and "used_mib" in names else None


def recognise(head: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether these first lines are of this form."""
    return "t_s" in columns or any(_header(line) for line in head)


def read(log: Log) -> Iterator[Poll]:
    """The polls of the log.

    Raises:
        LogFormatError: `--columns` lacks t_s or used_mib.
    """
    header = [name.strip().lower() for name in log.columns] or None
    if header is not None:
        _check(header, log)
    base_us: int | None = None
    poll: Poll | None = None
    last_us = -1
    for line in log.lines():
        found = _header(line)
        if found is not None:
            if not log.columns:
                header = found
                _check(header, log)
            continue
        if not line.strip():
            continue
        if header is None:
            log.notes.skip("before the header", line)
            continue
        try:
            row = _cells(line, header)
            t_us = seconds_us(row["t_s"])
            ref = DeviceRef(gpu=values.gpu_index(row.get("gpu") or "0"))
            if base_us is None:
                base_us = 0 if t_us >= _EPOCH_US else log.start_us()
            if poll is None or t_us != last_us:
                if poll is not None:
                    yield poll
                poll = Poll(base_us + t_us)
                last_us = t_us
            _take(row, ref, poll, log)
        except ValueError:
            log.notes.skip("no row of this log", line)
    if poll is not None:
        yield poll


def _check(header: list[str], log: Log) -> None:
    missing = [name for name in ("t_s", "used_mib") if name not in header]
    if missing:
        raise LogFormatError(
            f"{log.name} has no column {missing[0]}", hint="name it in --columns t_s,gpu,used_mib"
        )
    for name in header:
        if name not in _KNOWN and name not in ("-", "_", ""):
            log.notes.keep_not(name)
    if "gpu" not in header:
        log.notes.assume(f"{log.name} names no GPU; all its rows are of one")


def _cells(line: str, header: list[str]) -> dict[str, str]:
    cells = csv_cells(line)
    if len(cells) != len(header):
        raise ValueError(line)
    return {name: cell.strip() for name, cell in zip(header, cells, strict=True)}


def _take(row: dict[str, str], ref: DeviceRef, poll: Poll, log: Log) -> None:
    pid = values.process_id(row["pid"]) if row.get("pid") else None
    readings = {"used_bytes": values.memory_bytes(row["used_mib"])}
    if "total_mib" in row:
        readings["total_bytes"] = values.memory_bytes(row["total_mib"])
    tiers = LOOKED_PROCESSES if "pid" in row else 0
    if pid is None and "util_pct" in row:
        readings["gpu_util_pct"] = values.scaled(row["util_pct"])
        tiers |= LOOKED_UTIL
    values.plausible(readings, log.notes)
    sample = next((sample for sample in poll.devices if sample.ref == ref), None)
    if sample is None:
        sample = DeviceSample(ref)
        poll.devices.append(sample)
    sample.looked |= tiers
    if pid is None:
        sample.values = readings
    else:
        # A total on a process row is the GPU's; its own device row says the same.
        sample.values.setdefault("total_bytes", readings.get("total_bytes"))
        poll.processes.append(ProcessSample(ref, pid, None, readings["used_bytes"]))
