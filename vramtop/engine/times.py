"""The times a user writes, in the contract's grammar.

2026-11-23 18:30:00, 18:30, 2026-11-23T18:30:00+01:00      absolute, as is 1795458600.25, the
                                                           Unix time that events carry
+90s      from the first tick             -30s      from the last
50%       of the span                     10m ago   from now
oom-30s   oom+10s   oom#2   oom#last      relative to an event of any kind
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo

from vramtop.errors import NotJudgeableError, UsageError
from vramtop.events import KINDS
from vramtop.units import US_PER_S, parse_duration

_FIRST_US = -62_135_596_800 * US_PER_S
_END_US = 253_402_300_800 * US_PER_S
"""The years 1 to 9999; a day is kept free at both ends for time zones."""
_DAY_US = 86_400 * US_PER_S
_UNIX_S = 100_000_000
"""A bare number from here on (1973) is Unix time."""
_HINT = "write it like 2026-11-23 18:30, +90s, -30s, 50%, 10m ago or oom-30s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What relative times are relative to.

    Attributes:
        first_us, last_us: Wall clock of the first and the last tick; a stream has no last one
            yet.
        zone: Of the recorder, for times without one.
        now_us: The present, for `10m ago`.
        event_times: Wall clocks of all events of a kind, in order; asked only when needed.
    """

    first_us: int
    last_us: int | None
    zone: tzinfo
    now_us: int
    event_times: Callable[[str], Sequence[int]]


def parse_time(text: str, span: Span) -> int:
    """A user's time as wall clock in microseconds.

    Raises:
        UsageError: not in the grammar.
        NotJudgeableError: it names an event that the recording does not have.
    """
    moment_us = _parse(text, span)
    if not _FIRST_US + _DAY_US <= moment_us < _END_US - _DAY_US:
        raise UsageError(f"{text!r} is outside the years 1 to 9999", hint=_HINT)
    return moment_us


def _parse(text: str, span: Span) -> int:
    stripped = text.strip()
    lowered = stripped.lower()
    if lowered.startswith("+"):
        return span.first_us + _us(lowered[1:])
    if lowered.startswith("-"):
        return _last_us(stripped, span) - _us(lowered[1:])
    if lowered.endswith("%"):
        return _share(lowered[:-1], span)
    if lowered.endswith("ago"):
        return span.now_us - _us(lowered[:-3])
    event = re.fullmatch(r"([a-z_]+)(?:#(\d+|last))?(?:\s*([+-])\s*(.+))?", lowered)
    if event is not None and event[1] in KINDS:
        return _event(event[1], event[2], event[3], event[4], span)
    return _absolute(stripped, span)


def _last_us(text: str, span: Span) -> int:
    if span.last_us is None:
        raise UsageError(
            f"{text} is counted from the end, and a stream has none yet",
            hint="count from its beginning: +90s",
        )
    return span.last_us


def _us(text: str) -> int:
    return round(parse_duration(text) * US_PER_S)


def _share(text: str, span: Span) -> int:
    try:
        share = float(text)
    except ValueError:
        raise UsageError(f"{text!r} is no percentage", hint=_HINT) from None
    if not 0 <= share <= 100:
        raise UsageError(f"{text}% is outside the recording", hint="use 0% to 100%")
    return span.first_us + round((_last_us(f"{text}%", span) - span.first_us) * share / 100)


def _event(kind: str, which: str | None, sign: str | None, shift: str | None, span: Span) -> int:
    found = span.event_times(kind)
    number = len(found) if which == "last" else int(which or 1)
    if not 1 <= number <= len(found):
        have = f"{len(found)} {kind} event{'' if len(found) == 1 else 's'}"
        raise NotJudgeableError(
            f"the recording has {have}, so there is no {kind}{'#' + which if which else ''}",
            hint="vramtop replay FILE --events lists what it has",
        )
    offset = 0 if shift is None else _us(shift)
    return found[number - 1] + (-offset if sign == "-" else offset)


def _absolute(text: str, span: Span) -> int:
    clock = re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?", text)
    if clock is not None:
        first = datetime.fromtimestamp(span.first_us / US_PER_S, span.zone)
        try:
            moment = first.replace(
                hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0
            ) + timedelta(seconds=float(clock[3] or 0))
        except ValueError:
            raise UsageError(f"{text!r} is no time of day", hint=_HINT) from None
        # A time of day before the start is tomorrow's, as a night's run goes past midnight.
        return _wall(
            moment if moment >= first.replace(microsecond=0) else moment + timedelta(days=1)
        )
    if re.fullmatch(r"\d{9,12}(?:\.\d+)?", text) and float(text) >= _UNIX_S:
        return round(float(text) * US_PER_S)
    # As printed by `replay`: a space before the offset, which fromisoformat does not take.
    iso = re.sub(r"\s+([+-]\d{2}:\d{2})$", r"\1", text)
    try:
        moment = datetime.fromisoformat(iso.replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"{text!r} is not a time", hint=_HINT) from None
    return _wall(moment if moment.tzinfo is not None else moment.replace(tzinfo=span.zone))


def _wall(moment: datetime) -> int:
    since = moment - datetime(1970, 1, 1, tzinfo=timezone.utc)
    return since // timedelta(microseconds=1)
