"""How large a day of recording is, and how long it takes to decode.

A SYNTHETIC day: 8 GPUs x 4 processes at 1 Hz, an hour per slice, built as columns and
written by the code that seals. Memory: plateaus, a sawtooth, a leak, bursts of an evaluation,
one of each per GPU. Sensors: noise around a level, as real boards show it (utilisation and
power at every tick, temperature and clocks every 10 s, PCIe at every tick in the second
figure only when asked for). Ticks are late by 0.35 ms (standard deviation).

    .venv/bin/python benchmarks/recording_size.py

Budgets: 12 MB a day with memory columns, 20 MB with all; 4.5 B per process row; any 60 s
window in 50 ms; decoding fast enough for 2 million process rows a second through the engine.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from vramtop.recording.reader import open_recording
from vramtop.recording.rows import Rows, SeriesRows
from vramtop.recording.store import file_metadata, write_sealed
from vramtop.samples import DEVICE_COLUMNS, SeriesKey

GPUS, PROCESSES, HOUR, HOURS = 8, 4, 3600, 24
MIB = 2**20


def process_memory(rng, kind, t):
    """Bytes of one process over the seconds `t` since the day began."""
    base = int(rng.integers(4000, 16000)) * MIB
    if kind == 0:  # caching allocator: plateaus
        steps = np.zeros(len(t), np.int64)
        steps[rng.integers(0, len(t), len(t) // 900)] = 20 * MIB
        return base + np.cumsum(steps) % (4000 * MIB)
    if kind == 1:  # sawtooth of 2 MiB segments
        return base + (t % 97) * 2 * MIB
    if kind == 2:  # slow leak
        return base + (t // 40) * 2 * MIB
    burst = (t % 1800) < 90
    return base + burst * (3000 * MIB + (t % 7) * 20 * MIB)


def noise(rng, mean, spread, count, low=0):
    return np.maximum(low, np.rint(rng.normal(mean, spread, count))).astype(np.int64)


def day(*, sensors):
    """The hours of the day."""
    rng = np.random.default_rng(7)
    late = np.abs(rng.normal(0, 350_000, HOUR * HOURS)).astype(np.int64)
    seq_all = np.arange(HOUR * HOURS)
    mono_all = 10**15 + seq_all * 10**9 + late
    memory = [
        [process_memory(rng, (gpu + index) % 4, seq_all) for index in range(PROCESSES)]
        for gpu in range(GPUS)
    ]
    uuids = [f"GPU-{rng.bytes(16).hex()}" for _ in range(GPUS)]
    for hour in range(HOURS):
        span = slice(hour * HOUR, (hour + 1) * HOUR)
        seq, count = seq_all[span], HOUR
        slow = seq % 10 == 0
        columns = {name: [] for name in DEVICE_COLUMNS}
        for gpu in range(GPUS):
            used = sum(series[span] for series in memory[gpu]) + 600 * MIB
            total = np.full(count, 85_520_809_984)
            reserved = np.full(count, 540_000_256)
            nothing = np.full(count, -1)
            power = noise(rng, 550_000, 30_000, count)
            readings = {
                "total_bytes": total,
                "reserved_bytes": reserved,
                "used_bytes": used,
                "free_bytes": total - reserved - used,
                "looked": np.where(slow, 7, 3),
                "gpu_util_pct": np.minimum(100, noise(rng, 93, 4, count)),
                "mem_util_pct": noise(rng, 45, 5, count),
                "power_mw": power,
                "temp_c": np.where(slow, 60 + (power // 100_000), -1),
                "sm_clock_mhz": np.where(slow, 1755 + 15 * (power % 4), -1),
                "mem_clock_mhz": np.where(slow, 2619, -1),
                "throttle": np.where(slow, 4 * (power > 600_000), -1),
                "pcie_tx_bytes_per_s": 1024 * noise(rng, 900_000, 300_000, count),
                "pcie_rx_bytes_per_s": 1024 * noise(rng, 1_500_000, 500_000, count),
            }
            if sensors != "pcie":
                readings["pcie_tx_bytes_per_s"] = readings["pcie_rx_bytes_per_s"] = nothing
            for number, name in enumerate(DEVICE_COLUMNS):
                kept = sensors or number < 5
                columns[name].append(readings[name] if kept else nothing)
        yield Rows(
            seq=seq,
            t_us=1_700_000_000_000_000 + mono_all[span] // 1000,
            mono_ns=mono_all[span],
            devices=SeriesRows(
                keys=[SeriesKey(uuid) for uuid in uuids],
                gpus=range(GPUS),
                parents=[None] * GPUS,
                slot=np.repeat(np.arange(GPUS), count),
                seq=np.tile(seq, GPUS),
                columns={name: np.concatenate(parts) for name, parts in columns.items()},
            ),
            processes=SeriesRows(
                keys=[
                    SeriesKey(uuids[gpu], 4000 + 17 * index + 100 * gpu, 123_456 + index)
                    for gpu in range(GPUS)
                    for index in range(PROCESSES)
                ],
                gpus=[gpu for gpu in range(GPUS) for _ in range(PROCESSES)],
                slot=np.repeat(np.arange(GPUS * PROCESSES), count),
                seq=np.tile(seq, GPUS * PROCESSES),
                columns={
                    "used_bytes": np.concatenate([series[span] for gpu in memory for series in gpu])
                },
            ),
        )


def column_sizes(path):
    """Compressed bytes of each column by kind of row, and of the footer."""
    footer = pq.read_metadata(path)
    sizes = {}
    for group in range(footer.num_row_groups):
        held = footer.row_group(group)
        for number in range(held.num_columns):
            column = held.column(number)
            key = (held.column(0).statistics.min, column.path_in_schema)
            sizes[key] = sizes.get(key, 0) + column.total_compressed_size
    return sizes, footer.serialized_size


def report(path, words):
    size = path.stat().st_size
    sizes, footer = column_sizes(path)
    process = sum(count for (kind, _), count in sizes.items() if kind == "process")
    device = sum(count for (kind, _), count in sizes.items() if kind == "device")
    process_rows, device_rows = GPUS * PROCESSES * HOUR * HOURS, GPUS * HOUR * HOURS
    print(
        f"{words}: {size / 1e6:.2f} MB a day; process row {process / process_rows:.2f} B, "
        f"device row {device / device_rows:.2f} B, footer {footer / 1e3:.0f} kB"
    )
    if "VERBOSE" in os.environ:
        for (kind, name), count in sorted(sizes.items(), key=lambda pair: -pair[1])[:16]:
            print(f"    {kind:8} {name:22} {count / 1e6:8.3f} MB")


def timings(path):
    process_rows = GPUS * PROCESSES * HOUR * HOURS
    best = min(_timed(lambda: sum(block.rows for block in open_recording(path).blocks()))
               for _ in range(3))  # fmt: skip
    window = max(
        min(_timed(lambda s=start: list(open_recording(path).blocks(s, s + 60))) for _ in range(3))
        for start in (0, 30_000, 43_170, 86_340)
    )
    opened = min(_timed(lambda: open_recording(path).host) for _ in range(3))
    print(
        f"decode a day: {best:.2f} s, {process_rows / best / 1e6:.1f} M process rows/s; "
        f"a 60 s window, opening included: {window * 1e3:.0f} ms; opening: {opened * 1e3:.1f} ms"
    )


def _timed(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def main():
    with tempfile.TemporaryDirectory() as folder:
        for words, sensors in (
            ("memory columns", None),
            ("with sensors, no PCIe", "some"),
            ("with sensors and PCIe", "pcie"),
        ):
            path = Path(folder, "day.parquet")
            start = time.process_time()
            write_sealed(path, None, day(sensors=sensors), file_metadata("synthetic"))
            print(f"[{time.process_time() - start:.1f} s to make]", end=" ")
            report(path, words)
        timings(path)


if __name__ == "__main__":
    main()
