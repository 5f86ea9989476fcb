"""`nvidia-smi --query-compute-apps=… --format=csv`, with or without header and units."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from vramtop.errors import LogFormatError
from vramtop.samples import LOOKED_PROCESSES
from vramtop.sources.logs import _values as values
from vramtop.sources.logs._columns import LEFT_OUT
from vramtop.sources.logs._polls import DeviceRef, DeviceSample, Log, Poll, ProcessSample
from vramtop.sources.logs._rows import Row, process_polls
from vramtop.sources.logs._times import parse_stamp

NAME = "compute-apps"
TITLE = "nvidia-smi --query-compute-apps csv"

_COLUMNS = {
    "timestamp": "timestamp", "pid": "pid", "name": "name", "process_name": "name",
    "used_gpu_memory": "used", "used_memory": "used", "gpu_uuid": "uuid", "gpu_bus_id": "bus_id",
    "gpu_name": "board",
}  # fmt: skip
_HEADER_CELL = re.compile(r"\s*([a-z][a-z0-9_.]*)\s*(?:\[([^\]]*)\])?\s*", re.ASCII)


def header_columns(line: str) -> list[tuple[str, str]] | None:
    """(name, unit) per column if the line is a header of this form, else None.

    >>> header_columns("pid, process_name, used_gpu_memory [MiB]")
    [('pid', ''), ('process_name', ''), ('used_gpu_memory', 'MiB')]
    """
    matches = [_HEADER_CELL.fullmatch(cell) for cell in line.split(",")]
    columns = [(match[1], match[2] or "") for match in matches if match is not None]
    names = {name for name, _ in columns}
    if len(columns) < len(matches) or "pid" not in names:
        return None
    return columns if names & {"used_gpu_memory", "used_memory", "process_name"} else None


def recognise(head: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether these first lines are of this form."""
    return "pid" in columns or any(header_columns(line) for line in head)


def read(log: Log) -> Iterator[Poll]:
    """The polls of the log.

    Raises:
        LogFormatError: no column `pid`, or no times and no interval.
    """
    return process_polls(_rows(log), log)


def _rows(log: Log) -> Iterator[Row]:
    columns: list[tuple[str, str]] | None = None
    if log.columns:
        columns = [
            (match[1], match[2] or "") if (match := _HEADER_CELL.fullmatch(name)) else (name, "")
            for name in log.columns
        ]
        _check(columns, log)
    batch = 0
    for line in log.lines():
        header = header_columns(line)
        if header is not None:
            batch += 1
            if not log.columns and header != columns:
                columns = header
                _check(columns, log)
            continue
        if columns is None or not line.strip():
            if line.strip():
                log.notes.skip("before the header", line)
            continue
        try:
            yield _row(line.split(","), columns, batch, log)
        except ValueError:
            log.notes.skip("no row of this log", line)


def _check(columns: list[tuple[str, str]], log: Log) -> None:
    names = [name for name, _ in columns]
    if "pid" not in names:
        raise LogFormatError(f"{log.name} has no column pid", hint="name it in --columns")
    for name in names:
        if name not in _COLUMNS and name not in (LEFT_OUT, "_", ""):
            log.notes.keep_not(name)
    if not {"gpu_uuid", "gpu_bus_id"} & set(names):
        log.notes.assume(f"{log.name} names no GPU; all its processes are on one")


def _row(cells: list[str], columns: list[tuple[str, str]], batch: int, log: Log) -> Row:
    kinds = [_COLUMNS.get(name) for name, _ in columns]
    extra = len(cells) - len(columns)
    if extra > 0 and "name" in kinds:
        # nvidia-smi does not quote, and a process name may hold commas.
        at = kinds.index("name")
        cells = [*cells[:at], ",".join(cells[at : at + extra + 1]), *cells[at + extra + 1 :]]
    if len(cells) != len(columns):
        raise ValueError(cells)
    cell = {
        kind: (text.strip(), unit)
        for kind, text, (_, unit) in zip(kinds, cells, columns, strict=True)
        if kind is not None
    }
    t_us = None
    if "timestamp" in cell:
        stamp = parse_stamp(cell["timestamp"][0])
        if stamp is None:
            raise ValueError(cells)
        t_us = log.clock.utc_us(stamp)
    ref = DeviceRef(uuid=_text(cell, "uuid"), bus_id=_text(cell, "bus_id"))
    used = None
    if "used" in cell:
        used = values.memory_bytes(*cell["used"])
        if used is not None and not 0 <= used <= values.MOST_BYTES:
            log.notes.impossible["used_gpu_memory"] += 1
            used = None
    return Row(
        t_us,
        batch,
        DeviceSample(ref, looked=LOOKED_PROCESSES, name=_text(cell, "board")),
        ProcessSample(ref, values.process_id(cell["pid"][0]), _text(cell, "name"), used),
    )


def _text(cell: dict[str, tuple[str, str]], kind: str) -> str | None:
    text = cell.get(kind, ("", ""))[0]
    return None if values.absent(text) else text[:256]
