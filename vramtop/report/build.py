"""From a recording to a report: one pass over all blocks, and short looks at chosen moments.

The pass feeds the engine and gathers decimated histories at the same time. The seconds
around an out-of-memory or a peak are then read again, alone and at full rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import NamedTuple, Protocol

import numpy as np

from vramtop.blocks import Block, IntArray
from vramtop.engine import Engine
from vramtop.events import Changepoint, Event, Gap, Oom, OomRiskChanged, PhaseChanged
from vramtop.report.findings import conclude
from vramtop.report.histories import Facts, Histories
from vramtop.report.model import DeviceHistory, Evidence, Moment, Report, TimedEvent, tightest
from vramtop.report.moments import END, PEAK, holdings, out_of_memory
from vramtop.samples import (
    CLOCK_STEP,
    FAULT,
    HOST,
    IMPORTED,
    INTERVAL,
    OOM_EVIDENCE,
    SELF,
    Observation,
)
from vramtop.units import NS_PER_S

_MOST_EVENTS_OF_A_KIND = 1000
_WINDOW_NS = 60 * NS_PER_S
_AFTER_OOM_NS = 10 * NS_PER_S
_MOST_OOMS_TOLD = 8
_INDEX_EVERY = 64
_MOST_RISES = 50


class TickId(Protocol):
    """A tick's number and times."""

    @property
    def seq(self) -> int:
        """Number of the tick."""
        ...

    @property
    def t_us(self) -> int:
        """Wall clock, microseconds since 1970 UTC."""
        ...

    @property
    def mono_ns(self) -> int:
        """Boot-time clock."""
        ...


class Readable(Protocol):
    """What a report needs of a recording; `vramtop.recording.reader.Recording` has it."""

    @property
    def state(self) -> str:
        """`sealed`, `recording` or `interrupted`."""
        ...

    @property
    def first(self) -> TickId | None:
        """The first tick, None if there is none."""
        ...

    @property
    def zone(self) -> tzinfo:
        """Time zone of the recorder."""
        ...

    @property
    def host(self) -> str | None:
        """Name of the recorded machine."""
        ...

    @property
    def simulated(self) -> str | None:
        """Scenario of a simulated recording."""
        ...

    def blocks(self, start_seq: int = 0, stop_seq: int | None = None) -> Iterator[Block]:
        """Blocks in order, ticks `start_seq` to before `stop_seq`."""
        ...


