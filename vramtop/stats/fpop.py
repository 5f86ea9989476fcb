"""Exact optimal partitioning, online: functional pruning over plateaus.

Minimises the sum over segments of the weighted squared distance to the segment's mean, plus
`penalty` for each changepoint. Runs of an equal value are pushed once with their weight, which
leaves the optimum unchanged because a boundary never improves by moving into a run.

Ties: of partitions that cost the same, the one whose last changepoint is latest is taken. Other
exact solvers may take another, so compare costs with them, not positions.

`Fpop` is the compiled kernel (`_fpop.c`) where it was built, else `PureFpop`. Both give equal
bits and take up each other's pickles; `VRAMTOP_PURE=1` in the environment refuses the kernel.

Source: Maidstone, Hocking, Rigaill, Fearnhead (2017), Stat. Comput. 27, 519-533 (functional
pruning); Killick, Fearnhead, Eckley (2012), JASA 107, 1590-1598 (inequality pruning).
"""

from __future__ import annotations

from math import inf, sqrt
from typing import TYPE_CHECKING, Any

MAX_PIECES = 512
"""Far above what was ever seen (177 after a million points of the worst curve found)."""

# A candidate is a list, and its fields are read by number: this loop runs for every change of
# every series, and attributes of objects cost it half as much again.
_COST, _WEIGHT, _MEAN, _NODE, _SEEN = range(5)


class Node:
    """A possible changepoint: where one segment ended and the next begins.

    Attributes:
        index: How many runs precede it.
        parent: The changepoint before it in the best partition of those runs; None at the start
            of the series or once what lies before is final.
        tag: What the caller attached to it.
    """

    __slots__ = ("index", "parent", "tag")

    def __init__(self, index: int, parent: Node | None, tag: Any = None) -> None:
        self.index = index
        self.parent = parent
        self.tag = tag


State = tuple[
    float, int, float, bool, Node, Node, float, int, int,
    list[tuple[float, float, float, Node]], list[float], list[int],
]  # fmt: skip
"""What both classes are pickled as: penalty, max_pieces, cost, exact, best, newest, origin, runs,
searched, candidates (cost, weight, mean, node), and of the pieces their upper ends and the places
of their owners among the candidates."""


