"""Whose memory it was: who grew, who came late."""

from __future__ import annotations

from vramtop.report.model import OutOfMemory, Report
from vramtop.report.places import span_label
from vramtop.units import MIB, NS_PER_S, format_bytes, format_duration, format_pct


def blame(report: Report, oom: OutOfMemory) -> list[str]:
    """Whose growth used the memory up, which need not be the process that failed."""
    moment = oom.moment
    if moment is None:
        return []
    processes = [row for row in moment.holdings if row.what == "process"]
    if not processes:
        return ["No process was visible on this GPU at that moment."]
    window = span_label(moment.window_ns or 0)
    grown = [(row.grown_bytes, row) for row in processes if row.grown_bytes is not None]
    newcomer = _newcomer(report, oom)
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
            ),
            *newcomer,
        ]
    known = [row for row in processes if row.held_bytes is not None]
    if not known:
        return []
    largest = max(known, key=lambda row: row.held_bytes or 0)
    return [
        (
            f"No process grew by 64 MiB or more in the {window} before; the largest holder was "
            f"{largest.label} with {format_bytes(largest.held_bytes)}."
        ),
        *newcomer,
    ]


def _newcomer(report: Report, oom: OutOfMemory) -> list[str]:
    """A process that came to the GPU after the one that failed, if its memory was decisive."""
    device, moment = report.device(oom.uuid), oom.moment
    if device is None or moment is None or oom.pid is None:
        return []
    lives = {
        process.key.pid: process
        for process in device.processes
        if process.first_ns <= oom.elapsed_ns
    }
    failed = lives.get(oom.pid)
    short = None
    if oom.requested_bytes is not None and oom.free_bytes is not None:
        short = oom.requested_bytes - oom.free_bytes
    later = [
        (row.held_bytes or 0, lives[row.pid])
        for row in moment.holdings
        if failed is not None and row.pid in lives and lives[row.pid].first_ns > failed.first_ns
        and (row.held_bytes or 0) >= max(short or 0, 256 * MIB)
    ]  # fmt: skip
    if not later:
        return []
    held, newcomer = max(later, key=lambda pair: pair[0])
    ago = format_duration((moment.elapsed_ns - newcomer.first_ns) / NS_PER_S)
    without = (
        " Without it this request would have fitted." if short is not None and short > 0 else ""
    )
    return [
        (
            f"{newcomer.label} came to this GPU {ago} before, after the process that failed, and "
            f"held {format_bytes(held)}.{without}"
        )
    ]
