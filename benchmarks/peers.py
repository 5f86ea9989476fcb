"""What one look at every GPU and process costs other tools, in the same run as ours.

Method: 8 GPUs and 64 live processes of the fake driver library. Each tool is installed from the
package index into a temporary environment and asked through its own Python API for a full
snapshot, 20 times after 3 to warm up; the figure is CPU time (user and system, all threads) per
snapshot and GPU, and resident memory after it. Ours is `NvmlSource` at 1 Hz, where every tick
has process lists, without the write (benchmarks/recorder_cost.py has the whole recorder).
A tool that cannot be installed or does not run here is named as such.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from fakedriver import GIB, FakeDriver

GPUS, PROCESSES = 8, 64
MEASURE = """
import json, resource, time
{setup}
for _ in range(3):
    {look}
start = time.process_time()
for _ in range(20):
    {look}
spent = time.process_time() - start
with open("/proc/self/statm") as file:
    resident = int(file.read().split()[1]) * 4096
print(json.dumps([spent / 20 * 1e6, resident / 1e6]))
"""
PEERS = {
    "vramtop==0.1.0": (
        "from vramtop.backends.nvidia import NVMLClient\nbackend = NVMLClient()\nbackend.initialize()",
        "backend.snapshot()",
    ),
    "gpustat": ("import gpustat", "gpustat.new_query()"),
    "nvitop": (
        "from nvitop import Device\ndevices = Device.all()",
        """[(d.memory_info(), d.utilization_rates(), d.power_usage(),
            [(p.pid, p.gpu_memory()) for p in d.processes().values()]) for d in devices]""",
    ),
}
OURS = (
    "from vramtop.sources.nvml import NvmlSource\nstream = NvmlSource(interval_s=1.0).ticks()",
    "next(stream)",
)


def measure(python: str, setup: str, look: str, driver: FakeDriver) -> str:
    done = subprocess.run(
        [python, "-c", MEASURE.format(setup=setup, look=look)],
        env=driver.env(), cwd=driver.path.parent, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    if done.returncode != 0:
        return f"does not run here: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    spent_us, resident_mb = json.loads(done.stdout.splitlines()[-1])
    return f"{spent_us / GPUS:.0f} us of CPU per GPU and snapshot, {resident_mb:.0f} MB resident"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, FakeDriver(Path(folder)) as driver:
        for gpu in range(GPUS):
            driver.add_gpu()
            for _ in range(PROCESSES // GPUS):
                driver.add_process(gpu=gpu, pid=driver.spawn("sleep", "3600").pid, used=4 * GIB)
        for peer, (setup, look) in PEERS.items():
            home = Path(folder) / peer
            subprocess.run([sys.executable, "-m", "venv", home], check=True)
            python = str(home / "bin" / "python")
            installed = subprocess.run(
                [python, "-m", "pip", "install", "--quiet", peer], capture_output=True, check=False
            )
            result = (
                measure(python, setup, look, driver)
                if installed.returncode == 0
                else "could not be installed"
            )
            print(f"{peer}: {result}", flush=True)
        print(f"vramtop, this version: {measure(sys.executable, *OURS, driver)}")


if __name__ == "__main__":
    main()
