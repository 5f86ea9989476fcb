"""What a report says, before it is drawn or written: plain data, one type per thing.

`build` makes a `Report` from a recording; `figure`, `html` and `markdown` render it and
compute nothing. All times are nanoseconds since the first tick (`elapsed_ns`); the wall
clock of a moment is `Report.wall_us`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from typing import NamedTuple

from vramtop.blocks import NULL
from vramtop.events import Event
from vramtop.report.decimate import Series
from vramtop.report.names import process_label
from vramtop.samples import SeriesKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessHistory:
    """One process on one GPU.

    Attributes:
        name, user, command: None where the recording does not say.
        first_ns, last_ns: First and last look at which it was there.
        alive: It was in the last process list that was read.
        exit_code: Known for a recorded COMMAND only.
        used: Its memory; no reading at all where the driver hides it.
    """

    key: SeriesKey
    gpu: int
    name: str | None
    user: str | None
    command: str | None
    first_ns: int
    last_ns: int
    alive: bool
    exit_code: int | None
    used: Series

    @property
    def label(self) -> str:
        """What it is called; cleaned, not escaped."""
        return process_label(self.name, self.command, self.key.pid)

    @property
    def end_bytes(self) -> int | None:
        """What it held at the last look; None if it was gone or hidden."""
        return self.used.last if self.alive else None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHistory:
    """One GPU or MIG instance.

    Attributes:
        name: Board name, None if unknown.
        is_parent: It is split into MIG instances that have histories of their own.
        total_bytes: Last reading, None if never read.
        used, reserved: Decimated; used excludes the reservation where reserved has readings.
        unattributed: Used minus the sum of the visible processes, at ticks whose process
            list was read; `NULL` where a process hides its bytes. Never below 0.
        looks: How often the process list was read.
        hidden: At how many looks some process had no reading.
        processes: By peak, highest first.
    """

    uuid: str
    gpu: int
    name: str | None
    parent_uuid: str | None
    is_parent: bool
    total_bytes: int | None
    used: Series
    reserved: Series
    unattributed: Series
    looks: int
    hidden: int
    processes: tuple[ProcessHistory, ...]

    @property
    def reserved_bytes(self) -> int | None:
        """The driver's reservation at its highest; None where it is not told apart."""
        peak = self.reserved.peak
        return None if peak is None else peak[1]

    @property
    def limit_bytes(self) -> int | None:
        """What processes can have in all: the total without the driver's reservation."""
        if self.total_bytes is None:
            return None
        return self.total_bytes - (self.reserved_bytes or 0)

    @property
    def has_readings(self) -> bool:
        """At least one reading of its memory."""
        return bool((self.used.value != NULL).any())


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedEvent:
    """An event of the engine and when it was, on the recording's own clock."""

    elapsed_ns: int
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """One line of "who held what".

    Attributes:
        what: `process`, `unattributed`, `since_look` (moved after the process list was
            read), `reserved` or `free`.
        label: For people; not escaped.
        held_bytes: None where it is not known.
        grown_bytes: Change over the window before; None where it is not known.
    """

    what: str
    label: str
    pid: int | None = None
    user: str | None = None
    held_bytes: int | None = None
    grown_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """Who held what on one device at one instant.

    Attributes:
        occasion: `oom`, `peak` or `end`.
        window_ns: How far back `grown_bytes` of the holdings looks; None if it does not.
        note: What the reader must know about these figures, None if nothing.
    """

    occasion: str
    elapsed_ns: int
    uuid: str
    gpu: int
    total_bytes: int | None
    used_bytes: int | None
    holdings: tuple[Holding, ...]
    window_ns: int | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """The warning that was in force when memory ran out.

    Attributes:
        first_ns: When its level first left none.
        level: At that instant.
        critical_ns: When it became critical, None if it did not.
        eta_low_s, eta_high_s: The range that was forecast first.
        reason: The sentence that came with it.
    """

    first_ns: int
    level: str
    critical_ns: int | None
    eta_low_s: float | None
    eta_high_s: float | None
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OutOfMemory:
    """One time that memory ran out.

    Attributes:
        uuid, gpu: None where it is not known which GPU it was.
        pid: The process that failed, None if unknown; `label` is what it is called.
        free_bytes: Free when it failed; `free_source` says by whose word.
        allocated_bytes, unused_bytes: What the framework's allocator had handed out of what
            the process held, and what it kept cached; by its message.
        warned: None if no warning was in force.
        moment: None if the device is not known.
        close_up: The device at full rate around it, None if not known.
        close_up_from_ns: Where the close-up begins.
    """

    elapsed_ns: int
    seq: int
    uuid: str | None
    gpu: int | None
    pid: int | None
    label: str
    certainty: str
    evidence: tuple[str, ...]
    requested_bytes: int | None
    free_bytes: int | None
    free_source: str | None
    allocated_bytes: int | None
    unused_bytes: int | None
    warned: Warned | None
    moment: Moment | None
    close_up: DeviceHistory | None
    close_up_from_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """How good the data are.

    Attributes:
        interval_ns: Declared intervals in order of declaration, each once.
        widest_ns: The longest time between two ticks, None with fewer than two.
        gaps: Each (start, end, reason or None, uuid or None).
        faults: What could not be read -> how often it was noted.
        clock_steps_ns: Steps of the wall clock.
        recorder: What the recorder measured of itself: amounts in all, extremes.
    """

    interval_ns: tuple[int, ...]
    widest_ns: int | None
    gaps: tuple[tuple[int, int, str | None, str | None], ...]
    faults: Mapping[str, int]
    clock_steps_ns: tuple[int, ...]
    recorder: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Sentences under a heading; plain text, not escaped."""

    heading: str
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that is said about one recording.

    Attributes:
        source: Name of the file.
        state: sealed, recording or interrupted.
        simulated: Scenario, None for a real recording.
        imported: What it was imported from, None for a recording of our own; `assumed` is what
            the importer took for granted.
        ooms: In order of time; the first is told in full.
        moments: The OOM's, or the peak's; then the end's, per device.
        events: The most telling ones in order; `events_seen` counts all by kind.
        phases: The last change of phase of each series before the first out-of-memory.
        rises: The largest confirmed rises of processes before it, the largest first.
        headline: The answer in one line.
        outcome, asked, history, warned, advice, quality: The sections, in reading order.
    """

    source: str
    host: str | None
    driver: str | None
    zone: tzinfo
    state: str
    simulated: str | None
    imported: str | None
    assumed: str | None
    ticks: int
    first_t_us: int | None
    span_ns: int
    devices: tuple[DeviceHistory, ...]
    events: tuple[TimedEvent, ...]
    events_seen: Mapping[str, int]
    phases: tuple[TimedEvent, ...]
    rises: tuple[TimedEvent, ...]
    ooms: tuple[OutOfMemory, ...]
    moments: tuple[Moment, ...]
    evidence: Evidence
    headline: str = ""
    outcome: Section | None = None
    asked: Section | None = None
    history: Section | None = None
    warned: Section | None = None
    advice: Section | None = None
    quality: Section | None = None

    def wall_us(self, elapsed_ns: int) -> int:
        """Wall clock of a moment, microseconds since 1970 UTC, steps of the clock left out."""
        return (self.first_t_us or 0) + elapsed_ns // 1000

    def device(self, uuid: str | None) -> DeviceHistory | None:
        """The device with this UUID."""
        return next((device for device in self.devices if device.uuid == uuid), None)


class Closeness(NamedTuple):
    """How close a device came to its limit.

    Attributes:
        share: Peak as a share of the limit; None if the limit is not known.
    """

    device: DeviceHistory
    peak_ns: int
    peak_bytes: int
    share: float | None


def tightest(report: Report) -> Closeness | None:
    """The device whose peak came closest to its limit; None without any reading."""
    found = []
    for device in report.devices:
        peak = device.used.peak
        if not device.is_parent and peak is not None:
            limit = device.limit_bytes
            found.append(Closeness(device, *peak, peak[1] / limit if limit else None))
    return max(found, key=lambda entry: (entry.share or 0.0, entry.peak_bytes), default=None)
