"""The table inside `run.parquet`, and the way between it and rows.

One table, three kinds of rows. A sealed slice becomes one row group for each kind it has, so
that observations can be read without touching the readings; within a row group rows are
sorted by series and then time, which is what makes them small and quick to decode.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vramtop.blocks import NULL, IntArray
from vramtop.recording.decode import parse_observation
from vramtop.recording.rows import (
    EMPTY,
    NO_DEVICES,
    NO_PROCESSES,
    Rows,
    SeriesRows,
    nullable,
    positions,
    tick_axis,
)
from vramtop.samples import DEVICE_COLUMNS, Observation, SeriesKey

DEVICE, PROCESS, OBSERVATION = "device", "process", "observation"
KINDS = (DEVICE, PROCESS, OBSERVATION)
EMPTY_TICK = "tick"
"""`what` of the row that stands for a tick at which nothing was observed."""

METADATA_KEY = "vramtop"

_TIME = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
        pa.field("t", _TIME, nullable=False),
        pa.field("mono_ns", pa.int64(), nullable=False),
        pa.field("gpu", pa.int64()),
        pa.field("uuid", pa.string()),
        pa.field("parent_uuid", pa.string()),
        pa.field("pid", pa.int64()),
        pa.field("start_time", pa.int64()),
        pa.field("life", pa.int64()),
        pa.field("used_bytes", pa.int64()),
        pa.field("total_bytes", pa.int64()),
        pa.field("reserved_bytes", pa.int64()),
        pa.field("free_bytes", pa.int64()),
        pa.field("looked", pa.int64()),
        pa.field("gpu_util_pct", pa.int64()),
        pa.field("mem_util_pct", pa.int64()),
        pa.field("power_mw", pa.int64()),
        pa.field("temp_c", pa.int64()),
        pa.field("sm_clock_mhz", pa.int64()),
        pa.field("mem_clock_mhz", pa.int64()),
        pa.field("throttle", pa.int64()),
        pa.field("pcie_tx_bytes_per_s", pa.int64()),
        pa.field("pcie_rx_bytes_per_s", pa.int64()),
        pa.field("what", pa.string()),
        pa.field("name", pa.string()),
        pa.field("text", pa.string()),
        pa.field("data", pa.string()),
    ]
)
READ_DICTIONARY = ["kind", "uuid", "parent_uuid"]
"""Columns to read as codes: few strings, many rows."""

WRITE_SCHEMA = pa.schema(
    [
        field.with_type(pa.dictionary(pa.int32(), pa.string()))
        if field.name in READ_DICTIONARY
        else field
        for field in SCHEMA
    ]
)
"""The same in memory, where strings by code are cheaper; the file is the same for both."""

_KEY_COLUMNS = ("gpu", "uuid", "pid", "start_time", "life")
TIME_READ = ("seq", "t", "mono_ns")
DEVICE_READ = ("kind", *TIME_READ, "gpu", "uuid", "parent_uuid", *DEVICE_COLUMNS)
PROCESS_READ = ("kind", *TIME_READ, *_KEY_COLUMNS, "used_bytes")
OBSERVATION_READ = (
    "kind", *TIME_READ, *_KEY_COLUMNS, "what", "name", "text", "data",
)  # fmt: skip

# Measured on a synthetic day (benchmarks/recording_size.py): time and level columns repeat
# across series, so a dictionary with zstd beats delta encoding; noise does better in deltas.
_DELTA = ("power_mw", "pcie_tx_bytes_per_s", "pcie_rx_bytes_per_s")
WRITE_OPTIONS: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 3,
    "store_schema": False,
    "version": "2.6",
    "use_dictionary": [field.name for field in SCHEMA if field.name not in _DELTA],
    "column_encoding": dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
    "write_statistics": ["kind", "seq", "t", "gpu", "pid"],
    "write_page_checksum": True,
    "data_page_size": 4 * 1024 * 1024,
}


def to_tables(rows: Rows) -> list[pa.Table]:
    """One table for each kind that `rows` has, sorted as they are stored."""
    tables = []
    if len(rows.devices):
        devices = _in_file_order(rows.devices)
        columns = {name: _ints(column) for name, column in devices.columns.items()}
        columns["parent_uuid"] = _strings(devices.parents, devices.slot)
        tables.append(_table(DEVICE, rows, devices, columns))
    if len(rows.processes):
        processes = _in_file_order(rows.processes)
        keys, slot = processes.keys, processes.slot
        columns = {name: _ints(column) for name, column in processes.columns.items()}
        columns["pid"] = _ints(nullable([key.pid for key in keys])[slot])
        columns["start_time"] = _ints(nullable([key.start_time for key in keys])[slot])
        columns["life"] = _ints(nullable([key.life for key in keys])[slot])
        tables.append(_table(PROCESS, rows, processes, columns))
    observations = _with_empty_ticks(rows)
    if observations:
        tables.append(_observation_table(rows, observations))
    return tables


def from_tables(devices: pa.Table, processes: pa.Table, observations: pa.Table) -> Rows:
    """Rows of consecutive ticks; a kind without rows has an empty table."""
    device_seq, process_seq = _numpy(devices, "seq"), _numpy(processes, "seq")
    seq, t_us, mono_ns = times_of([devices, processes, observations])
    return Rows(
        seq=seq,
        t_us=t_us,
        mono_ns=mono_ns,
        devices=_series(devices, device_seq, DEVICE_COLUMNS) if len(device_seq) else NO_DEVICES,
        processes=(
            _series(processes, process_seq, ("used_bytes",)) if len(process_seq) else NO_PROCESSES
        ),
        observations=observations_of(observations),
    )


def times_of(tables: Sequence[pa.Table]) -> tuple[IntArray, IntArray, IntArray]:
    """`seq`, `t_us` and `mono_ns` of the ticks that rows of `tables` belong to, ascending."""
    seqs = [_numpy(table, "seq") for table in tables]
    seq = tick_axis(*seqs)
    t_us, mono_ns = np.zeros(len(seq), np.int64), np.zeros(len(seq), np.int64)
    for table, own in zip(tables, seqs, strict=True):
        if len(own):
            where = positions(seq, own)
            t_us[where] = _numpy(table, "t")
            mono_ns[where] = _numpy(table, "mono_ns")
    return seq, t_us, mono_ns


def observations_of(table: pa.Table) -> list[tuple[int, Observation]]:
    """(seq, observation) of an observation table, ascending; rows for empty ticks are none."""
    columns = {
        name: table.column(name).to_pylist()
        for name in ("seq", *_KEY_COLUMNS, "what", "name", "text", "data")
    }
    found = []
    for row in range(table.num_rows):
        fields = {name: column[row] for name, column in columns.items()}
        if fields["what"] == EMPTY_TICK:
            continue
        fields["life"] = fields["life"] or 0
        if fields["data"] is not None:
            fields["data"] = json.loads(fields["data"])
        found.append((fields["seq"], parse_observation(fields)))
    found.sort(key=lambda pair: pair[0])
    return found


def _in_file_order(rows: SeriesRows) -> SeriesRows:
    order = sorted(
        range(len(rows.keys)), key=lambda slot: (rows.gpus[slot], rows.keys[slot].sort_key)
    )
    rank = np.zeros(len(rows.keys), np.int64)
    rank[order] = np.arange(len(order))
    by_series = np.lexsort((rows.seq, rank[rows.slot]))
    return SeriesRows(
        keys=rows.keys,
        gpus=rows.gpus,
        parents=rows.parents,
        slot=rows.slot[by_series],
        seq=rows.seq[by_series],
        columns={name: column[by_series] for name, column in rows.columns.items()},
    )


def _table(kind: str, rows: Rows, series: SeriesRows, columns: dict[str, Any]) -> pa.Table:
    where = positions(rows.seq, series.seq)
    columns |= {
        "kind": _strings([kind], np.zeros(len(series), np.int64)),
        "seq": pa.array(series.seq),
        "t": pa.array(rows.t_us[where]).view(_TIME),
        "mono_ns": pa.array(rows.mono_ns[where]),
        "gpu": pa.array(np.array(series.gpus, np.int64)[series.slot]),
        "uuid": _strings([key.uuid for key in series.keys], series.slot),
    }
    return _completed(columns, len(series))


def _observation_table(rows: Rows, observations: Sequence[tuple[int, Observation]]) -> pa.Table:
    seq = np.array([number for number, _ in observations], np.int64)
    where = positions(rows.seq, seq)
    columns: dict[str, Any] = {
        "kind": _strings([OBSERVATION], np.zeros(len(seq), np.int64)),
        "seq": pa.array(seq),
        "t": pa.array(rows.t_us[where]).view(_TIME),
        "mono_ns": pa.array(rows.mono_ns[where]),
        "data": pa.array([_json(observation) for _, observation in observations], pa.string()),
    }
    for name in (*_KEY_COLUMNS, "what", "name", "text"):
        values = [getattr(observation, name) for _, observation in observations]
        columns[name] = pa.array(values, WRITE_SCHEMA.field(name).type)
    return _completed(columns, len(seq))


def _json(observation: Observation) -> str | None:
    if observation.data is None:
        return None
    return json.dumps(observation.data, separators=(",", ":"))


def _with_empty_ticks(rows: Rows) -> list[tuple[int, Observation]]:
    """The observations, and one that stands for each tick that would else leave no row."""
    bare = np.ones(len(rows), np.bool_)
    said = np.array([number for number, _ in rows.observations], np.int64)
    for seq in (rows.devices.seq, rows.processes.seq, said):
        bare[positions(rows.seq, seq)] = False
    observations = list(rows.observations)
    if bare.any():
        observations += ((int(seq), Observation(what=EMPTY_TICK)) for seq in rows.seq[bare])
        observations.sort(key=lambda pair: pair[0])
    return observations


def _completed(columns: dict[str, Any], length: int) -> pa.Table:
    # Columns without a value share one array of each type: most of a table is such columns.
    missing = {kind: pa.nulls(length, kind) for kind in set(WRITE_SCHEMA.types)}
    return pa.Table.from_arrays(
        [columns.get(field.name, missing[field.type]) for field in WRITE_SCHEMA],
        schema=WRITE_SCHEMA,
    )


def _ints(column: IntArray) -> pa.Array:
    missing = column == NULL
    return pa.array(column, mask=missing) if missing.any() else pa.array(column)


def _strings(values: Sequence[str | None], indices: IntArray) -> pa.Array:
    """Strings given by index; stays a dictionary, which is cheap to write."""
    known = sorted({value for value in values if value is not None})
    code = np.array([-1 if value is None else known.index(value) for value in values], np.int32)
    codes = code[indices]
    return pa.DictionaryArray.from_arrays(
        pa.array(codes, mask=codes < 0), pa.array(known, pa.string())
    )


def _numpy(table: pa.Table, name: str) -> IntArray:
    """An integer or time column with `NULL` for missing."""
    column = table.column(name)
    array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if isinstance(array, pa.ChunkedArray):  # no chunk at all
        return EMPTY
    if pa.types.is_timestamp(array.type):
        array = array.cast(_TIME).view(pa.int64())
    if array.null_count == len(array):
        return np.full(len(array), NULL, np.int64)
    if array.null_count:
        array = array.fill_null(NULL)
    numbers: IntArray = array.to_numpy().astype(np.int64, copy=False)
    return numbers


def _codes(table: pa.Table, name: str) -> tuple[IntArray, list[str | None]]:
    """A string column as codes and the strings they stand for; -1 stands for None."""
    column = table.column(name)
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    array = column.unify_dictionaries().combine_chunks()
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    indices = array.indices
    if indices.null_count:
        indices = indices.fill_null(-1)
    codes: IntArray = indices.to_numpy()
    return codes, [*array.dictionary.to_pylist(), None]


def _series(table: pa.Table, seq: IntArray, names: Sequence[str]) -> SeriesRows:
    """Find the runs of rows that share a key; they become the slots."""
    is_device = len(names) > 1
    uuid, uuids = _codes(table, "uuid")
    gpu = _numpy(table, "gpu")
    parent, parents = _codes(table, "parent_uuid") if is_device else (EMPTY, [None])
    numbers = [] if is_device else [_numpy(table, n) for n in ("pid", "start_time", "life")]
    changed = np.zeros(len(seq), np.bool_)
    for column in (uuid, gpu, *([parent] if is_device else numbers)):
        changed[1:] |= column[1:] != column[:-1]
    first = np.concatenate(([0], np.flatnonzero(changed)))
    counts = np.diff(first, append=len(seq))
    owners = [str(uuids[code]) for code in uuid[first]]
    if is_device:
        keys = [SeriesKey(owner) for owner in owners]
    else:
        pid, start_time, life = (column[first].tolist() for column in numbers)
        keys = [
            SeriesKey(owners[run], pid[run], None if start_time[run] == NULL else start_time[run],
                      max(life[run], 0))
            for run in range(len(first))
        ]  # fmt: skip
    return SeriesRows(
        keys=keys,
        gpus=gpu[first].tolist(),
        parents=[parents[code] for code in parent[first]] if is_device else (),
        slot=np.repeat(np.arange(len(first)), counts),
        seq=seq,
        columns={name: _numpy(table, name) for name in names},
    )
