"""`nvidia-smi dmon`: one line per GPU below headers that begin with `#`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vramtop.errors import LogFormatError
from vramtop.samples import LOOKED_PCIE, LOOKED_SLOW, LOOKED_UTIL
from vramtop.sources.logs import _values as values
from vramtop.sources.logs._polls import DeviceRef, DeviceSample, Log, Poll
from vramtop.sources.logs._rows import Row, device_polls
from vramtop.sources.logs._times import parse_stamp, parse_time_of_day
from vramtop.units import MIB

NAME = "dmon"
TITLE = "nvidia-smi dmon"

# Column to (field of DeviceReading, tier, factor to base units).
_READINGS = {
    "fb": ("used_bytes", 0, MIB),
    "sm": ("gpu_util_pct", LOOKED_UTIL, 1),
    "mem": ("mem_util_pct", LOOKED_UTIL, 1),
    "pwr": ("power_mw", LOOKED_UTIL, 1000),
    "gtemp": ("temp_c", LOOKED_SLOW, 1),
    "temp": ("temp_c", LOOKED_SLOW, 1),
    "pclk": ("sm_clock_mhz", LOOKED_SLOW, 1),
    "mclk": ("mem_clock_mhz", LOOKED_SLOW, 1),
    "rxpci": ("pcie_rx_bytes_per_s", LOOKED_PCIE, 1_000_000),
    "txpci": ("pcie_tx_bytes_per_s", LOOKED_PCIE, 1_000_000),
}
_TIMES = ("date", "time")


def scroll_header(line: str) -> list[str] | None:
    """The column names of a `#` header of dmon or pmon, None if the line is none.

    >>> scroll_header("#Date       Time        gpu   pwr gtemp")
    ['date', 'time', 'gpu', 'pwr', 'gtemp']
    >>> scroll_header("# Idx     W     C") is None
    True
    """
    text = line.strip()
    if not text.startswith("#"):
        return None
    names = text[1:].lower().split()
    return names if "gpu" in names[:3] else None


def scroll_time_us(header: Sequence[str], cells: Sequence[str], log: Log) -> int | None:
    """The time of a row from its Date and Time cells; None in a log without times.

    Raises:
        ValueError: the cells are no date and time.
    """
    if "time" not in header:
        return None
    clock = cells[header.index("time")]
    if "date" in header:
        day = cells[header.index("date")]
        stamp = parse_stamp(f"{day[:4]}-{day[4:6]}-{day[6:]} {clock}")
        if stamp is None:
            raise ValueError(cells)
        return log.clock.utc_us(stamp)
    since_midnight_us = parse_time_of_day(clock)
    if since_midnight_us is None:
        raise ValueError(cells)
    return log.time_of_day_us(since_midnight_us)


def recognise(head: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether these first lines are of this form."""
    del columns
    return any((names := scroll_header(line)) is not None and "pid" not in names for line in head)


def read(log: Log) -> Iterator[Poll]:
    """The polls of the log.

    Raises:
        LogFormatError: no times and no interval.
    """
    return device_polls(_rows(log), log)


def _rows(log: Log) -> Iterator[Row]:
    header: list[str] | None = None
    for line in log.lines():
        text = line.strip()
        if text.startswith("#"):
            # The header comes again every screenful: it does not begin a poll.
            found = scroll_header(line)
            if found is not None and found != header:
                _check(found, log, first=header is None)
                header = found
            continue
        if not text:
            continue
        if header is None:
            log.notes.skip("before the header", line)
            continue
        try:
            yield _row(text.split(), header, log)
        except ValueError:
            log.notes.skip("no row of this log", line)


def _check(header: list[str], log: Log, *, first: bool) -> None:
    for name in header:
        if name not in _READINGS and name not in ("gpu", *_TIMES):
            log.notes.keep_not(name)
    if first and not set(header) & set(_READINGS):
        raise LogFormatError(
            f"{log.name} has no column that can be kept (it has {', '.join(header)})",
            hint="nvidia-smi dmon -s pucm logs memory, utilisation, power and clocks",
        )
    if "fb" not in header:
        log.notes.fact(
            f"{log.name} has no column fb: no memory is known from it (dmon -s m logs it)"
        )


def _row(cells: list[str], header: list[str], log: Log) -> Row:
    if len(cells) != len(header):
        raise ValueError(cells)
    readings: dict[str, int | None] = {}
    looked = 0
    for name, cell in zip(header, cells, strict=True):
        if name in _READINGS:
            field, tier, factor = _READINGS[name]
            readings[field] = values.scaled(cell, factor)
            looked |= tier
    sample = DeviceSample(
        DeviceRef(gpu=values.gpu_index(cells[header.index("gpu")])),
        values.plausible(readings, log.notes),
        looked,
    )
    return Row(scroll_time_us(header, cells, log), 0, sample)
