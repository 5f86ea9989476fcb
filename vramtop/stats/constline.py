"""Segments that are a level, a line or a restless stretch: dynamic programming over boundaries.

Least squares alone cuts a ramp into hundreds of levels. Here a segment costs the least of

    level      squared distance to its mean
    line       squared distance to its line, plus `line_penalty`
    restless   `restless_penalty`, plus `penalty` for every `restless_s` it lasts

and every boundary costs `penalty`. A restless stretch is thus one in which changes come more
often than every `restless_s` and there are several of them; it says nothing of how they go.

Exact over the boundaries it is given as long as no candidate had to go (`thinned`). Lines have
no functional pruning, and without changes nothing can be pruned, so the number of candidates is
bounded by keeping them dense near the present and sparse before. It is given the boundaries of
the least-squares optimum, so of the whole problem it is an approximation.

Source: Killick, Fearnhead, Eckley (2012), JASA 107, 1590-1598 (inequality pruning, here with
the constant that a split may cost extra).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from math import inf
from typing import Any, NamedTuple

LEVEL, LINE, RESTLESS = "level", "line", "restless"


class Moments(NamedTuple):
    """Integrals of a step function from its start to a boundary, exact.

    Attributes:
        t: Time of the boundary, an integer in the caller's unit of time.
        area: Integral of the value.
        lever: Twice the integral of value times time.
        squares: Integral of the squared value.
        grain: Sum of the cubed lengths of the runs that count as points.
    """

    t: int = 0
    area: int = 0
    lever: int = 0
    squares: int = 0
    grain: int = 0

    def after(self, value: int, t: int, point: int) -> Moments:
        """With one more run, of `value` from this boundary to `t`.

        A run no longer than `point` is for a line one reading in its middle: between readings a
        ramp is held, and that staircase is the sampling's, not the ramp's. A longer run is a
        level, and a line through it is wrong about its ends.
        """
        start, area, lever, squares, grain = self
        lasted = t - start
        piece = value * lasted
        if lasted <= point:
            grain += lasted * lasted * lasted
        fields = t, area + piece, lever + piece * (start + t), squares + piece * value, grain
        return _moments(fields)

    def after_all(self, runs: Iterable[tuple[int, int]], point: int) -> Moments:
        """As `after`, with one run of (value, t) after the other."""
        start, area, lever, squares, grain = self
        for value, t in runs:
            lasted = t - start
            piece = value * lasted
            if lasted <= point:
                grain += lasted * lasted * lasted
            area += piece
            lever += piece * (start + t)
            squares += piece * value
            start = t
        return _moments((start, area, lever, squares, grain))


# The constructor is half of the cost of a step; this skips it.
_moments: Callable[[Any], Moments] = partial(tuple.__new__, Moments)


class Stop:
    """A possible boundary between segments.

    Attributes:
        moments, tag: As pushed.
        parent: The boundary before it in the best partition up to here; None at the start, or
            once what lies before is final.
        model: Of the segment that ends here: `LEVEL`, `LINE` or `RESTLESS`.
        cost: Of that partition, with one more boundary here.
    """

    __slots__ = ("cost", "index", "model", "moments", "parent", "tag")

    def __init__(
        self, index: int, moments: Moments, tag: Any, parent: Stop | None, model: str, cost: float
    ) -> None:
        self.index = index
        self.moments = moments
        self.tag = tag
        self.parent = parent
        self.model = model
        self.cost = cost


class ConstLine:
    """The best partition into levels, lines and restless stretches, as boundaries arrive.

    Args:
        scale: Multiplies squared integer units times integer time units into those of the
            penalties.
        penalty: Cost of a boundary; may be raised or lowered between pushes and then holds for
            later boundaries.
        line_ratio: Cost of a line over a level, in penalties.
        restless_ratio: Cost of a restless stretch, in penalties.
        restless: In units of time: a restless stretch costs a penalty for every so long.
        restless_young, restless_from: Before time `restless_from`, for every so long instead.
        max_candidates: Bound on the boundaries kept as possible starts of the open segment.

    Attributes:
        final: The last boundary that no later data can move.
        thinned: Whether `max_candidates` ever bound.
    """

    __slots__ = (
        "_candidates", "_line_penalty", "_penalty", "_pushed", "_searched", "final", "line_ratio", "max_candidates",
        "restless", "restless_from", "restless_ratio", "restless_young", "scale", "thinned",
    )  # fmt: skip

    def __init__(
        self,
        *,
        scale: float,
        penalty: float,
        line_ratio: float,
        restless_ratio: float,
        restless: float,
        restless_young: float,
        restless_from: int,
        max_candidates: int,
        start: Moments,
        tag: Any = None,
    ) -> None:
        self.scale = scale
        self.line_ratio = line_ratio
        self.penalty = penalty
        self.restless_ratio = restless_ratio
        self.restless = restless
        self.restless_young = restless_young
        self.restless_from = restless_from
        self.max_candidates = max_candidates
        self.thinned = False
        self.final = Stop(0, start, tag, None, LEVEL, 0.0)
        self._candidates = [self.final]
        self._pushed = 0
        self._searched = 0

    @property
    def open(self) -> bool:
        """Whether a boundary was pushed that is not final."""
        return self._candidates[-1] is not self.final

    @property
    def penalty(self) -> float:
        """Cost of a boundary."""
        return self._penalty

    @penalty.setter
    def penalty(self, penalty: float) -> None:
        self._penalty = penalty
        self._line_penalty = penalty * self.line_ratio

    def cost(self, start: Moments, end: Moments) -> tuple[float, str]:
        """Cost of the stretch between two boundaries, and what it is best taken for."""
        start_t, start_area, start_lever, start_squares, start_grain = start
        end_t, end_area, end_lever, end_squares, end_grain = end
        lasted = end_t - start_t
        if lasted <= 0:
            return 0.0, LEVEL
        area = end_area - start_area
        # Exact integers up to the division, so a large level loses no digits.
        level = ((end_squares - start_squares) * lasted - area * area) / lasted * self.scale
        line = self._line_penalty
        if level <= line:
            return level, LEVEL
        if start_t < self.restless_from:
            young = min(end_t, self.restless_from) - start_t
            dues = young / self.restless_young + (lasted - young) / self.restless
        else:
            dues = lasted / self.restless
        restless = self._penalty * (self.restless_ratio + dues)
        least, model = (restless, RESTLESS) if restless < level else (level, LEVEL)
        if line < least:
            lever = end_lever - start_lever - area * (start_t + end_t)
            # Twelve times the spread of time around its mean.
            breadth = lasted * lasted * lasted - end_grain + start_grain
            if breadth:
                line += max(level - 3 * lever * lever / breadth * self.scale, 0.0)
                if line < least:
                    return line, LINE
        return least, model

    def push(self, moments: Moments, tag: Any = None) -> Stop:
        """Add a boundary after the last one."""
        stop, costs = self._stop(self._candidates, moments, tag)
        self._pushed += 1
        stop.index = self._pushed
        # A split of a line or a restless stretch costs at most this much extra.
        limit = stop.cost + self.penalty * max(self.line_ratio, self.restless_ratio)
        self._candidates = [
            candidate
            for candidate, cost in zip(self._candidates, costs, strict=True)
            if cost < limit
        ]
        if len(self._candidates) >= self.max_candidates:
            self._thin()
        self._candidates.append(stop)
        return stop

    def _stop(
        self, candidates: Sequence[Stop], moments: Moments, tag: Any
    ) -> tuple[Stop, list[float]]:
        best, least, model = candidates[0], inf, LEVEL
        costs: list[float] = []
        cost_of = self.cost
        for candidate in candidates:
            own, taken_for = cost_of(candidate.moments, moments)
            cost = candidate.cost + own
            costs.append(cost)
            if cost <= least:  # on a tie the latest boundary wins
                best, least, model = candidate, cost, taken_for
        return Stop(-1, moments, tag, best, model, least + self.penalty), costs

    def _thin(self) -> None:
        """Keep the newest quarter, every other one before, and where the open segment may start."""
        self.thinned = True
        kept = self._candidates
        recent = len(kept) - len(kept) // 4
        self._candidates = [
            stop for place, stop in enumerate(kept) if place >= recent or place % 2 == 0
        ]

    def tentative(self, boundaries: Sequence[tuple[Moments, Any]]) -> tuple[list[Stop], bool]:
        """The best partition if these boundaries followed, the last one being the present.

        Returns:
            Its stops after the final one, oldest first, the present last; and whether the last
            segment's start is final: every partition without it costs so much more that no
            later data can bring it back.
        """
        candidates = list(self._candidates)
        stop, costs = candidates[-1], [0.0]
        for place, (moments, tag) in enumerate(boundaries):
            stop, costs = self._stop(candidates, moments, tag)
            if place + 1 < len(boundaries):
                candidates.append(stop)
        others = [
            cost
            for candidate, cost in zip(candidates, costs, strict=True)
            if candidate is not stop.parent
        ]
        extra = 1.0 + max(self.line_ratio, self.restless_ratio)
        sure = not others or min(others) >= stop.cost - self.penalty + extra * self.penalty
        path = []
        node: Stop | None = stop
        while node is not None and node is not self.final:
            path.append(node)
            node = node.parent
        return path[::-1], sure

    def settle(self) -> list[Stop]:
        """Boundaries that have become final, oldest first."""
        oldest = self._candidates[0]
        if oldest is self.final or oldest.index == self._searched:
            return []
        self._searched = oldest.index
        stops = {stop.index: stop for stop in self._candidates}
        while len(stops) > 1:
            parent = stops.pop(max(stops)).parent
            if parent is None:
                return []
            stops[parent.index] = parent
        return self._finalise(next(iter(stops.values())))

    def conclude(self, stop: Stop | None = None) -> list[Stop]:
        """The open segment is sure to begin at a boundary that was pushed, else the last one.

        Returns:
            The boundaries that are final by this, oldest first.
        """
        stop = self._candidates[-1] if stop is None else stop
        self._candidates = [stop]
        return self._finalise(stop)

    def finish(self) -> list[Stop]:
        """The last boundary pushed is the end: everything is final."""
        return self._finalise(self._candidates[-1])

    def _finalise(self, stop: Stop) -> list[Stop]:
        path: list[Stop] = []
        node: Stop | None = stop
        while node is not None and node is not self.final:
            path.append(node)
            node = node.parent
        if path:
            stop.parent = None  # what lies before is final and need not be kept
            self.final = stop
        return path[::-1]