@dataclass(slots=True)
class _Pass:
    """What is noted during the pass beside the histories."""

    first: tuple[int, int] | None = None
    last_ns: int = 0
    ticks: int = 0
    widest_ns: int | None = None
    driver: str | None = None
    imported: str | None = None
    assumed: str | None = None
    intervals: list[int] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    clock_steps: list[int] = field(default_factory=list)
    recorder: dict[str, float] = field(default_factory=dict)
    gaps: list[tuple[int, int, str | None, str | None]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    events: list[TimedEvent] = field(default_factory=list)
    levels: dict[tuple[str | None, int | None], str] = field(default_factory=dict)
    phases: dict[tuple[object, ...], TimedEvent] = field(default_factory=dict)
    rises: list[tuple[int, TimedEvent]] = field(default_factory=list)
    messages: list[tuple[int, Observation]] = field(default_factory=list)
    index: list[tuple[IntArray, IntArray]] = field(default_factory=list)

    def elapsed(self, block: Block) -> IntArray:
        """Time of each tick of the next block since the first tick of all, nanoseconds."""
        if self.first is None:
            self.first = (int(block.t_us[0]), int(block.mono_ns[0]))
        elapsed = block.mono_ns - self.first[1]
        spacing = np.diff(elapsed, prepend=self.last_ns) if self.ticks else np.diff(elapsed)
        if len(spacing):
            self.widest_ns = max(self.widest_ns or 0, int(spacing.max()))
        self.ticks += len(block)
        self.last_ns = int(elapsed[-1])
        self.index.append((elapsed[::_INDEX_EVERY].copy(), block.seq[::_INDEX_EVERY].copy()))
        return elapsed

    def note(self, at_ns: int, seen: Observation) -> None:
        """Take one observation."""
        data = seen.data or {}
        if seen.what == HOST:
            self.driver = self.driver or _text(data.get("driver"))
        elif seen.what == IMPORTED:
            self.imported = seen.name or "another tool's log"
            self.assumed = seen.text
        elif seen.what == INTERVAL:
            interval = data.get("interval_ns")
            if isinstance(interval, int) and interval not in self.intervals:
                self.intervals.append(interval)
        elif seen.what == FAULT:
            self.faults[seen.name or seen.text or "something"] += 1
        elif seen.what == CLOCK_STEP:
            step = data.get("step_ns")
            if isinstance(step, int):
                self.clock_steps.append(step)
        elif seen.what == SELF:
            _add_cost(self.recorder, data)
        elif seen.what == OOM_EVIDENCE and len(self.messages) < _MOST_EVENTS_OF_A_KIND:
            self.messages.append((at_ns, seen))

    def conclude(self, block: Block | None, elapsed: IntArray, events: list[Event]) -> None:
        """Take the events of one block, or those at the very end."""
        for event in events:
            at_ns = self.last_ns
            if block is not None:
                at_ns = int(
                    elapsed[min(int(np.searchsorted(block.seq, event.seq)), len(block) - 1)]
                )
            if isinstance(event, Gap):
                start = at_ns - round(event.duration_s * NS_PER_S)
                if len(self.gaps) < _MOST_EVENTS_OF_A_KIND:
                    self.gaps.append((max(start, 0), at_ns, event.text, event.uuid))
            self.kinds[event.kind] += 1
            timed = TimedEvent(elapsed_ns=at_ns, event=event)
            # A tentative changepoint is superseded by its confirmation or by nothing.
            if isinstance(event, Changepoint) and event.state != "confirmed":
                continue
            self._remember(timed)
            if self._is_kept(event):
                self.events.append(timed)

    def _is_kept(self, event: Event) -> bool:
        """Few of each kind; but every change of the risk, because lead times rest on it."""
        if isinstance(event, OomRiskChanged):
            key = (event.uuid, event.pid)
            before, self.levels[key] = self.levels.get(key, "none"), event.level
            if before != event.level:
                return True
        return self.kinds[event.kind] <= _MOST_EVENTS_OF_A_KIND

    def _remember(self, timed: TimedEvent) -> None:
        """Follow the phases and the largest rises up to the first out-of-memory."""
        event = timed.event
        if self.kinds[Oom.kind]:
            return
        if isinstance(event, PhaseChanged):
            self.phases[event.uuid, event.pid, event.start_time, event.life] = timed
        elif isinstance(event, Changepoint) and event.pid is not None:
            self.rises.append((event.after_bytes - event.before_bytes, timed))
            if len(self.rises) > 4 * _MOST_RISES:
                self.rises = self.largest_rises()

    def largest_rises(self) -> list[tuple[int, TimedEvent]]:
        """The largest rises of processes, the largest first."""
        return sorted(self.rises, key=lambda rise: (-rise[0], rise[1].elapsed_ns))[:_MOST_RISES]

    def seq_before(self, elapsed_ns: int) -> int:
        """A tick at or shortly before this time."""
        if not self.index:
            return 0
        times = np.concatenate([part for part, _ in self.index])
        seqs = np.concatenate([part for _, part in self.index])
        return int(seqs[max(int(np.searchsorted(times, elapsed_ns, side="right")) - 1, 0)])


class _Window(NamedTuple):
    """Devices at full rate over a short time."""

    start_ns: int
    devices: tuple[DeviceHistory, ...]

    def device(self, uuid: str) -> DeviceHistory | None:
        """The device with this UUID, None if it has no row in the window."""
        return next((device for device in self.devices if device.uuid == uuid), None)


def build(recording: Readable, *, source: str, buckets: int = 1000) -> Report:
    """The report of one recording.

    Args:
        recording: An open recording.
        source: What to call it, usually the name of its file.
        buckets: Points of time kept per series, see `Decimator`.

    Raises:
        RecordingError: the recording cannot be read.
    """
    engine = Engine()
    histories = Histories(buckets=buckets)
    seen = _Pass()
    for block in recording.blocks():
        if not len(block):
            continue
        elapsed = seen.elapsed(block)
        events = engine.update(block)
        for tick, observation in block.observations:
            seen.note(int(elapsed[tick]), observation)
        seen.conclude(block, elapsed, events)
        histories.add(block, elapsed, events)
    seen.conclude(None, np.zeros(0, np.int64), engine.finish())
    devices = histories.devices()
    report = Report(
        source=source,
        host=recording.host,
        driver=seen.driver,
        zone=recording.zone,
        state=recording.state,
        simulated=recording.simulated,
        imported=seen.imported,
        assumed=seen.assumed,
        ticks=seen.ticks,
        first_t_us=None if seen.first is None else seen.first[0],
        span_ns=seen.last_ns,
        devices=devices,
        events=tuple(seen.events),
        events_seen=dict(seen.kinds),
        phases=tuple(seen.phases.values()),
        rises=tuple(timed for _, timed in seen.largest_rises()),
        ooms=(),
        moments=(),
        evidence=Evidence(
            interval_ns=tuple(seen.intervals),
            widest_ns=seen.widest_ns,
            gaps=tuple(seen.gaps),
            faults=dict(seen.faults),
            clock_steps_ns=tuple(seen.clock_steps),
            recorder=dict(seen.recorder),
        ),
    )
    return conclude(_with_moments(report, recording, seen, histories.facts))


def _with_moments(report: Report, recording: Readable, seen: _Pass, facts: Facts) -> Report:
    """Add who held what when memory ran out, or at the peaks, and at the end."""
    window_ns = max(_WINDOW_NS, 5 * max(report.evidence.interval_ns, default=0))
    told = [timed for timed in report.events if isinstance(timed.event, Oom)][:_MOST_OOMS_TOLD]
    ooms = []
    for timed in told:
        stop_ns = min(timed.elapsed_ns + _AFTER_OOM_NS, report.span_ns)
        window = _window(recording, seen, facts, timed.elapsed_ns - window_ns, stop_ns)
        ooms.append(out_of_memory(report, timed, window.devices, window.start_ns, seen.messages))
    moments: list[Moment] = [oom.moment for oom in ooms if oom.moment is not None][:1]
    closest = None if ooms else tightest(report)
    if closest is not None:
        at_ns = closest.peak_ns
        window = _window(recording, seen, facts, at_ns - window_ns, at_ns)
        exact = window.device(closest.device.uuid)
        if exact is not None:
            moments.append(holdings(exact, at_ns, occasion=PEAK))
    end = _window(recording, seen, facts, report.span_ns - window_ns, report.span_ns)
    moments += [
        holdings(device, report.span_ns, occasion=END)
        for device in end.devices
        if not device.is_parent and device.used.last is not None
    ]
    return replace(report, ooms=tuple(ooms), moments=tuple(moments))


def _window(recording: Readable, seen: _Pass, facts: Facts, start_ns: int, stop_ns: int) -> _Window:
    """The ticks from `start_ns` to `stop_ns` again, none of them decimated."""
    start_ns = max(start_ns, 0)
    first_mono_ns = seen.first[1] if seen.first is not None else 0
    histories = Histories(buckets=None, facts=facts)
    for block in recording.blocks(start_seq=seen.seq_before(start_ns)):
        elapsed = block.mono_ns - first_mono_ns
        start = int(np.searchsorted(elapsed, start_ns))
        stop = int(np.searchsorted(elapsed, stop_ns, side="right"))
        part = block.part(start, stop)
        gaps = [
            timed.event
            for timed in seen.events
            if isinstance(timed.event, Gap)
            and len(part)
            and part.seq[0] <= timed.event.seq <= part.seq[-1]
        ]
        if len(part):
            histories.add(part, elapsed[start:stop], gaps)
        if stop < len(block):
            break
    return _Window(start_ns, histories.devices())


def _add_cost(cost: dict[str, float], report: Mapping[str, object]) -> None:
    """Fold in one of the recorder's reports on itself: extremes stay, amounts add up."""
    for name, value in report.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            continue
        if "max" in name or name.endswith("_bytes"):
            cost[name] = max(cost.get(name, 0), value)
        elif "mean" not in name:
            cost[name] = cost.get(name, 0) + value


def _text(value: object) -> str | None:
    return None if value is None else str(value)
