"""The tables of a report, ready to be written: headings, cells, and what to sort by."""

from __future__ import annotations

from dataclasses import dataclass

from vramtop.events import Changepoint, Event, PhaseChanged
from vramtop.findings.sentences import told
from vramtop.report.model import Moment, Report, TimedEvent
from vramtop.report.places import gpu_label
from vramtop.report.text import clean
from vramtop.units import MIB, NS_PER_S, format_bytes, format_duration, format_pct

MOST_PROCESSES = 200
MOST_EVENTS = 300


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell.

    Attributes:
        text: For people; not escaped.
        order: What a column of figures is sorted by; None sorts last. Text columns sort by text.
        figure: It is a figure, so it stands at the right.
    """

    text: str
    order: float | None = None
    figure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under headings.

    Attributes:
        title: Caption.
        note: What the reader must know about it, None if nothing.
        sortable: The order of the rows carries no meaning.
    """

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str | None = None
    sortable: bool = True


def size(count: int | None) -> Cell:
    """Bytes; unknown is said."""
    return Cell(format_bytes(count), None if count is None else float(count), figure=True)


def when(elapsed_ns: int) -> Cell:
    """Time into the recording."""
    return Cell(_offset(elapsed_ns), float(elapsed_ns), figure=True)


def _offset(elapsed_ns: int) -> str:
    """Time since the start as `h:mm:ss`, with tenths where they say something.

    >>> _offset(0), _offset(65_500_000_000), _offset(3_600_000_000_000)
    ('+0:00:00', '+0:01:05.5', '+1:00:00')
    """
    tenths = round(elapsed_ns / (NS_PER_S // 10))
    seconds, rest = divmod(tenths, 10)
    text = f"+{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{rest}" if rest else text


def share(part: int | None, whole: int | None) -> Cell:
    """A share of one as per cent."""
    if part is None or not whole:
        return Cell("unknown", None, figure=True)
    return Cell(format_pct(part / whole), part / whole, figure=True)


def moment_heading(report: Report) -> str:
    """The question that the first table of holders answers."""
    return "Who held what at that moment?" if report.ooms else "Who held what at the peak?"


def moment_table(report: Report, moment: Moment) -> Table:
    """Who held what at one moment."""
    occasion = {
        "oom": "Who held what when memory ran out",
        "peak": "Who held what at the peak",
        "end": "Who held what at the end",
    }[moment.occasion]
    grows = moment.window_ns is not None
    headings = ["Holder", "User", "Held", "Share of the GPU"]
    if moment.window_ns is not None:
        headings.append(f"Change in {format_duration(moment.window_ns / NS_PER_S)}")
    rows = []
    for row in moment.holdings:
        cells = [
            Cell(row.label),
            Cell(clean(row.user, 40) if row.user else ""),
            size(row.held_bytes),
            share(row.held_bytes, moment.total_bytes),
        ]
        if grows:
            grown = row.grown_bytes
            text = "" if grown is None else "no change" if grown == 0 else _signed(grown)
            cells.append(Cell(text, None if grown is None else float(grown), figure=True))
        rows.append(tuple(cells))
    place = gpu_label(report, moment.uuid, moment.gpu)
    total = f" of {format_bytes(moment.total_bytes)}" if moment.total_bytes is not None else ""
    return Table(
        title=f"{occasion}: {place}{total}, at {_offset(moment.elapsed_ns)}",
        headings=tuple(headings),
        rows=tuple(rows),
        note=moment.note,
        sortable=False,
    )


def _signed(count: int) -> str:
    return f"{'+' if count > 0 else '-'}{format_bytes(abs(count))}"


def device_table(report: Report) -> Table:
    """Each GPU: what it has, its peak and its end."""
    rows = []
    for device in report.devices:
        peak = device.used.peak
        name = clean(device.name, 60) if device.name else ""
        if device.is_parent:
            name = f"{name} (split into MIG instances)".strip()
        rows.append(
            (
                Cell(gpu_label(report, device.uuid)),
                Cell(name),
                size(device.total_bytes),
                size(device.reserved_bytes),
                size(None if peak is None else peak[1]),
                share(None if peak is None else peak[1], device.limit_bytes),
                Cell("", None, figure=True) if peak is None else when(peak[0]),
                size(device.used.last),
                size(device.unattributed.last),
            )
        )
    return Table(
        title="GPUs",
        headings=(
            "GPU", "Board", "Total", "Reserved", "Peak", "of the limit", "at", "At the end",
            "Unattributed at the end",
        ),
        rows=tuple(rows),
        note="The limit is the total without the driver's reservation. Unattributed is memory in "
        "use that no visible process accounts for, at the last look at the process list.",
    )  # fmt: skip


def process_table(report: Report) -> Table:
    """Every process on every GPU, highest peaks first."""
    everyone = [process for device in report.devices for process in device.processes]
    everyone.sort(key=lambda process: -(process.used.peak or (0, -1))[1])
    rows = []
    for process in everyone[:MOST_PROCESSES]:
        peak = process.used.peak
        ended = "running" if process.alive else _offset(process.last_ns)
        if process.exit_code is not None:
            ended += f" (exit {process.exit_code})"
        rows.append(
            (
                Cell(clean(process.command or process.name or "unknown", 120)),
                Cell(str(process.key.pid), float(process.key.pid or 0), figure=True),
                Cell(clean(process.user, 40) if process.user else ""),
                Cell(gpu_label(report, process.key.uuid)),
                size(None if peak is None else peak[1]),
                Cell("", None, figure=True) if peak is None else when(peak[0]),
                size(process.end_bytes) if process.alive else Cell("gone", None, figure=True),
                when(process.first_ns),
                Cell(ended, float(process.last_ns), figure=True),
            )
        )
    note = None
    if len(everyone) > MOST_PROCESSES:
        note = f"The {MOST_PROCESSES} with the highest peaks of {len(everyone)}."
    return Table(
        title="Processes",
        headings=(
            "Process", "PID", "User", "GPU", "Peak", "at", "At the end", "First seen", "Last seen",
        ),
        rows=tuple(rows),
        note=note,
    )  # fmt: skip


_TELLING = (
    "oom", "gpu_lost", "gpu_back", "gap", "oom_risk", "fault", "mark", "leak", "verdict",
    "process_exit", "process_start", "changepoint", "phase",
)  # fmt: skip
"""Kinds of events that are listed, the most telling first; segments are in the picture."""


def event_table(report: Report) -> Table:
    """What happened, in order; the most telling kinds if there are too many."""
    ranked = [timed for timed in report.events if _telling(report, timed.event)]
    kept = sorted(ranked, key=lambda timed: _TELLING.index(timed.event.kind))[:MOST_EVENTS]
    kept.sort(key=lambda timed: timed.event.order)
    seen = sum(report.events_seen.values())
    note = None
    if len(kept) < seen:
        counts = ", ".join(
            f"{count} {kind}" for kind, count in sorted(report.events_seen.items(), key=_by_count)
        )
        note = (
            f"{len(kept)} of {seen} events ({counts}): small steps, tentative ones and what a "
            "GPU only repeats of its processes are left out; vramtop replay --events lists all."
        )
    return Table(
        title="Events",
        headings=("When", "What", "Where", "Details"),
        rows=tuple(_event_row(report, timed) for timed in kept),
        note=note,
    )


def _telling(report: Report, event: Event) -> bool:
    """Whether an event deserves a line of its own."""
    if event.kind not in _TELLING:
        return False
    if not isinstance(event, (Changepoint, PhaseChanged)):
        return True
    device = report.device(event.uuid)
    if event.pid is None and device is not None and device.processes:
        return False
    if isinstance(event, PhaseChanged):
        return True
    total = 0 if device is None or device.total_bytes is None else device.total_bytes
    return abs(event.after_bytes - event.before_bytes) >= max(256 * MIB, total // 100)


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


def _event_row(report: Report, timed: TimedEvent) -> tuple[Cell, ...]:
    event = timed.event
    where = gpu_label(report, event.uuid, event.gpu) if event.uuid is not None else ""
    if event.pid is not None:
        where = f"{where}, pid {event.pid}" if where else f"pid {event.pid}"
    return (
        when(timed.elapsed_ns),
        Cell(event.kind),
        Cell(where),
        Cell(clean(told(event), 400)),
    )
