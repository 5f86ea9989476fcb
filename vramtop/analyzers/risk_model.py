"""From what a device's memory did to the probability that it runs out.

Three steps, each a sum of tables that can be read in `risk_table.py`:

1. Will the growth go on until nothing is left? From how long it has lasted, how evenly it was
   spread, whether it slows, how fresh the processes are.
2. If so, when? The failure comes at some multiple of the extrapolated time; how the multiples
   scatter is known from simulated failures, by the quality of the growth.
3. Both together, with how full the device is and how it swings, give the probability within
   each horizon.

All tables are made by `benchmarks/fit_risk.py`; nothing here is computed that could differ
between processors.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from math import inf
from typing import NamedTuple

from vramtop.analyzers import risk_table
from vramtop.stats.exhaustion import Outlook

HORIZONS_S = (60, 300, 900)
LONGEST_S = 7200.0
"""Growth that would take longer than this to meet the limit is none."""
LOAD_S = 900.0
"""Growth that has gone on for so long since a start is no load any more."""
RANGE_S = 30.0
"""Added to the time left before a range is made of it: near the end nothing is known to the second."""
QUALITIES = (0.15, 0.35, 0.6)
"""Bounds of `lasted * spread` between the classes of growth; a flushed cache has two classes of its own."""
RATIOS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0)  # fmt: skip
"""Actual over extrapolated time, where the second step's tables stand."""


class Evidence(NamedTuple):
    """What is known of a device at one instant.

    Attributes:
        outlook: Of its level.
        free: Free share of the device, 0-1.
        fresh_s: Seconds since what grows came, or since the device was nearly empty.
        quiet_s: Seconds since the level last rose.
        age_s: Seconds since the level is followed.
        loading: It has grown ever since, without a pause: a load may look so.
    """

    outlook: Outlook
    free: float
    fresh_s: float
    quiet_s: float
    age_s: float
    loading: bool


def growth_features(evidence: Evidence) -> dict[str, float]:
    """Inputs of the first step, each 0-1; more speaks for going on, but for `flushed`."""
    outlook = evidence.outlook
    return {
        "lasted": outlook.lasted,
        "spread": outlook.spread,
        "recent": outlook.recent,
        "steps": outlook.steps,
        "agreement": outlook.agreement,
        "both": min(outlook.lasted, outlook.spread),
        "pure": min(outlook.lasted, outlook.spread, outlook.agreement),
        "settled": evidence.fresh_s / (evidence.fresh_s + 120.0),
        "moving": 60.0 / (60.0 + evidence.quiet_s),
        "age": evidence.age_s / (evidence.age_s + 600.0),
        "started": 1.0 - _loading(evidence),
        "flushed": 1.0 if outlook.flushed else 0.0,
    }


def _loading(evidence: Evidence) -> float:
    return max(0.0, 1.0 - evidence.fresh_s / LOAD_S) if evidence.loading else 0.0


def state_features(evidence: Evidence, growth: float) -> dict[str, float]:
    """Inputs of the third step, each 0-1.

    Args:
        evidence: What is known.
        growth: What the first two steps give, as a place in the table `LOGISTIC`, 0-1: so that
            a growth that is nearly certain counts for more than one that is likely.
    """
    outlook = evidence.outlook
    full = 1.0 - min(evidence.free, 0.5) * 2.0
    moving = 60.0 / (60.0 + evidence.quiet_s)
    return {
        "growth": growth,
        "full": full,
        "moving": moving,
        "brim": min(full, moving),
        "started": 1.0 - _loading(evidence),
        "fresh": 120.0 / (120.0 + evidence.fresh_s),
        "swing": outlook.swing,
        "flushed": 1.0 if outlook.flushed else 0.0,
    }


def quality(outlook: Outlook) -> int:
    """The class of growth whose table of multiples applies."""
    worth = outlook.lasted * outlook.spread
    if outlook.flushed:
        return len(QUALITIES) + (1 if worth < QUALITIES[1] else 2)
    return sum(worth >= bound for bound in QUALITIES)


