"""A week of stream does not make the analyzers larger."""

from __future__ import annotations

import pickle
import random

import pytest

from vramtop.analyzers import DEFAULT_ANALYZERS
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.samples import (
    EXIT,
    GONE,
    HOST,
    LOOKED_PROCESSES,
    OOM_EVIDENCE,
    PROCESS,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.units import GIB, MIB, NS_PER_S

DAYS, STEP_S = 7, 120
A_DAY = 86400 // STEP_S


def week(seed=1):
    """Two GPUs: a noisy server, a sawtooth, a creeping leak that is restarted, short-lived jobs.

    Thousands of processes come and go, some with a message, some with an exit code, some under a
    PID used before, names change, and the host is announced again every hour.
    """
    draw = random.Random(seed)
    born, lives = {}, {}
    for seq in range(DAYS * A_DAY):
        seen = []
        if seq % 60 == 0:
            seen.append(Observation(what=HOST, name="box", data={"boot_id": "b"}))
        for key in [key for key, (_, until) in born.items() if until <= seq]:
            gpu, pid, start = key
            del born[key]
            about = {"gpu": gpu, "uuid": f"GPU-{gpu}", "pid": pid, "start_time": start}
            if draw.random() < 0.1:
                seen.append(Observation(what=OOM_EVIDENCE, text="CUDA out of memory", **about))
            if draw.random() < 0.3:
                seen.append(Observation(what=EXIT, pid=pid, data={"exit_code": draw.randrange(2)}))
            seen.append(Observation(what=GONE, **about))
        for gpu in range(2):
            if draw.random() < 0.25:
                pid = draw.randrange(1000, 30000)
                key = (gpu, pid, None if draw.random() < 0.1 else seq)
                if key not in born:
                    lives[key] = 0
                    born[key] = (seq, seq + draw.randrange(2, 12))
                    seen.append(
                        Observation(
                            what=PROCESS, gpu=gpu, uuid=f"GPU-{gpu}", pid=pid, start_time=key[2],
                            name=f"job-{seq}",
                        )
                    )  # fmt: skip
        levels = {(0, 7, 1): 6 * GIB + 2 * MIB * draw.randrange(200)}
        levels[1, 8, 1] = 4 * GIB + (seq % 5) * GIB
        levels[1, 9, 1] = GIB + seq % 700 * 20 * MIB
        if seq % 200 == 0:
            seen.append(
                Observation(what=PROCESS, gpu=0, uuid="GPU-0", pid=7, start_time=1, name=f"n{seq}")
            )
        for key, (since, _) in born.items():
            levels[key] = 300 * MIB + min(seq - since, 3) * 500 * MIB
        rows = [
            ProcessReading(gpu=gpu, uuid=f"GPU-{gpu}", pid=pid, start_time=start, used_bytes=used)
            for (gpu, pid, start), used in levels.items()
        ]
        held = [sum(used for key, used in levels.items() if key[0] == gpu) for gpu in range(2)]
        yield Tick(
            seq=seq, mono_ns=seq * STEP_S * NS_PER_S, t_us=seq * STEP_S * 10**6,
            devices=tuple(
                DeviceReading(
                    gpu=gpu, uuid=f"GPU-{gpu}", total_bytes=80 * GIB, reserved_bytes=GIB,
                    used_bytes=held[gpu], free_bytes=79 * GIB - held[gpu],
                    looked=LOOKED_PROCESSES, gpu_util_pct=draw.randrange(101),
                )
                for gpu in range(2)
            ),
            processes=tuple(rows), observations=tuple(seen),
        )  # fmt: skip


@pytest.fixture(scope="module")
def sizes():
    """Largest pickled size of each part of the engine, within the first day and the last."""
    engine, found, ticks, births = Engine(), ({}, {}), [], 0
    for tick in week():
        ticks.append(tick)
        births += sum(seen.what == PROCESS for seen in tick.observations)
        if len(ticks) < A_DAY // 8:
            continue
        engine.update(Block.from_ticks(ticks))
        ticks = []
        day = (tick.seq + 1) / A_DAY
        if day <= 1 or day > DAYS - 1:
            parts = {type(part).__name__: part for part in (*engine.analyzers, engine._carry)}
            for name, part in parts.items():
                size = len(pickle.dumps(part))
                found[day > 1][name] = max(found[day > 1].get(name, 0), size)
    assert births > 2000
    return found


@pytest.mark.parametrize("name", [*(kind.__name__ for kind in DEFAULT_ANALYZERS), "Carry"])
def test_after_a_week_no_part_of_the_engine_is_larger_than_after_a_day(name, sizes):
    """Levels that never rest, and thousands of lives; a third and 2 KiB are for how many happen to be alive."""
    first, last = sizes[0][name], sizes[1][name]

    assert last <= first * 1.3 + 2048


def test_the_whole_engine_stays_small(sizes):
    """Seeking keeps it, pickled, every few minutes of the stream."""
    assert sum(sizes[1].values()) < 1_500_000
