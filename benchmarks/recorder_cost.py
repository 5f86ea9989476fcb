"""What the recorder costs, writing included: 8 GPUs, 64 processes, 1 Hz, the fake driver.

    python benchmarks/recorder_cost.py [SECONDS]

Method: `vramtop record` runs as users run it, against the fake driver library, whose calls
cost next to nothing, so that what is measured is ours. CPU time is that of the whole process
(all threads, kernel included, the sealing child not) between two readings of its CPU clock,
after five seconds of warming up. Memory of every GPU moves. For scale, what six calls of the
binding per GPU and second cost on the same machine is printed too: it was 20 µs where the
target was set. The recording lies in TMPDIR; `fdatasync` costs what that filesystem makes it
cost. Flatness: a second recorder runs
at 100 Hz, and what its resident memory grows between a third of its time and the end is
scaled to the 86 400 ticks of a day at 1 Hz.

At 1 Hz every cache is cold, and waking a thread can cost more than what it then does; both
depend on the machine more than on the program. So the same work is measured warm, too: ticks
every 10 ms, each with all fast tiers and process lists, through the same session and writer.
The figures that are known of other tools (257 to 281 us for vramtop 0.1.0, 20 for bare calls)
were taken in such loops.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakedriver import GIB, FakeDriver

BARE = """
import sys, time
import pynvml as nv
nv.nvmlInit()
gpus = [nv.nvmlDeviceGetHandleByIndex(index) for index in range(nv.nvmlDeviceGetCount())]
began_ns = 0
for turn in range(int(sys.argv[1]) + 1):
    for gpu in gpus:
        nv.nvmlDeviceGetMemoryInfo(gpu, version=nv.nvmlMemory_v2)
        nv.nvmlDeviceGetUtilizationRates(gpu)
        nv.nvmlDeviceGetPowerUsage(gpu)
        nv.nvmlDeviceGetComputeRunningProcesses(gpu)
        nv.nvmlDeviceGetGraphicsRunningProcesses(gpu)
        nv.nvmlDeviceGetMPSComputeRunningProcesses(gpu)
    began_ns = began_ns or time.process_time_ns()
    time.sleep(1)
print((time.process_time_ns() - began_ns) / int(sys.argv[1]) / len(gpus) / 1000)
"""

GPUS, PROCESSES = 8, 64
SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 60
DAY_TICKS = 86_400
MB = 1_000_000

WARM = """
import sys, time
from vramtop.capture.session import Session
from vramtop.enrich.process_facts import read_facts
from vramtop.recording.writer import RecordingWriter
from vramtop.sources.nvml import source
source._OFTEN_PERIOD_NS = 0  # lists and sensors at every tick
session = Session(
    open_source=lambda: source.NvmlSource(interval_s=0.01, facts=read_facts),
    open_sink=lambda: RecordingWriter(sys.argv[1], seal=False),
)
session.start()
while session.ticks < 100:
    time.sleep(0.1)
ticks, began = session.ticks, time.process_time()
time.sleep(12)
ticks, spent = session.ticks - ticks, time.process_time() - began
session.stop("done")
session.ended.wait(10)
print(spent / ticks / 8 * 1e6)
"""


def cpu_s(pid: int) -> float:
    """CPU time of all threads of a process: its clock, as clock_getcpuclockid(3) forms it."""
    return time.clock_gettime((~pid << 3) | 2)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * 4096


@contextlib.contextmanager
def recorder(driver: FakeDriver, directory: str, interval_s: float) -> Iterator[int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "vramtop", "record", "-o", f"{directory}/{interval_s}.parquet",
         "--interval", str(interval_s)],
        env=driver.env(), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def report(name: str, value: float, unit: str, target: float) -> bool:
    met = value <= target
    print(f"{name}: {value:.1f} {unit} (target {target:g}: {'met' if met else 'MISSED'})")
    return met


def main() -> int:
    results = []
    with tempfile.TemporaryDirectory() as directory, FakeDriver(Path(directory)) as driver:
        for gpu in range(GPUS):
            driver.add_gpu()
            for number in range(PROCESSES // GPUS):
                child = driver.spawn("sleep", "3600")
                # Two in eight move, slowly enough that no list is read out of turn.
                rate = 2e6 if number < 2 else 0.0
                driver.add_process(gpu=gpu, pid=child.pid, used=4 * GIB, rate=rate)
        with recorder(driver, directory, 1.0) as pid:
            time.sleep(5.5)
            calls, spent_s, began_s = driver.calls(), cpu_s(pid), time.monotonic()
            time.sleep(SECONDS)
            span_s = time.monotonic() - began_s
            calls, spent_s = driver.calls() - calls, cpu_s(pid) - spent_s
            resident = resident_bytes(pid)
        samples = GPUS * span_s
        results += [
            report("recorder CPU per GPU-sample at 1 Hz, cold", spent_s / samples * 1e6, "µs", 90),
            report("NVML calls per GPU and second", calls / samples, "", 7),
            report("recorder resident memory", resident / MB, "MB", 30),
        ]
        warm = subprocess.run(
            [sys.executable, "-c", WARM, f"{directory}/warm.parquet"],
            env=driver.env(), check=True, capture_output=True, text=True,
        )  # fmt: skip
        results.append(
            report("the same work in ticks of 10 ms, warm", float(warm.stdout), "µs", 90)
        )
        bare = subprocess.run(
            [sys.executable, "-c", BARE, str(max(10, SECONDS // 3))],
            env=driver.env(), check=True, capture_output=True, text=True,
        )  # fmt: skip
        print(
            f"for comparison, bare calls of the binding: {float(bare.stdout):.1f} µs per GPU-sample"
        )
        with recorder(driver, directory, 0.01) as pid:
            time.sleep(max(6.0, SECONDS / 6))
            early, began_s = resident_bytes(pid), time.monotonic()
            time.sleep(max(12.0, SECONDS / 3))
            grown = resident_bytes(pid) - early
            ticks = (time.monotonic() - began_s) * 100
        results.append(
            report("growth over a day of ticks", grown / ticks * DAY_TICKS / MB, "MB", 1)
        )
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
