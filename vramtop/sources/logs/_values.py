"""Cells of foreign logs to integers in base units; what cannot be true becomes None."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

from vramtop.sources.logs._notes import Notes
from vramtop.units import GIB, KIB, MIB, TIB

_NUMBER = re.compile(r"([+-]?\d{1,18}(?:\.\d{1,9})?)\s*([A-Za-z%°/]*)", re.ASCII)
_ABSENT = frozenset(
    ("", "-", "n/a", "err!", "not supported", "unknown error", "none", "null", "nan")
)
_MEMORY_UNITS = {
    "": MIB, "mib": MIB, "mb": MIB, "m": MIB, "gib": GIB, "gb": GIB, "kib": KIB, "kb": KIB,
    "b": 1, "tib": TIB,
}  # fmt: skip

# Beyond these a reading is a misreading: 1 PiB of memory, 200 degrees, 20 kW, 20 GHz.
MOST_BYTES = 1 << 50
_MOST = {
    "gpu_util_pct": 100,
    "mem_util_pct": 100,
    "temp_c": 200,
    "power_mw": 20_000_000,
    "sm_clock_mhz": 20_000,
    "mem_clock_mhz": 20_000,
    "throttle": (1 << 63) - 1,
    "pcie_tx_bytes_per_s": 10**13,
    "pcie_rx_bytes_per_s": 10**13,
}
MOST_PID = (1 << 32) - 2  # 0xFFFFFFFF is how drivers say "no process"

Converter = Callable[[str], "int | None"]


def absent(text: str) -> bool:
    """Whether a cell says that there is no answer.

    >>> absent("[N/A]"), absent("[Not Supported]"), absent("-"), absent("0 MiB")
    (True, True, True, False)
    """
    return text.startswith("[") or text.lower() in _ABSENT


@lru_cache(maxsize=4096)  # the cells of a log repeat
def number(text: str) -> tuple[float, str] | None:
    """A number and its unit in lower case, None where there is no answer.

    Raises:
        ValueError: the cell is no number, so its line is not what it seemed.

    >>> number("22.19 W"), number("855 MiB"), number("[N/A]")
    ((22.19, 'w'), (855.0, 'mib'), None)
    """
    text = text.strip()
    if absent(text):
        return None
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return float(match[1]), match[2].lower()


def memory_bytes(text: str, unit: str = "") -> int | None:
    """Memory in bytes; without a unit in the cell, `unit` counts, and MiB without either.

    Raises:
        ValueError: no amount of memory.

    >>> memory_bytes("855 MiB"), memory_bytes("1"), memory_bytes("1.5", "gib")
    (896532480, 1048576, 1610612736)
    """
    if text.endswith(" MiB") and text[:-4].isdigit() and len(text) < 20:
        return int(text[:-4]) * MIB
    parsed = number(text)
    if parsed is None:
        return None
    scale = _MEMORY_UNITS.get(parsed[1] or unit.lower())
    if scale is None:
        raise ValueError(text)
    return round(parsed[0] * scale)


def scaled(text: str, factor: float = 1) -> int | None:
    """A number times `factor`, rounded; its unit is not looked at.

    Raises:
        ValueError: no number.

    >>> scaled("22.19 W", 1000), scaled("-")
    (22190, None)
    """
    parsed = number(text)
    return None if parsed is None else round(parsed[0] * factor)


def bit_mask(text: str) -> int | None:
    """A hexadecimal mask such as `0x0000000000000001`.

    Raises:
        ValueError: no mask.
    """
    text = text.strip()
    return None if absent(text) else int(text, 16)


def process_id(text: str) -> int:
    """A process id; `4711.0` is how data frames write it in a column with empty cells.

    Raises:
        ValueError: no possible one.

    >>> process_id("4711"), process_id("4711.0")
    (4711, 4711)
    """
    text = text.strip().removesuffix(".0")
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:20]) <= MOST_PID:
        raise ValueError(text)
    return int(text)


def gpu_index(text: str) -> int:
    """The index of a GPU.

    Raises:
        ValueError: no possible one.
    """
    text = text.strip().removesuffix(".0")
    if not (text.isascii() and text.isdigit()) or len(text) > 4:
        raise ValueError(text)
    return int(text)


def plausible(values: dict[str, int | None], notes: Notes) -> dict[str, int | None]:
    """`values` with every reading that cannot be true set to None, and counted.

    A used or free figure above the total of the same row is impossible too.
    """
    total = values.get("total_bytes")
    for name, value in values.items():
        if value is None:
            continue
        is_memory = name in _MEMORY_NAMES
        most = MOST_BYTES if is_memory else _MOST[name]
        if is_memory and name != "total_bytes" and total:
            most = total
        if not 0 <= value <= most:
            values[name] = None
            notes.impossible[name] += 1
    return values


_MEMORY_NAMES = frozenset(("total_bytes", "reserved_bytes", "used_bytes", "free_bytes"))
