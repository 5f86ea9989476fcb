"""Sentences from a report's figures: what a reader is told, in the order in which it is asked.

Every sentence is plain text with its numbers; renderers escape and lay out.
"""

from __future__ import annotations

from dataclasses import replace

from vramtop.events import (
    Changepoint,
    Leak,
    Oom,
    OomRiskChanged,
    PhaseChanged,
)
from vramtop.report.model import DeviceHistory, Holding, Moment, OutOfMemory, Report, Section
from vramtop.report.quality import quality
from vramtop.report.text import clean, listed, plural
from vramtop.units import (
    MIB,
    NS_PER_S,
    format_bytes,
    format_duration,
    format_pct,
    format_rate,
    format_time,
)

_TIGHT_SHARE = 0.05


def conclude(report: Report) -> Report:
    """The report with its headline and sections."""
    if report.ooms:
        first = report.ooms[0]
        return replace(
            report,
            headline=_oom_headline(report, first),
            outcome=_outcome(report, first),
            asked=_asked(first),
            history=_history(report, first),
            warned=_warned(report, first),
            advice=_advice(first),
            quality=quality(report),
        )
    return replace(
        report,
        headline=_calm_headline(report),
        outcome=_closeness(report),
        history=_history(report, None),
        warned=_risks(report),
        quality=quality(report),
    )


def gpu_label(report: Report, uuid: str | None, gpu: int | None = None) -> str:
    """What a GPU is called; instances of one GPU are told apart by their UUID."""
    device = report.device(uuid)
    if device is None:
        return "a GPU that is not known" if gpu is None else f"GPU {gpu}"
    if device.parent_uuid is not None:
        return f"GPU {device.gpu} instance {device.uuid[:12]}"
    return f"GPU {device.gpu}"


def clock(report: Report, elapsed_ns: int) -> str:
    """Time of day at the recorder, with the date if it is not the first day's, and how far in."""
    wall = format_time(report.wall_us(elapsed_ns), report.zone)
    first = format_time(report.wall_us(0), report.zone)
    shown = wall[11:19] if wall[:10] == first[:10] else wall[:19]
    return f"{shown} (+{format_duration(elapsed_ns / NS_PER_S)})"


def _full_clock(report: Report, elapsed_ns: int) -> str:
    wall = format_time(report.wall_us(elapsed_ns), report.zone)
    return f"{wall}, {format_duration(elapsed_ns / NS_PER_S)} into the recording"


def _seconds(span_ns: int) -> str:
    """A short span as it is said in "in the 60 s before"."""
    seconds = span_ns / NS_PER_S
    return f"{seconds:.0f} s" if 1 <= seconds <= 120 else format_duration(seconds)


def _oom_headline(report: Report, oom: OutOfMemory) -> str:
    sure = "ran out of memory" if oom.certainty == "confirmed" else "very likely ran out of memory"
    who = oom.label if oom.pid is not None else "A process"
    return f"{who} {sure} on {gpu_label(report, oom.uuid, oom.gpu)}"


def _calm_headline(report: Report) -> str:
    if not report.ticks:
        return "The recording holds no tick"
    tightest = _tightest(report)
    if tightest is None:
        return "No memory reading: whether memory ran out cannot be said"
    device, peak, share = tightest
    of = f"{format_bytes(peak)} of {format_bytes(device.limit_bytes)} ({format_pct(share)})"
    return f"No sign of running out: at most {of}, on {gpu_label(report, device.uuid)}"


def _outcome(report: Report, oom: OutOfMemory) -> Section:
    sure = (
        "This is confirmed by a message of the program."
        if oom.certainty == "confirmed"
        else "This is inferred from the readings; no message was recorded."
    )
    words = [
        f"{_oom_headline(report, oom)} at {_full_clock(report, oom.elapsed_ns)}.",
        sure,
        *(f"Evidence: {clean(text, 700)}" for text in oom.evidence),
        *_blame(oom),
    ]
    if len(report.ooms) > 1 or report.events_seen.get(Oom.kind, 0) > 1:
        more = report.events_seen.get(Oom.kind, 0) - 1
        words.append(
            f"It happened {plural(more, 'more time')} after that; the events below list each."
        )
    return Section(heading="Did it run out?", sentences=tuple(words))


