"""The plain `nvidia-smi` table, printed again and again into one file.

Layouts differ between driver generations in column widths, in the process table (with and
without type, GI and CI) and in the third line about MIG. Cells are therefore found by their
bars and units, not by position.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vramtop.samples import LOOKED_PROCESSES, LOOKED_SLOW, LOOKED_UTIL
from vramtop.sources.logs import _values as values
from vramtop.sources.logs._polls import DeviceRef, DeviceSample, Log, Poll, ProcessSample
from vramtop.sources.logs._times import Stamp, parse_stamp
from vramtop.units import MIB

NAME = "table"
TITLE = "the plain nvidia-smi table"

_TOP = re.compile(r"\|\s*NVIDIA-SMI\s+(\S+)\s+.*?Driver Version:\s*(\S+)", re.ASCII)
_GPU = re.compile(
    r"\|\s+(\d{1,4})\s+(\S.*?)\s+(?:On|Off|N/A|WDDM|TCC|MCDM|Enabled|Disabled)\s*"
    r"\|\s+([0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d)\s",
    re.ASCII,
)
_GPU_STATE = re.compile(
    r"\|[^|]*\|\s*(?:(\d+)MiB|N/A|\S*)\s*/\s*(?:(\d+)MiB|\S+)\s*\|([^|]*)\|?", re.ASCII
)
_MIG = re.compile(
    r"\|\s+(\d{1,4})\s+(\d{1,4})\s+(\d{1,4})\s+\d{1,4}\s*\|\s*(\d+)MiB\s*/\s*(\d+)MiB\s*\|",
    re.ASCII,
)
_PROCESS = re.compile(
    r"\|\s+(\d{1,4})\s+(?:(N/A|\d{1,4})\s+(?:N/A|\d{1,4})\s+)?(\d{1,10})\s+(?:([MCG](?:\+[MCG])*)\s+)?"
    r"(.*?)\s+(\d+MiB|N/A|\?+)\s*\|",
    re.ASCII,
)
_NOT_LISTED = re.compile(
    r"\|\s+(\d{1,4})\s+(?:N/A\s+N/A\s+)?(?:\[?Not Supported\]?|ERROR:.*)\s*\|", re.ASCII
)
_NONE_RUNNING = re.compile(r"\|\s+No running .*processes found")
_WATCH = re.compile(
    r"Every [\d.,]+s?: nvidia-smi.*?\s(\S+: )?([A-Z][a-z]{2} [A-Z][a-z]{2} .*\d{4})\s*"
)
_FRAME = re.compile(r"[+|][-=+|]*[+|]?\s*", re.ASCII)


def recognise(head: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether these first lines are of this form."""
    del columns
    return any(_TOP.match(line) or _GPU.match(line) for line in head)


@dataclass(slots=True)
class _Table:
    """One table as far as it has been read."""

    devices: dict[DeviceRef, DeviceSample] = field(default_factory=dict)
    processes: list[ProcessSample] = field(default_factory=list)
    current: DeviceSample | None = None
    section: str = "gpus"
    listed: bool = False
    closed: bool = False
    not_listed: set[int] = field(default_factory=set)
    stamp: Stamp | None = None

    def finished(self) -> list[DeviceSample]:
        """The samples, with the process tier marked where the process table came whole."""
        if not (self.listed and self.closed):
            self.processes.clear()
            return list(self.devices.values())
        for ref, sample in self.devices.items():
            if ref.gpu not in self.not_listed:
                sample.looked |= LOOKED_PROCESSES
        return list(self.devices.values())


def read(log: Log) -> Iterator[Poll]:
    """The polls of the log.

    Raises:
        LogFormatError: no times and no interval.
    """
    stamp: Stamp | None = None
    table: _Table | None = None
    for line in log.lines():
        found = _stamp(line)
        if found is not None:
            stamp = found
            continue
        top = _TOP.match(line)
        if top is not None:
            if table is not None:
                yield from _poll(table, log)
            table = _Table(stamp=stamp)
            stamp = None
            log.driver = log.driver or top[2]
        elif table is None:
            if line.strip() and not _FRAME.fullmatch(line):
                log.notes.skip("before the first table", line)
        else:
            _take(line, table, log)
    if table is not None:
        yield from _poll(table, log)


