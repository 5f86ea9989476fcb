"""A block: consecutive ticks in NumPy columns, the engine's diet.

Rows are grouped by series (a device, or a process on a device) and ascend in time within a
series, so a block is a set of ragged columns: series `i` owns rows
`offsets[i]:offsets[i + 1]`. Device series come first. A process that is born or dies inside
a block simply has fewer rows; nothing is padded. Live, a block holds one tick; on replay,
thousands. Nothing downstream may depend on where one block ends and the next begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from vramtop.samples import (
    DEVICE_COLUMNS,
    DeviceReading,
    Observation,
    ProcessReading,
    SeriesKey,
    Tick,
)

IntArray = npt.NDArray[np.int64]
NULL = -1
"""Stands for a missing reading in a block's columns; every real reading is >= 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A run of ticks as columns.

    Attributes:
        seq, t_us, mono_ns: Per tick, shape (ticks,).
        keys: Identity of each series, in the order of `SeriesKey.sort_key`: devices first.
        gpus: Index at capture of each series' GPU, for display, length (series,).
        parents: Parent UUID of each *device* series (MIG), else None.
        n_devices: How many of `keys` are devices.
        offsets: Row bounds per series, shape (series + 1,).
        tick: Row to tick (index into `seq`), shape (rows,), ascending within a series.
        used: Bytes in use per row, shape (rows,); `NULL` where there was no answer.
        device: The columns of `DEVICE_COLUMNS`, shape (rows of device series,); `NULL` where
            there was no reading. Device rows are rows `0:offsets[n_devices]`.
        observations: (tick index, observation), ascending.
    """

    seq: IntArray
    t_us: IntArray
    mono_ns: IntArray
    keys: tuple[SeriesKey, ...]
    gpus: tuple[int, ...]
    parents: tuple[str | None, ...]
    n_devices: int
    offsets: IntArray
    tick: IntArray
    used: IntArray
    device: Mapping[str, IntArray]
    observations: tuple[tuple[int, Observation], ...] = field(default=())

    def __len__(self) -> int:
        return len(self.seq)

    @property
    def rows(self) -> int:
        """Device rows and process rows together."""
        return len(self.tick)

    @staticmethod
    def from_ticks(ticks: Sequence[Tick]) -> Block:
        """Columns of `ticks`, which ascend in `seq`."""
        members: dict[SeriesKey, list[tuple[int, DeviceReading | ProcessReading]]] = {}
        for index, tick in enumerate(ticks):
            for device in tick.devices:
                members.setdefault(device.key, []).append((index, device))
            for process in tick.processes:
                members.setdefault(process.key, []).append((index, process))
        keys = sorted(members, key=lambda key: key.sort_key)
        rows = [row for key in keys for row in members[key]]
        n_devices = sum(key.pid is None for key in keys)
        devices = [reading for _, reading in rows if isinstance(reading, DeviceReading)]
        offsets = np.zeros(len(keys) + 1, np.int64)
        np.cumsum([len(members[key]) for key in keys], out=offsets[1:])
        return Block(
            seq=_ints(tick.seq for tick in ticks),
            t_us=_ints(tick.t_us for tick in ticks),
            mono_ns=_ints(tick.mono_ns for tick in ticks),
            keys=tuple(keys),
            gpus=tuple(members[key][0][1].gpu for key in keys),
            parents=tuple(
                reading.parent_uuid
                if isinstance(reading := members[key][0][1], DeviceReading)
                else None
                for key in keys[:n_devices]
            ),
            n_devices=n_devices,
            offsets=offsets,
            tick=_ints(index for index, _ in rows),
            used=_ints(_null(reading.used_bytes) for _, reading in rows),
            device={
                name: _ints(_null(getattr(reading, name)) for reading in devices)
                for name in DEVICE_COLUMNS
            },
            observations=tuple(
                (index, observation)
                for index, tick in enumerate(ticks)
                for observation in tick.observations
            ),
        )

    def part(self, start: int, stop: int) -> Block:
        """Ticks `start:stop` as a block of their own; series without a row there are dropped."""
        chosen = (self.tick >= start) & (self.tick < stop)
        rows = np.flatnonzero(chosen)
        counts = np.diff(np.searchsorted(rows, self.offsets))
        kept = np.flatnonzero(counts)
        offsets = np.zeros(len(kept) + 1, np.int64)
        np.cumsum(counts[kept], out=offsets[1:])
        device_rows = rows[rows < self.offsets[self.n_devices]]
        series = [int(index) for index in kept]
        return Block(
            seq=self.seq[start:stop],
            t_us=self.t_us[start:stop],
            mono_ns=self.mono_ns[start:stop],
            keys=tuple(self.keys[index] for index in series),
            gpus=tuple(self.gpus[index] for index in series),
            parents=tuple(self.parents[index] for index in series if index < self.n_devices),
            n_devices=sum(index < self.n_devices for index in series),
            offsets=offsets,
            tick=self.tick[rows] - start,
            used=self.used[rows],
            device={name: column[device_rows] for name, column in self.device.items()},
            observations=tuple(
                (index - start, observation)
                for index, observation in self.observations
                if start <= index < stop
            ),
        )

    def series_rows(self, index: int) -> slice:
        """The rows of series `index`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def ticks(self) -> Iterator[Tick]:
        """The ticks again, one object each; slow, for exports and tests."""
        devices: list[list[DeviceReading]] = [[] for _ in range(len(self))]
        processes: list[list[ProcessReading]] = [[] for _ in range(len(self))]
        observations: list[list[Observation]] = [[] for _ in range(len(self))]
        columns = {name: column.tolist() for name, column in self.device.items()}
        where, used = self.tick.tolist(), self.used.tolist()
        for index, key in enumerate(self.keys):
            span = self.series_rows(index)
            for row in range(span.start, span.stop):
                if key.pid is None:
                    devices[where[row]].append(
                        DeviceReading(
                            gpu=self.gpus[index],
                            uuid=key.uuid,
                            parent_uuid=self.parents[index],
                            looked=columns["looked"][row],
                            **{
                                name: _none(column[row])
                                for name, column in columns.items()
                                if name != "looked"
                            },
                        )
                    )
                else:
                    processes[where[row]].append(
                        ProcessReading(
                            gpu=self.gpus[index],
                            uuid=key.uuid,
                            pid=key.pid,
                            start_time=key.start_time,
                            life=key.life,
                            used_bytes=_none(used[row]),
                        )
                    )
        for position, observation in self.observations:
            observations[position].append(observation)
        for position in range(len(self)):
            yield Tick(
                seq=int(self.seq[position]),
                t_us=int(self.t_us[position]),
                mono_ns=int(self.mono_ns[position]),
                devices=tuple(devices[position]),
                processes=tuple(processes[position]),
                observations=tuple(observations[position]),
            )


def _ints(values: Iterable[int]) -> IntArray:
    return np.fromiter(values, np.int64)


def _null(value: int | None) -> int:
    return NULL if value is None else value


def _none(value: int) -> int | None:
    return None if value == NULL else value
