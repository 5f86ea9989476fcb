"""`nvidia-smi --query-gpu=… --format=csv`, with or without header and units."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

from vramtop.errors import LogFormatError
from vramtop.samples import LOOKED_SLOW, LOOKED_UTIL
from vramtop.sources.logs import _values as values
from vramtop.sources.logs._columns import LEFT_OUT, deduce_columns
from vramtop.sources.logs._polls import DeviceRef, DeviceSample, Log, Poll
from vramtop.sources.logs._rows import HEAD_ROWS, Row, device_polls
from vramtop.sources.logs._times import parse_stamp

NAME = "query-gpu"
TITLE = "nvidia-smi --query-gpu csv"

_HEADER_CELL = re.compile(r"\s*([A-Za-z][A-Za-z0-9_.]*)\s*(?:\[([^\]]*)\])?\s*", re.ASCII)
_LOST = re.compile(r"gpu is lost|requires reset", re.IGNORECASE)

# Column to (field of DeviceReading, tier it belongs to, factor to base units; None: memory).
_READINGS: dict[str, tuple[str, int, int | None]] = {
    "memory.total": ("total_bytes", 0, None),
    "memory.reserved": ("reserved_bytes", 0, None),
    "memory.used": ("used_bytes", 0, None),
    "memory.free": ("free_bytes", 0, None),
    "utilization.gpu": ("gpu_util_pct", LOOKED_UTIL, 1),
    "utilization.memory": ("mem_util_pct", LOOKED_UTIL, 1),
    "power.draw": ("power_mw", LOOKED_UTIL, 1000),
    "power.draw.instant": ("power_mw", LOOKED_UTIL, 1000),
    "power.draw.average": ("power_mw", LOOKED_UTIL, 1000),
    "temperature.gpu": ("temp_c", LOOKED_SLOW, 1),
    "clocks.current.sm": ("sm_clock_mhz", LOOKED_SLOW, 1),
    "clocks.sm": ("sm_clock_mhz", LOOKED_SLOW, 1),
    "clocks.current.memory": ("mem_clock_mhz", LOOKED_SLOW, 1),
    "clocks.mem": ("mem_clock_mhz", LOOKED_SLOW, 1),
    "clocks_throttle_reasons.active": ("throttle", LOOKED_SLOW, 1),
    "clocks_event_reasons.active": ("throttle", LOOKED_SLOW, 1),
}
_MEMORY = frozenset(("memory.used", "memory.free"))
_IDENTITY = {
    "index": "index", "uuid": "uuid", "gpu_uuid": "uuid", "pci.bus_id": "bus_id",
    "gpu_bus_id": "bus_id", "name": "name", "gpu_name": "name", "timestamp": "timestamp",
    "driver_version": "driver",
}  # fmt: skip


def header_columns(line: str) -> list[tuple[str, str]] | None:
    """(name, unit) per column if the line is a header, else None.

    >>> header_columns("timestamp, memory.used [MiB]")
    [('timestamp', ''), ('memory.used', 'MiB')]
    >>> header_columns("2025/05/11 15:30:21.913, 3 MiB") is None
    True
    """
    columns = []
    for cell in line.split(","):
        match = _HEADER_CELL.fullmatch(cell.strip().strip('"'))
        if match is None:
            return None
        columns.append((match[1].lower(), match[2] or ""))
    names = [name for name, _ in columns]
    known = sum(name in _READINGS or name in _IDENTITY for name in names)
    # One word is a header only if it names a reading: "name" may be any line of a shell.
    if len(names) == 1:
        return columns if names[0] in _READINGS else None
    return columns if known >= 2 and (known * 2 >= len(names) or known >= 3) else None


def recognise(head: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether these first lines are of this form."""
    if "pid" in columns:
        return False
    return bool(columns) or any(header_columns(line) for line in head) or _looks_headerless(head)


def _looks_headerless(head: Sequence[str]) -> bool:
    rows = [cells for line in head if parse_stamp((cells := line.split(","))[0]) is not None]
    widths = {len(cells) for cells in rows}
    return bool(rows) and max(widths) > 1 and not any("#" in cells[0] for cells in rows)


def read(log: Log) -> Iterator[Poll]:
    """The polls of the log.

    Raises:
        LogFormatError: no memory or only ambiguous columns, or no times and no interval.
    """
    return device_polls(_rows(log), log)


def _rows(log: Log) -> Iterator[Row]:
    lines = log.lines()
    reader: _RowReader | None = None
    batch = 0
    if log.columns or not any(header_columns(line) for line in log.head):
        first = list(islice(lines, HEAD_ROWS))
        reader = _RowReader(_headerless(first, log), log)
        yield from (row for line in first if (row := reader.row(line, batch)) is not None)
    header: list[tuple[str, str]] | None = None
    called_us: int | None = None
    for line in lines:
        columns = header_columns(line)
        stamp = None if "," in line else parse_stamp(line)
        if stamp is not None and (reader is None or not reader.has_times):
            # What `date` printed in front of a call whose query has no timestamp.
            called_us = log.clock.utc_us(stamp)
            batch += 1
            continue
        if columns is not None and not log.columns:
            batch += 1
            if columns != header:
                header = columns
                has_memory = any(name in _MEMORY for name, _ in columns)
                # The first header must be of use; a later one may be of another query.
                reader = _RowReader(columns, log) if has_memory or reader is None else None
            continue
        if reader is None:
            if line.strip():
                log.notes.skip("not below a header of this log", line)
            continue
        row = reader.row(line, batch)
        if row is not None:
            if row.t_us is None:
                row.t_us = called_us
            yield row