def _blame(oom: OutOfMemory) -> list[str]:
    """Whose growth used the memory up, which need not be the process that failed."""
    moment = oom.moment
    if moment is None:
        return []
    processes = [row for row in moment.holdings if row.what == "process"]
    if not processes:
        return ["No process was visible on this GPU at that moment."]
    window = _seconds(moment.window_ns or 0)
    grown = [(row.grown_bytes, row) for row in processes if row.grown_bytes is not None]
    most = max(grown, key=lambda pair: pair[0], default=None)
    if most is not None and most[0] >= 64 * MIB:
        bytes_grown, row = most
        total = sum(amount for amount, _ in grown if amount > 0)
        share = f", {format_pct(bytes_grown / total)} of all growth" if len(processes) > 1 else ""
        self_made = " (it is the one that failed)" if row.pid == oom.pid else ""
        return [
            (
                f"In the {window} before, {row.label}{self_made} grew most: by "
                f"{format_bytes(bytes_grown)}{share}."
            )
        ]
    known = [row for row in processes if row.held_bytes is not None]
    if not known:
        return []
    largest = max(known, key=lambda row: row.held_bytes or 0)
    return [
        (
            f"No process grew by 64 MiB or more in the {window} before; the largest holder was "
            f"{largest.label} with {format_bytes(largest.held_bytes)}."
        )
    ]


def _asked(oom: OutOfMemory) -> Section:
    words = []
    if oom.requested_bytes is None:
        words.append("How much was asked for is not known: no message says so.")
    else:
        words.append(f"{format_bytes(oom.requested_bytes)} was asked for.")
    if oom.free_bytes is None:
        words.append("How much was free is not known.")
    else:
        words.append(f"{format_bytes(oom.free_bytes)} was free, by {oom.free_source}.")
    if oom.allocated_bytes is not None and oom.unused_bytes is not None:
        words.append(
            f"By the message, {format_bytes(oom.allocated_bytes)} was in use by tensors and "
            f"{format_bytes(oom.unused_bytes)} lay unused in the allocator's cache."
        )
    if oom.requested_bytes is not None and oom.free_bytes is not None:
        short = oom.requested_bytes - oom.free_bytes
        words.append(
            f"{format_bytes(short)} was missing."
            if short > 0
            else "The request would have fitted into that: fragmentation, a limit set for the "
            "process, or memory taken in between is more likely than a full GPU."
        )
    return Section(heading="How much was asked, how much was free?", sentences=tuple(words))


def _history(report: Report, oom: OutOfMemory | None) -> Section:
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
    words += _steps(report, uuid, stop_ns)
    return Section(heading="How did it come to that?", sentences=tuple(words))


def _about(report: Report, uuid: str | None, gpu: int | None, pid: int | None) -> str:
    if pid is None:
        return gpu_label(report, uuid, gpu)
    device = report.device(uuid)
    labels = [] if device is None else [p.label for p in device.processes if p.key.pid == pid]
    return f"{labels[0] if labels else f'pid {pid}'} on {gpu_label(report, uuid, gpu)}"


def _leaks(report: Report, uuid: str | None, stop_ns: int) -> list[str]:
    words = []
    for timed in report.events:
        event = timed.event
        if not isinstance(event, Leak) or timed.elapsed_ns > stop_ns:
            continue
        if uuid is None or event.uuid == uuid:
            since_ns = round(event.since * 1e9) - (report.first_t_us or 0) * 1000
            words.append(
                f"{_about(report, event.uuid, event.gpu, event.pid)} leaked: it grew without "
                f"end since {clock(report, since_ns)}, between "
                f"{format_rate(event.slope_low_bytes_per_s)} and "
                f"{format_rate(event.slope_high_bytes_per_s)}."
            )
    return _capped(words)


