"""What an event says, in words, for a table whose other columns tell when and where."""

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
    VerdictChanged,
)
from vramtop.units import format_bytes, format_duration, format_pct, format_rate


def describe(event: Event) -> str:
    """One sentence without a full stop; text from outside is neither cleaned nor escaped.

    >>> describe(ProcessExit(t_us=0, seq=1, name="python", exit_code=137))
    'python left the GPU, exit code 137'
    """
    if isinstance(event, ProcessStart):
        name = event.name or "a process"
        return f"{name} was already running" if event.already_running else f"{name} started"
    if isinstance(event, ProcessExit):
        code = "" if event.exit_code is None else f", exit code {event.exit_code}"
        return f"{event.name or 'a process'} left the GPU{code}"
    if isinstance(event, (GpuLost, GpuBack, Gap, Mark, Fault)):
        return _observed(event)
    if isinstance(event, PhaseChanged):
        rate = (
            ""
            if event.phase in ("stable", "volatile")
            else f" at {format_rate(event.rate_bytes_per_s)}"
        )
        return f"{event.phase}{rate}"
    if isinstance(event, Changepoint):
        change = event.after_bytes - event.before_bytes
        sign = "-" if change < 0 else "+"
        return (
            f"{sign}{format_bytes(abs(change))}: from {format_bytes(event.before_bytes)} to "
            f"{format_bytes(event.after_bytes)}"
        )
    if isinstance(event, Leak):
        low, high = event.slope_low_bytes_per_s, event.slope_high_bytes_per_s
        return f"grows without end, between {format_rate(low)} and {format_rate(high)}"
    if isinstance(event, OomRiskChanged):
        return _risk(event)
    if isinstance(event, VerdictChanged):
        return f"{event.verdict}: {event.reason}"
    if isinstance(event, Oom):
        asked = (
            ""
            if event.requested_bytes is None
            else f", {format_bytes(event.requested_bytes)} asked"
        )
        return f"{event.certainty}{asked}: {'; '.join(event.evidence)}"
    return ""


def _observed(event: GpuLost | GpuBack | Gap | Mark | Fault) -> str:
    text = event.text or ""
    if isinstance(event, Fault):
        return ": ".join(part for part in (event.name, event.text) if part)
    if isinstance(event, Gap):
        length = format_duration(event.duration_s)
        return f"nothing for {length}" + (f": {text}" if text else "")
    if isinstance(event, GpuBack) and event.duration_s is not None:
        length = format_duration(event.duration_s)
        return f"answers again after {length}" + (f": {text}" if text else "")
    if isinstance(event, GpuBack):
        return text or "answers again"
    return text or ("does not answer" if isinstance(event, GpuLost) else "")


def _risk(event: OomRiskChanged) -> str:
    if event.level == "none" or event.eta_low_s is None or event.eta_high_s is None:
        return f"{event.level}: {event.reason}"
    return (
        f"{event.level}: {format_duration(event.eta_low_s)} to {format_duration(event.eta_high_s)} "
        f"left, P(out of memory within 5 min) {format_pct(event.p_oom_300s)}; {event.reason}"
    )