def _headerless(lines: Sequence[str], log: Log) -> list[tuple[str, str]]:
    cells = [line.split(",") for line in lines if parse_stamp(line.split(",")[0]) is not None]
    if log.columns:
        # The log may have its own header and no stamps; any line of the right width is a row.
        widths = [line.split(",") for line in lines if line.strip()]
        fitting = [row for row in widths if len(row) == len(log.columns)]
        names = log.device_columns(fitting[0] if fitting else widths[0])
        return [
            (match[1].lower(), match[2] or "")
            if (match := _HEADER_CELL.fullmatch(name))
            else (name, "")
            for name in (name.strip() for name in names)
        ]
    width = max(
        {len(row) for row in cells},
        key=lambda width: sum(len(row) == width for row in cells),
        default=0,
    )
    rows = [row for row in cells if len(row) == width]
    if not rows:
        raise LogFormatError(
            f"{log.name} has no line with a time stamp", hint="name its columns with --columns"
        )
    names, said = deduce_columns(rows, log.name)
    for text in said:
        log.notes.assume(text)
    return [(name, "") for name in names]


class _RowReader:
    """Reads the lines below one header."""

    def __init__(self, columns: list[tuple[str, str]], log: Log) -> None:
        self._log = log
        self._width = len(columns)
        self._identity: dict[str, int] = {}
        self._readings: list[tuple[int, str, Callable[[str], int | None]]] = []
        self.looked = 0
        self.has_times = any(name == "timestamp" for name, _ in columns)
        taken: set[str] = set()
        for index, (name, unit) in enumerate(columns):
            if name in _IDENTITY and _IDENTITY[name] not in self._identity:
                self._identity[_IDENTITY[name]] = index
            elif name in _READINGS and _READINGS[name][0] not in taken:
                field, tier, factor = _READINGS[name]
                taken.add(field)
                self.looked |= tier
                self._readings.append((index, field, _converter(field, unit, factor)))
            elif name not in (LEFT_OUT, "_", ""):
                log.notes.keep_not(name)
        if not any(name in _MEMORY for name, _ in columns):
            raise LogFormatError(
                f"{log.name} has no memory.used column (it has "
                + ", ".join(name for name, _ in columns)
                + ")",
                hint="name its columns with --columns, memory.used among them",
            )

    def row(self, line: str, batch: int) -> Row | None:
        """What a line says, None if it is no row (and that is noted)."""
        cells = line.split(",")
        if len(cells) != self._width:
            cells = self._joined_name(cells)
        if len(cells) != self._width:
            if line.strip():
                self._log.notes.skip("no row of this log", line)
            return None
        try:
            return self._parsed(cells, batch, brackets="[" in line)
        except ValueError:
            self._log.notes.skip("no row of this log", line)
            return None

    def _joined_name(self, cells: list[str]) -> list[str]:
        extra = len(cells) - self._width
        index = self._identity.get("name")
        if extra <= 0 or index is None:
            return cells
        joined = ",".join(cells[index : index + extra + 1])
        return [*cells[:index], joined, *cells[index + extra + 1 :]]

    def _parsed(self, cells: list[str], batch: int, *, brackets: bool) -> Row:
        identity = self._identity
        t_us = None
        if "timestamp" in identity:
            stamp = parse_stamp(cells[identity["timestamp"]])
            if stamp is None:
                raise ValueError(cells)
            t_us = self._log.clock.utc_us(stamp)
        lost = None
        if brackets:
            lost = next((cell.strip() for cell in cells if _LOST.search(cell)), None)
        readings = {field: convert(cells[index]) for index, field, convert in self._readings}
        if "driver" in identity and self._log.driver is None:
            self._log.driver = _known(cells[identity["driver"]])
        sample = DeviceSample(
            DeviceRef(
                gpu=None if "index" not in identity else values.gpu_index(cells[identity["index"]]),
                uuid=_known(cells[identity["uuid"]]) if "uuid" in identity else None,
                bus_id=_known(cells[identity["bus_id"]]) if "bus_id" in identity else None,
            ),
            values.plausible(readings, self._log.notes),
            self.looked,
            _known(cells[identity["name"]]) if "name" in identity else None,
            lost,
        )
        return Row(t_us, batch, sample)


def _known(cell: str) -> str | None:
    text = cell.strip()
    return None if values.absent(text) else text[:256]


def _converter(field: str, unit: str, factor: int | None) -> Callable[[str], int | None]:
    if factor is None:
        return lambda cell: values.memory_bytes(cell.strip(), unit)
    if field == "throttle":
        return values.bit_mask
    return lambda cell: values.scaled(cell, factor)
