"""What analyzers conclude: something that became true at a tick.

Events are ordered by (seq, uuid, pid with null first, start time, kind in the order of
`KINDS`). Their canonical JSON is what `vramtop verify` digests.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import ClassVar

from vramtop.units import US_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What every event carries.

    Attributes:
        t_us: Wall clock of the tick at which it became true, microseconds since 1970 UTC.
        seq: That tick.
        host: Host name, None if the recording does not say.
        gpu, uuid, pid, start_time, life: What it is about; None where it is about nothing narrower.
    """

    kind: ClassVar[str] = ""

    t_us: int
    seq: int
    host: str | None = None
    gpu: int | None = None
    uuid: str | None = None
    pid: int | None = None
    start_time: int | None = None
    life: int = 0

    @property
    def t(self) -> float:
        """Unix seconds."""
        return self.t_us / US_PER_S

    @property
    def order(self) -> tuple[object, ...]:
        """The sort key of the event stream; equals keep the order in which they were said."""
        return (
            self.seq,
            self.uuid or "",
            -1 if self.pid is None else self.pid,
            -1 if self.start_time is None else self.start_time,
            self.life,
            _RANK[self.kind],
        )

    def to_json(self) -> dict[str, object]:
        """The object that `--events --json` prints."""
        common: dict[str, object] = {
            "t": self.t,
            "seq": self.seq,
            "kind": self.kind,
            "host": self.host,
            "gpu": self.gpu,
            "uuid": self.uuid,
            "pid": self.pid,
            "start_time": self.start_time,
        }
        for field in fields(self):
            if field.name not in _COMMON:
                common[field.name] = getattr(self, field.name)
        return common

    def canonical(self) -> str:
        """One line of JSON that is equal exactly when the events are."""
        return json.dumps(self.to_json(), separators=(",", ":"), ensure_ascii=True)


