"""What was true at one instant: who held what, and what was thought of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vramtop.blocks import Block
from vramtop.engine.cut import until
from vramtop.engine.engine import Engine
from vramtop.events import (
    Event,
    GpuBack,
    GpuLost,
    OomRiskChanged,
    PhaseChanged,
    ProcessExit,
    ProcessStart,
    VerdictChanged,
)
from vramtop.samples import SeriesKey
from vramtop.text import sanitise
from vramtop.units import format_bytes


@dataclass(slots=True, kw_only=True)
class SeriesState:
    """A device or a process as of a tick.

    Attributes:
        total_bytes, free_bytes: Of a device; None for a process.
        level: OOM risk of a device. verdict: of a process. None until first known.
        lost: The GPU did not answer at that time.
    """

    gpu: int
    key: SeriesKey
    name: str | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    phase: str | None = None
    level: str | None = None
    verdict: str | None = None
    lost: bool = False

    def to_json(self) -> dict[str, object]:
        """One object; `pid` is null for a device."""
        return {
            "gpu": self.gpu,
            "uuid": self.key.uuid,
            "pid": self.key.pid,
            "start_time": self.key.start_time,
            "name": self.name,
            "used_bytes": self.used_bytes,
            "total_bytes": self.total_bytes,
            "free_bytes": self.free_bytes,
            "phase": self.phase,
            "risk": self.level,
            "verdict": self.verdict,
            "lost": self.lost,
        }

    def as_text(self) -> str:
        """One line."""
        if self.key.pid is None:
            words = f"gpu {self.gpu}  {format_bytes(self.used_bytes)} used"
            if self.total_bytes is not None:
                words += f" of {format_bytes(self.total_bytes)}"
            if self.free_bytes is not None:
                words += f", {format_bytes(self.free_bytes)} free"
            rest = [self.phase, self.level and f"risk {self.level}", "LOST" if self.lost else None]
        else:
            words = f"  pid {self.key.pid}  {sanitise(self.name or 'unknown')}  {format_bytes(self.used_bytes)}"
            rest = [self.phase, self.verdict]
        return "  ".join([words, *(word for word in rest if word)])


class StateTracker:
    """Folds blocks and their events into the present state of every series."""

    def __init__(self) -> None:
        self.series: dict[SeriesKey, SeriesState] = {}

    def update(self, engine: Engine, events: Iterable[Event]) -> None:
        """Take in the block that `engine` has just worked on."""
        view = engine.view
        if view is None:
            return
        for change in view.changes:
            state = self._state(change.key, view.facts.gpu(change.key.uuid, 1 << 62))
            state.used_bytes = change.used
            if change.key.pid is None:
                state.total_bytes = change.total if change.total >= 0 else None
                state.free_bytes = change.free if change.free >= 0 else None
        for event in events:
            self._event(event)

    def _state(self, key: SeriesKey, gpu: int | None) -> SeriesState:
        state = self.series.get(key)
        if state is None:
            state = self.series[key] = SeriesState(gpu=-1 if gpu is None else gpu, key=key)
        return state

    def _event(self, event: Event) -> None:
        if event.uuid is None:
            return
        key = SeriesKey(event.uuid, event.pid, event.start_time, event.life)
        if isinstance(event, ProcessExit):
            self.series.pop(key, None)
            return
        if isinstance(event, ProcessStart):
            self._state(key, event.gpu).name = event.name
        state = self.series.get(key)
        if state is None:
            return
        if isinstance(event, PhaseChanged):
            state.phase = event.phase
        elif isinstance(event, OomRiskChanged):
            state.level = event.level
        elif isinstance(event, VerdictChanged):
            state.verdict = event.verdict
        elif isinstance(event, GpuLost | GpuBack):
            state.lost = isinstance(event, GpuLost)


def state_at(blocks: Iterable[Block], at_us: int) -> list[SeriesState]:
    """Every device and live process as of the last tick at or before `at_us`, devices first."""
    engine, tracker = Engine(), StateTracker()
    for block in until(blocks, at_us):
        tracker.update(engine, engine.update(block))
    rows = tracker.series.values()
    return sorted(rows, key=lambda row: (row.key.uuid, row.key.sort_key))
