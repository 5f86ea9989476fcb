"""What a segment is called: from bytes and seconds, the process's age and what came before."""

from __future__ import annotations

from dataclasses import replace

from vramtop.analyzers.segments import Edge, Piece
from vramtop.stats.constline import RESTLESS
from vramtop.units import GIB, MIB, NS_PER_S, US_PER_S

SERVERS = frozenset(
    (
        "vllm", "sglang", "tgi", "ollama", "llamacpp", "llama.cpp", "triton", "tensorrt-llm",
        "lmdeploy",
    )
)  # fmt: skip
SERVING_WORDS = frozenset(
    (
        "serve", "server", "serving", "inference", "infer", "predict", "generate", "evaluate",
        "vllm", "sglang", "ollama", "llama", "tritonserver", "tgi",
    )
)  # fmt: skip
NOTEBOOK_WORDS = frozenset(("ipykernel", "jupyter", "notebook"))
POOLS = frozenset(("vllm", "sglang", "tgi", "jax", "tensorflow"))
"""What takes a pool by plan; a full GPU says nothing there."""

SERVER, NOTEBOOK, OTHER = "server", "notebook", "other"

MOVE_BYTES = 64 * MIB
"""Less than this, or than a hundredth of the level, is no move."""
REST_S = 30.0
"""A level held for this long at work ends a start-up."""
IDLE_REST_S = 120.0
"""The same where nothing computes: it may still be loading."""

FALL_BYTES = 16 * MIB
"""A fall is told from this size on: allocators seldom give back without a reason."""
STEP_S = 3.0
"""A jump between two rests has this time to its own name."""
STARTUP_S = 1200.0
"""A start-up does not last longer than this."""
WARM_S = 90.0
"""Nor does what follows the loading."""
BUSY_PCT, IDLE_PCT = 15.0, 3.0
"""Utilisation above which a process works, and below which it does nothing."""

RETURNING = frozenset(
    ("checkpoint_save", "batch_processing", "epoch_boundary", "request_burst", "gc_collection")
)
"""After these the level that comes back is no news."""

Named = list[tuple[Piece, str]]


