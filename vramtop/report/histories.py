"""From blocks to the memory history of each device and process, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from vramtop.blocks import NULL, Block, IntArray
from vramtop.events import Event, Gap
from vramtop.report.decimate import Decimator
from vramtop.report.model import DeviceHistory, ProcessHistory
from vramtop.samples import (
    DEVICE,
    EXIT,
    GONE,
    GPU_LOST,
    LOOKED_PROCESSES,
    PROCESS,
    Observation,
    SeriesKey,
)
from vramtop.units import NS_PER_S

# A series breaks this long after its last reading, beyond the rounding of a gap's seconds.
_AFTER_NS = 1_000_000


@dataclass(slots=True)
class _Track:
    """One series while it is being read."""

    kept: Decimator
    gpu: int = 0
    first_ns: int | None = None
    last_ns: int = 0
    ended: bool = True

    def add(self, times: IntArray, values: IntArray, breaks: list[int]) -> None:
        """Take rows and the times at which the series ended, both ascending."""
        before_ns = self.last_ns
        if len(times):
            if self.first_ns is None:
                self.first_ns = int(times[0])
            self.last_ns = int(times[-1])
        if breaks:
            if self.first_ns is None or (self.ended and not len(times)):
                return
            stops = np.maximum(np.array(breaks, np.int64), before_ns)
            times = np.concatenate([times, stops])
            values = np.concatenate([values, np.full(len(stops), NULL, np.int64)])
            order = np.argsort(times, kind="stable")
            times, values = times[order], values[order]
        if len(times):
            self.ended = bool(values[-1] == NULL)
            self.kept.add(times, values)


@dataclass(slots=True)
class _Device:
    """What is gathered about one device beside its series."""

    used: _Track
    reserved: Decimator
    unattributed: Decimator
    gpu: int
    parent_uuid: str | None
    total_bytes: int | None = None
    looks: int = 0
    hidden: int = 0
    last_look_ns: int | None = None


@dataclass(slots=True)
class Facts:
    """What observations said about devices and processes; only grows."""

    boards: dict[str, str] = field(default_factory=dict)
    processes: dict[SeriesKey, Observation] = field(default_factory=dict)
    exit_codes: dict[int, int] = field(default_factory=dict)

    def note(self, seen: Observation) -> None:
        """Take one observation."""
        if seen.what == DEVICE and seen.uuid is not None and seen.name is not None:
            self.boards[seen.uuid] = seen.name
        elif seen.what == PROCESS and seen.uuid is not None and seen.pid is not None:
            self.processes[SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)] = seen
        elif seen.what in (EXIT, GONE) and seen.pid is not None:
            code = (seen.data or {}).get("exit_code")
            if isinstance(code, int):
                self.exit_codes[seen.pid] = code


@dataclass(slots=True)
class Histories:
    """Gathers histories from blocks in order.

    Args:
        buckets: Most buckets per series, see `Decimator`; None keeps every sample.
        facts: What is known from elsewhere, for a stretch that does not begin at the start.
    """

    buckets: int | None = 1000
    facts: Facts = field(default_factory=Facts)
    _devices: dict[str, _Device] = field(default_factory=dict)
    _processes: dict[SeriesKey, _Track] = field(default_factory=dict)
    _parents: set[str] = field(default_factory=set)

    def add(self, block: Block, elapsed_ns: IntArray, events: Iterable[Event]) -> None:
        """Take the next block.

        Args:
            block: Ticks after those taken so far.
            elapsed_ns: Time of each tick since the recording's first, shape (ticks,).
            events: What the engine concluded from this block; gaps are used.
        """
        self._meet(block)
        breaks = self._breaks(block, elapsed_ns, events)
        sums: dict[str, IntArray] = {}
        hidden: dict[str, IntArray] = {}
        for index, key in enumerate(block.keys):
            rows = block.series_rows(index)
            ticks, used = block.tick[rows], block.used[rows]
            if key.pid is None:
                self._add_device(block, index, elapsed_ns, breaks.pop(key, []))
                sums[key.uuid] = np.zeros(len(block), np.int64)
                hidden[key.uuid] = np.zeros(len(block), np.int64)
                continue
            track = self._processes[key]
            track.gpu = block.gpus[index]
            track.add(elapsed_ns[ticks], used, breaks.pop(key, []))
            if key.uuid in sums:
                # A tick has at most one row of a series, so plain indexed addition is exact.
                sums[key.uuid][ticks] += np.maximum(used, 0)
                hidden[key.uuid][ticks] += used == NULL
        nothing = np.zeros(0, np.int64)
        for key, times in breaks.items():
            absent = self._devices[key.uuid].used if key.pid is None else self._processes[key]
            absent.add(nothing, nothing, times)
        for index, key in enumerate(block.keys[: block.n_devices]):
            self._add_unattributed(block, index, elapsed_ns, sums[key.uuid], hidden[key.uuid])

    def _meet(self, block: Block) -> None:
        """Make room for new series; first of all, because what is born may end in its block."""
        for index, key in enumerate(block.keys):
            if key.pid is not None:
                if key not in self._processes:
                    self._processes[key] = _Track(Decimator(buckets=self.buckets))
            elif key.uuid not in self._devices:
                parent = block.parents[index]
                self._devices[key.uuid] = _Device(
                    used=_Track(Decimator(buckets=self.buckets)),
                    reserved=Decimator(buckets=self.buckets),
                    unattributed=Decimator(buckets=self.buckets),
                    gpu=block.gpus[index],
                    parent_uuid=parent,
                )
                if parent is not None:
                    self._parents.add(parent)

    def _add_device(
        self, block: Block, index: int, elapsed_ns: IntArray, breaks: list[int]
    ) -> None:
        device = self._devices[block.keys[index].uuid]
        rows = block.series_rows(index)
        times = elapsed_ns[block.tick[rows]]
        device.used.add(times, block.used[rows], breaks)
        reserved = block.device["reserved_bytes"][rows]
        known = reserved != NULL
        device.reserved.add(times[known], reserved[known])
        totals = block.device["total_bytes"][rows]
        free = block.device["free_bytes"][rows]
        # Without a total, what is used, free and reserved makes it up.
        parts = np.where(
            (free != NULL) & (block.used[rows] != NULL),
            free + block.used[rows] + np.maximum(reserved, 0),
            NULL,
        )
        totals = np.where(totals != NULL, totals, parts)
        totals = totals[totals != NULL]
        if len(totals):
            device.total_bytes = int(totals[-1])

    def _add_unattributed(
        self, block: Block, index: int, elapsed_ns: IntArray, total: IntArray, hidden: IntArray
    ) -> None:
        device = self._devices[block.keys[index].uuid]
        rows = block.series_rows(index)
        looked = (block.device["looked"][rows] & LOOKED_PROCESSES) != 0
        ticks, used = block.tick[rows][looked], block.used[rows][looked]
        if not len(ticks):
            return
        unknown = (used == NULL) | (hidden[ticks] > 0)
        rest = np.where(unknown, NULL, np.maximum(used - total[ticks], 0))
        device.unattributed.add(elapsed_ns[ticks], rest)
        device.looks += len(ticks)
        device.hidden += int(np.count_nonzero(hidden[ticks]))
        device.last_look_ns = int(elapsed_ns[ticks[-1]])

    def _breaks(
        self, block: Block, elapsed_ns: IntArray, events: Iterable[Event]
    ) -> dict[SeriesKey, list[int]]:
        """Times at which series have no reading any more; also notes the facts in the block."""
        breaks: dict[SeriesKey, list[int]] = {}
        for tick, seen in block.observations:
            at_ns = int(elapsed_ns[tick])
            self.facts.note(seen)
            if seen.what == GPU_LOST and seen.uuid is not None:
                for key in self._of_device(seen.uuid):
                    breaks.setdefault(key, []).append(at_ns)
            elif seen.what == GONE and seen.uuid is not None and seen.pid is not None:
                key = SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
                if key in self._processes:
                    breaks.setdefault(key, []).append(at_ns)
        for event in events:
            if isinstance(event, Gap):
                tick = int(np.searchsorted(block.seq, event.seq))
                length_ns = round(event.duration_s * NS_PER_S)
                start = int(elapsed_ns[min(tick, len(block) - 1)]) - length_ns
                keys = (
                    [*map(SeriesKey, self._devices), *self._processes]
                    if event.uuid is None
                    else self._of_device(event.uuid)
                )
                for key in keys:
                    breaks.setdefault(key, []).append(max(start, 0) + _AFTER_NS)
        return {key: sorted(times) for key, times in breaks.items()}

    def _of_device(self, uuid: str) -> list[SeriesKey]:
        mine = [key for key in self._processes if key.uuid == uuid]
        return [SeriesKey(uuid), *mine] if uuid in self._devices else mine

    def devices(self) -> tuple[DeviceHistory, ...]:
        """The histories so far: by index at capture, MIG instances after their GPU."""
        found = sorted(
            self._devices.items(),
            key=lambda item: (item[1].gpu, item[1].parent_uuid or "", item[0]),
        )
        return tuple(self._device_history(uuid, device) for uuid, device in found)

    def _device_history(self, uuid: str, device: _Device) -> DeviceHistory:
        processes = [
            self._process_history(key, track, device)
            for key, track in self._processes.items()
            if key.uuid == uuid and track.first_ns is not None
        ]
        processes.sort(
            key=lambda process: (-(process.used.peak or (0, 0))[1], process.key.sort_key)
        )
        return DeviceHistory(
            uuid=uuid,
            gpu=device.gpu,
            name=self.facts.boards.get(uuid),
            parent_uuid=device.parent_uuid,
            is_parent=uuid in self._parents,
            total_bytes=device.total_bytes,
            used=device.used.kept.series(),
            reserved=device.reserved.series(),
            unattributed=device.unattributed.series(),
            looks=device.looks,
            hidden=device.hidden,
            processes=tuple(processes),
        )

    def _process_history(self, key: SeriesKey, track: _Track, device: _Device) -> ProcessHistory:
        fact = self.facts.processes.get(key)
        data = (fact.data or {}) if fact is not None else {}
        user, command = data.get("user"), data.get("command", data.get("cmdline"))
        return ProcessHistory(
            key=key,
            gpu=track.gpu,
            name=None if fact is None else fact.name,
            user=None if user is None else str(user),
            command=_command_line(command),
            first_ns=track.first_ns or 0,
            last_ns=track.last_ns,
            alive=device.last_look_ns is None or track.last_ns >= device.last_look_ns,
            exit_code=None if key.pid is None else self.facts.exit_codes.get(key.pid),
            used=track.kept.series(),
        )


def _command_line(command: object) -> str | None:
    if isinstance(command, (list, tuple)):
        return " ".join(str(word) for word in command)
    return None if command is None else str(command)
