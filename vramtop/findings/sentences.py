"""One sentence per event."""

from __future__ import annotations

from vramtop.events import (
    Changepoint,
    Event,
    Fault,
    Gap,
    GpuBack,
    GpuLost,
    Leak,
    Mark,
    Oom,
    OomRiskChanged,
    PhaseChanged,
    ProcessExit,
    ProcessStart,
    Segment,
    VerdictChanged,
)
from vramtop.units import format_bytes, format_duration, format_pct, format_rate


def about(event: Event) -> str:
    """What an event is about.

    >>> about(Mark(t_us=0, seq=0, gpu=1, uuid="GPU-a", pid=77, text="x")), about(Mark(t_us=0, seq=0))
    ('gpu 1 pid 77', '')
    """
    words = []
    if event.gpu is not None:
        words.append(f"gpu {event.gpu}")
    if event.pid is not None:
        words.append(f"pid {event.pid}")
    return " ".join(words)


def sentence(event: Event) -> str:
    """The kind, what it is about, and what became true.

    >>> sentence(Gap(t_us=0, seq=9, duration_s=12.0))
    'gap            nothing was observed for 12 s'
    """
    words = f"{about(event)}: {told(event)}" if about(event) else told(event)
    return f"{event.kind:<14} {words}"


def told(event: Event) -> str:
    """What became true, without what it is about."""
    if isinstance(event, ProcessStart):
        state = "was already running" if event.already_running else "started"
        return f"{event.name or 'a process of unknown name'} {state}"
    if isinstance(event, ProcessExit):
        code = "" if event.exit_code is None else f" with exit code {event.exit_code}"
        return f"{event.name or 'the process'} has gone{code}"
    if isinstance(event, GpuLost):
        return "the GPU stopped answering" + _because(event.text)
    if isinstance(event, GpuBack):
        away = "" if event.duration_s is None else f" after {format_duration(event.duration_s)}"
        return f"the GPU answers again{away}" + _because(event.text)
    if isinstance(event, Gap):
        return f"nothing was observed for {format_duration(event.duration_s)}" + _because(
            event.text
        )
    if isinstance(event, Mark):
        return event.text or "a mark"
    if isinstance(event, Fault):
        return f"{event.name or 'something'} could not be read" + _because(event.text)
    return _concluded(event)


def _concluded(event: Event) -> str:
    if isinstance(event, PhaseChanged):
        rate = f" at {format_rate(event.rate_bytes_per_s)}" if event.rate_bytes_per_s else ""
        return f"{event.phase}{rate}"
    if isinstance(event, Changepoint):
        move = f"{format_bytes(event.before_bytes)} to {format_bytes(event.after_bytes)}"
        return f"{move} ({event.state})"
    if isinstance(event, Segment):
        lasted = format_duration(event.end - event.start)
        return f"{event.label}, {format_bytes(event.mean_bytes)} for {lasted}"
    if isinstance(event, Leak):
        low, high = (
            format_rate(event.slope_low_bytes_per_s),
            format_rate(event.slope_high_bytes_per_s),
        )
        return f"leaks {low} to {high}"
    if isinstance(event, OomRiskChanged):
        if event.eta_low_s is None or event.eta_high_s is None:
            return f"{event.level}: {event.reason}"
        left = f"{format_duration(event.eta_low_s)} to {format_duration(event.eta_high_s)}"
        odds = format_pct(event.p_oom_300s)
        return f"{event.level}: out of memory in {left} ({odds} within 5 min): {event.reason}"
    if isinstance(event, VerdictChanged):
        return f"{event.verdict}: {event.reason}"
    if isinstance(event, Oom):
        asked = (
            ""
            if event.requested_bytes is None
            else f", asked for {format_bytes(event.requested_bytes)}"
        )
        return f"out of memory ({event.certainty}{asked}): {'; '.join(event.evidence)}"
    return event.canonical()


def _because(text: str | None) -> str:
    return f": {text}" if text else ""