class Namer:
    """The rules, and what they need to know of a series so far.

    Args:
        born_ns: When the process began; for a device, when it was first seen.
        total: Size of the device in bytes, None if unknown.
        device: It is a device's series, not a process's.

    Attributes:
        framework: What the process is built with, None if unknown.
        role: `SERVER`, `NOTEBOOK` or `OTHER`; see `role_of`.
        anchor: The last rest: what a bump is measured against.
    """

    __slots__ = (
        "_bumps", "_label", "_rise", "_stage", "_step", "_warm_ns", "anchor", "born_ns", "device", "framework",
        "role", "total",
    )  # fmt: skip

    def __init__(self, *, born_ns: int, total: int | None, device: bool) -> None:
        self.born_ns = born_ns
        self.total = total
        self.framework: str | None = None
        self.device = device
        self.role = OTHER
        self.anchor: Piece | None = None
        self._label = ""
        self._stage = "done" if device else "load"
        self._warm_ns = 0
        self._step = 0
        self._rise = 0
        self._bumps: tuple[Piece, ...] = ()

    def learn(self, framework: str | None, command: str | None) -> None:
        """What the process says of itself."""
        self.framework = framework
        self.role = role_of(framework, command)

    def starting(self, piece: Piece) -> bool:
        """Whether the process has not come to rest at its working size yet."""
        if self._stage == "done":
            return False
        start = piece.start
        util = piece.util_pct
        busy = util is not None and util >= BUSY_PCT
        over = (
            start.ns - self.born_ns > STARTUP_S * NS_PER_S
            or (self._stage != "load" and start.ns - self._warm_ns > WARM_S * NS_PER_S)
            or (self._stage != "load" and piece.seconds > WARM_S and trend(piece) != 0)
            or (self._stage != "load" and piece.seconds > WARM_S and piece.model == RESTLESS)
            or (busy and self._stage == "load" and piece.seconds > 60 and trend(piece) != 0)
            or (busy and start.after + move(start.before) < start.before)
        )
        if over:
            self._stage = "done"
        return not over

    def name(self, piece: Piece, *, bump: bool, stairs: bool, last: bool) -> Named:
        """The labels of the next stretch, most often one.

        Args:
            piece: The stretch.
            bump: It returns to the level it left.
            stairs: It was joined from several.
            last: Nothing follows.
        """
        if self.starting(piece):
            named = self._startup(piece)
        elif bump:
            named = [(piece, self._bump(piece))]
        else:
            named = self._life(piece, stairs=stairs, last=last)
        self._rise = _step(piece) if trend(piece) > 0 else 0
        for part, label in named:
            self._label = label
            if not bump and trend(part) == 0 and part.seconds >= REST_S / 2:
                self.anchor = part
        if bump and self.anchor is not None:
            # The level that comes back is the same rest.
            self.anchor = replace(self.anchor, end=piece.end._replace(before=piece.start.before))
        return named

    # -- the start -------------------------------------------------------------------------

    def _startup(self, piece: Piece) -> Named:
        """From the context to the first rest at working size."""
        start = piece.start
        base = start.before
        jump = start.after - base
        util = piece.util_pct
        lazy = self.role == NOTEBOOK or (util is not None and util < BUSY_PCT)
        rest_s = IDLE_REST_S if lazy else REST_S
        resting = trend(piece) == 0 and piece.seconds >= rest_s
        stage, label = self._stage, self._label
        if self._pool(piece, jump):
            self._enter("pool", start)
            return self._first(piece, STEP_S, "pre_allocation", self._after_pool, resting=resting)
        if stage == "load":
            # Loading goes in steps of about one size; the first work takes far more at once.
            usual, self._step = self._step, max(self._step, jump, _step(piece))
            working = util is None or util >= BUSY_PCT
            if working and 0 < 2 * usual < jump and jump > max(base // 4, 512 * MIB):
                self._enter("warm", start)
                return self._first(piece, STEP_S, "warmup", self._rest, resting=resting)
            return self._first(piece, 0.0, "initialization", self._rest, resting=resting)
        if stage == "pool":
            return self._first(piece, 0.0, self._after_pool(piece), self._rest, resting=resting)
        if label == "warmup" and jump > max(base // 4, 512 * MIB):
            # The states are made within a step, and a step or two later the work has its pace.
            return self._first(piece, 1.5 * STEP_S, "optimizer_init", self._rest, resting=resting)
        return self._first(piece, 0.0, "warmup", self._rest, resting=resting)

    def _pool(self, piece: Piece, jump: int) -> bool:
        """Whether a pool was taken within seconds."""
        taken = jump if piece.seconds > 10 else jump + max(piece.delta, 0)
        return (
            self.framework in POOLS
            and self.total is not None
            and self._stage != "pool"
            and taken * 10 > self.total
            and (piece.start.before > GIB or taken * 10 > self.total * 3)
        )

    def _after_pool(self, piece: Piece) -> str:  # noqa: ARG002 - a rule like the others
        return "initialization" if self._server() else "warmup"

    def _enter(self, stage: str, edge: Edge) -> None:
        self._stage = stage
        self._warm_ns = edge.ns

    def _first(
        self, piece: Piece, seconds: float, label: str, then: object, *, resting: bool
    ) -> Named:
        """A stretch of the start; if it is a rest, its first seconds only."""
        if not resting:
            if seconds and then == self._after_pool:
                return _split(piece, seconds, label, self._after_pool(piece))
            return [(piece, label)]
        self._stage = "done"
        if not seconds:
            return [(piece, self._rest(piece))]
        return _split(piece, seconds, label, self._rest(piece))

    # -- after it --------------------------------------------------------------------------

    def _bump(self, piece: Piece) -> str:
        """Between two equal levels."""
        before = self.anchor
        self._bumps = (*self._bumps[-7:], piece)
        level = piece.start.before
        if self._server():
            return "request_burst"
        if piece.start.after < level:
            return "epoch_boundary" if piece.seconds >= 5.0 else "gc_collection"
        util, usual = piece.util_pct, None if before is None else before.util_pct
        if util is not None and usual is not None and usual >= IDLE_PCT:
            return "checkpoint_save" if util * 2 < usual else "batch_processing"
        alike = [abs(one.level - piece.level) <= move(piece.level) for one in self._bumps[:-1]]
        return "checkpoint_save" if all(alike) else "batch_processing"

    def _life(self, piece: Piece, *, stairs: bool, last: bool) -> Named:
        start = piece.start
        way = trend(piece)
        if way > 0:
            return [(piece, self._growing(piece, stairs=stairs))]
        if way < 0:
            return [(piece, self._falling(piece, -piece.delta, last=last))]
        if piece.spread > move(piece.level):
            return [(piece, "fragmentation" if self._splinters(piece) else "batch_processing")]
        jump = start.after - start.before
        anchor = self.anchor
        back = (
            self._label in RETURNING
            and anchor is not None
            and abs(piece.level - anchor.level) <= move(anchor.level)
        )
        small = move(start.before) if jump > 0 else FALL_BYTES
        # A last step like those before it is theirs.
        if abs(jump) < small or back or 0 < jump <= 2 * self._rise:
            return [(piece, self._rest(piece))]
        step = "allocation_event" if jump > 0 else self._falling(piece, -jump, last=last)
        if piece.seconds <= 2 * STEP_S:
            return [(piece, step)]
        return _split(piece, STEP_S, step, self._rest(piece))

    def _splinters(self, piece: Piece) -> bool:
        """Whether it rose in many steps for minutes, up to the limit, and fell seldom and far.

        That is how a cache of splinters goes: it grows until the allocator, out of room, gives
        all unused segments back at once. Work that comes and goes falls every few seconds.
        """
        falls, changes = piece.falls, piece.changes
        full = self.total is not None and piece.level + 1.7 * piece.spread > 0.9 * self.total
        return (
            self.role == OTHER
            and full
            and piece.seconds >= 120
            and changes >= 12
            and changes >= 5 * falls
            and piece.seconds >= 30 * falls > 0
            and 2.0 * changes <= piece.seconds <= 40.0 * changes
        )

    def _rest(self, piece: Piece) -> str:
        """Flat."""
        util = piece.util_pct
        # Utilisation is the device's. What else computes there is no cell of a notebook.
        idle = self.role == NOTEBOOK or (util is not None and util < IDLE_PCT)
        if piece.level < 10 * MIB or (idle and piece.seconds >= REST_S / 2):
            return "idle"
        if piece.seconds < 10:
            return "plateau"
        if self._server():
            return "active_inference"
        full = self.total is not None and piece.level * 100 > self.total * 85
        return "saturation" if full and self.framework not in POOLS else "steady_state"

    def _growing(self, piece: Piece, *, stairs: bool) -> str:
        start = piece.start.after
        if piece.seconds < 15:
            return "allocation_event"
        if self._server():
            return "cache_filling"
        if self._splinters(piece):
            return "fragmentation"
        if piece.seconds >= 300:
            return "memory_leak"
        full = self.total is not None and start * 10 > self.total * 7
        if full and self._label != "memory_leak":
            return "memory_pressure"
        if piece.seconds < 200 and (stairs or _stepped(piece)):
            return "gradient_steps"
        return "memory_leak" if piece.seconds >= 120 else "memory_growth"

    def _falling(self, piece: Piece, fall: int, *, last: bool) -> str:
        level = piece.start.before
        if piece.seconds >= 60 and trend(piece) < 0:
            return "cooldown"
        if self._server():
            return "cache_eviction"
        if fall < MOVE_BYTES:
            return "gc_collection"
        if fall * 2 > level or (last and fall > 200 * MIB and piece.seconds <= 2 * STEP_S):
            return "cleanup"
        return "releasing_memory"

    def _server(self) -> bool:
        return self.role == SERVER


def move(level: int) -> int:
    """The smallest change that counts as one at a level, bytes."""
    return max(MOVE_BYTES, level // 100)


def trend(piece: Piece) -> int:
    """1 growing, -1 shrinking, 0 neither."""
    drift = piece.slope * piece.seconds
    if abs(drift) < move(piece.level) or abs(drift) < 2.5 * piece.spread:
        return 0
    return 1 if drift > 0 else -1


def _step(piece: Piece) -> int:
    """Mean size of the changes inside, bytes."""
    return piece.travel // piece.changes if piece.changes else 0


def _stepped(piece: Piece) -> bool:
    """Whether it went in separate steps, each held for some seconds."""
    changes = piece.changes
    return (
        changes >= 4
        and 4.0 * changes <= piece.seconds <= 40.0 * changes
        and piece.travel >= 32 * MIB * changes
    )


def role_of(framework: str | None, command: str | None) -> str:
    """What a process is there for, as far as its framework and the words of its command say."""
    words = set() if command is None else set(_words(command))
    if framework in SERVERS or words & SERVING_WORDS:
        return SERVER
    return NOTEBOOK if words & NOTEBOOK_WORDS else OTHER


def _words(text: str) -> list[str]:
    return "".join(one if one.isalnum() else " " for one in text.lower()).split()


def _split(piece: Piece, seconds: float, first: str, then: str) -> Named:
    """The first seconds are what began it."""
    if piece.seconds < 2 * seconds:
        return [(piece, first)]
    start = piece.start
    ns = round(seconds * NS_PER_S)
    middle = start._replace(
        ns=start.ns + ns, t_us=start.t_us + ns * US_PER_S // NS_PER_S, before=start.after
    )
    return [(replace(piece, end=middle), first), (replace(piece, start=middle), then)]
