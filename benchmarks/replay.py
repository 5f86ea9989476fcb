"""How fast a recording replays, and what a live tick costs.

    python benchmarks/replay.py [--hours 6] [--short]

Method: made-up recordings of 8 GPUs and 32 processes at 1 Hz are written to a temporary
directory and replayed end to end (open, decode, all analyzers, JSON lines to a null sink) in
this process. `plateaus` changes level every 1 to 15 minutes, `mixed` adds square waves of a
minute and 2 MiB steps every 37 s, `ramps` rises by 2 MiB every 1 to 7 s, `sawteeth` goes up and
down by gigabytes every 10 to 60 s, `restless` changes at every sample. CPU time, one process,
best of three. The floor beside it is the decode alone, and below stands what each analyzer takes
per process-sample of its own; the sum of these is less than the whole, which also decodes, sorts
and writes.

A live tick is 8 GPUs and 64 processes, one block of one tick through all analyzers, CPU time; the
predecessor's chain (phase, OOM and survival of vramtop 0.1.0) took 19 us per process-sample.

`--short` replays a quarter of an hour of three shapes, for a look during work.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.recording.reader import open_recording
from vramtop.recording.store import write_recording
from vramtop.samples import (
    INTERVAL,
    LOOKED_PROCESSES,
    LOOKED_UTIL,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.units import GIB, MIB, NS_PER_S, US_PER_S

GPUS, PER_GPU = 8, 4
TARGETS = {"plateaus": 2.0, "mixed": None, "ramps": None, "sawteeth": None, "restless": 0.1}
SHORT = ("plateaus", "mixed", "restless")
DENSE = ("ramps", "sawteeth", "restless")
"""Shapes with so many changes that a sixth of the time is enough."""


def levels(shape, index, seconds, draw):
    """The level of one process at every second."""
    if shape == "ramps":
        every = 1 + index % 7
        return [2 * GIB + t // every * 2 * MIB for t in range(seconds)]
    if shape == "sawteeth":
        period = 10 + index * 13 % 51
        return [(2 * GIB + t % period * 6 * GIB // period) // MIB * MIB for t in range(seconds)]
    kind = {"plateaus": 0, "mixed": index % 4, "restless": 9}[shape]
    if kind == 9:
        return [2 * GIB + 2 * MIB * draw.randrange(1000) for _ in range(seconds)]
    if kind == 2:
        return [2 * GIB + t // 37 * 2 * MIB for t in range(seconds)]
    if kind == 3:
        return [(3 + 2 * (t // 60 % 2)) * GIB for t in range(seconds)]
    out, level = [], 2 * GIB
    while len(out) < seconds:
        out += [level] * draw.randrange(60, 900)
        level = draw.randrange(500, 8000) * MIB // (2 * MIB) * 2 * MIB
    return out[:seconds]


def ticks(shape, seconds, per_gpu=PER_GPU):
    draw = random.Random(1)
    series = [levels(shape, index, seconds, draw) for index in range(GPUS * per_gpu)]
    for t in range(seconds):
        devices, processes = [], []
        for gpu in range(GPUS):
            held = [series[gpu * per_gpu + index][t] for index in range(per_gpu)]
            devices.append(
                DeviceReading(
                    gpu=gpu,
                    uuid=f"GPU-{gpu}",
                    total_bytes=80 * GIB,
                    reserved_bytes=600 * MIB,
                    used_bytes=sum(held),
                    free_bytes=80 * GIB - 600 * MIB - sum(held),
                    looked=LOOKED_UTIL | LOOKED_PROCESSES,
                    gpu_util_pct=90,
                    power_mw=400_000,
                )
            )
            processes += [
                ProcessReading(
                    gpu=gpu,
                    uuid=f"GPU-{gpu}",
                    pid=1000 + gpu * per_gpu + index,
                    start_time=5,
                    used_bytes=used,
                )
                for index, used in enumerate(held)
            ]
        first = (Observation(what=INTERVAL, data={"interval_ns": NS_PER_S}),) if t == 0 else ()
        yield Tick(
            seq=t, mono_ns=t * NS_PER_S, t_us=1_700_000_000 * US_PER_S + t * US_PER_S,
            devices=tuple(devices), processes=tuple(processes), observations=first,
        )  # fmt: skip


def best(function, times=3):
    costs = []
    for _ in range(times):
        start = time.process_time()
        result = function()
        costs.append(time.process_time() - start)
    return min(costs), result


def replay(path):
    engine, count = Engine(), 0
    for block in open_recording(path).blocks():
        for event in engine.update(block):
            json.dumps(event.to_json())
            count += 1
    return count + len(engine.finish())


def shares(path, samples):
    """Microseconds per process-sample in each analyzer, the dearest first."""
    engine, costs = Engine(), {}

    def timed(analyzer):
        update = analyzer.update

        def run(view):
            start = time.process_time()
            events = update(view)
            name = type(analyzer).__name__.removesuffix("Analyzer")
            costs[name] = costs.get(name, 0.0) + time.process_time() - start
            return events

        return run

    for analyzer in engine.analyzers:
        analyzer.update = timed(analyzer)
    for block in open_recording(path).blocks():
        engine.update(block)
    ranked = sorted(costs.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {cost / samples * 1e6:.2f}" for name, cost in ranked)


def live(shape):
    """Sorted milliseconds of live ticks."""
    engine, costs = Engine(), []
    for tick in ticks(shape, 900, per_gpu=8):
        start = time.process_time()
        engine.update(Block.from_ticks([tick]))
        costs.append((time.process_time() - start) * 1e3)
    return sorted(costs)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--short", action="store_true", help="a quick look")
    options = parser.parse_args()
    seconds = 900 if options.short else int(options.hours * 3600)
    times = 1 if options.short else 3
    with tempfile.TemporaryDirectory() as folder:
        for shape in SHORT if options.short else TARGETS:
            target = TARGETS[shape]
            length = seconds // 6 if shape in DENSE and not options.short else seconds
            path = Path(folder) / f"{shape}.parquet"
            write_recording(path, ticks(shape, length))
            samples = length * GPUS * PER_GPU
            floor, _ = best(
                lambda path=path: sum(b.rows for b in open_recording(path).blocks()), times
            )
            cost, events = best(lambda path=path: replay(path), times)
            rate = samples / cost / 1e6
            word = (
                ""
                if target is None
                else f" target {target} {'met' if rate >= target else 'MISSED'};"
            )
            print(
                f"replay {shape:9}: {rate:6.3f} M process-samples/s;{word} {events} events, "
                f"decode alone {samples / floor / 1e6:.1f} M/s"
            )
            print(f"    us per process-sample: {shares(path, samples)}", flush=True)
    for shape in ("plateaus", "mixed"):
        costs = live(shape)
        p99 = costs[int(len(costs) * 0.99)]
        word = "met" if p99 <= 5 else "MISSED"
        print(
            f"live tick, {shape}, 8 GPUs / 64 processes: p50 {costs[len(costs) // 2]:.2f} ms, "
            f"p99 {p99:.2f} ms; target 5 ms at p99 {word}"
        )


if __name__ == "__main__":
    main()
