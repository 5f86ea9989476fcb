"""Sentences from a report's figures: what a reader is told, in the order in which it is asked.

Every sentence is plain text with its numbers; renderers escape and lay out.
"""

from __future__ import annotations

from dataclasses import replace

from vramtop.events import (
    Oom,
)
from vramtop.report.blame import blame
from vramtop.report.history import history
from vramtop.report.model import (
    Holding,
    Moment,
    OutOfMemory,
    Report,
    Section,
    tightest,
)
from vramtop.report.places import full_clock, gpu_label
from vramtop.report.quality import quality
from vramtop.report.text import clean, listed, plural
from vramtop.report.warned import warned, warnings_given
from vramtop.units import (
    MIB,
    format_bytes,
    format_pct,
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
            history=history(report, first),
            warned=warned(report, first),
            advice=_advice(first),
            quality=quality(report),
        )
    return replace(
        report,
        headline=_calm_headline(report),
        outcome=_closeness(report),
        history=history(report, None),
        warned=warnings_given(report),
        quality=quality(report),
    )


def _oom_headline(report: Report, oom: OutOfMemory) -> str:
    sure = "ran out of memory" if oom.certainty == "confirmed" else "very likely ran out of memory"
    who = oom.label if oom.pid is not None else "A process"
    return f"{who} {sure} on {gpu_label(report, oom.uuid, oom.gpu)}"


def _calm_headline(report: Report) -> str:
    if not report.ticks:
        return "The recording holds no tick"
    closest = tightest(report)
    if closest is None:
        return "No memory reading: whether memory ran out cannot be said"
    device, peak, share = closest.device, closest.peak_bytes, closest.share
    where = gpu_label(report, device.uuid)
    if device.limit_bytes is None:
        return f"No sign of running out: at most {format_bytes(peak)} on {where}, whose size is unknown"
    close = ", but it came close" if share is not None and share > 1 - _TIGHT_SHARE else ""
    of = f"{format_bytes(peak)} of {format_bytes(device.limit_bytes)} ({format_pct(share)})"
    return f"No sign of running out{close}: at most {of}, on {where}"


def _outcome(report: Report, oom: OutOfMemory) -> Section:
    sure = (
        "This is confirmed by a message of the program."
        if oom.certainty == "confirmed"
        else "This is inferred from the readings; no message was recorded."
    )
    words = [
        f"{_oom_headline(report, oom)} at {full_clock(report, oom.elapsed_ns)}.",
        sure,
        *(f"Evidence: {clean(text, 700)}" for text in oom.evidence),
        *blame(report, oom),
    ]
    if len(report.ooms) > 1 or report.events_seen.get(Oom.kind, 0) > 1:
        more = report.events_seen.get(Oom.kind, 0) - 1
        words.append(
            f"It happened {plural(more, 'more time')} after that; the events below list each."
        )
    return Section(heading="Did it run out?", sentences=tuple(words))


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


def _closeness(report: Report) -> Section:
    """For a run that did not fail: how close it came."""
    if not report.ticks:
        words = ["The recording holds no tick, so there is nothing to say about memory."]
        return Section(heading="Did it run out?", sentences=tuple(words))
    if not report.devices:
        words = ["The recording holds no GPU, so there is nothing to say about memory."]
        return Section(heading="Did it run out?", sentences=tuple(words))
    closest = tightest(report)
    if closest is None:
        words = ["No GPU gave a memory reading, so whether memory ran out cannot be said."]
        return Section(heading="Did it run out?", sentences=tuple(words))
    device, peak, share = closest.device, closest.peak_bytes, closest.share
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
    unused = oom.unused_bytes
    if unused is not None and oom.requested_bytes is not None and unused >= oom.requested_bytes:
        words.append(
            f"{format_bytes(unused)} lay unused in the allocator's cache, more than was asked for, "
            "but not in one piece: try PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True."
        )
    elif oom.requested_bytes is not None and short is not None and short <= 0:
        words.append(
            "Try expandable segments (PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True) if this is "
            "PyTorch: enough was free in all, but not in one piece."
        )
    return Section(heading="What to try", sentences=tuple(words)) if words else None


def _held(moment: Moment, what: str) -> Holding | None:
    return next((row for row in moment.holdings if row.what == what), None)
