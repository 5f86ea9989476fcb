"""How good the evidence is: sampling, gaps, what was hidden, what the recorder cost."""

from __future__ import annotations

from vramtop.report.model import Report, Section
from vramtop.report.text import clean, plural
from vramtop.units import NS_PER_S, format_bytes, format_duration, format_pct


def quality(report: Report) -> Section:
    """Sentences on what the data can and cannot carry."""
    words = _origin(report) + _sampling(report) + _gaps(report) + _visibility(report)
    words += _trouble(report) + _cost(report)
    return Section(heading="How good is the evidence?", sentences=tuple(words))


def _origin(report: Report) -> list[str]:
    words = []
    if report.simulated is not None:
        words.append(f"SIMULATED: no GPU was involved; scenario {clean(report.simulated, 80)}.")
    if report.imported is not None:
        words.append(
            f"Imported from {clean(report.imported, 80)}: only what that tool wrote down is known."
        )
    if report.state == "interrupted":
        words.append(
            "The recording was interrupted: its recorder did not close it. Every acknowledged "
            "tick is here."
        )
    elif report.state == "recording":
        words.append("The recording was still being written when this report was made.")
    return words


def _sampling(report: Report) -> list[str]:
    if report.ticks < 2:
        return [f"{plural(report.ticks, 'tick')}: nothing can be said about change over time."]
    evidence = report.evidence
    mean = format_duration(report.span_ns / (report.ticks - 1) / NS_PER_S)
    declared = " and ".join(format_duration(value / NS_PER_S) for value in evidence.interval_ns)
    words = [
        (
            f"{plural(report.ticks, 'tick')} over {format_duration(report.span_ns / NS_PER_S)}, one "
            f"every {mean} on average"
            f"{f' (declared: {declared})' if declared else ', with no declared interval'}; anything "
            "shorter may be missing."
        )
    ]
    words += [
        f"The process list of GPU {device.gpu} was never read."
        for device in report.devices
        if not device.is_parent and not device.looks and device.has_readings
    ]
    return words


def _gaps(report: Report) -> list[str]:
    gaps = report.evidence.gaps
    if not gaps:
        return ["No gaps."] if report.ticks > 1 else []
    total_ns = sum(stop - start for start, stop, _, _ in gaps)
    longest = max(gaps, key=lambda gap: gap[1] - gap[0])
    share = format_pct(total_ns / report.span_ns) if report.span_ns else "unknown"
    several = any(uuid is not None for _, _, _, uuid in gaps) and len(report.devices) > 1
    count = report.events_seen.get("gap", len(gaps))
    more = "" if count <= len(gaps) else f" (the first {len(gaps)} of {count})"
    words = [
        (
            f"{plural(count, 'gap')}, {format_duration(total_ns / NS_PER_S)} in all{more}"
            f"{'' if several else f' ({share} of the time)'}, the longest "
            f"{format_duration((longest[1] - longest[0]) / NS_PER_S)}"
            f"{f': {clean(longest[2], 200)}' if longest[2] else ''}."
        )
    ]
    words.append("What happened in a gap is not known; gaps are drawn as gaps.")
    return words


def _visibility(report: Report) -> list[str]:
    words = []
    for device in report.devices:
        if device.is_parent:
            continue
        if device.hidden:
            words.append(
                f"GPU {device.gpu}: at {device.hidden} of {plural(device.looks, 'look')} the "
                "driver hid what some process holds, so nothing was called unattributed then."
            )
        if device.has_readings and not len(device.reserved.value):
            words.append(
                f"GPU {device.gpu}: the driver's own reservation is not told apart from memory in "
                "use."
            )
        if device.has_readings and device.total_bytes is None:
            words.append(f"GPU {device.gpu}: how much memory it has is not recorded.")
    return words[:12]


def _trouble(report: Report) -> list[str]:
    evidence = report.evidence
    words = []
    if evidence.faults:
        listed = "; ".join(
            f"{clean(name, 60)} ({plural(count, 'time')})"
            for name, count in sorted(evidence.faults.items(), key=lambda item: -item[1])[:8]
        )
        words.append(f"Could not be read: {listed}.")
    if evidence.clock_steps_ns:
        steps = plural(len(evidence.clock_steps_ns), "time")
        words.append(
            f"The wall clock was set {steps}; times here run on from the first tick without the "
            "step."
        )
    return words


def _cost(report: Report) -> list[str]:
    cost = report.evidence.recorder
    if not cost:
        return ["What the recorder itself cost was not recorded."] if report.ticks > 1 else []
    words = []
    span = cost.get("span_s")
    if span and "cpu_s" in cost:
        words.append(f"{format_pct(cost['cpu_s'] / span)} of one CPU")
    if cost.get("resident_bytes"):
        words.append(f"{format_bytes(int(cost['resident_bytes']))} resident")
    if "late_max_us" in cost:
        words.append(f"ticks at most {format_duration(cost['late_max_us'] / 1e6)} late")
    if "missed_ticks" in cost:
        words.append(f"{plural(int(cost['missed_ticks']), 'tick')} missed")
    return [f"The recorder measured itself: {', '.join(words)}."] if words else []
