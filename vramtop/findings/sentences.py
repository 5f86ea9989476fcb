"""One sentence per event."""

from __future__ import annotations

from vramtop.events import (
    Changepoint,
    Event,
    Fault,
    Gap,
    GpuBack,
    GpuLost,
    IdleHolder,
    Leak,
    Mark,
    Oom,
    OomRiskChanged,
    Orphan,
    PhaseChanged,
    ProcessExit,
    ProcessStart,
    Segment,
    ServiceSummary,
    VerdictChanged,
)
from vramtop.text import sanitise
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
    'gap            nothing for 12 s'
    """
    words = f"{about(event)}: {told(event)}" if about(event) else told(event)
    return f"{event.kind:<14} {words}"


def told(event: Event) -> str:
    r"""What became true, without what it is about, on one line and safe for a terminal.

    >>> told(ProcessExit(t_us=0, seq=1, name="py\x1b[31mthon\n", exit_code=137))
    'python left the GPU, exit code 137'
    """
    return sanitise(_observed(event))


def _observed(event: Event) -> str:
    if isinstance(event, ProcessStart):
        name = event.name or "a process"
        return f"{name} was already running" if event.already_running else f"{name} started"
    if isinstance(event, ProcessExit):
        code = "" if event.exit_code is None else f", exit code {event.exit_code}"
        return f"{event.name or 'a process'} left the GPU{code}"
    if isinstance(event, GpuLost):
        return event.text or "does not answer"
    if isinstance(event, GpuBack):
        away = "" if event.duration_s is None else f" after {format_duration(event.duration_s)}"
        return f"answers again{away}"  # its text says the same
    if isinstance(event, Gap):
        return f"nothing for {format_duration(event.duration_s)}" + _because(event.text)
    if isinstance(event, Mark):
        return event.text or "a mark"
    if isinstance(event, Fault):
        return ": ".join(part for part in (event.name, event.text) if part)
    return _concluded(event)


def _concluded(event: Event) -> str:
    if isinstance(event, PhaseChanged):
        moving = event.phase in {"growing", "shrinking"}
        return event.phase + (f" at {format_rate(event.rate_bytes_per_s)}" if moving else "")
    if isinstance(event, Changepoint):
        change = event.after_bytes - event.before_bytes
        sign = "-" if change < 0 else "+"
        return (
            f"{sign}{format_bytes(abs(change))}: from {format_bytes(event.before_bytes)} to "
            f"{format_bytes(event.after_bytes)} ({event.state})"
        )
    if isinstance(event, Segment):
        lasted = format_duration(event.end - event.start)
        return f"{event.label}, {format_bytes(event.mean_bytes)} for {lasted}"
    if isinstance(event, Leak):
        low, high = event.slope_low_bytes_per_s, event.slope_high_bytes_per_s
        return f"grows without end, between {format_rate(low)} and {format_rate(high)}"
    if isinstance(event, OomRiskChanged):
        if event.eta_low_s is None or event.eta_high_s is None:
            return f"{event.level}: {event.reason}"
        left = f"{format_duration(event.eta_low_s)} to {format_duration(event.eta_high_s)}"
        odds = format_pct(event.p_oom_300s)
        return f"{event.level}: {left} left, P(out of memory within 5 min) {odds}; {event.reason}"
    if isinstance(event, VerdictChanged):
        return f"{event.verdict}: {event.reason}"
    if isinstance(event, Oom):
        asked = (
            ""
            if event.requested_bytes is None
            else f", {format_bytes(event.requested_bytes)} asked"
        )
        return f"{event.certainty}{asked}: {'; '.join(event.evidence)}"
    return _wasted(event)


def _wasted(event: Event) -> str:
    if isinstance(event, IdleHolder):
        lasted = format_duration(event.t - event.since)
        cost = f"{event.gib_hours:.1f} GiB-hours"
        held = format_bytes(event.held_bytes)
        if event.state == "ended":
            return f"no longer idle: {held} had been held on an idle GPU for {lasted}, {cost}"
        return f"holds {held} on a GPU that has been idle for {lasted}, {cost} so far"
    if isinstance(event, Orphan):
        lasted = format_duration(event.t - event.since)
        cost = f"{event.gib_hours:.1f} GiB-hours"
        held = format_bytes(event.held_bytes)
        whose = ", ".join(str(pid) for pid in event.former_pids)
        if event.state == "ended":
            return f"given back: {held} had been held by no visible process for {lasted}, {cost}"
        return f"{held} are held by no visible process since pid {whose} went, for {lasted}, {cost} so far"
    if isinstance(event, ServiceSummary):
        room = ""
        if event.setting_low is not None and event.setting_high is not None:
            low, high = format_pct(event.setting_low), format_pct(event.setting_high)
            room = f"; this recording supports a share of {low} to {high} of the device"
        return f"{event.framework}: memory: {event.memory}; service: {event.service}{room}"
    return event.canonical()


def _because(text: str | None) -> str:
    return f": {text}" if text else ""