_COMMON = frozenset(("t_us", "seq", "host", "gpu", "uuid", "pid", "start_time", "life"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStart(Event):
    """A process was seen on a GPU for the first time.

    Attributes:
        name: None if unknown.
        already_running: It was there at the first look at that GPU's process list.
    """

    kind: ClassVar[str] = "process_start"
    name: str | None = None
    already_running: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessExit(Event):
    """A process left a GPU. `exit_code` is known for a recorded COMMAND only."""

    kind: ClassVar[str] = "process_exit"
    name: str | None = None
    exit_code: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuLost(Event):
    """A GPU stopped answering."""

    kind: ClassVar[str] = "gpu_lost"
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuBack(Event):
    """A lost GPU answers again, after `duration_s`."""

    kind: ClassVar[str] = "gpu_back"
    text: str | None = None
    duration_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(Event):
    """Nothing was observed for `duration_s` seconds before this tick."""

    kind: ClassVar[str] = "gap"
    text: str | None = None
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark(Event):
    """A note from the user or the recorded program."""

    kind: ClassVar[str] = "mark"
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Event):
    """Something could not be read or done; `name` says what, `text` why."""

    kind: ClassVar[str] = "fault"
    name: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseChanged(Event):
    """The phase of a device or process: stable, growing, shrinking or volatile.

    Attributes:
        confidence: 0-1.
    """

    kind: ClassVar[str] = "phase"
    phase: str
    rate_bytes_per_s: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Changepoint(Event):
    """The level of a series changed at `at` (Unix seconds).

    Attributes:
        state: `tentative` while later data may still move or remove it, else `confirmed`.
    """

    kind: ClassVar[str] = "changepoint"
    at: float
    before_bytes: int
    after_bytes: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment(Event):
    """A stretch between two confirmed changepoints, emitted once, when final.

    Attributes:
        start, end: Unix seconds.
        mean_bytes, delta_bytes, slope_bytes_per_s: Over the segment; delta is last minus first.
    """

    kind: ClassVar[str] = "segment"
    start: float
    end: float
    label: str
    label_id: str
    mean_bytes: int
    delta_bytes: int
    slope_bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak(Event):
    """Growth that does not stop, once per episode; `since` in Unix seconds."""

    kind: ClassVar[str] = "leak"
    slope_low_bytes_per_s: float
    slope_high_bytes_per_s: float
    since: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OomRiskChanged(Event):
    """The risk that a device runs out of memory.

    Attributes:
        level: none, warning or critical.
        eta_low_s, eta_high_s: Range of the time left, from this tick; finite unless level is none.
        p_oom_60s, p_oom_300s, p_oom_900s: Probability of running out within that time.
        reason: A sentence.
    """

    kind: ClassVar[str] = "oom_risk"
    level: str
    eta_low_s: float | None
    eta_high_s: float | None
    p_oom_60s: float
    p_oom_300s: float
    p_oom_900s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictChanged(Event):
    """Whether a process will fit: OK, TIGHT or OOM.

    Attributes:
        need_low_bytes, need_high_bytes: What it may still ask for.
        free_bytes: What the device has left.
    """

    kind: ClassVar[str] = "verdict"
    verdict: str
    reason: str
    need_low_bytes: int | None
    need_high_bytes: int | None
    free_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Oom(Event):
    """Memory ran out.

    Attributes:
        certainty: `confirmed` by a message, or `inferred` from the readings.
        evidence: Sentences.
        requested_bytes: What was asked for, if a message says so.
        blamed_pid: Whose growth used the memory up, which need not be who failed; None where
            the readings do not single one out.
        holders: (pid, bytes) of who held memory just before, the largest first; pid None is
            what no visible process accounts for.
    """

    kind: ClassVar[str] = "oom"
    certainty: str
    evidence: tuple[str, ...]
    requested_bytes: int | None = None
    blamed_pid: int | None = None
    holders: tuple[tuple[int | None, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdleHolder(Event):
    """A process holds memory on a GPU that has had nothing to do for long.

    Attributes:
        state: `idle` when it has lasted long enough, `ended` when it is over, `open` where the
            recording ends first.
        held_bytes: What it holds now, or held last.
        since: Unix seconds; from then on the GPU was idle and the memory held.
        gib_hours: Held in vain so far.
    """

    kind: ClassVar[str] = "idle_holder"
    state: str
    held_bytes: int
    since: float
    gib_hours: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan(Event):
    """Memory of a GPU stayed in use although the processes that held it have gone.

    Attributes:
        state: `orphaned`, `ended`, or `open` where the recording ends first.
        held_bytes: What no visible process accounts for, beyond what was so before.
        since: Unix seconds; when the last of those processes went.
        gib_hours: Lost so far.
        former_pids: The processes that had gone, the last eight.
    """

    kind: ClassVar[str] = "orphan"
    state: str
    held_bytes: int
    since: float
    gib_hours: float
    former_pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSummary(Event):
    """How a server that takes its memory at once fared; said when it ends.

    Memory and service are two questions: a full pool is no shortage of device memory.

    Attributes:
        framework: vllm, sglang, tgi or jax.
        memory: A sentence about the device's memory.
        service: A sentence about requests, or `not known` without figures from the server.
        kv_full_share: Share of the time at which the cache was full, 0-1.
        preemptions: Requests thrown out of the cache, counted over the recording.
        waiting_share: Share of the time at which requests queued, 0-1.
        setting_low, setting_high: Range of the largest share of the device, 0-1, that it could
            have been told to take, as far as this recording shows.
    """

    kind: ClassVar[str] = "service"
    framework: str
    memory: str
    service: str
    kv_full_share: float | None = None
    preemptions: int | None = None
    waiting_share: float | None = None
    setting_low: float | None = None
    setting_high: float | None = None


EVENT_TYPES: tuple[type[Event], ...] = (
    ProcessStart, ProcessExit, GpuLost, GpuBack, Gap, Mark, Fault, PhaseChanged, Changepoint,
    Segment, Leak, OomRiskChanged, VerdictChanged, Oom, IdleHolder, Orphan, ServiceSummary,
)  # fmt: skip
KINDS: tuple[str, ...] = tuple(event.kind for event in EVENT_TYPES)
_RANK = {kind: rank for rank, kind in enumerate(KINDS)}


def ordered(events: Iterable[Event]) -> list[Event]:
    """Events in stream order."""
    return sorted(events, key=lambda event: event.order)


class EventDigest:
    """SHA-256 over the canonical lines of a stream of events."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.count = 0

    def add(self, events: Iterable[Event]) -> None:
        """Take in the next events, in order."""
        self.add_lines(event.canonical() for event in events)

    def add_lines(self, lines: Iterable[str]) -> None:
        """Take in the next events as their canonical lines."""
        for line in lines:
            self._hash.update(line.encode("ascii") + b"\n")
            self.count += 1

    def hexdigest(self) -> str:
        """The digest so far."""
        return self._hash.hexdigest()
