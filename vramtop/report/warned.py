"""When vramtop warned, or would have."""

from __future__ import annotations

from vramtop.events import OomRiskChanged
from vramtop.report.model import OutOfMemory, Report, Section, TimedEvent
from vramtop.report.places import clock, gpu_label
from vramtop.report.text import clean, plural
from vramtop.units import NS_PER_S, format_duration


def warned(report: Report, oom: OutOfMemory) -> Section:
    """How long before the failure vramtop said so, on what grounds."""
    warning = oom.warned
    if warning is None:
        earlier = sum(
            uuid == oom.uuid and timed.elapsed_ns < oom.elapsed_ns
            for uuid, timed, _ in _episodes(report)
        )
        words = ["No warning was in force when memory ran out."]
        if earlier:
            words.append(f"{plural(earlier, 'earlier warning')} had been withdrawn before.")
        return Section(heading="When did vramtop warn?", sentences=tuple(words))
    lead = format_duration((oom.elapsed_ns - warning.first_ns) / NS_PER_S)
    words = [f"{lead} before: {warning.level} at {clock(report, warning.first_ns)}."]
    if warning.critical_ns is not None and warning.level != "critical":
        lead = format_duration((oom.elapsed_ns - warning.critical_ns) / NS_PER_S)
        words.append(f"It became critical {lead} before.")
    if warning.eta_low_s is not None and warning.eta_high_s is not None:
        words.append(
            f"The first forecast was {format_duration(warning.eta_low_s)} to "
            f"{format_duration(warning.eta_high_s)}."
        )
    words.append(f"The reason given: {clean(warning.reason, 400)}.")
    return Section(heading="When did vramtop warn?", sentences=tuple(words))


def warnings_given(report: Report) -> Section:
    """What was warned of in a run that did not fail."""
    episodes = _episodes(report)
    if not episodes:
        words = ["It did not: at no time did the readings point to running out."]
        return Section(heading="Did vramtop warn?", sentences=tuple(words if report.ticks else []))
    uuid, timed, first = episodes[0]
    critical = sum(event.level == "critical" for _, _, event in episodes)
    words = [
        (
            f"{plural(len(episodes), 'warning')} ({critical} critical); the first at "
            f"{clock(report, timed.elapsed_ns)} for {gpu_label(report, uuid, first.gpu)}: "
            f"{clean(first.reason, 400)}."
        ),
        "Memory did not run out while this was recorded, so none of them came true.",
    ]
    return Section(heading="Did vramtop warn?", sentences=tuple(words))


def _episodes(report: Report) -> list[tuple[str | None, TimedEvent, OomRiskChanged]]:
    """Each time that a series left level none: its device, when, and the worst of the episode."""
    open_at: dict[tuple[str | None, int | None], int] = {}
    episodes: list[tuple[str | None, TimedEvent, OomRiskChanged]] = []
    for timed in report.events:
        event = timed.event
        if not isinstance(event, OomRiskChanged):
            continue
        key = (event.uuid, event.pid)
        if event.level == "none":
            open_at.pop(key, None)
        elif key not in open_at:
            open_at[key] = len(episodes)
            episodes.append((event.uuid, timed, event))
        elif event.level == "critical":
            place = open_at[key]
            episodes[place] = (event.uuid, episodes[place][1], event)
    return episodes
