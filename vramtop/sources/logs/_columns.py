"""What the columns of a query log without a header must be.

Units and constants decide. Where they leave more than one reading of a memory column, the log
is refused rather than guessed; a column of another kind that stays unclear is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vramtop.errors import LogFormatError
from vramtop.sources.logs._times import parse_stamp

_CELL = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(MiB|%|W|MHz)?\s*", re.ASCII)
_TEXTS = (
    ("uuid", re.compile(r"\s*(?:GPU|MIG)-[0-9a-f]{8}-[0-9a-f-]+\s*")),
    ("pci.bus_id", re.compile(r"\s*[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.\d\s*")),
    ("driver_version", re.compile(r"\s*\d{3}\.\d+(?:\.\d+)?\s*")),
    ("pstate", re.compile(r"\s*P\d{1,2}\s*")),
    ("clocks_event_reasons.active", re.compile(r"\s*0x[0-9A-Fa-f]{16}\s*")),
    ("name", re.compile(r"\s*(?:NVIDIA|GeForce|Tesla|Quadro|GRID|TITAN)\b.*")),
)
_FEWEST_ROWS = 3
LEFT_OUT = "-"


@dataclass(slots=True)
class _Column:
    """Cells of one column in the first rows: its unit and its numbers (None: no answer)."""

    unit: str | None
    values: list[float | None]

    @property
    def numbers(self) -> list[float]:
        return [value for value in self.values if value is not None]

    @property
    def constant(self) -> bool:
        return len(set(self.numbers)) <= 1


def deduce_columns(rows: Sequence[Sequence[str]], log: str) -> tuple[list[str], list[str]]:
    """Names of the columns, and what was assumed in finding them.

    Args:
        rows: The first rows, cells as logged, all of one length.
        log: Name of the log, for messages.

    Returns:
        (a name or `-` per column, assumptions in words).

    Raises:
        LogFormatError: more than one reading of a memory column is left, or none at all.
    """
    width = len(rows[0])
    names: list[str] = [LEFT_OUT] * width
    numeric: dict[int, _Column] = {}
    for index in range(width):
        cells = [row[index] for row in rows]
        if sum(parse_stamp(cell) is not None for cell in cells) * 10 >= len(cells) * 9:
            names[index] = "timestamp" if "timestamp" not in names else LEFT_OUT
            continue
        text = _text_column(cells)
        if text is not None:
            names[index] = text
            continue
        column = _numeric_column(cells)
        if column is not None:
            numeric[index] = column
    if "timestamp" not in names or not any(c.unit == "MiB" for c in numeric.values()):
        raise _ambiguous(log, "it has no header, and no cells with MiB", names)
    said: list[str] = []
    _memory(numeric, names, said, log)
    _percent(numeric, names, said)
    _rest(numeric, names)
    for index, name in enumerate(names):
        if name == LEFT_OUT:
            said.append(f"column {index + 1} of {log} could be several things and is left out")
    return names, [f"{log} has no header; its columns are " + ", ".join(names), *said]


def _text_column(cells: Sequence[str]) -> str | None:
    for name, pattern in _TEXTS:
        if all(pattern.fullmatch(cell) for cell in cells):
            return name
    return None


def _numeric_column(cells: Sequence[str]) -> _Column | None:
    units: set[str | None] = set()
    values: list[float | None] = []
    for cell in cells:
        match = _CELL.fullmatch(cell)
        if match is None:
            values.append(None)
        else:
            units.add(match[2])
            values.append(float(match[1]))
    if len(units) != 1 or values.count(None) * 2 > len(values):
        return None
    return _Column(units.pop(), values)


def _memory(numeric: dict[int, _Column], names: list[str], said: list[str], log: str) -> None:
    """Name the MiB columns.

    total is constant and at least every other; used and free add up to a constant. Which of
    two is used and which free shows in the load: more memory is held while kernels run.
    """
    columns = [(index, column) for index, column in numeric.items() if column.unit == "MiB"]
    count = min(len(column.values) for _, column in columns)
    if count < _FEWEST_ROWS:
        raise _ambiguous(log, f"{count} rows show too little", names)
    total = _total(columns)
    if total is not None:
        names[total] = "memory.total"
        said.append(f"column {total + 1} is constant and the largest: memory.total")
    rest = [(index, column) for index, column in columns if index != total]
    load = _load(numeric)
    if len(rest) == 2 and _adds_up(rest[0][1], rest[1][1]):
        (first, one), (second, other) = rest
        direction = _moves_with(load, one)
        if direction == 0:
            raise _ambiguous(
                log,
                f"columns {first + 1} and {second + 1} add up to a constant; which of them is"
                " memory.used does not show",
                names,
            )
        used, free = (first, second) if direction > 0 else (second, first)
        names[used], names[free] = "memory.used", "memory.free"
        held = one if used == first else other
        said.append(
            f"columns {first + 1} and {second + 1} add up to a constant: one is memory.used, the"
            f" other memory.free; column {used + 1} is memory.used because it is higher while the"
            f" GPU is busy (at most {max(held.numbers):g} MiB)"
        )
        return
    if len(rest) == 1 and total is not None:
        index, column = rest[0]
        size = max(numeric[total].numbers)
        seems_free = max(column.numbers) > 0.98 * size and min(column.numbers) > 0.02 * size
        direction = _moves_with(load, column)
        if direction < 0 or (direction == 0 and seems_free):
            raise _ambiguous(log, f"column {index + 1} could be memory.used or memory.free", names)
        names[index] = "memory.used"
        said.append(f"column {index + 1} is taken as memory.used")
        return
    raise _ambiguous(
        log, "its MiB columns could be used, free or total in more than one way", names
    )


def _total(columns: list[tuple[int, _Column]]) -> int | None:
    if len(columns) < 2:
        return None
    largest = max(columns, key=lambda item: max(item[1].numbers))
    others = [column for index, column in columns if index != largest[0]]
    if not largest[1].constant or any(
        max(column.numbers) >= max(largest[1].numbers) for column in others
    ):
        return None
    # Two constants may just as well be used and free of a GPU that does nothing.
    if len(columns) == 2 and others[0].constant:
        return None
    return largest[0]


def _adds_up(one: _Column, other: _Column) -> bool:
    sums = [
        a + b
        for a, b in zip(one.values, other.values, strict=True)
        if a is not None and b is not None
    ]
    return not one.constant and bool(sums) and max(sums) - min(sums) <= max(2.0, 0.002 * max(sums))


def _load(numeric: dict[int, _Column]) -> list[bool | None]:
    """Whether the GPU was busy at each row, as far as a utilisation column shows it."""
    percent = [c for c in numeric.values() if c.unit == "%" and min(c.numbers) == 0]
    if not percent:
        return []
    busiest = max(percent, key=lambda column: sum(column.numbers))
    return [None if value is None else value > 0 for value in busiest.values]


def _moves_with(load: list[bool | None], column: _Column) -> int:
    """+1 if the column is clearly higher under load, -1 if clearly lower, 0 if neither."""
    pairs = [
        (busy, value)
        for busy, value in zip(load, column.values, strict=False)
        if busy is not None and value is not None
    ]
    busy = [value for is_busy, value in pairs if is_busy]
    idle = [value for is_busy, value in pairs if not is_busy]
    if len(busy) < _FEWEST_ROWS or len(idle) < _FEWEST_ROWS:
        return 0
    spread = max(column.numbers) - min(column.numbers)
    difference = sum(busy) / len(busy) - sum(idle) / len(idle)
    if abs(difference) <= 0.05 * spread:
        return 0
    return 1 if difference > 0 else -1


def _percent(numeric: dict[int, _Column], names: list[str], said: list[str]) -> None:
    """Name the % columns: the memory bus is hardly ever busier than the kernels that use it."""
    columns = [(index, column) for index, column in numeric.items() if column.unit == "%"]
    if len(columns) == 1:
        index, column = columns[0]
        # A fan does not stand still and run within one log of a GPU at work; kernels do.
        if min(column.numbers) == 0 and max(column.numbers) >= 20:
            names[index] = "utilization.gpu"
            said.append(f"column {index + 1}, the only %, is taken as utilization.gpu")
    elif len(columns) == 2:
        (first, one), (second, other) = columns
        pairs = [
            (a, b)
            for a, b in zip(one.values, other.values, strict=True)
            if a is not None and b is not None and a != b
        ]
        higher = sum(a > b for a, b in pairs)
        if len(pairs) >= _FEWEST_ROWS and max(higher, len(pairs) - higher) * 10 >= len(pairs) * 9:
            gpu, memory = (first, second) if higher * 2 > len(pairs) else (second, first)
            names[gpu], names[memory] = "utilization.gpu", "utilization.memory"
            said.append(
                f"column {gpu + 1} is taken as utilization.gpu and column {memory + 1} as"
                " utilization.memory, because the first is nearly always the higher"
            )


def _rest(numeric: dict[int, _Column], names: list[str]) -> None:
    watts = [(index, c) for index, c in numeric.items() if c.unit == "W"]
    moving = [index for index, column in watts if not column.constant]
    if len(moving) == 1:
        names[moving[0]] = "power.draw"
    bare = [(index, c) for index, c in numeric.items() if c.unit is None]
    warm = [
        index
        for index, column in bare
        if not column.constant
        and min(column.numbers) >= 15
        and max(column.numbers) <= 110
        and all(abs(b - a) <= 20 for a, b in zip(column.numbers, column.numbers[1:], strict=False))
    ]
    if len(warm) == 1:
        names[warm[0]] = "temperature.gpu"
    rounds = [index for index, column in bare if index not in warm and _counts_round(column)]
    if len(rounds) == 1:
        names[rounds[0]] = "index"


def _counts_round(column: _Column) -> bool:
    """Whether the values are 0, 1, … n-1, 0, 1, …: the index of the GPUs of each poll."""
    size = len(set(column.numbers))
    return 1 < size <= 64 and all(
        value == position % size for position, value in enumerate(column.values)
    )


def _ambiguous(log: str, why: str, names: Sequence[str]) -> LogFormatError:
    example = ",".join("timestamp" if name == "timestamp" else "…" for name in names)
    return LogFormatError(
        f"the columns of {log} do not tell what they are: {why}",
        hint=f"name them: --columns {example} with nvidia-smi's names such as memory.used, "
        "memory.total, utilization.gpu; - leaves one out",
    )
