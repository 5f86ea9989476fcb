"""What a segment is called, from its shape, the process's age and what came before and after.

Two things are decided here. Which stretches are told as one: a bump that returns to the level
it left, a staircase, a restless hour. And what each is called. Both look at bytes and seconds
and at the process's whole life; nothing is said before it can no longer change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from vramtop.analyzers.segments import Edge, Piece, joined
from vramtop.stats.constline import LINE
from vramtop.units import GIB, MIB, NS_PER_S, US_PER_S

SERVERS = frozenset(
    (
        "vllm",
        "sglang",
        "tgi",
        "ollama",
        "llamacpp",
        "llama.cpp",
        "triton",
        "tensorrt-llm",
        "lmdeploy",
    )
)
POOLS = frozenset(("vllm", "sglang", "tgi", "jax", "tensorflow"))
"""What takes a pool by plan; a full GPU says nothing there."""

MOVE_BYTES = 64 * MIB
"""Less than this, or than a hundredth of the level, is no move."""
REST_S = 30.0
"""A level held for this long is a rest: a start-up is over, a bump may begin."""
LONG_S = 100.0
"""A level held for this long is told on its own."""
BUMP_S = 90.0
"""A bump returns within this time to the level it left."""
STAIR_S = 600.0
"""Steps of a staircase may be this far apart."""
STEP_S = 3.0
"""A jump between two rests has this time to its own name."""
STARTUP_S = 1200.0
"""A start-up does not last longer than this."""
MAX_PENDING = 64
"""More stretches than this that belong together are joined as they come."""


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
        born_ns: When the process began; for a device, when it was first seen.
        total: Size of the device in bytes, None if unknown.
        framework: What the process is built with, None if unknown.
        device: It is a device's series, not a process's.
    """

    __slots__ = (
        "_anchor", "_bumps", "_label", "_pending", "_rested", "_stage", "_top", "born_ns",
        "device", "framework", "total",
    )  # fmt: skip

    def __init__(
        self, *, born_ns: int, total: int | None, framework: str | None, device: bool
    ) -> None:
        self.born_ns = born_ns
        self.total = total
        self.framework = framework
        self.device = device
        self._pending: list[Piece] = []
        self._anchor: Piece | None = None
        self._label = ""
        self._stage = "load"
        self._rested = 0.0
        self._top = 0
        self._bumps: list[Piece] = []

    # -- what belongs together -------------------------------------------------------------

    def add(self, piece: Piece) -> list[Segmented]:
        """The next stretch is final."""
        self._pending.append(piece)
        if len(self._pending) > MAX_PENDING:
            self._pending[:2] = [joined(self._pending[:2])]
        return self._told(piece.end.ns, ended=False)

    def waited(self, now_ns: int) -> list[Segmented]:
        """The open level has held until now."""
        return self._told(now_ns, ended=False)

    def finish(self) -> list[Segmented]:
        """Nothing more will come."""
        return self._told(self._pending[-1].end.ns, ended=True) if self._pending else []

    def _told(self, now_ns: int, *, ended: bool) -> list[Segmented]:
        found: list[Segmented] = []
        while self._pending:
            count = self._group(now_ns, ended=ended)
            if count == 0:
                break
            group, self._pending = self._pending[:count], self._pending[count:]
            following = self._pending[0] if self._pending else None
            found += self._name(group, following, ended=ended)
        return found

    def _group(self, now_ns: int, *, ended: bool) -> int:
        """How many of the pending stretches make the next segment; 0 if that is not known yet."""
        pending = self._pending
        first = pending[0]
        if self._starting(first) or first.seconds >= STAIR_S or first.model == LINE:
            return (
                1
                if first.seconds >= LONG_S or ended or len(pending) > 1 or _held(first, now_ns)
                else 0
            )
        bump = self._bump(now_ns, ended=ended)
        if bump is not None:
            return bump
        run = self._stairs()
        if run < len(pending) or ended or _held(pending[-1], now_ns):
            if run >= 3:
                return run
        elif first.seconds < LONG_S or run >= 3:
            return 0
        if first.seconds >= LONG_S:
            return 1
        short = 0
        for piece in pending:
            if piece.seconds >= LONG_S:
                break
            short += 1
        if short == len(pending) and not ended and not _held(pending[-1], now_ns):
            return 0
        return short if short >= 5 else 1

    def _bump(self, now_ns: int, *, ended: bool) -> int | None:
        """How many stretches lie between two equal levels; 0 not known yet, None no bump."""
        anchor, pending = self._anchor, self._pending
        if anchor is None or anchor.end.ns != pending[0].start.ns:
            return None
        level = anchor.end.before
        room = _move(level)
        if abs(pending[0].level - level) <= room:
            return None
        for count, piece in enumerate(pending):
            if piece.start.ns - anchor.end.ns > BUMP_S * NS_PER_S:
                return None
            if abs(piece.level - level) <= room and _trend(piece) == 0:
                return count
        last = pending[-1].end
        waited = now_ns - anchor.end.ns
        if last.ns - anchor.end.ns > BUMP_S * NS_PER_S:
            return None
        if abs(last.after - level) <= room and (ended or now_ns > last.ns):
            return len(pending)
        return None if ended or waited > BUMP_S * NS_PER_S else 0

    def _stairs(self) -> int:
        """How many of the pending stretches go the same way in steps of about one size."""
        pending = self._pending
        count, low, high = 1, 0, 0
        for before, piece in pairwise(pending):
            jump = piece.level - before.level
            if piece.seconds >= STAIR_S or before.seconds >= STAIR_S or jump == 0:
                break
            size = abs(jump)
            if count == 1:
                up, low, high = jump > 0, size, size
            elif (jump > 0) != up or size > 3 * low or 3 * size < high:
                break
            low, high = min(low, size), max(high, size)
            count += 1
        return count

    # -- what it is called -----------------------------------------------------------------

    def _starting(self, piece: Piece) -> bool:
        age_s = (piece.start.ns - self.born_ns) / NS_PER_S
        return self._stage != "done" and not self.device and age_s < STARTUP_S

    def _name(
        self, group: Sequence[Piece], following: Piece | None, *, ended: bool
    ) -> list[Segmented]:
        piece = group[0] if len(group) == 1 else joined(group)
        if self._starting(piece):
            named = self._startup(piece)
        elif self._is_bump(group):
            named = [(piece, self._name_bump(piece))]
        else:
            named = self._life(piece, following, ended=ended)
        self._top = max(self._top, piece.end.before)
        found = []
        for part, label in named:
            self._label = label
            if _trend(part) == 0 and part.seconds >= REST_S / 2:
                self._anchor = part
            found.append(Segmented(part.start, part.end, label, part.level, part.delta, part.slope))
        return found

    def _is_bump(self, group: Sequence[Piece]) -> bool:
        anchor = self._anchor
        if anchor is None or anchor.end.ns != group[0].start.ns:
            return False
        first, last = group[0].start, group[-1].end
        seconds = (last.ns - first.ns) / NS_PER_S
        return (
            seconds <= BUMP_S
            and abs(last.after - first.before) <= _move(first.before)
            and abs(group[0].level - first.before) > _move(first.before)
        )

    def _startup(self, piece: Piece) -> list[tuple[Piece, str]]:
        """From the context to the first rest at working size."""
        start = piece.start
        base = start.before
        jump = start.after - base
        util = piece.util_pct
        total = self.total
        pool = self.framework in POOLS and total is not None and self._stage != "pool"
        if pool and total is not None and (jump + max(piece.delta, 0)) * 10 > total * 3:
            self._stage = "pool"
            return self._split(piece, STEP_S, "pre_allocation", self._after_pool(piece))
        resting = _trend(piece) == 0 and piece.seconds >= REST_S
        if self._stage == "load":
            if jump > max(base // 2, 512 * MIB) and base > 0 and (util is None or util >= 10):
                self._stage = "warm"
                if resting:
                    self._stage = "done"
                    return self._split(piece, STEP_S, "warmup", self._resting(piece))
                return [(piece, "warmup")]
            if resting and piece.level > GIB:
                self._stage = "done"
                return [(piece, self._resting(piece))]
            return [(piece, "initialization")]
        if self._stage == "pool":
            if resting:
                self._stage = "done"
                return [(piece, self._resting(piece))]
            return [(piece, "initialization" if self._server() else "warmup")]
        if jump > max(base // 4, 512 * MIB) and self._label == "warmup":
            if resting:
                self._stage = "done"
                # The step that made the states has one or two more of its length before the
                # work goes at its own pace.
                return self._split(piece, 2 * STEP_S, "optimizer_init", self._resting(piece))
            return [(piece, "optimizer_init")]
        if resting:
            self._stage = "done"
            return [(piece, self._resting(piece))]
        return [(piece, "warmup")]

    def _after_pool(self, piece: Piece) -> str:
        if piece.seconds >= REST_S:
            self._stage = "done"
            return self._resting(piece)
        return "initialization" if self._server() else "warmup"

    def _name_bump(self, piece: Piece) -> str:
        """Between two equal levels."""
        anchor = self._anchor
        self._bumps = [*self._bumps[-7:], piece]
        level = piece.start.before
        rise = piece.level - level
        if self._server():
            return "request_burst"
        util, before = piece.util_pct, None if anchor is None else anchor.util_pct
        if rise < 0 or piece.start.after < level:
            return "epoch_boundary" if piece.seconds >= 5.0 else "gc_collection"
        if util is not None and before is not None:
            return "checkpoint_save" if util * 2 < before else "batch_processing"
        heights = [abs(one.level - piece.level) for one in self._bumps[:-1]]
        same = any(height <= _move(piece.level) for height in heights)
        return "checkpoint_save" if same or not heights else "batch_processing"

    def _life(
        self, piece: Piece, following: Piece | None, *, ended: bool
    ) -> list[tuple[Piece, str]]:
        """After the start-up."""
        start = piece.start
        jump = start.after - start.before
        trend = _trend(piece)
        if trend > 0:
            return [(piece, self._growing(piece, following))]
        if trend < 0:
            return [(piece, self._falling(piece, -piece.delta, ended=ended))]
        if piece.spread > _move(piece.level):
            return [(piece, "batch_processing")]
        if abs(jump) <= _move(start.before):
            return [(piece, self._resting(piece))]
        if jump > 0:
            step = "allocation_event" if jump >= 256 * MIB else "memory_growth"
        else:
            step = self._falling(piece, -jump, ended=ended and following is None)
        if piece.seconds <= 2 * STEP_S:
            return [(piece, step)]
        return self._split(piece, STEP_S, step, self._resting(piece))

    def _resting(self, piece: Piece) -> str:
        """Flat."""
        util = piece.util_pct
        if piece.level < 10 * MIB or (
            util is not None and util < 3 and piece.seconds >= REST_S / 2
        ):
            return "idle"
        if piece.seconds < 10:
            return "plateau"
        if (
            self.total is not None
            and piece.level * 100 > self.total * 85
            and not self._server()
            and self.framework not in POOLS
        ):
            return "saturation"
        return "active_inference" if self._server() else "steady_state"

    def _growing(self, piece: Piece, following: Piece | None) -> str:
        start = piece.start.after
        rise = piece.end.before - start
        if piece.seconds < 15:
            return "allocation_event" if rise >= 256 * MIB else "memory_growth"
        if self._server():
            return "cache_filling"
        if self.total is not None and start * 10 > self.total * 7:
            return "memory_pressure"
        return "memory_leak" if piece.seconds >= 120 else "memory_growth"

    def _falling(self, piece: Piece, fall: int, *, ended: bool) -> str:
        level = piece.start.before
        if piece.seconds >= 60 and _trend(piece) < 0:
            return "cooldown"
        if self._server():
            return "cache_eviction"
        if fall < MOVE_BYTES:
            return "gc_collection"
        if fall * 2 > level or (ended and fall > 200 * MIB):
            return "cleanup"
        return "releasing_memory"

    def _server(self) -> bool:
        return self.framework in SERVERS

    def _split(
        self, piece: Piece, seconds: float, first: str, then: str
    ) -> list[tuple[Piece, str]]:
        """The first seconds are what began it."""
        if piece.seconds < 2 * seconds:
            return [(piece, first)]
        ns = piece.start.ns + round(seconds * NS_PER_S)
        middle = replace_edge(piece.start, ns)
        return [
            (replace(piece, end=middle), first),
            (replace(piece, start=middle), then),
        ]


def replace_edge(edge: Edge, ns: int) -> Edge:
    """A later instant at which nothing changed."""
    return edge._replace(
        ns=ns, t_us=edge.t_us + (ns - edge.ns) * US_PER_S // NS_PER_S, before=edge.after
    )


def _move(level: int) -> int:
    return max(MOVE_BYTES, level // 100)


def _held(piece: Piece, now_ns: int) -> bool:
    """Whether what follows the stretch has held for a rest."""
    return now_ns - piece.end.ns >= REST_S * NS_PER_S


def _trend(piece: Piece) -> int:
    """1 growing, -1 shrinking, 0 neither."""
    drift = piece.slope * piece.seconds
    if abs(drift) < _move(piece.level) or abs(drift) < 2.5 * piece.spread:
        return 0
    return 1 if drift > 0 else -1
