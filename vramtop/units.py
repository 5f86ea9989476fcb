"""Numbers to text and text to numbers. The only module that makes text of quantities."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone, tzinfo

from vramtop.errors import UsageError

KIB = 1024
MIB = 1024**2
GIB = 1024**3
TIB = 1024**4
NS_PER_S = 1_000_000_000
US_PER_S = 1_000_000

_SIZES = {
    "": 1, "B": 1, "KIB": KIB, "MIB": MIB, "GIB": GIB, "TIB": TIB,
    "K": KIB, "M": MIB, "G": GIB, "T": TIB,
    "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4,
}  # fmt: skip
_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def format_bytes(count: int | None) -> str:
    """Bytes in the largest binary unit that keeps the number at or above one.

    >>> format_bytes(None), format_bytes(512), format_bytes(3 * MIB), format_bytes(int(61.4 * GIB))
    ('unknown', '512 B', '3 MiB', '61.4 GiB')
    """
    if count is None:
        return "unknown"
    magnitude = abs(count)
    for size, unit in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if magnitude >= size:
            value = count / size
            digits = 2 if size >= TIB else 1
            text = f"{value:.{digits}f}"
            return f"{text.rstrip('0').rstrip('.')} {unit}"
    return f"{count} B"


def format_rate(bytes_per_s: float | None) -> str:
    """A rate with its sign.

    >>> format_rate(3 * MIB), format_rate(-2.5 * GIB), format_rate(None)
    ('+3 MiB/s', '-2.5 GiB/s', 'unknown')
    """
    if bytes_per_s is None:
        return "unknown"
    sign = "-" if bytes_per_s < 0 else "+"
    return f"{sign}{format_bytes(round(abs(bytes_per_s)))}/s"


def format_duration(seconds: float | None) -> str:
    """Seconds as people say them, two units at most.

    >>> format_duration(0.25), format_duration(42), format_duration(605), format_duration(7325)
    ('250 ms', '42 s', '10 min 5 s', '2 h 2 min')
    """
    if seconds is None:
        return "unknown"
    if seconds < 0:
        return "-" + format_duration(-seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for size, unit, smaller, smaller_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{whole} s"


def format_pct(share: float | None) -> str:
    """A share of one as per cent.

    >>> format_pct(0.925), format_pct(0.004), format_pct(None)
    ('92 %', '0.4 %', 'unknown')
    """
    if share is None:
        return "unknown"
    pct = share * 100
    return f"{pct:.1f} %" if 0 < abs(pct) < 1 else f"{pct:.0f} %"


def format_time(t_us: int, zone: tzinfo = timezone.utc) -> str:
    """Wall time with its zone, to the millisecond.

    >>> format_time(1_700_000_000_250_000)
    '2023-11-14 22:13:20.250 +00:00'
    """
    moment = datetime.fromtimestamp(t_us // US_PER_S, zone) + timedelta(
        microseconds=t_us % US_PER_S
    )
    offset = moment.strftime("%z")
    stamp = moment.strftime("%Y-%m-%d %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
    return f"{stamp} {offset[:3]}:{offset[3:5]}"


def parse_size(text: str) -> int:
    """Text such as `38GiB`, `500MB`, `1024` to bytes.

    Raises:
        UsageError: not a size.

    >>> parse_size("2 GiB"), parse_size("1.5MB")
    (2147483648, 1500000)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _SIZES:
        raise UsageError(f"{text!r} is not a size", hint="write it like 38GiB, 500MB or 1024")
    return round(float(match[1]) * _SIZES[match[2].upper()])


def parse_duration(text: str) -> float:
    """Text such as `90s`, `10m`, `1h30m`, `250ms`, `5` to seconds.

    Raises:
        UsageError: not a duration.

    >>> parse_duration("1h30m"), parse_duration("250ms"), parse_duration("5")
    (5400.0, 0.25, 5.0)
    """
    stripped = text.strip()
    if re.fullmatch(r"\d+(?:\.\d+)?", stripped):
        return float(stripped)
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(ms|min|s|m|h|d)\s*", stripped)
    if not parts or "".join(re.split(r"\s+", stripped)) != "".join(a + b for a, b in parts):
        raise UsageError(f"{text!r} is not a duration", hint="write it like 90s, 10m or 1h30m")
    return float(sum(float(number) * _DURATIONS[unit] for number, unit in parts))
