"""How the number of changepoints depends on the penalty: CROPS.

Source: Haynes, Eckley, Fearnhead (2017), J. Comput. Graph. Stat. 26(1), 134-143.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from vramtop.stats.fpop import Fpop


class Step(NamedTuple):
    """A range of penalties over which the optimum stays the same.

    Attributes:
        low, high: The range.
        changes: Changepoints of the optimum in it.
        cost: Squared error of that optimum, penalties excluded.
    """

    low: float
    high: float
    changes: int
    cost: float


def crops(
    runs: Sequence[tuple[float, float]], *, low: float, high: float, max_solves: int = 64
) -> tuple[list[Step], bool]:
    """Optimal partitions for all penalties of a range.

    Args:
        runs: Values with their weights, in order.
        low: Smallest penalty.
        high: Largest penalty.
        max_solves: So often the problem is solved at most.

    Returns:
        Steps from the low penalty to the high one, and whether they are all there are.

    Raises:
        ValueError: an empty or inverted range, or no runs.
    """
    if not runs or not 0.0 < low < high:
        raise ValueError(f"no optimum for {len(runs)} runs and penalties {low} to {high}")
    solved = {low: _solve(runs, low), high: _solve(runs, high)}
    waiting = [(low, high)]
    whole = True
    while waiting:
        left, right = waiting.pop(0)
        (many, cheap), (few, dear) = solved[left], solved[right]
        if many <= few + 1:
            continue
        if len(solved) >= max_solves:
            whole = False
            break
        # The penalty at which both partitions cost the same.
        middle = (dear - cheap) / (many - few)
        if not left < middle < right:
            continue
        solved[middle] = _solve(runs, middle)
        if solved[middle][0] not in {many, few}:
            waiting += [(left, middle), (middle, right)]
    return _steps(solved, low, high), whole


def _solve(runs: Sequence[tuple[float, float]], penalty: float) -> tuple[int, float]:
    optimum = Fpop(penalty=penalty)
    for value, weight in runs:
        optimum.push(value, weight)
    changes = len(optimum.changepoints())
    return changes, optimum.cost - penalty * changes


def _steps(solved: dict[float, tuple[int, float]], low: float, high: float) -> list[Step]:
    cheapest: dict[int, float] = {}
    for changes, cost in solved.values():
        cheapest[changes] = min(cost, cheapest.get(changes, cost))
    steps: list[Step] = []
    begin = low
    order = sorted(cheapest.items(), reverse=True)
    for (many, cheap), (few, dear) in pairwise(order):
        until = min(max((dear - cheap) / (many - few), begin), high)
        steps.append(Step(begin, until, many, cheap))
        begin = until
    few, dear = order[-1]
    steps.append(Step(begin, high, few, dear))
    return steps
