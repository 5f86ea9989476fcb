"""Streams of ticks for tests of the engine: random but physical, from a seed."""

from __future__ import annotations

import random

from vramtop.samples import (
    EXIT,
    FAULT,
    GAP,
    GONE,
    GPU_BACK,
    GPU_LOST,
    HOST,
    INTERVAL,
    LOOKED_PROCESSES,
    LOOKED_UTIL,
    MARK,
    OOM_EVIDENCE,
    PROCESS,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.units import GIB, MIB, NS_PER_S


def random_ticks(seed: int, count: int = 400, gpus: int = 2) -> list[Tick]:
    """A stream with births, deaths, reused PIDs, gaps, lost GPUs, nulls, marks and messages."""
    draw = random.Random(seed)
    interval_s = draw.choice((0.1, 0.5, 1.0, 2.0, 5.0))
    mono = draw.randrange(10**15)
    total = draw.choice((8, 24, 80)) * GIB
    reserved = draw.choice((None, 300 * MIB))
    alive: dict[tuple[int, int, int | None, int], int] = {}
    lost: set[int] = set()
    lives: dict[int, int] = {}
    ticks = []
    for seq in range(count):
        seen: list[Observation] = []
        if seq == 0:
            seen.append(Observation(what=HOST, name="box", data={"boot_id": "b"}))
            if draw.random() < 0.7:
                seen.append(
                    Observation(what=INTERVAL, data={"interval_ns": int(interval_s * NS_PER_S)})
                )
        gap = draw.random() < 0.01
        mono += int(
            interval_s * NS_PER_S * (draw.uniform(5, 60) if gap else draw.uniform(0.98, 1.02))
        )
        if gap and draw.random() < 0.5:
            seen.append(Observation(what=GAP, text="the machine slept"))
        if draw.random() < 0.02:
            interval_s = draw.choice((0.1, 0.5, 1.0, 2.0))
            seen.append(
                Observation(what=INTERVAL, data={"interval_ns": int(interval_s * NS_PER_S)})
            )
        if draw.random() < 0.01:
            seen.append(Observation(what=MARK, text=f"step {seq}"))
        devices, processes = [], []
        for gpu in range(gpus):
            uuid = f"GPU-{gpu}"
            if gpu in lost:
                if draw.random() < 0.1:
                    lost.discard(gpu)
                    seen.append(Observation(what=GPU_BACK, gpu=gpu, uuid=uuid))
                else:
                    continue
            elif draw.random() < 0.005:
                lost.add(gpu)
                seen.append(Observation(what=GPU_LOST, gpu=gpu, uuid=uuid, text="fell off"))
                continue
            looked = LOOKED_UTIL
            listed = draw.random() < 0.8
            if listed:
                looked |= LOOKED_PROCESSES
                for key in [key for key in alive if key[0] == gpu]:
                    if draw.random() < 0.01:
                        del alive[key]
                        if draw.random() < 0.3:
                            seen.append(
                                Observation(
                                    what=OOM_EVIDENCE,
                                    gpu=gpu,
                                    uuid=uuid,
                                    pid=key[1],
                                    start_time=key[2],
                                    life=key[3],
                                    text="CUDA out of memory",
                                    data={"requested_bytes": 3 * MIB, "fatal": True},
                                )
                            )
                        if draw.random() < 0.3:
                            seen.append(
                                Observation(
                                    what=EXIT, pid=key[1], data={"exit_code": draw.choice((0, 1))}
                                )
                            )
                        seen.append(
                            Observation(
                                what=GONE,
                                gpu=gpu,
                                uuid=uuid,
                                pid=key[1],
                                start_time=key[2],
                                life=key[3],
                            )
                        )
                if draw.random() < 0.03:
                    pid = draw.randrange(100, 105)
                    start = draw.choice((None, 1000 + seq))
                    if not any(key[:2] == (gpu, pid) for key in alive):
                        lives[pid] = lives.get(pid, -1) + 1
                        key = (gpu, pid, start, lives[pid] if start is None else 0)
                        alive[key] = 500 * MIB
                        name = draw.choice((None, "python", "[red]<b>"))
                        seen.append(
                            Observation(
                                what=PROCESS,
                                gpu=gpu,
                                uuid=uuid,
                                pid=pid,
                                start_time=start,
                                life=key[3],
                                name=name,
                            )
                        )
            for key in [key for key in alive if key[0] == gpu]:
                kind = key[1] % 5
                if kind == 0:
                    alive[key] += 2 * MIB * draw.randrange(0, 30)
                elif kind == 1 and draw.random() < 0.1:
                    alive[key] = draw.choice((GIB, 2 * GIB, 4 * GIB))
                elif kind == 2:
                    alive[key] = GIB + (seq % 12) * 200 * MIB
                elif kind == 3 and draw.random() < 0.3:
                    alive[key] = max(0, alive[key] + 2 * MIB * draw.randrange(-40, 41))
                if listed:
                    hidden = draw.random() < 0.02
                    processes.append(
                        ProcessReading(
                            gpu=gpu,
                            uuid=uuid,
                            pid=key[1],
                            start_time=key[2],
                            life=key[3],
                            used_bytes=None if hidden else alive[key],
                        )
                    )
            used = min(total, 20 * MIB + sum(v for key, v in alive.items() if key[0] == gpu))
            unread = draw.random() < 0.01
            devices.append(
                DeviceReading(
                    gpu=gpu,
                    uuid=uuid,
                    looked=looked,
                    total_bytes=None if unread else total,
                    reserved_bytes=None if unread else reserved,
                    used_bytes=None if unread else used,
                    free_bytes=None if unread else max(0, total - (reserved or 0) - used),
                    gpu_util_pct=draw.randrange(101),
                )
            )
        if draw.random() < 0.01:
            seen.append(
                Observation(what=FAULT, name="power", text="not supported", gpu=0, uuid="GPU-0")
            )
        ticks.append(
            Tick(
                seq=seq,
                mono_ns=mono,
                t_us=1_700_000_000_000_000 + mono // 1000,
                devices=tuple(devices),
                processes=tuple(processes),
                observations=tuple(seen),
            )
        )
    return ticks
