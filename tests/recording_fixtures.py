"""Ticks for the tests of the recording, and ways to compare them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from vramtop.blocks import Block
from vramtop.recording.reader import Recording
from vramtop.samples import (
    DEVICE,
    HOST,
    INTERVAL,
    PROCESS,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)

T0_US = 1_700_000_000_000_000
GIB = 2**30


def training(count: int, *, gpus: int = 2, processes: int = 2, start: int = 0) -> Iterator[Tick]:
    """Ticks of a machine at work: levels move, one process dies, another is born."""
    for seq in range(start, start + count):
        devices = tuple(
            DeviceReading(
                gpu=gpu,
                # Sorted by UUID the GPUs come in another order than by index.
                uuid=f"GPU-{(5 * gpu + 3) % 8}",
                total_bytes=80 * GIB,
                reserved_bytes=GIB,
                used_bytes=10 * GIB + (seq // 7) * 2**20 + gpu,
                free_bytes=69 * GIB,
                looked=3,
                gpu_util_pct=None if seq % 5 == 0 else seq % 101,
                power_mw=300_000 + 37 * seq,
            )
            for gpu in range(gpus)
        )
        rows = tuple(
            ProcessReading(
                gpu=gpu,
                uuid=f"GPU-{(5 * gpu + 3) % 8}",
                pid=4000 + index + (100 if seq >= 50 else 0),
                start_time=None if index == 1 else 777 + seq // 50,
                used_bytes=None if seq % 11 == 0 else GIB + seq * 4096,
            )
            for gpu in range(gpus)
            for index in range(processes)
        )
        yield Tick(
            seq=seq,
            mono_ns=10**12 + seq * 10**9,
            t_us=T0_US + seq * 10**6,
            devices=devices,
            processes=rows,
            observations=_introduction(devices, rows) if seq == 0 else (),
        )


def _introduction(
    devices: Sequence[DeviceReading], rows: Sequence[ProcessReading]
) -> tuple[Observation, ...]:
    return (
        Observation(
            what=HOST,
            name="node7",
            data={"zone": "Europe/Berlin", "utc_offset_s": 3600, "driver": "580.65.06"},
        ),
        Observation(what=INTERVAL, data={"interval_ns": 10**9}),
        *(
            Observation(what=DEVICE, gpu=device.gpu, uuid=device.uuid, name="NVIDIA H100")
            for device in devices
        ),
        *(
            Observation(
                what=PROCESS,
                gpu=row.gpu,
                uuid=row.uuid,
                pid=row.pid,
                start_time=row.start_time,
                name="python",
                data={"job": 42, "nested": {"a": [1, None]}},
            )
            for row in rows
        ),
    )


def regrouped(ticks: Iterable[Tick]) -> list[Tick]:
    """The same ticks with rows in the order that blocks give them."""
    return list(Block.from_ticks(list(ticks)).ticks())


def read(recording: Recording, start_seq: int = 0, stop_seq: int | None = None) -> list[Tick]:
    """All ticks of a recording, as objects."""
    return [tick for block in recording.blocks(start_seq, stop_seq) for tick in block.ticks()]


def files_of(path: Path) -> list[str]:
    """Names of the recording's files."""
    return sorted(entry.name for entry in path.parent.iterdir() if entry.name.startswith(path.name))
