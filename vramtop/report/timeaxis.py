"""Where a time axis has its ticks and what they say."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import NamedTuple

from vramtop.units import US_PER_S

_STEPS_S = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
    3600, 7200, 10800, 21600, 43200, 86400, 2 * 86400, 7 * 86400, 28 * 86400, 364 * 86400,
)  # fmt: skip
_SHORT_S = 600.0


class TimeAxis(NamedTuple):
    """Ticks of a time axis.

    Attributes:
        ticks_s: Places, seconds since the first tick of the recording.
        labels: One for each.
        title: What the axis shows, with its unit.
    """

    ticks_s: list[float]
    labels: list[str]
    title: str


def time_axis(
    start_s: float, stop_s: float, first_t_us: int, zone: tzinfo, *, most: int = 9
) -> TimeAxis:
    """Ticks from `start_s` to `stop_s`: elapsed seconds if short, else the recorder's clock.

    Args:
        start_s: Begin, seconds since the first tick.
        stop_s: End.
        first_t_us: Wall clock of the first tick, microseconds since 1970 UTC.
        zone: The recorder's time zone.
        most: Ticks wanted at most.
    """
    span = max(stop_s - start_s, 0.01)
    step = next((step for step in _STEPS_S if span / step <= most), _STEPS_S[-1])
    first = datetime.fromtimestamp(first_t_us / US_PER_S, zone)
    offset = first.strftime("%z")
    clock = f"{first:%H:%M:%S} on {first:%Y-%m-%d}, {offset[:3]}:{offset[3:5]}"
    if stop_s <= _SHORT_S:
        ticks = _multiples(start_s, stop_s, step, 0.0)
        digits = 0 if step >= 1 else 1 if step >= 0.1 else 2
        return TimeAxis(ticks, [f"{tick:.{digits}f}" for tick in ticks], f"seconds since {clock}")
    utc_offset = first.utcoffset()
    local = first_t_us / US_PER_S + (utc_offset.total_seconds() if utc_offset is not None else 0.0)
    ticks = _multiples(start_s, stop_s, step, local)
    moments = [datetime.fromtimestamp(first_t_us / US_PER_S + tick, zone) for tick in ticks]
    form = "%H:%M:%S" if step < 60 else "%H:%M"
    several_days = len({moment.date() for moment in moments}) > 1
    labels = []
    for place, moment in enumerate(moments):
        fresh = place == 0 or moment.date() != moments[place - 1].date()
        if step >= 86400:
            labels.append(f"{moment:%d %b}")
        elif several_days and fresh:
            labels.append(f"{moment.strftime(form)}\n{moment:%d %b}")
        else:
            labels.append(moment.strftime(form))
    return TimeAxis(ticks, labels, f"time of day at the recorder (start {clock})")


def _multiples(start: float, stop: float, step: float, origin: float) -> list[float]:
    """Times in the range at which `origin` plus the time is a multiple of `step`."""
    count = -(-(origin + start) // step)
    ticks = []
    while count * step - origin <= stop + 1e-9:
        ticks.append(count * step - origin)
        count += 1
    return ticks
