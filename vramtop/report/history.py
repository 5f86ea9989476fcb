"""How it came to that: peaks, leaks, growth and the largest steps, as sentences."""

from __future__ import annotations

from vramtop.events import Changepoint, Leak, PhaseChanged
from vramtop.report.model import OutOfMemory, Report, Section
from vramtop.report.places import clock, gpu_label, series_label
from vramtop.units import MIB, NS_PER_S, format_bytes, format_pct, format_rate

_LATE_NS = 30 * NS_PER_S


def history(report: Report, oom: OutOfMemory | None) -> Section:
    """How it came to the out-of-memory, or what the run did if there was none."""
    uuid = oom.uuid if oom is not None else None
    stop_ns = oom.elapsed_ns if oom is not None else report.span_ns
    words: list[str] = []
    for device in report.devices:
        if device.is_parent or (uuid is not None and device.uuid != uuid):
            continue
        peak = device.used.peak
        if peak is None:
            words.append(f"{gpu_label(report, device.uuid)}: no memory reading.")
            continue
        share = None if not device.limit_bytes else peak[1] / device.limit_bytes
        words.append(
            f"{gpu_label(report, device.uuid)} peaked at {format_bytes(peak[1])}"
            f"{'' if share is None else f' ({format_pct(share)})'} at {clock(report, peak[0])}."
        )
    words += _leaks(report, uuid, stop_ns)
    words += _growth(report, uuid, stop_ns)
    words += _steps(report, uuid)
    return Section(
        heading="How did it come to that?" if oom is not None else "What did memory do?",
        sentences=tuple(words),
    )


def _leaks(report: Report, uuid: str | None, stop_ns: int) -> list[str]:
    words = []
    for timed in report.events:
        event = timed.event
        if not isinstance(event, Leak) or timed.elapsed_ns > stop_ns:
            continue
        if uuid is None or event.uuid == uuid:
            since_ns = round(event.since * 1e9) - (report.first_t_us or 0) * 1000
            words.append(
                f"{series_label(report, event.uuid, event.gpu, event.pid)} leaked: it grew without "
                f"end since {clock(report, since_ns)}, between "
                f"{format_rate(event.slope_low_bytes_per_s)} and "
                f"{format_rate(event.slope_high_bytes_per_s)}."
            )
    return _capped(words)


def _growth(report: Report, uuid: str | None, stop_ns: int) -> list[str]:
    """The phase that each series was last in before the end of the story, if it grew."""
    growing = {
        (event.uuid, event.pid): (timed.elapsed_ns, event)
        for timed in report.phases
        if isinstance(event := timed.event, PhaseChanged)
        and event.phase == "growing"
        and (uuid is None or event.uuid == uuid)
        and timed.elapsed_ns < stop_ns
        and _there_until(report, event, stop_ns)
    }
    words = [
        f"{series_label(report, event.uuid, event.gpu, event.pid)} was growing from "
        f"{clock(report, at_ns)} on, then at {format_rate(event.rate_bytes_per_s)}."
        for (_, pid), (at_ns, event) in growing.items()
        # The device grows with its processes; once is enough.
        if pid is not None or not any(key[0] == event.uuid and key[1] for key in growing)
    ]
    return _capped(words)


def _there_until(report: Report, event: PhaseChanged, stop_ns: int) -> bool:
    """Whether the process was still there when the story ends; a device always is."""
    device = report.device(event.uuid)
    if event.pid is None or device is None:
        return True
    return any(
        process.key.pid == event.pid and process.last_ns >= stop_ns - _LATE_NS
        for process in device.processes
    )


def _steps(report: Report, uuid: str | None) -> list[str]:
    """The largest confirmed rises of processes, in order of time."""
    largest = [
        event
        for timed in report.rises
        if isinstance(event := timed.event, Changepoint)
        and (uuid is None or event.uuid == uuid)
        and event.after_bytes - event.before_bytes >= 256 * MIB
    ][:3]
    return [
        f"{series_label(report, event.uuid, event.gpu, event.pid)} rose by "
        f"{format_bytes(event.after_bytes - event.before_bytes)} to "
        f"{format_bytes(event.after_bytes)} at "
        f"{clock(report, round(event.at * 1e9) - (report.first_t_us or 0) * 1000)}."
        for event in sorted(largest, key=lambda event: event.at)
    ]


def _capped(words: list[str], most: int = 6) -> list[str]:
    left = len(words) - most
    return [*words[:most], f"… and {left} more like these."] if left > 1 else words
