"""What the readers of the log forms hand on: polls of samples, and one open log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from vramtop.errors import LogFormatError
from vramtop.sources.logs._notes import Notes
from vramtop.sources.logs._text import LogText
from vramtop.sources.logs._times import DAY_US, Clock, Stamp, parse_stamp
from vramtop.units import US_PER_S


class DeviceRef(NamedTuple):
    """What a log calls a GPU; whatever it does not say is None.

    Attributes:
        gpu: Index, or position within the poll where the log has nothing else.
        instance: GPU instance of a MIG device.
    """

    gpu: int | None = None
    uuid: str | None = None
    bus_id: str | None = None
    instance: int | None = None


@dataclass(slots=True)
class DeviceSample:
    """One GPU in one poll.

    Attributes:
        ref: Which one.
        values: Fields of `DeviceReading` in base units.
        looked: Bit mask of `LOOKED_*`: the tiers that this log reads at this poll.
        name: Board name.
        lost: What the log says if the GPU did not answer at all.
    """

    ref: DeviceRef
    values: dict[str, int | None] = field(default_factory=dict)
    looked: int = 0
    name: str | None = None
    lost: str | None = None


@dataclass(slots=True)
class ProcessSample:
    """One process on one GPU in one poll. `facts` are JSON-able."""

    ref: DeviceRef
    pid: int
    name: str | None = None
    used_bytes: int | None = None
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(slots=True)
class Poll:
    """What one look at the GPUs found.

    Attributes:
        t_us: Wall clock, microseconds since 1970 UTC.
        devices: In the order of the log.
        processes: Only of devices whose `looked` has `LOOKED_PROCESSES`.
        lists_devices: Every reachable GPU has a sample, so that a missing one was not reachable.
    """

    t_us: int
    devices: list[DeviceSample] = field(default_factory=list)
    processes: list[ProcessSample] = field(default_factory=list)
    lists_devices: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """What a log does not say and its owner knows.

    Attributes:
        columns: Names of the columns of a CSV without a header.
        zone: Time zone of stamps that name none.
        total_bytes: Memory of each GPU whose total the log does not have.
        host: Name of the machine.
        form: Name of the log form; None recognises it.
        interval_s: Spacing of the polls of a log without times, in seconds.
        start: Time of the first poll of a log without times or dates.
        recording: Stem of the recording; part of the identity of a GPU without UUID.
    """

    columns: tuple[str, ...] = ()
    zone: str | None = None
    total_bytes: int | None = None
    host: str | None = None
    form: str | None = None
    interval_s: float | None = None
    start: str | None = None
    recording: str = "log"


class Log:
    """One log that is being read: its lines, its clock, what is said about it.

    Attributes:
        name: Base name of the file.
        head: The first lines.
        columns: The user's `--columns`.
        host, driver: What the log says about its machine, as soon as it has said it.
    """

    def __init__(self, text: LogText, clock: Clock, notes: Notes, options: LogOptions) -> None:
        self.name = text.name
        self.head = text.head
        self.columns = options.columns
        self.clock = clock
        self.notes = notes
        self.host: str | None = None
        self.driver: str | None = None
        self._text = text
        self._interval_s = options.interval_s
        self._start = None if options.start is None else parse_stamp(options.start)
        self._untimed = 0
        self._last_time_of_day_us = 0
        self._day = 0

    def lines(self) -> Iterator[str]:
        """The lines of the log, once."""
        return self._text.lines()

    def close(self) -> None:
        """Let the file go."""
        self._text.close()

    def start_us(self) -> int:
        """When the first poll was, for a log that does not say."""
        if self._start is None:
            self.notes.assume(f"{self.name} has no date; it starts at 1970-01-01 UTC (--start)")
            return 0
        return self.clock.utc_us(self._start)

    def untimed_us(self) -> int:
        """Time of the next poll of a log without times.

        Raises:
            LogFormatError: nobody said how far apart its polls were.
        """
        if self._interval_s is None:
            raise LogFormatError(
                f"{self.name} has no times", hint="say how far apart its polls were: --interval 1"
            )
        t_us = self.start_us() + round(self._untimed * self._interval_s * US_PER_S)
        self.notes.assume(f"{self.name} has no times; its polls are {self._interval_s:g} s apart")
        self._untimed += 1
        return t_us

    def time_of_day_us(self, since_midnight_us: int) -> int:
        """Time of a poll whose log has times of day but no dates."""
        if since_midnight_us < self._last_time_of_day_us - DAY_US // 2:
            self._day += 1
        self._last_time_of_day_us = since_midnight_us
        if self._start is None:
            self.notes.assume(
                f"{self.name} has times but no dates; its first day is 1970-01-01 (--start)"
            )
        first_day_us = 0 if self._start is None else self._start.local_us // DAY_US * DAY_US
        local_us = first_day_us + self._day * DAY_US + since_midnight_us
        return self.clock.utc_us(Stamp(local_us))

    def device_columns(self, header: list[str]) -> list[str]:
        """The user's `--columns` for lines of `len(header)` cells.

        Raises:
            LogFormatError: the numbers of columns differ.
        """
        if len(self.columns) != len(header):
            raise LogFormatError(
                f"{self.name} has {len(header)} columns, --columns names {len(self.columns)}",
                hint="name every column in order; - leaves one out",
            )
        return list(self.columns)