def _stamp(line: str) -> Stamp | None:
    if line.startswith(("|", "+")):
        return None
    watch = _WATCH.fullmatch(line)
    return parse_stamp(line if watch is None else watch[2])


def _poll(table: _Table, log: Log) -> Iterator[Poll]:
    samples = table.finished()
    if not samples:
        return
    t_us = log.untimed_us() if table.stamp is None else log.clock.utc_us(table.stamp)
    yield Poll(t_us, samples, table.processes, lists_devices=True)


def _take(line: str, table: _Table, log: Log) -> None:
    """Add what one line of a table says."""
    text = line.strip()
    if not text or text.startswith("+"):
        # The rule below the process table ends it; a table without that end is torn.
        if text and table.section == "processes" and table.listed:
            table.closed = True
        return
    if not text.startswith("|"):
        if not table.closed or table.section != "processes":
            log.notes.skip("between the lines of a table", line)
        return
    if text.startswith(("|==", "|--")):
        return
    if "Processes:" in text:
        table.section = "processes"
    elif "MIG devices:" in text:
        table.section = "mig"
    elif table.section == "processes":
        _take_process(text, table)
    elif table.section == "mig":
        _take_instance(text, table)
    else:
        _take_gpu(text, table, log)


def _take_gpu(text: str, table: _Table, log: Log) -> None:
    first = _GPU.match(text)
    if first is not None:
        ref = DeviceRef(gpu=int(first[1]), bus_id=first[3])
        table.current = DeviceSample(ref, looked=LOOKED_UTIL | LOOKED_SLOW, name=first[2])
        table.devices[ref] = table.current
        return
    state = _GPU_STATE.match(text)
    if state is None or table.current is None or table.current.values:
        return
    left = text.split("|")[1]
    table.current.values = values.plausible(
        {
            "used_bytes": _mib(state[1]),
            "total_bytes": _mib(state[2]),
            "temp_c": _found(r"(\d{1,4})C\b", left),
            "power_mw": _found(r"(\d{1,6})W\s*/", left, 1000),
            "gpu_util_pct": _found(r"(\d{1,4})%", state[3]),
        },
        log.notes,
    )


def _take_instance(text: str, table: _Table) -> None:
    """A MIG instance; several compute instances of one share its memory."""
    row = _MIG.match(text)
    if row is None:
        return
    ref = DeviceRef(gpu=int(row[1]), instance=int(row[2]))
    sample = DeviceSample(ref)
    sample.values = {"used_bytes": _mib(row[4]), "total_bytes": _mib(row[5])}
    table.devices.setdefault(ref, sample)


def _take_process(text: str, table: _Table) -> None:
    if _NONE_RUNNING.match(text):
        table.listed = True
        return
    not_listed = _NOT_LISTED.match(text)
    if not_listed is not None:
        table.listed = True
        table.not_listed.add(int(not_listed[1]))
        return
    row = _PROCESS.match(text)
    if row is None:
        return
    table.listed = True
    index, instance, pid, kind, name, memory = row.groups()
    if not 0 < int(pid) <= values.MOST_PID:
        return
    ref = DeviceRef(
        gpu=int(index), instance=int(instance) if instance not in (None, "N/A") else None
    )
    table.processes.append(
        ProcessSample(
            ref,
            int(pid),
            None if not name or values.absent(name) else name[:256],
            _mib(memory.removesuffix("MiB")),
            {"type": kind} if kind else {},
        )
    )


def _mib(text: str | None) -> int | None:
    if text is None or not text.isdigit() or len(text) > 9:
        return None
    return int(text) * MIB


def _found(pattern: str, text: str, factor: int = 1) -> int | None:
    match = re.search(pattern, text, re.ASCII)
    return None if match is None else int(match[1]) * factor
