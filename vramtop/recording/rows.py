"""Rows of a recording as NumPy columns, wherever they come from, and the way to a `Block`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vramtop.blocks import NULL, Block, IntArray
from vramtop.recording.snapshot import Snapshot
from vramtop.samples import DEVICE_COLUMNS, Observation, SeriesKey

EMPTY: IntArray = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRows:
    """Rows of devices, or of processes, in any order of series; a series ascends in time.

    Attributes:
        keys, gpus, parents: Per slot. Two slots may carry the same key (a GPU that came back
            under another index).
        slot, seq: Per row.
        columns: Per row; `NULL` where there was no answer.
    """

    keys: Sequence[SeriesKey]
    gpus: Sequence[int]
    parents: Sequence[str | None] = ()
    slot: IntArray
    seq: IntArray
    columns: Mapping[str, IntArray]

    def __len__(self) -> int:
        return len(self.seq)

    def chosen(self, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> SeriesRows:
        """The rows where `keep` is true."""
        return SeriesRows(
            keys=self.keys,
            gpus=self.gpus,
            parents=self.parents,
            slot=self.slot[keep],
            seq=self.seq[keep],
            columns={name: column[keep] for name, column in self.columns.items()},
        )


NO_DEVICES = SeriesRows(
    keys=(), gpus=(), slot=EMPTY, seq=EMPTY, columns=dict.fromkeys(DEVICE_COLUMNS, EMPTY)
)
NO_PROCESSES = SeriesRows(keys=(), gpus=(), slot=EMPTY, seq=EMPTY, columns={"used_bytes": EMPTY})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """The rows of some consecutive ticks.

    Attributes:
        seq, t_us, mono_ns: Per tick, ascending in `seq`.
        devices, processes: Their `seq` occur among the ticks'.
        observations: (seq, observation), ascending.
    """

    seq: IntArray
    t_us: IntArray
    mono_ns: IntArray
    devices: SeriesRows
    processes: SeriesRows
    observations: Sequence[tuple[int, Observation]] = ()

    def __len__(self) -> int:
        return len(self.seq)

    @staticmethod
    def none() -> Rows:
        """No tick at all."""
        return Rows(
            seq=EMPTY, t_us=EMPTY, mono_ns=EMPTY, devices=NO_DEVICES, processes=NO_PROCESSES
        )

    def between(self, start_seq: int, stop_seq: int | None) -> Rows:
        """The ticks with `start_seq <= seq < stop_seq`."""
        stop = np.iinfo(np.int64).max if stop_seq is None else stop_seq
        if not len(self) or (self.seq[0] >= start_seq and self.seq[-1] < stop):
            return self
        first, last = (int(i) for i in np.searchsorted(self.seq, (start_seq, stop)))
        return Rows(
            seq=self.seq[first:last],
            t_us=self.t_us[first:last],
            mono_ns=self.mono_ns[first:last],
            devices=self.devices.chosen(_within(self.devices.seq, start_seq, stop)),
            processes=self.processes.chosen(_within(self.processes.seq, start_seq, stop)),
            observations=[pair for pair in self.observations if start_seq <= pair[0] < stop],
        )

    def introduced(self, snapshot: Snapshot) -> Rows:
        """With `snapshot` in the first tick, as far as that does not say it itself."""
        if not len(self):
            return self
        first = int(self.seq[0])
        own = [seen for seq, seen in self.observations if seq == first]
        added = [(first, seen) for seen in snapshot.missing_from(own)]
        return replace(self, observations=[*added, *self.observations])

    def to_block(self) -> Block:
        """The same rows grouped by series, as the engine takes them."""
        devices, device_keys, device_slots, device_counts = _grouped(self.devices)
        processes, process_keys, process_slots, process_counts = _grouped(self.processes)
        offsets = np.zeros(len(device_keys) + len(process_keys) + 1, np.int64)
        np.cumsum(np.concatenate((device_counts, process_counts)), out=offsets[1:])
        return Block(
            seq=self.seq,
            t_us=self.t_us,
            mono_ns=self.mono_ns,
            keys=(*device_keys, *process_keys),
            gpus=(
                *(self.devices.gpus[slot] for slot in device_slots),
                *(self.processes.gpus[slot] for slot in process_slots),
            ),
            parents=tuple(self.devices.parents[slot] for slot in device_slots),
            n_devices=len(device_keys),
            offsets=offsets,
            tick=positions(self.seq, np.concatenate((devices.seq, processes.seq))),
            used=np.concatenate((devices.columns["used_bytes"], processes.columns["used_bytes"])),
            device=devices.columns,
            observations=tuple(
                zip(
                    positions(self.seq, _seqs(self.observations)).tolist(),
                    (observation for _, observation in self.observations),
                    strict=True,
                )
            ),
        )


def positions(axis: IntArray, seq: IntArray) -> IntArray:
    """Where each of `seq` stands in the ascending `axis`, which holds all of them."""
    if not len(axis):
        return np.zeros(0, np.int64)
    if axis[-1] - axis[0] == len(axis) - 1:
        where: IntArray = seq - axis[0]
    else:
        where = np.searchsorted(axis, seq)
    return where


def tick_axis(*seqs: IntArray) -> IntArray:
    """The distinct values of several `seq` columns, ascending."""
    filled = [seq for seq in seqs if len(seq)]
    if not filled:
        return EMPTY
    low = min(int(seq.min()) for seq in filled)
    high = max(int(seq.max()) for seq in filled)
    if high - low > 4 * sum(len(seq) for seq in filled) + 1_000_000:
        return np.unique(np.concatenate(filled))
    # Sequence numbers are nearly dense, so marking them is faster than sorting them.
    seen = np.zeros(high - low + 1, np.bool_)
    for seq in filled:
        seen[seq - low] = True
    return np.flatnonzero(seen) + low


def _seqs(observations: Sequence[tuple[int, Observation]]) -> IntArray:
    return np.fromiter((seq for seq, _ in observations), np.int64, len(observations))


def _within(seq: IntArray, start: int, stop: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return (seq >= start) & (seq < stop)


def _grouped(rows: SeriesRows) -> tuple[SeriesRows, list[SeriesKey], list[int], IntArray]:
    """`rows` in the order of their keys; the keys, a slot of each, and the rows of each."""
    used_slots = np.flatnonzero(np.bincount(rows.slot, minlength=len(rows.keys)))
    slot_of: dict[SeriesKey, int] = {}
    for slot in used_slots.tolist():
        slot_of.setdefault(rows.keys[slot], slot)
    keys = sorted(slot_of, key=lambda key: key.sort_key)
    rank_of = {key: rank for rank, key in enumerate(keys)}
    ranks = np.zeros(len(rows.keys), np.int64)
    for slot in used_slots.tolist():
        ranks[slot] = rank_of[rows.keys[slot]]
    # 16 bits sort by radix, which costs a tenth of a comparison sort.
    if len(keys) < 2**15:
        ranks = ranks.astype(np.int16)
    rank = ranks[rows.slot]
    if len(rank) and (rank[1:] < rank[:-1]).any():
        rows = _permuted(rows, np.argsort(rank, kind="stable"))
        rank = ranks[rows.slot]
    # Two slots of one series have to be merged, and another tool may have sorted by anything.
    if ((rank[1:] == rank[:-1]) & (rows.seq[1:] <= rows.seq[:-1])).any():
        rows = _permuted(rows, np.lexsort((rows.seq, rank)))
        rank = ranks[rows.slot]
    counts = np.bincount(rank, minlength=len(keys)).astype(np.int64)
    return rows, keys, [slot_of[key] for key in keys], counts


def _permuted(rows: SeriesRows, order: IntArray) -> SeriesRows:
    return SeriesRows(
        keys=rows.keys,
        gpus=rows.gpus,
        parents=rows.parents,
        slot=rows.slot[order],
        seq=rows.seq[order],
        columns={name: column[order] for name, column in rows.columns.items()},
    )


def nullable(values: Sequence[int | None]) -> IntArray:
    """Integers with `NULL` for None, shape (n,)."""
    return np.fromiter((NULL if value is None else value for value in values), np.int64)
