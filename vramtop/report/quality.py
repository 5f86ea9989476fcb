"""How good the evidence is: sampling, gaps, what was hidden, what the recorder cost."""

from __future__ import annotations

from vramtop.report.model import DeviceHistory, Report, Section
from vramtop.report.places import gpu_label
from vramtop.report.text import clean, listed, plural
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
    if report.assumed is not None:
        words.append(f"Assumed on import: {clean(report.assumed, 900)}.")
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
    return [
        (
            f"{plural(report.ticks, 'tick')} over {format_duration(report.span_ns / NS_PER_S)}, one "
            f"every {mean} on average"
            f"{f' (declared: {declared})' if declared else ', with no declared interval'}; anything "
            "shorter may be missing."
        )
    ]


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
    """What the driver or the tool before us did not tell, GPUs with the same lack together."""
    read = [one for one in report.devices if not one.is_parent and one.has_readings]
    lacks = (
        (
            [one for one in read if not one.looks],
            "the process list was never read, so who held what is not known.",
        ),
        (
            [one for one in read if not len(one.reserved.value)],
            "the driver's own reservation is not told apart from memory in use.",
        ),
        (
            [one for one in read if one.total_bytes is None],
            "how much memory there is is not recorded.",
        ),
    )
    words = [
        f"{'Every GPU' if lacking == read and len(read) > 1 else _names(report, lacking)}: {lack}"
        for lacking, lack in lacks
        if lacking
    ]
    words += [
        (
            f"{gpu_label(report, one.uuid)}: at {one.hidden} of {plural(one.looks, 'look')} the "
            "driver hid what some process holds, so nothing was called unattributed then."
        )
        for one in read
        if one.hidden
    ][:8]
    return words


def _names(report: Report, devices: list[DeviceHistory]) -> str:
    return listed([gpu_label(report, device.uuid) for device in devices], 8)


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
