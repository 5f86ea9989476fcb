"""What reading costs: CPU per GPU-sample of the NVML source, beside bare calls of the binding.

    python benchmarks/nvml_reading_cost.py [SECONDS]

Both read the fake driver of the tests with 8 GPUs and 64 processes, one after the other in
processes of their own. The source runs at 1 Hz with all tiers for SECONDS (default 20); its
CPU is that of the whole process between the second and the last tick, divided by ticks and
GPUs, so sleeping, waking and both threads count. `moving` lets the memory of every process
change between all ticks, which defeats every cache. The floor is the six calls that a tick
needs per GPU through nvidia-ml-py, also at 1 Hz, and nothing else: no identity, no rows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakedriver import GIB, FakeDriver

GPUS, PROCESSES, MIB = 8, 64, 2**20

SOURCE = """
import resource, sys, time
from vramtop.enrich.process_facts import read_facts
from vramtop.sources.nvml import NvmlSource
seconds = int(sys.argv[1])
source = NvmlSource(interval_s=1.0, facts=read_facts)
for tick in source.ticks():
    if tick.seq == 1:
        source.stats()
        began = time.process_time_ns()
    if tick.seq == seconds + 1:
        spent = time.process_time_ns() - began
        break
stats = source.stats()
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(spent / seconds / 8 / 1000, stats["nvml_calls"] / seconds / 8, rss / 1024)
"""

FLOOR = """
import sys, time
import pynvml as n
n.nvmlInit()
handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(8)]
def tick():
    for h in handles:
        n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
        n.nvmlDeviceGetUtilizationRates(h)
        n.nvmlDeviceGetPowerUsage(h)
        n.nvmlDeviceGetComputeRunningProcesses(h)
        n.nvmlDeviceGetGraphicsRunningProcesses(h)
        n.nvmlDeviceGetMPSComputeRunningProcesses(h)
tick()
seconds = int(sys.argv[1])
began = time.process_time_ns()
for _ in range(seconds):
    time.sleep(1)
    tick()
print((time.process_time_ns() - began) / seconds / 8 / 1000)
"""


def measure(code: str, seconds: int, *, rate: float) -> list[float]:
    """Figures that `code` prints under a driver whose processes grow at `rate` bytes/s."""
    with tempfile.TemporaryDirectory() as folder, FakeDriver(Path(folder)) as driver:
        for _ in range(GPUS):
            driver.add_gpu()
        for number in range(PROCESSES):
            pid = driver.spawn().pid
            driver.add_process(gpu=number % GPUS, pid=pid, used=GIB, rate=rate)
        printed = subprocess.run(
            [sys.executable, "-c", code, str(seconds)],
            env=driver.env(), check=True, capture_output=True, text=True,
        )  # fmt: skip
    return [float(word) for word in printed.stdout.split()]


def main() -> None:
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    steady, calls, rss = measure(SOURCE, seconds, rate=0)
    moving, _, _ = measure(SOURCE, seconds, rate=MIB)
    (floor,) = measure(FLOOR, seconds, rate=0)
    print(
        f"nvml_reading_cost: {steady:.0f} us CPU per GPU-sample (memory moving: {moving:.0f}; "
        f"bare binding calls without identity or rows: {floor:.0f}; budget with the write 90), "
        f"{calls:.1f} NVML calls per GPU and second (budget 7), {rss:.0f} MiB peak resident; "
        f"{GPUS} GPUs, {PROCESSES} processes, 1 Hz, all tiers, {seconds} s, fake driver"
    )


main()