def _growth(report: Report, uuid: str | None, stop_ns: int) -> list[str]:
    """The phase that each series was last in before the end of the story, if it grew."""
    last: dict[tuple[str | None, int | None], tuple[int, PhaseChanged]] = {}
    for timed in report.events:
        event = timed.event
        if isinstance(event, PhaseChanged) and timed.elapsed_ns < stop_ns:
            last[event.uuid, event.pid] = (timed.elapsed_ns, event)
    words = []
    for at_ns, event in last.values():
        if event.phase != "growing" or (uuid is not None and event.uuid != uuid):
            continue
        words.append(
            f"{_about(report, event.uuid, event.gpu, event.pid)} was growing from "
            f"{clock(report, at_ns)} on, then at {format_rate(event.rate_bytes_per_s)}."
        )
    return _capped(words)


def _steps(report: Report, uuid: str | None, stop_ns: int) -> list[str]:
    """The largest confirmed rises of processes, in order of time."""
    steps = [
        (event.after_bytes - event.before_bytes, event)
        for event in (timed.event for timed in report.events if timed.elapsed_ns <= stop_ns)
        if isinstance(event, Changepoint)
        and event.pid is not None
        and (uuid is None or event.uuid == uuid)
        and event.after_bytes - event.before_bytes >= 256 * MIB
    ]
    largest = sorted(steps, key=lambda step: -step[0])[:3]
    return [
        f"{_about(report, event.uuid, event.gpu, event.pid)} rose by {format_bytes(rise)} to "
        f"{format_bytes(event.after_bytes)} at "
        f"{clock(report, round(event.at * 1e9) - (report.first_t_us or 0) * 1000)}."
        for rise, event in sorted(largest, key=lambda step: step[1].at)
    ]


def _capped(words: list[str], most: int = 6) -> list[str]:
    left = len(words) - most
    return [*words[:most], f"… and {left} more like these."] if left > 1 else words


def _warned(report: Report, oom: OutOfMemory) -> Section:
    warned = oom.warned
    if warned is None:
        earlier = sum(
            isinstance(timed.event, OomRiskChanged)
            and timed.event.level != "none"
            and timed.event.uuid == oom.uuid
            and timed.elapsed_ns < oom.elapsed_ns
            for timed in report.events
        )
        words = ["No warning was in force when memory ran out."]
        if earlier:
            words.append(f"{plural(earlier, 'earlier warning')} had been withdrawn before.")
        return Section(heading="When did vramtop warn?", sentences=tuple(words))
    lead = format_duration((oom.elapsed_ns - warned.first_ns) / NS_PER_S)
    words = [f"{lead} before: {warned.level} at {clock(report, warned.first_ns)}."]
    if warned.critical_ns is not None and warned.level != "critical":
        lead = format_duration((oom.elapsed_ns - warned.critical_ns) / NS_PER_S)
        words.append(f"It became critical {lead} before.")
    if warned.eta_low_s is not None and warned.eta_high_s is not None:
        words.append(
            f"The first forecast was {format_duration(warned.eta_low_s)} to "
            f"{format_duration(warned.eta_high_s)}."
        )
    words.append(f"The reason given: {clean(warned.reason, 400)}.")
    return Section(heading="When did vramtop warn?", sentences=tuple(words))


def _risks(report: Report) -> Section | None:
    risks = [
        (timed.elapsed_ns, timed.event)
        for timed in report.events
        if isinstance(timed.event, OomRiskChanged) and timed.event.level != "none"
    ]
    if not risks:
        words = ["It did not: at no time did the readings point to running out."]
        return Section(heading="Did vramtop warn?", sentences=tuple(words if report.ticks else []))
    at_ns, first = risks[0]
    critical = sum(event.level == "critical" for _, event in risks)
    words = [
        (
            f"{plural(len(risks), 'warning')} ({critical} critical); the first at "
            f"{clock(report, at_ns)} for {gpu_label(report, first.uuid, first.gpu)}: "
            f"{clean(first.reason, 400)}."
        ),
        "Memory did not run out while this was recorded.",
    ]
    return Section(heading="Did vramtop warn?", sentences=tuple(words))


