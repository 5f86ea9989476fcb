"""Payloads of the write-ahead log to rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vramtop.blocks import NULL, IntArray
from vramtop.recording.rows import EMPTY, Rows, SeriesRows
from vramtop.recording.snapshot import Snapshot
from vramtop.recording.wal import CLOSED, INTRODUCTION, PAYLOAD, TICK, WalHeader
from vramtop.samples import DEVICE_COLUMNS, Observation, SeriesKey


class PartDecoder:
    """Decodes the payloads of one part, in order, in as many calls as they come.

    Args:
        header: Says which fields the rows of this part have.

    Attributes:
        closed: The mark of an orderly end has been seen.
        snapshot: What the part says of the time before it.
    """

    def __init__(self, header: WalHeader) -> None:
        self.closed = False
        self.snapshot = Snapshot()
        self._device_row = _row_type(header.info["device_row"])
        self._process_row = _row_type(header.info["process_row"])
        self._devices: list[tuple[int, str, str | None]] = []
        self._processes: list[tuple[int, str, int, int | None, int]] = []

    def decode(self, payloads: Iterable[bytes | memoryview]) -> Rows:
        """The rows of the ticks among `payloads`."""
        times: list[tuple[int, int, int]] = []
        counts: list[tuple[int, int]] = []
        device_bytes, process_bytes = bytearray(), bytearray()
        observations: list[tuple[int, Observation]] = []
        device_size, process_size = self._device_row.itemsize, self._process_row.itemsize
        head = PAYLOAD.size
        for payload in payloads:
            kind, seq, mono_ns, t_us, devices, processes, text = PAYLOAD.unpack_from(payload)
            middle = head + devices * device_size
            end = middle + processes * process_size
            if text and kind in (TICK, INTRODUCTION):
                details = json.loads(bytes(payload[end : end + text]))
                self._devices += (tuple(slot) for slot in details["d"])
                self._processes += (tuple(slot) for slot in details["p"])
                said = [parse_observation(item) for item in details["o"]]
                if kind == TICK:
                    observations += ((seq, seen) for seen in said)
                else:
                    self.snapshot.update(said)
            if kind == TICK:
                times.append((seq, mono_ns, t_us))
                counts.append((devices, processes))
                device_bytes += payload[head:middle]
                process_bytes += payload[middle:end]
            elif kind == CLOSED:
                self.closed = True
        time = np.array(times, np.int64).reshape(-1, 3)
        count = np.array(counts, np.int64).reshape(-1, 2)
        device_rows = np.frombuffer(bytes(device_bytes), self._device_row)
        process_rows = np.frombuffer(bytes(process_bytes), self._process_row)
        seq_column = np.ascontiguousarray(time[:, 0])
        return Rows(
            seq=seq_column,
            mono_ns=np.ascontiguousarray(time[:, 1]),
            t_us=np.ascontiguousarray(time[:, 2]),
            devices=SeriesRows(
                keys=[SeriesKey(uuid) for _, uuid, _ in self._devices],
                gpus=[gpu for gpu, _, _ in self._devices],
                parents=[parent for _, _, parent in self._devices],
                slot=device_rows["slot"].astype(np.int64),
                seq=np.repeat(seq_column, count[:, 0]),
                columns={name: _column(device_rows, name) for name in DEVICE_COLUMNS},
            ),
            processes=SeriesRows(
                keys=[
                    SeriesKey(uuid, pid, start_time, life)
                    for _, uuid, pid, start_time, life in self._processes
                ],
                gpus=[gpu for gpu, *_ in self._processes],
                slot=process_rows["slot"].astype(np.int64),
                seq=np.repeat(seq_column, count[:, 1]),
                columns={"used_bytes": _column(process_rows, "used_bytes")},
            ),
            observations=observations,
        )


def parse_observation(fields: Mapping[str, Any]) -> Observation:
    """An observation from its JSON fields; fields of later versions are ignored."""
    return Observation(
        what=fields["what"],
        gpu=fields.get("gpu"),
        uuid=fields.get("uuid"),
        pid=fields.get("pid"),
        start_time=fields.get("start_time"),
        life=fields.get("life", 0),
        name=_text(fields.get("name")),
        text=_text(fields.get("text")),
        data=fields.get("data"),
    )


def _text(value: object) -> str | None:
    """Text from outside may hold undecodable bytes as lone surrogates; Parquet cannot."""
    if value is None:
        return None
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


def _row_type(fields: object) -> np.dtype[np.void]:
    if not isinstance(fields, list):
        raise TypeError(f"row fields are {fields!r}")
    return np.dtype([(name, f"<{code}") for name, code in fields])


def _column(rows: np.ndarray[Any, np.dtype[np.void]], name: str) -> IntArray:
    if rows.dtype.names is None or name not in rows.dtype.names:
        # A part of another version: this column had not been thought of, or is gone.
        return np.full(len(rows), NULL, np.int64) if len(rows) else EMPTY
    return rows[name].astype(np.int64)