class RiskModel:
    """The three steps with one set of tables.

    Args:
        table: Like the module `risk_table`: `GOES_ON`, `WHEN`, `WITHIN`, `LOGISTIC`, `BOUNDS`.
    """

    def __init__(self, table: Mapping[str, object] | None = None) -> None:
        found = vars(risk_table) if table is None else table
        self.goes_on: Mapping[str, Sequence[float]] = found["GOES_ON"]  # type: ignore[assignment]
        self.when: Sequence[Sequence[float]] = found["WHEN"]  # type: ignore[assignment]
        self.within: Sequence[Mapping[str, Sequence[float]]] = found["WITHIN"]  # type: ignore[assignment]
        self.logistic: Sequence[float] = found["LOGISTIC"]  # type: ignore[assignment]
        self.bounds: Sequence[tuple[float, float]] = found["BOUNDS"]  # type: ignore[assignment]

    def continues(self, evidence: Evidence) -> float:
        """Step 1: probability that the growth goes on until nothing is left."""
        if evidence.outlook.left_s > LONGEST_S:
            return 0.0
        return self._probability(self.goes_on, growth_features(evidence))

    def due(self, outlook: Outlook, horizon_s: float) -> float:
        """Step 2: share of failures that come within the horizon, if they come."""
        if outlook.left_s <= 0.0:
            return 1.0
        if outlook.left_s > LONGEST_S:
            return 0.0
        return _between(RATIOS, self.when[quality(outlook)], horizon_s / outlook.left_s)

    def probabilities(self, evidence: Evidence) -> tuple[float, float, float]:
        """P(out of memory) within each of `HORIZONS_S`; never falls with the horizon."""
        goes_on = self.continues(evidence)
        found: list[float] = []
        floor = 0.0
        for horizon_s, table in zip(HORIZONS_S, self.within, strict=True):
            growth = self.place(goes_on * self.due(evidence.outlook, horizon_s))
            floor = max(floor, self._probability(table, state_features(evidence, growth)))
            found.append(floor)
        return found[0], found[1], found[2]

    def place(self, probability: float) -> float:
        """Where in the table `LOGISTIC` a probability stands, 0-1."""
        table = self.logistic
        index = bisect_right(table, probability)
        if index == 0:
            return 0.0
        if index == len(table):
            return 1.0
        low, high = table[index - 1], table[index]
        return (index - 1 + (probability - low) / (high - low)) / (len(table) - 1)

    def range_s(self, outlook: Outlook) -> tuple[float, float] | None:
        """The stated range of times left, seconds; None if nothing grows."""
        if outlook.left_s > LONGEST_S or outlook.left_s == inf:
            return None
        low, high = self.bounds[quality(outlook)]
        scale_s = outlook.left_s + RANGE_S
        return low * scale_s, high * scale_s

    def _probability(
        self, table: Mapping[str, Sequence[float]], features: Mapping[str, float]
    ) -> float:
        score = table["constant"][0]
        for name, value in features.items():
            score += _evenly(table[name], value)
        return _evenly(self.logistic, (score + 8.0) / 16.0)


def _evenly(values: Sequence[float], share: float) -> float:
    """The table `values`, evenly spaced over 0-1, at `share`."""
    last = len(values) - 1
    if share >= 1.0:
        return values[last]
    if share <= 0.0:
        return values[0]
    place = share * last
    index = int(place)
    return values[index] + (values[index + 1] - values[index]) * (place - index)


def _between(grid: Sequence[float], values: Sequence[float], x: float) -> float:
    """The table `values` at the points `grid`, at `x`."""
    if x >= grid[-1]:
        return values[-1]
    index = 1
    while grid[index] <= x:
        index += 1
    low = grid[index - 1]
    return values[index - 1] + (values[index] - values[index - 1]) * (x - low) / (grid[index] - low)
