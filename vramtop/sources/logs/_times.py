"""Stamps of foreign logs to UTC microseconds: many spellings, and zones they do not name."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from vramtop.errors import UsageError
from vramtop.sources.logs._notes import Notes
from vramtop.units import US_PER_S

DAY_US = 86_400 * US_PER_S
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("jan", "feb", "mar", "apr", "may", "jun",
         "jul", "aug", "sep", "oct", "nov", "dec"), 1
    )
}  # fmt: skip
_ISO = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})[ T]+(\d{1,2}):(\d{2}):(\d{2})(?:[.,](\d{1,9}))?"
    r"\s*(Z|UTC|GMT|[+-]\d{2}:?\d{2})?",
    re.ASCII,
)
_ASCTIME = re.compile(
    r"[A-Z][a-z]{2},? +([A-Z][a-z]{2}) +(\d{1,2}) +(\d{1,2}):(\d{2}):(\d{2})(?: +([AP]M))?"
    r"(?: +([A-Z]{3,5}|[+-]\d{2,4}))? +(\d{4})",
    re.ASCII,
)
_SECONDS = re.compile(r"\d{9,10}(?:\.\d{1,9})?", re.ASCII)
_TIME_OF_DAY = re.compile(r"(\d{1,2}):(\d{2}):(\d{2})", re.ASCII)


class Stamp(NamedTuple):
    """A time as logged.

    Attributes:
        local_us: Microseconds since 1970 as the clock on the wall showed them.
        offset_us: Of that clock from UTC, None where the log does not say.
    """

    local_us: int
    offset_us: int | None = None


@lru_cache(maxsize=64)
def _day_us(year: int, month: int, day: int) -> int:
    if not 1970 <= year <= 2200:
        raise ValueError(year)
    return (date(year, month, day).toordinal() - _EPOCH_DAY) * DAY_US


def _clock_us(hour: int, minute: int, second: int) -> int:
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError(hour)
    return ((hour * 60 + minute) * 60 + second) * US_PER_S


def _offset_us(text: str | None) -> int | None:
    if text is None:
        return None
    if text in ("Z", "UTC", "GMT"):
        return 0
    if text[0] not in "+-":
        # An abbreviation such as CST names several zones; it is no better than none.
        return None
    digits = text[1:].replace(":", "").ljust(4, "0")
    size = (int(digits[:2]) * 60 + int(digits[2:4])) * 60 * US_PER_S
    return -size if text[0] == "-" else size


def parse_stamp(text: str) -> Stamp | None:
    """A date with a time in any spelling that the known logs use; None if it is none.

    >>> parse_stamp("2026/04/30 22:19:43.123")
    Stamp(local_us=1777587583123000, offset_us=None)
    >>> parse_stamp("Sun Jan 25 17:24:38 2026") == parse_stamp("2026-01-25T17:24:38")
    True
    >>> parse_stamp("2026-01-25T17:24:38+01:00").offset_us // 1_000_000
    3600
    """
    text = text.strip()
    try:
        match = _ISO.fullmatch(text)
        if match is not None:
            year, month, day, hour, minute, second, fraction, zone = match.groups()
            local = _day_us(int(year), int(month), int(day))
            local += _clock_us(int(hour), int(minute), int(second))
            if fraction:
                local += int(fraction.ljust(6, "0")[:6])
            return Stamp(local, _offset_us(zone))
        match = _ASCTIME.fullmatch(text)
        if match is not None:
            name, day, hour, minute, second, half, zone, year = match.groups()
            local = _day_us(int(year), _MONTHS.get(name.lower(), 0), int(day))
            clock_hour = int(hour) if half is None else int(hour) % 12 + 12 * (half == "PM")
            local += _clock_us(clock_hour, int(minute), int(second))
            return Stamp(local, _offset_us(zone))
    except ValueError:
        return None
    if _SECONDS.fullmatch(text) is not None:
        return Stamp(round(float(text) * US_PER_S), 0)
    return None


def parse_time_of_day(text: str) -> int | None:
    """Microseconds since midnight of `HH:MM:SS`; None if it is none."""
    match = _TIME_OF_DAY.fullmatch(text)
    if match is None:
        return None
    try:
        return _clock_us(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        return None


def parse_zone(text: str) -> tzinfo:
    """A zone by IANA name (`Europe/Berlin`) or offset (`+09:00`).

    Raises:
        UsageError: no such zone.

    >>> parse_zone("UTC"), parse_zone("+09:00").utcoffset(None)
    (zoneinfo.ZoneInfo(key='UTC'), datetime.timedelta(seconds=32400))
    """
    match = re.fullmatch(r"([+-])(\d{2}):?(\d{2})", text, re.ASCII)
    hint = "write it like Europe/Berlin, UTC or +09:00"
    if match is not None:
        size = timedelta(hours=int(match[2]), minutes=int(match[3]))
        if size < timedelta(hours=24):
            return timezone(-size if match[1] == "-" else size)
        raise UsageError(f"{text!r} is no offset from UTC", hint=hint)
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(f"no time zone is called {text!r}", hint=hint) from error


class Clock:
    """Turns one log's stamps into UTC.

    A zone that puts its clock back shows one hour twice. The second time round is told by the
    stamps going back inside that hour.

    Args:
        zone: The zone of stamps that name none; None takes them as UTC and says so.
        notes: Where that is said.
    """

    def __init__(self, zone: tzinfo | None, notes: Notes) -> None:
        self._zone = zone
        self._notes = notes
        self._offsets: dict[int, tuple[int, int]] = {}
        self._last_repeated_us: int | None = None
        self._second_pass = False

    def utc_us(self, stamp: Stamp) -> int:
        """Microseconds since 1970 UTC."""
        local_us, offset_us = stamp
        if offset_us is not None:
            return local_us - offset_us
        if self._zone is None:
            self._notes.assume("the stamps name no time zone and are taken as UTC (--zone)")
            return local_us
        # Offsets change on quarter hours only, so one look-up serves every stamp of a quarter.
        quarter = local_us // (900 * US_PER_S)
        if quarter not in self._offsets:
            self._offsets[quarter] = self._both_offsets_us(quarter)
        first_us, second_us = self._offsets[quarter]
        if first_us <= second_us:
            self._last_repeated_us, self._second_pass = None, False
            return local_us - first_us
        last_us = self._last_repeated_us
        if last_us is not None and local_us < last_us - 60 * US_PER_S and not self._second_pass:
            self._second_pass = True
            self._notes.assume("an hour is stamped twice: the zone's clock went back")
        self._last_repeated_us = local_us
        return local_us - (second_us if self._second_pass else first_us)

    def _both_offsets_us(self, quarter: int) -> tuple[int, int]:
        naive = datetime(1970, 1, 1) + timedelta(seconds=quarter * 900)  # noqa: DTZ001 - zone-less log
        offsets = []
        for fold in (0, 1):
            offset = naive.replace(tzinfo=self._zone, fold=fold).utcoffset()
            offsets.append(0 if offset is None else round(offset.total_seconds() * US_PER_S))
        return offsets[0], offsets[1]
