"""What goes wrong with the looking, not with the memory: gaps, lost GPUs, missing readings."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From `start_s` up to, not including, `stop_s` seconds from the first tick."""

    start_s: float
    stop_s: float

    def covers(self, t_s: float) -> bool:
        """Whether that moment lies inside."""
        return self.start_s <= t_s < self.stop_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence(Span):
    """No ticks at all, and the reason that the recorder gives afterwards."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss(Span):
    """One GPU does not answer."""

    gpu: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing(Span):
    """Readings of one GPU that come back empty.

    Attributes:
        gpu: Which GPU.
        columns: Names of device columns; `"processes"` hides the bytes of its processes.
        reason: Recorded with the fault.
    """

    gpu: int
    columns: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockStep:
    """The wall clock jumps at a moment; the monotonic clock does not."""

    at_s: float
    step_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A mark from the user."""

    at_s: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Troubles:
    """All that goes wrong in one scenario.

    Attributes:
        silences, losses, missing, clock_steps, notes: What happens when.
        drop_share: Share of the ticks that are never made, here and there.
        late_share: By how much of the interval ticks come late at most.
    """

    silences: tuple[Silence, ...] = ()
    losses: tuple[Loss, ...] = ()
    missing: tuple[Missing, ...] = ()
    clock_steps: tuple[ClockStep, ...] = ()
    notes: tuple[Note, ...] = ()
    drop_share: float = 0.0
    late_share: float = 0.0

    @property
    def uneven(self) -> bool:
        """Whether ticks are not where the declared interval puts them."""
        return self.drop_share > 0.0 or self.late_share > 0.0