class PureFpop:
    """The optimal partition of a growing series of weighted runs.

    Args:
        penalty: Cost of one changepoint, in squared units of the values times weight.
        max_pieces: Bound on the pieces kept. If it ever binds, the dearest candidates go and
            the result is no longer proven optimal.

    Attributes:
        cost: Cost of the best partition of what was pushed, its penalties included; the first
            segment carries none.
        best: The last changepoint of that partition.
        newest: The changepoint that would stand at the start of the next run.
        exact: False once `max_pieces` has bound.
    """

    __slots__ = (
        "_candidates", "_highs", "_origin", "_owners", "_runs", "_searched", "best", "cost", "exact",
        "max_pieces", "newest", "penalty",
    )  # fmt: skip

    def __init__(self, *, penalty: float, max_pieces: int = MAX_PIECES) -> None:
        self.penalty = penalty
        self.max_pieces = max_pieces
        self.cost = -penalty
        self.newest = Node(0, None)
        self.best = self.newest
        self.exact = True
        # In order of index. The last one has no data yet.
        self._candidates: list[list[Any]] = [[0.0, 0.0, 0.0, self.newest, 0]]
        # Which candidate is cheapest for which mean of the open segment: the owner of a piece
        # has it from the piece before up to `high`.
        self._highs: list[float] = [inf]
        self._owners: list[list[Any]] = [self._candidates[0]]
        self._origin = 0.0
        self._runs = 0
        self._searched = 0

    def __getstate__(self) -> State:
        """In the form that the kernel takes up too."""
        places = {id(candidate): place for place, candidate in enumerate(self._candidates)}
        return (
            self.penalty, self.max_pieces, self.cost, self.exact, self.best, self.newest,
            self._origin, self._runs, self._searched,
            [(one[0], one[1], one[2], one[3]) for one in self._candidates],
            list(self._highs), [places[id(owner)] for owner in self._owners],
        )  # fmt: skip

    def __setstate__(self, state: State) -> None:
        (
            self.penalty, self.max_pieces, self.cost, self.exact, self.best, self.newest,
            self._origin, self._runs, self._searched, candidates, highs, owners,
        ) = state  # fmt: skip
        self._candidates = [[*one, 0] for one in candidates]
        self._highs = list(highs)
        self._owners = [self._candidates[place] for place in owners]

    def __reduce__(self) -> tuple[Any, ...]:
        """Restored as whichever class is in use there."""
        return restored, (self.__getstate__(),)

    def push(self, value: float, weight: float, tag: Any = None, /) -> Node:
        """Add a closed run of `value` that counts as `weight` samples.

        Returns:
            The possible changepoint at its end, with `tag` attached.
        """
        candidates = self._candidates
        if self._runs == 0:
            self._origin = value
        value -= self._origin  # means near a large level would lose the digits that count
        youngest = candidates[-1]
        youngest[1] = 0.0
        youngest[2] = value
        least = inf
        best = youngest
        for candidate in candidates:
            before, mean = candidate[1], candidate[2]
            total = before + weight
            delta = value - mean
            share = delta * weight / total
            candidate[1] = total
            candidate[2] = mean + share
            # Welford: never negative, and no difference of large sums.
            cost = candidate[0] = candidate[0] + delta * share * before
            if cost <= least:  # on a tie the latest changepoint wins
                least = cost
                best = candidate
        runs = self._runs = self._runs + 1
        self.cost = least
        self.best = best[3]
        limit = least + self.penalty
        newest = self.newest = Node(runs, self.best, tag)
        fresh = [limit, 0.0, 0.0, newest, runs]
        highs: list[float] = []
        owners: list[list[Any]] = []
        last: list[Any] | None = None
        low = -inf
        for high, owner in zip(self._highs, self._owners, strict=True):
            left, right = inf, -inf
            slack = limit - owner[0]
            if slack > 0.0:
                reach = sqrt(slack / owner[1])
                left = owner[2] - reach
                right = owner[2] + reach
                if left < low:  # noqa: PLR1730 - a call of max costs more than all of this
                    left = low
                if right > high:  # noqa: PLR1730
                    right = high
            if left < right:
                if low < left:
                    if last is fresh:
                        highs[-1] = left
                    else:
                        highs.append(left)
                        owners.append(fresh)
                highs.append(right)
                owners.append(owner)
                last = owner
                owner[4] = runs
                if right < high:
                    highs.append(high)
                    owners.append(fresh)
                    last = fresh
            elif last is fresh:
                highs[-1] = high
            else:
                highs.append(high)
                owners.append(fresh)
                last = fresh
            low = high
        self._highs, self._owners = highs, owners
        self._candidates = [candidate for candidate in candidates if candidate[4] == runs]
        self._candidates.append(fresh)
        if len(highs) > self.max_pieces:
            self._thin(fresh)
        return newest

    def _thin(self, fresh: list[Any]) -> None:
        """Drop the dearest candidates until the pieces are few; what they owned goes to `fresh`."""
        self.exact = False
        while len(self._highs) > self.max_pieces:
            dear = sorted(self._candidates[:-1], key=lambda candidate: candidate[_COST])
            dropped = {id(candidate) for candidate in dear[len(dear) // 2 :]}
            highs: list[float] = []
            owners: list[list[Any]] = []
            for high, owner in zip(self._highs, self._owners, strict=True):
                heir = fresh if id(owner) in dropped else owner
                if owners and owners[-1] is heir is fresh:
                    highs[-1] = high
                else:
                    highs.append(high)
                    owners.append(heir)
            self._highs, self._owners = highs, owners
            self._candidates = [one for one in self._candidates if id(one) not in dropped]

    @property
    def live(self) -> int:
        """How many candidates are kept."""
        return len(self._candidates)

    def settled(self, final: Node) -> Node:
        """The latest changepoint that all live candidates share; at or after `final`.

        Searched for only when the oldest candidate has gone, so the answer may come later than
        it could, never wrongly.
        """
        oldest = self._candidates[0][_NODE].index
        if oldest in {final.index, self._searched}:
            return final
        self._searched = oldest
        shared: Node = self._candidates[0][_NODE]
        for candidate in self._candidates:
            node: Node | None = candidate[_NODE]
            while node is not shared:
                if node is None:
                    return final
                if node.index > shared.index:
                    node = node.parent
                elif shared.parent is None:
                    return final
                else:
                    shared = shared.parent
        return shared

    def changepoints(self) -> list[int]:
        """Indices of runs at which the best partition of what was pushed begins a new segment."""
        found: list[int] = []
        node: Node | None = self.best
        while node is not None and node.index > 0:
            found.append(node.index)
            node = node.parent
        return found[::-1]


def restored(state: State) -> PureFpop:
    """A segmentation with this state, of the class in use."""
    fpop = Fpop(penalty=state[0])
    fpop.__setstate__(state)
    return fpop


def thinned(state: State) -> State:
    """The state with no more pieces than are allowed; the kernel calls this, for it is rare."""
    fpop = PureFpop(penalty=state[0])
    fpop.__setstate__(state)
    fpop._thin(fpop._candidates[-1])  # noqa: SLF001 - same file
    return fpop.__getstate__()


def _fastest() -> Any:
    try:
        from vramtop.stats import _fpop
    except ImportError:  # not built here, or refused; no fault either way
        return PureFpop
    return _fpop.Fpop


if TYPE_CHECKING:
    Fpop = PureFpop
else:
    Fpop = _fastest()
