"""Exact optimal partitioning, online: functional pruning over plateaus.

Minimises the sum over segments of the weighted squared distance to the segment's mean, plus
`penalty` for each changepoint. Runs of an equal value are pushed once with their weight, which
leaves the optimum unchanged because a boundary never improves by moving into a run.

Source: Maidstone, Hocking, Rigaill, Fearnhead (2017), Stat. Comput. 27, 519-533 (functional
pruning); Killick, Fearnhead, Eckley (2012), JASA 107, 1590-1598 (inequality pruning).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt


@dataclass(slots=True)
class Node:
    """A possible changepoint: where one segment ended and the next begins.

    Attributes:
        index: How many runs precede it.
        parent: The changepoint before it in the best partition of those runs; None at the start
            of the series or once what lies before is final.
        mean, weight: Of the segment that ends here.
        tag: What the caller attached to the first run after it.
    """

    index: int
    parent: Node | None
    mean: float
    weight: float
    tag: object = None


@dataclass(slots=True)
class _Candidate:
    """A last changepoint that may still be optimal, with the statistics of the data since it."""

    node: Node
    base: float
    weight: float = 0.0
    mean: float = 0.0
    spread: float = 0.0

    def add(self, value: float, weight: float) -> None:
        """Welford's update, weighted."""
        total = self.weight + weight
        delta = value - self.mean
        self.mean += delta * weight / total
        self.spread += delta * (value - self.mean) * weight
        self.weight = total

    def cost_with(self, value: float, weight: float) -> float:
        """Cost if one more run were added, without adding it."""
        if self.weight == 0.0:
            return self.base
        delta = value - self.mean
        return (
            self.base + self.spread + delta * delta * self.weight * weight / (self.weight + weight)
        )


class Fpop:
    """The optimal partition of a growing series of weighted runs.

    Args:
        penalty: Cost of one changepoint, in squared units of the values times weight.

    Attributes:
        cost: Cost of the best partition of what was pushed, its penalties included; the first
            segment carries none.
    """

    __slots__ = ("_best", "_candidates", "_pieces", "_runs", "_searched", "cost", "penalty")

    def __init__(self, *, penalty: float) -> None:
        self.penalty = penalty
        self.cost = -penalty
        root = _Candidate(Node(0, None, 0.0, 0.0), 0.0)
        self._candidates: list[_Candidate] = [root]
        # Which candidate is cheapest for which mean of the open segment: (low, high, candidate).
        self._pieces: list[tuple[float, float, _Candidate]] = [(-inf, inf, root)]
        self._best = root
        self._runs = 0
        self._searched = 0

    def push(self, value: float, weight: float) -> None:
        """Add a closed run of `value` that counts as `weight` samples."""
        best, least = None, inf
        for candidate in self._candidates:
            candidate.add(value, weight)
            cost = candidate.base + candidate.spread
            if cost <= least:  # on a tie the latest changepoint wins
                best, least = candidate, cost
        if best is None:
            raise ValueError("no candidate is left")
        self._runs += 1
        self.cost = least
        self._best = best
        fresh = _Candidate(
            Node(self._runs, best.node, best.mean, best.weight), least + self.penalty
        )
        self._prune(fresh)

    def _prune(self, fresh: _Candidate) -> None:
        limit = fresh.base
        pieces: list[tuple[float, float, _Candidate]] = []
        alive: list[_Candidate] = []
        for low, high, candidate in self._pieces:
            slack = limit - candidate.base - candidate.spread
            if slack <= 0.0:
                _extend(pieces, low, high, fresh)
                continue
            reach = sqrt(slack / candidate.weight)
            left, right = max(low, candidate.mean - reach), min(high, candidate.mean + reach)
            if left >= right:
                _extend(pieces, low, high, fresh)
                continue
            if low < left:
                _extend(pieces, low, left, fresh)
            pieces.append((left, right, candidate))
            if not alive or alive[-1] is not candidate:
                alive.append(candidate)
            if right < high:
                _extend(pieces, right, high, fresh)
        # A candidate may own several pieces; ascending order keeps the tie rule.
        unique = {id(candidate): candidate for candidate in alive}
        self._candidates = sorted(unique.values(), key=lambda candidate: candidate.node.index)
        self._candidates.append(fresh)
        self._pieces = pieces

    @property
    def live(self) -> int:
        """How many candidates are kept."""
        return len(self._candidates)

    @property
    def newest(self) -> Node:
        """The changepoint that would stand at the start of the next run."""
        return self._candidates[-1].node

    @property
    def best(self) -> Node:
        """The last changepoint of the best partition of what was pushed."""
        return self._best.node

    @property
    def best_mean(self) -> float:
        """Mean of the last segment of that partition."""
        return self._best.mean

    def last_changepoint(self, value: float, weight: float) -> tuple[Node, bool]:
        """The last changepoint if an open run of `value` had lasted `weight` by now.

        Returns:
            The node, and whether it would be final: every other candidate costs more than a
            further changepoint, so no later data can bring it back.
        """
        best, least, second = self._candidates[0], inf, inf
        for candidate in self._candidates:
            cost = candidate.cost_with(value, weight)
            if cost <= least:
                best, least, second = candidate, cost, least
            elif cost < second:
                second = cost
        return best.node, second > least + self.penalty

    def settled(self, final: Node) -> Node:
        """The latest changepoint that all live candidates share; at or after `final`.

        Searched for only when the oldest candidate has gone, so the answer may come later than
        it could, never wrongly.
        """
        oldest = self._candidates[0].node.index
        if oldest in {final.index, self._searched}:
            return final
        self._searched = oldest
        nodes = {candidate.node.index: candidate.node for candidate in self._candidates}
        while len(nodes) > 1:
            latest = nodes.pop(max(nodes))
            parent = latest.parent
            if parent is None:
                return final
            nodes[parent.index] = parent
        return next(iter(nodes.values()))

    def changepoints(self) -> list[int]:
        """Indices of runs at which the best partition of what was pushed begins a new segment."""
        found: list[int] = []
        node: Node | None = self._best.node
        while node is not None and node.index > 0:
            found.append(node.index)
            node = node.parent
        return found[::-1]


def _extend(
    pieces: list[tuple[float, float, _Candidate]], low: float, high: float, candidate: _Candidate
) -> None:
    """Append a piece, merged with the last one if that is the same candidate's."""
    if pieces and pieces[-1][2] is candidate and pieces[-1][1] == low:
        pieces[-1] = (pieces[-1][0], high, candidate)
    else:
        pieces.append((low, high, candidate))
