"""The partition of one series, from runs of equal level to segments; numbers only, no events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

from vramtop.stats.constline import RESTLESS, ConstLine, Moments, Stop
from vramtop.stats.fpop import Fpop, Node
from vramtop.stats.noise import NoiseScale
from vramtop.units import MIB, NS_PER_S

NS_PER_MS = 1_000_000
MS_PER_S = 1000
SCALE = 1.0 / (MIB * MIB * MS_PER_S)
"""Bytes squared times milliseconds into MiB squared times seconds."""

POINT_MS = 2500
"""A level that is left again this soon may be a reading on a ramp."""

JOINED = 8
"""So many changes at most are pushed as one run."""

SETTLE_EVERY = 8
"""A restless series is searched for final changepoints at every so many changes."""

NOISE_EVERY = 32
"""The noise scale is compared with the penalty in force at every so many changes."""

YOUNG_S, YOUNG_RESTLESS_S = 120, 4.0
"""A series that has just begun changes often without being restless."""

MAX_OPEN = 12
"""So many boundaries that are not final yet are tried when a held level is judged."""


class Edge(NamedTuple):
    """What is known of an instant at which the level may have changed.

    Attributes:
        ns, t_us: Boot-time and wall clock.
        before, after: Level in bytes on either side.
        travel: Sum of all absolute changes of the series up to here, bytes.
        changes, falls: How many there were, and how many of them downward.
        util_sum, util_count: Utilisation of the device in percent, summed over its readings up
            to here, and how many there were.
    """

    ns: int
    t_us: int
    before: int
    after: int
    travel: int
    changes: int
    falls: int
    util_sum: int
    util_count: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a series between two boundaries.

    Attributes:
        start, end: The boundaries.
        level: Mean, bytes.
        slope: Of the least-squares line, bytes per second.
        spread: Standard deviation around that line, bytes.
        model: What it was taken for: level, line or restless.
        first, last: Moments at the boundaries, from which joined stretches are measured.
    """

    start: Edge
    end: Edge
    first: Moments
    last: Moments
    level: int
    slope: float
    spread: float
    model: str

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return (self.end.ns - self.start.ns) / NS_PER_S

    @property
    def delta(self) -> int:
        """Last level minus first, bytes."""
        return self.end.before - self.start.after

    @property
    def travel(self) -> int:
        """Sum of absolute changes inside, the jumps at its ends excluded, bytes."""
        end = self.end
        return end.travel - abs(end.after - end.before) - self.start.travel

    @property
    def changes(self) -> int:
        """How many changes of level lie inside."""
        return max(self.end.changes - (self.end.after != self.end.before) - self.start.changes, 0)

    @property
    def falls(self) -> int:
        """How many of them are downward."""
        return max(self.end.falls - (self.end.after < self.end.before) - self.start.falls, 0)

    @property
    def util_pct(self) -> float | None:
        """Mean utilisation of the device, None if it was not read."""
        count = self.end.util_count - self.start.util_count
        return (self.end.util_sum - self.start.util_sum) / count if count > 0 else None


def piece_between(start: Edge, end: Edge, first: Moments, last: Moments, model: str) -> Piece:
    """The stretch between two boundaries, measured."""
    lasted = last.t - first.t
    if lasted <= 0:
        return Piece(start, end, first, last, start.after, 0.0, 0.0, model)
    area = last.area - first.area
    lever = last.lever - first.lever - area * (first.t + last.t)
    level = ((last.squares - first.squares) * lasted - area * area) / lasted
    breadth = lasted * lasted * lasted - last.grain + first.grain or lasted * lasted * lasted
    around = max(level - 3 * lever * lever / breadth, 0.0) / lasted
    return Piece(
        start=start,
        end=end,
        first=first,
        last=last,
        level=(2 * area + lasted) // (2 * lasted),
        slope=6 * lever / breadth * MS_PER_S,
        spread=sqrt(around),
        model=model,
    )