def _closeness(report: Report) -> Section:
    """For a run that did not fail: how close it came."""
    if not report.ticks:
        words = ["The recording holds no tick, so there is nothing to say about memory."]
        return Section(heading="Did it run out?", sentences=tuple(words))
    if not report.devices:
        words = ["The recording holds no GPU, so there is nothing to say about memory."]
        return Section(heading="Did it run out?", sentences=tuple(words))
    tightest = _tightest(report)
    if tightest is None:
        words = ["No GPU gave a memory reading, so whether memory ran out cannot be said."]
        return Section(heading="Did it run out?", sentences=tuple(words))
    device, peak, share = tightest
    words = ["No: no message says so and nothing in the readings points to it."]
    limit = device.limit_bytes
    if limit is None:
        words.append(
            f"The highest use was {format_bytes(peak)}, on {gpu_label(report, device.uuid)}; how "
            "much that GPU has is not recorded, so how close it came cannot be said."
        )
    else:
        words.append(
            f"It came closest on {gpu_label(report, device.uuid)}, with "
            f"{format_bytes(limit - peak)} ({format_pct(1 - (share or 0))}) free at the peak."
        )
        tight = [
            gpu_label(report, other.uuid)
            for other in report.devices
            if not other.is_parent
            and (top := other.used.peak) is not None
            and other.limit_bytes is not None
            and other.limit_bytes - top[1] < _TIGHT_SHARE * other.limit_bytes
        ]
        if tight:
            words.append(f"Less than 5 % was left at the peak on {listed(tight)}.")
    return Section(heading="Did it run out?", sentences=tuple(words))


def _tightest(report: Report) -> tuple[DeviceHistory, int, float | None] | None:
    """The device whose peak came closest to its limit: (device, peak bytes, share)."""
    found: list[tuple[DeviceHistory, int, float | None]] = []
    for device in report.devices:
        peak = device.used.peak
        if device.is_parent or peak is None:
            continue
        limit = device.limit_bytes
        found.append((device, peak[1], peak[1] / limit if limit else None))
    return max(found, key=lambda entry: (entry[2] or 0.0, entry[1]), default=None)


def _advice(oom: OutOfMemory) -> Section | None:
    moment = oom.moment
    if moment is None:
        return None
    words = []
    others = [
        row
        for row in moment.holdings
        if row.what == "process" and row.pid != oom.pid and (row.held_bytes or 0) >= 256 * MIB
    ]
    short = None
    if oom.requested_bytes is not None and oom.free_bytes is not None:
        short = oom.requested_bytes - oom.free_bytes
    if others and oom.pid is not None:
        held = sum(row.held_bytes or 0 for row in others)
        enough = (
            " That alone would have been enough for this request."
            if short is not None and 0 < short <= held
            else ""
        )
        words.append(
            f"Other processes held {format_bytes(held)} on this GPU "
            f"({listed([row.label for row in others], 3)}): move them, or wait for them.{enough}"
        )
    rest = _held(moment, "unattributed")
    if rest is not None and rest.held_bytes is not None and rest.held_bytes >= 1024 * MIB:
        words.append(
            f"{format_bytes(rest.held_bytes)} belongs to no visible process: look for processes of "
            "other containers or users, or for one that died and still holds memory."
        )
    if short is not None and short > 0:
        words.append(
            f"The run needs at least {format_bytes(short)} more than it had; what it would ask for "
            "next is not known."
        )
    if oom.requested_bytes is not None and short is not None and short <= 0:
        words.append(
            "Try expandable segments (PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True) if this is "
            "PyTorch: enough was free in all, but not in one piece."
        )
    return Section(heading="What to try", sentences=tuple(words)) if words else None


def _held(moment: Moment, what: str) -> Holding | None:
    return next((row for row in moment.holdings if row.what == what), None)
