"""Values that several commands take."""

from __future__ import annotations

import click

from vramtop.errors import UsageError
from vramtop.units import parse_duration


def duration(_ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A click callback: text such as `90s`, `10m` or `5` to seconds.

    Raises:
        UsageError: not a duration, or not above zero.
    """
    if value is None:
        return None
    seconds = parse_duration(value)
    if seconds <= 0:
        raise UsageError(f"--{param.name} {value} is not above zero", hint="such as 1s")
    return seconds


def pace(_ctx: click.Context, _param: click.Parameter, value: str) -> float | None:
    """A click callback: simulated seconds per second, or `max` for None.

    Raises:
        UsageError: neither.
    """
    if value == "max":
        return None
    try:
        speed = float(value)
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise UsageError(f"--pace {value} is no speed", hint="a number above 0, or max")
    return speed