def joined(pieces: Sequence[Piece]) -> Piece:
    """Neighbouring stretches as one."""
    one, other = pieces[0], pieces[-1]
    return piece_between(one.start, other.end, one.first, other.last, RESTLESS)


class Partition:
    """Runs in, boundaries out.

    Runs go to the exact least-squares segmentation; what that has settled goes to the
    approximate one with lines. The penalty of both is the larger of the user's and what the
    noise so far demands, and holds for an epoch. A new epoch starts the exact segmentation
    afresh, so within an epoch it is the optimum at one penalty.

    Args:
        edge: The beginning of the series.
        penalty: The user's, in MiB squared times seconds.
        near_bytes: Levels this near to each other may be joined, see `joins`.
        noise_factor: Penalty in units of an excursion's height squared times its length.
        noise_below_s: Only excursions shorter than this are noise.
        line_ratio, restless_ratio, restless_s, max_candidates: See `ConstLine`.
    """

    __slots__ = (
        "_fpop",
        "_from",
        "_moments",
        "_moves",
        "_near",
        "_noise",
        "_pushed",
        "_root",
        "_runs",
        "_tiny",
        "birth_ns",
        "constline",
        "last",
        "noise_factor",
        "penalty",
        "run_ns",
        "since_ns",
        "value",
    )  # fmt: skip

    def __init__(
        self,
        edge: Edge,
        *,
        penalty: float,
        near_bytes: int,
        noise_factor: float,
        noise_below_s: float,
        line_ratio: float,
        restless_ratio: float,
        restless_s: float,
        max_candidates: int,
    ) -> None:
        self.penalty = penalty
        self.noise_factor = noise_factor
        self.birth_ns = edge.ns
        self.value = edge.after
        self.since_ns = edge.ns
        self.run_ns = edge.ns
        self.last = edge
        self._moments = self._pushed = Moments()
        self._runs: list[tuple[int, int]] = []
        self._moves: list[tuple[int, int]] = []
        self._from = edge.after
        self._near = self._tiny = near_bytes
        self._noise = NoiseScale(below=round(noise_below_s * MS_PER_S))
        self._fpop = Fpop(penalty=penalty)
        self._root = self._fpop.newest
        self._root.tag = (edge, self._moments)
        self.constline = ConstLine(
            scale=SCALE,
            penalty=penalty,
            line_ratio=line_ratio,
            restless_ratio=restless_ratio,
            restless=restless_s * MS_PER_S,
            restless_young=YOUNG_RESTLESS_S * MS_PER_S,
            restless_from=YOUNG_S * MS_PER_S,
            max_candidates=max_candidates,
            start=self._moments,
            tag=edge,
        )

    def joins(self, now: int, after: int) -> bool:
        """Whether the level that ends now is told together with the next; if so, it is counted.

        Up to `JOINED` changes are, while the level stays near the one they began at: within
        `_near`, a small part of what the user ignores or some excursions of a noisy epoch.
        """
        value = self.value
        runs = self._runs
        if len(runs) >= JOINED or not -self._near < after - self._from < self._near:
            return False
        # Counted when the run is pushed: a loop over a few costs half of as many calls.
        runs.append((value, (now - self.birth_ns) // NS_PER_MS))
        self._moves.append((after - value, (now - self.since_ns) // NS_PER_MS))
        self.value = after
        self.since_ns = now
        return True

    def move(self, edge: Edge) -> bool:
        """The level changes. Returns whether it is time to look for what has become final."""
        now, value = edge.ns, self.value
        self._moves.append((edge.after - value, (now - self.since_ns) // NS_PER_MS))
        node = self._close(edge)
        self._from = edge.after
        self.value = edge.after
        self.since_ns = now
        index = node.index
        if index % NOISE_EVERY == 0 and self._new_penalty():
            return True
        return index % SETTLE_EVERY == 0

    def hold(self, edge: Edge) -> None:
        """The level still holds at `edge`: count it up to here."""
        self._close(edge)

    def _close(self, edge: Edge) -> Node:
        now = edge.ns
        value = self.value
        runs, moves = self._runs, self._moves
        if moves:
            self._noise.add_all(moves)
            moves.clear()
        several = bool(runs)
        runs.append((value, (now - self.birth_ns) // NS_PER_MS))
        moments = self._moments = self._moments.after_all(runs, POINT_MS)
        runs.clear()
        level = value / MIB
        if several:
            begun = self._pushed
            if moments.t > begun.t:
                level = (moments.area - begun.area) / ((moments.t - begun.t) * MIB)
        self._pushed = moments
        # Two ticks may carry the same time; a run has some weight all the same.
        weight = (now - self.run_ns) / NS_PER_S or 1e-9
        self.run_ns = now
        self.last = edge
        return self._fpop.push(level, weight, (edge, moments))

    def _after(self, edge: Edge) -> Moments:
        """Integrals up to `edge`, where a run ends."""
        self._moments = self._moments.after(
            self.value, (edge.ns - self.birth_ns) // NS_PER_MS, POINT_MS
        )
        return self._moments

    def _new_penalty(self) -> bool:
        """Begin an epoch if the noise asks for quite another penalty."""
        noise = self._noise
        if noise.count < 2 * NOISE_EVERY:
            return False
        height, length = noise.excursion()
        height /= MIB
        wanted = max(self.penalty, self.noise_factor * height * height * length / MS_PER_S)
        in_force = self._fpop.penalty
        if in_force / 4 <= wanted <= in_force * 2:
            return False
        self._deliver(self._fpop.newest, self._fpop.best)
        tag = self._fpop.newest.tag
        self._fpop = Fpop(penalty=wanted)
        self._near = self._tiny if wanted <= self.penalty else round(4 * height * MIB)
        self._root = self._fpop.newest
        self._root.tag = tag
        self.constline.penalty = wanted
        return True

    def _deliver(self, node: Node, parent: Node | None) -> None:
        """Hand the boundaries up to `node` to the segmentation with lines."""
        path = [node]
        while parent is not None and parent.index > self._root.index:
            path.append(parent)
            parent = parent.parent
        for one in reversed(path):
            edge, moments = one.tag
            self.constline.push(moments, edge)

    def settle(self) -> list[Stop]:
        """Boundaries that have become final, oldest first."""
        settled = self._fpop.settled(self._root)
        if settled.index > self._root.index:
            self._deliver(settled, settled.parent)
            settled.parent = None  # what lies before is final and need not be kept
            self._root = settled
        return self.constline.settle()

    @property
    def open(self) -> bool:
        """Whether any boundary is not final yet."""
        return self._fpop.best.index > self._root.index or self.constline.open

    def present(self) -> tuple[list[Stop], bool]:
        """See `ConstLine.tentative`; the present is where the last run was closed."""
        open_nodes: list[Node] = []
        node: Node | None = self._fpop.best
        while node is not None and node.index > self._root.index and len(open_nodes) < MAX_OPEN:
            open_nodes.append(node)
            node = node.parent
        boundaries = [(one.tag[1], one.tag[0]) for one in reversed(open_nodes)]
        return self.constline.tentative([*boundaries, (self._moments, self.last)])

    def conclude(self, path: list[Stop]) -> list[Stop]:
        """The last segment of the present partition is sure to begin where it does."""
        start = path[-2]
        if start.index >= 0:
            return self.constline.conclude(start)
        node: Node | None = self._fpop.best
        while node is not None and node.tag[0] is not start.tag:
            node = node.parent
        if node is None:
            return []
        self._deliver(node, node.parent)
        node.parent = None
        self._root = node
        return self.constline.conclude()

    def finish(self, edge: Edge) -> list[Stop]:
        """The series ends at `edge`: everything is final."""
        if edge.ns > self.run_ns or self._fpop.newest is self._root:
            self._close(edge)
        self.last = edge
        newest = self._fpop.newest
        newest.tag = (edge, self._moments)
        self._deliver(newest, self._fpop.best)
        return self.constline.finish()
