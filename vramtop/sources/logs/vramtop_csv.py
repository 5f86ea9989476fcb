"""`vramtop 0.1.0 --export-csv`: a row per GPU and process, the GPU's figures on each."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence

from vramtop.samples import LOOKED_PROCESSES, LOOKED_UTIL
from vramtop.sources.logs import _values as values
from vramtop.sources.logs._polls import DeviceRef, DeviceSample, Log, Poll, ProcessSample
from vramtop.units import US_PER_S

NAME = "vramtop-0.1.0"
TITLE = "vramtop 0.1.0 --export-csv"

COLUMNS = (
    "wall_time", "gpu_index", "gpu_name", "gpu_used_bytes", "gpu_total_bytes",
    "gpu_util_percent", "pid", "process_name", "process_vram_bytes", "process_type",
)  # fmt: skip
_LATEST_S = 7_258_118_400  # the year 2200


def recognise(head: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether these first lines are of this form."""
    del columns
    return any(line.startswith("wall_time,gpu_index,") for line in head)


def csv_cells(line: str) -> list[str]:
    """The cells of one line, quotes resolved.

    Raises:
        ValueError: the line is no CSV.

    >>> csv_cells('1,"a, b",')
    ['1', 'a, b', '']
    """
    try:
        return next(csv.reader([line], strict=True), [])
    except csv.Error as error:
        raise ValueError(line) from error


def seconds_us(text: str) -> int:
    """Seconds as text to microseconds.

    Raises:
        ValueError: no time that can be.
    """
    seconds = float(text)
    if not math.isfinite(seconds) or not 0 <= seconds < _LATEST_S:
        raise ValueError(text)
    return round(seconds * US_PER_S)


def read(log: Log) -> Iterator[Poll]:
    """The polls of the log: rows of one wall time are one poll."""
    poll: Poll | None = None
    header: list[str] = list(COLUMNS)
    for line in log.lines():
        if line.startswith("wall_time,"):
            header = line.split(",")
            for name in header:
                if name not in COLUMNS:
                    log.notes.keep_not(name)
            continue
        if not line.strip():
            continue
        try:
            row = _cells(line, header)
            t_us = seconds_us(row["wall_time"])
            sample, process = _parsed(row, log)
        except (ValueError, KeyError):
            log.notes.skip("no row of this log", line)
            continue
        if poll is None or t_us != poll.t_us:
            if poll is not None:
                yield poll
            poll = Poll(t_us, lists_devices=True)
        if all(other.ref != sample.ref for other in poll.devices):
            poll.devices.append(sample)
        if process is not None:
            poll.processes.append(process)
    if poll is not None:
        yield poll


def _cells(line: str, header: list[str]) -> dict[str, str]:
    cells = csv_cells(line)
    if len(cells) != len(header):
        raise ValueError(line)
    return dict(zip(header, cells, strict=True))


def _parsed(row: dict[str, str], log: Log) -> tuple[DeviceSample, ProcessSample | None]:
    ref = DeviceRef(gpu=values.gpu_index(row["gpu_index"]))
    sample = DeviceSample(
        ref,
        values.plausible(
            {
                "used_bytes": _integer(row["gpu_used_bytes"]),
                "total_bytes": _integer(row["gpu_total_bytes"]),
                "gpu_util_pct": _integer(row["gpu_util_percent"]),
            },
            log.notes,
        ),
        LOOKED_UTIL | LOOKED_PROCESSES,
        row["gpu_name"][:256] or None,
    )
    if not row["pid"]:
        return sample, None
    used = _integer(row["process_vram_bytes"])
    if used is not None and not 0 <= used <= values.MOST_BYTES:
        log.notes.impossible["process_vram_bytes"] += 1
        used = None
    kind = row["process_type"]
    return sample, ProcessSample(
        ref,
        values.process_id(row["pid"]),
        row["process_name"][:256] or None,
        used,
        {"type": kind[:32]} if kind else {},
    )


def _integer(text: str) -> int | None:
    return values.scaled(text)
