"""Which stretches of a series are told as one: a bump, a staircase, a restless hour.

A stretch that the segmentation found is told alone if it is long. Short ones wait until it is
clear whether they are part of something: of a bump that returns to the level it left, of a
staircase whose steps are alike, or of a time in which nothing stays. Nothing is said before it
can no longer change, and what waits is bounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from vramtop.analyzers.labels import Named, Namer, move, trend
from vramtop.analyzers.segments import Edge, Piece, joined
from vramtop.units import NS_PER_S

REST_S = 30.0
"""A level held for this long is a rest, from which a bump may begin."""
LONG_S = 100.0
"""A stretch of this length is told on its own."""
SHORT_S = 45.0
"""A level held for less may be a part of a restless time."""
BUMP_S = 90.0
"""A bump returns within this time to the level it left."""
STAIR_S = 600.0
"""Steps of a staircase may be this far apart."""
GROWS_ON = frozenset(
    (
        "initialization", "warmup", "allocation_event", "cache_filling", "memory_growth",
        "memory_leak", "gradient_steps", "fragmentation", "batch_processing", "cleanup",
        "cooldown", "releasing_memory", "cache_eviction", "memory_pressure",
    )
)  # fmt: skip
"""Neighbours that are both called so are one segment."""
HOLD_S = 60.0
"""What might grow on is told when nothing has followed it for this long."""
MAX_PENDING = 64
"""If so many stretches wait, they are told as what they are so far."""


@dataclass(frozen=True, slots=True)
class Segmented:
    """A segment with its final label.

    Attributes:
        start, end: Where it lies.
        label: Id of the label.
        level, delta, slope: Mean, last minus first, trend; bytes, bytes, bytes per second.
    """

    start: Edge
    end: Edge
    label: str
    level: int
    delta: int
    slope: float


class Story:
    """Stretches of one series in, labelled segments out.

    Args:
        namer: Knows the rules and what was called how so far.
    """

    __slots__ = ("_held", "_pending", "namer")

    def __init__(self, namer: Namer) -> None:
        self.namer = namer
        self._pending: list[Piece] = []
        self._held: tuple[Piece, str] | None = None

    def add(self, piece: Piece) -> list[Segmented]:
        """The next stretch is final."""
        self._pending.append(piece)
        return self._told(piece.end.ns, ended=False)

    def waited(self, now_ns: int) -> list[Segmented]:
        """The open level has held until now."""
        found = self._told(now_ns, ended=False)
        held = self._held
        waits = self._pending or (held and now_ns - held[0].end.ns < HOLD_S * NS_PER_S)
        return found if waits else found + self._release()

    def finish(self) -> list[Segmented]:
        """Nothing more will come."""
        found = self._told(self._pending[-1].end.ns, ended=True) if self._pending else []
        return found + self._release()

    def _told(self, now_ns: int, *, ended: bool) -> list[Segmented]:
        found: list[Segmented] = []
        while self._pending:
            count, bump = self._group(now_ns, ended=ended)
            if count == 0:
                break
            group, self._pending = self._pending[:count], self._pending[count:]
            piece = group[0] if count == 1 else joined(group)
            last = ended and not self._pending
            for part, label in self._names(piece, bump=bump, stairs=count > 1, last=last):
                found += self._tell(part, label)
        return found

    def _names(self, piece: Piece, *, bump: bool, stairs: bool, last: bool) -> Named:
        return self.namer.name(piece, bump=bump, stairs=stairs, last=last)

    def _tell(self, piece: Piece, label: str) -> list[Segmented]:
        """Neighbours of one name at the start are one segment; the rest is said at once."""
        held = self._held
        if held is not None and held[1] == label:
            self._held = (joined((held[0], piece)), label)
            return []
        found = self._release()
        if label in GROWS_ON:
            self._held = (piece, label)
        else:
            found.append(segmented(piece, label))
        return found

    def _release(self) -> list[Segmented]:
        held, self._held = self._held, None
        return [] if held is None else [segmented(*held)]

    # -- what belongs together -------------------------------------------------------------

    def _group(self, now_ns: int, *, ended: bool) -> tuple[int, bool]:
        """How many of the pending stretches make the next segment, and whether they are a bump.

        The number is 0 if that is not known yet.
        """
        pending = self._pending
        first = pending[0]
        closed = ended or _held(pending[-1], now_ns) or len(pending) >= MAX_PENDING
        if self.namer.starting(first) or first.seconds >= STAIR_S:
            return 1, False
        bump = self._bump(now_ns, ended=ended)
        if bump is not None:
            return bump, True
        anchor = self.namer.anchor
        at_rest = first.seconds >= REST_S and trend(first) == 0
        if at_rest and anchor is not None and abs(first.level - anchor.level) <= move(anchor.level):
            return 1, False
        run = self._stairs()
        if run == len(pending) and not closed and first.seconds < LONG_S:
            return 0, False  # the staircase may go on
        if run >= 4:
            return run, False
        if first.seconds >= LONG_S:
            return 1, False
        short = 0
        for piece in pending:
            if piece.seconds >= (LONG_S if trend(piece) else SHORT_S):
                break
            short += 1
        if short == len(pending) and not closed:
            return 0, False
        return (short if _turns(pending[:short]) >= 3 else 1), False

    def _bump(self, now_ns: int, *, ended: bool) -> int | None:
        """How many stretches lie between two equal levels; 0 not known yet, None no bump."""
        anchor, pending = self.namer.anchor, self._pending
        if anchor is None or anchor.end.ns != pending[0].start.ns:
            return None
        level = anchor.end.before
        room = move(level)
        if abs(pending[0].level - level) <= room:
            return None
        limit_ns = anchor.end.ns + round(BUMP_S * NS_PER_S)
        for count, piece in enumerate(pending):
            if piece.start.ns > limit_ns:
                return None
            if abs(piece.level - level) <= room and trend(piece) == 0:
                return count
        last = pending[-1].end
        if last.ns > limit_ns:
            return None
        if abs(last.after - level) <= room and (ended or now_ns > last.ns):
            return len(pending)
        return None if ended or now_ns > limit_ns else 0

    def _stairs(self) -> int:
        """How many of the pending stretches go the same way in steps alike in size and time."""
        count, up = 1, False
        low = high = 0
        short = long = 0.0
        for before, piece in pairwise(self._pending):
            jump = piece.level - before.level
            size, dwell = abs(jump), piece.seconds
            if size == 0 or max(dwell, before.seconds) >= STAIR_S or trend(before) or trend(piece):
                break
            if count == 1:
                # The first step may have been long in use already.
                up, low, high, short, long = jump > 0, size, size, dwell, dwell
            elif (
                (jump > 0) != up
                or size > 3 * low
                or 3 * size < high
                or dwell > 4 * short
                or 4 * dwell < long
            ):
                break
            low, high = min(low, size), max(high, size)
            short, long = min(short, dwell), max(long, dwell)
            count += 1
        return count


def _turns(pieces: Sequence[Piece]) -> int:
    """How often the level turns back."""
    levels = [level for piece in pieces for level in (piece.start.after, piece.end.before)]
    turns, before = 0, 0
    for one, other in pairwise(levels):
        jump = other - one
        if abs(jump) > move(one):
            turns += before != 0 and (jump > 0) != (before > 0)
            before = jump
    return turns


def _held(piece: Piece, now_ns: int) -> bool:
    """Whether what follows the stretch has held for a rest."""
    return now_ns - piece.end.ns >= REST_S * NS_PER_S


def segmented(piece: Piece, label: str) -> Segmented:
    """The stretch under its name."""
    return Segmented(piece.start, piece.end, label, piece.level, piece.delta, piece.slope)
