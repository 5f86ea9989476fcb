"""Handmade recordings in memory, for the tests of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timezone, tzinfo

from vramtop.blocks import Block
from vramtop.report.build import build
from vramtop.report.model import Report
from vramtop.samples import (
    DEVICE,
    GONE,
    HOST,
    INTERVAL,
    LOOKED_PROCESSES,
    OOM_EVIDENCE,
    PROCESS,
    SIMULATED,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.units import GIB, NS_PER_S

START_US = 1_780_000_000_000_000
TOTAL = 80 * GIB
RESERVED = GIB // 2
UUID = "GPU-00000000-aaaa"
HOSTILE = "<script>alert(1)</script>"
HOSTILE_IMAGE = '<img src="https://evil.example/x.png" onerror="alert(2)">'


class MemoryRecording:
    """What `build` needs of a recording, from ticks at hand.

    Args:
        ticks: All of them.
        chunk: Ticks per block.
    """

    def __init__(
        self,
        ticks: Sequence[Tick],
        *,
        chunk: int = 500,
        state: str = "sealed",
        zone: tzinfo = timezone.utc,
    ) -> None:
        self._ticks = list(ticks)
        self._chunk = chunk
        self.state = state
        self.zone = zone
        seen = [one for tick in self._ticks for one in tick.observations]
        self.host = next((one.name for one in seen if one.what == HOST), None)
        self.simulated = next((one.name for one in seen if one.what == SIMULATED), None)

    def blocks(self, start_seq: int = 0, stop_seq: int | None = None) -> Iterator[Block]:
        chosen = [
            tick
            for tick in self._ticks
            if tick.seq >= start_seq and (stop_seq is None or tick.seq < stop_seq)
        ]
        for start in range(0, len(chosen), self._chunk):
            yield Block.from_ticks(chosen[start : start + self._chunk])


def report_of(ticks: Sequence[Tick], *, chunk: int = 500, source: str = "run.parquet") -> Report:
    """The report of these ticks."""
    return build(MemoryRecording(ticks, chunk=chunk), source=source)


def tick(
    seq: int,
    devices: Sequence[DeviceReading] = (),
    processes: Sequence[ProcessReading] = (),
    observations: Sequence[Observation] = (),
    *,
    at_s: float | None = None,
) -> Tick:
    """A tick `at_s` seconds (or `seq` seconds) after the start."""
    elapsed_ns = round((seq if at_s is None else at_s) * NS_PER_S)
    return Tick(
        seq=seq,
        mono_ns=10**12 + elapsed_ns,
        t_us=START_US + elapsed_ns // 1000,
        devices=tuple(devices),
        processes=tuple(processes),
        observations=tuple(observations),
    )


def gpu(
    used: int | None, *, index: int = 0, uuid: str = UUID, looked: int = LOOKED_PROCESSES,
    total: int | None = TOTAL, reserved: int | None = RESERVED,
) -> DeviceReading:  # fmt: skip
    """A device row; free follows from the rest."""
    free = None
    if used is not None and total is not None:
        free = total - used - (reserved or 0)
    return DeviceReading(
        gpu=index, uuid=uuid, total_bytes=total, reserved_bytes=reserved, used_bytes=used,
        free_bytes=free, looked=looked,
    )  # fmt: skip


def held(pid: int, used: int | None, *, index: int = 0, uuid: str = UUID) -> ProcessReading:
    """A process row."""
    return ProcessReading(gpu=index, uuid=uuid, pid=pid, start_time=pid, used_bytes=used)


def about(
    what: str, pid: int, *, name: str | None = None, index: int = 0, uuid: str = UUID,
    text: str | None = None, data: dict[str, object] | None = None,
) -> Observation:  # fmt: skip
    """An observation about a process."""
    return Observation(
        what=what, gpu=index, uuid=uuid, pid=pid, start_time=pid, name=name, text=text, data=data
    )


def opening(*, gpus: int = 1, interval_s: float = 1.0) -> list[Observation]:
    """What the first tick of a recording says of the machine."""
    boards = [
        Observation(what=DEVICE, gpu=index, uuid=uuid_of(index), name="NVIDIA H100 80GB HBM3")
        for index in range(gpus)
    ]
    return [
        Observation(what=HOST, name="node7", data={"driver": "570.86", "zone": "UTC"}),
        Observation(what=INTERVAL, data={"interval_ns": round(interval_s * NS_PER_S)}),
        *boards,
    ]


def uuid_of(index: int) -> str:
    """UUID of the GPU with this index; that of GPU 0 is `UUID`."""
    return f"GPU-{index:08d}-aaaa"


TORCH = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 4.00 GiB. GPU 0 has a total "
    "capacity of 79.50 GiB of which 1.50 GiB is free."
)


def oom_story(
    *, name: str = "python", command: str = "python train.py", seconds: int = 300
) -> list[Tick]:
    """A trainer grows beside a server of 20 GiB until 4 GiB are asked and 1.5 GiB are free.

    The trainer (pid 100) grows from 10 GiB to 57.7 GiB; 0.3 GiB belong to nobody visible. It
    fails at `seconds` and is gone one second later; the recording goes on for 20 s.
    """
    ticks = []
    for second in range(seconds + 20):
        observations: list[Observation] = []
        if second == 0:
            observations = [
                *opening(),
                about(PROCESS, 200, name="vllm", data={"command": "vllm serve x", "user": "bob"}),
                about(PROCESS, 100, name=name, data={"command": command, "user": "ada"}),
            ]
        trainer = 10 * GIB + (round(47.7 * GIB) * min(second, seconds)) // seconds
        rows = [held(200, 20 * GIB)]
        used = 20 * GIB + round(0.3 * GIB)
        if second <= seconds:
            rows.append(held(100, trainer))
            used += trainer
        if second == seconds:
            observations.append(
                about(OOM_EVIDENCE, 100, text=TORCH, data={"requested_bytes": 4 * GIB})
            )
        if second == seconds + 1:
            observations.append(about(GONE, 100, data={"exit_code": 1}))
        ticks.append(tick(second, [gpu(used)], rows, observations))
    return ticks
