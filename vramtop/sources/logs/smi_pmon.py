"""`nvidia-smi pmon`: one line per process, or one with `-` for a GPU without any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vramtop.samples import LOOKED_PROCESSES
from vramtop.sources.logs import _values as values
from vramtop.sources.logs._polls import DeviceRef, DeviceSample, Log, Poll, ProcessSample
from vramtop.sources.logs._rows import Row, process_polls
from vramtop.sources.logs.smi_dmon import scroll_header, scroll_time_us
from vramtop.units import MIB

NAME = "pmon"
TITLE = "nvidia-smi pmon"

_KEPT = frozenset(("gpu", "pid", "type", "fb", "command", "date", "time"))


def recognise(head: Sequence[str], columns: Sequence[str]) -> bool:
    """Whether these first lines are of this form."""
    del columns
    return any((names := scroll_header(line)) is not None and "pid" in names for line in head)


def read(log: Log) -> Iterator[Poll]:
    """The polls of the log.

    Raises:
        LogFormatError: no times and no interval.
    """
    return process_polls(_rows(log), log)


def _rows(log: Log) -> Iterator[Row]:
    header: list[str] | None = None
    for line in log.lines():
        text = line.strip()
        if text.startswith("#"):
            # The header comes again every screenful: it does not begin a poll.
            found = scroll_header(line)
            if found is not None and found != header:
                header = found
                for name in header:
                    if name not in _KEPT:
                        log.notes.keep_not(name)
                if "fb" not in header:
                    log.notes.fact(
                        f"{log.name} has no column fb: no memory is known from it"
                        " (pmon -s um logs it)"
                    )
            continue
        if not text:
            continue
        if header is None:
            log.notes.skip("before the header", line)
            continue
        try:
            yield _row(text.split(), header, log)
        except (ValueError, IndexError):
            log.notes.skip("no row of this log", line)


def _row(cells: list[str], header: list[str], log: Log) -> Row:
    """One line; the command is last and may be empty or hold spaces.

    Raises:
        ValueError, IndexError: it is no row.
    """
    t_us = scroll_time_us(header, cells, log)
    gpu = header.index("gpu")
    ref = DeviceRef(gpu=values.gpu_index(cells[gpu]))
    device = DeviceSample(ref, looked=LOOKED_PROCESSES)
    pid = cells[header.index("pid")]
    if pid == "-":
        return Row(t_us, 0, device)
    width = len(header) - ("command" in header)
    if len(cells) < width:
        # Some drivers print fewer cells than headings; where they belong nobody can say.
        if "fb" in header or len(cells) <= header.index("type"):
            raise ValueError(cells)
        command = [cells[-1]]
    else:
        command = cells[width:]
    name = " ".join(command)
    used = values.scaled(cells[header.index("fb")], MIB) if "fb" in header else None
    if used is not None and not 0 <= used <= values.MOST_BYTES:
        log.notes.impossible["fb"] += 1
        used = None
    kind = cells[header.index("type")] if "type" in header else "-"
    return Row(
        t_us,
        0,
        device,
        ProcessSample(
            ref,
            values.process_id(pid),
            None if not name or values.absent(name) else name[:256],
            used,
            {} if kind == "-" else {"type": kind[:8]},
        ),
    )
