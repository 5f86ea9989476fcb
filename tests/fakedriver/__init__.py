"""A fake NVIDIA driver: builds libnvidia-ml.so.1 and holds the scenario it reports.

    with FakeDriver(tmp_path) as driver:
        driver.add_gpu(total=80 * GIB)
        driver.add_process(gpu=0, pid=child.pid, used=4 * GIB)
        subprocess.run(["vramtop", "record", ...], env=driver.env())

The scenario is a memory-mapped file shared with the library, so that a test changes it while
the program under test runs, and reads there how often each function was called.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import mmap
import os
import pickle
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = HERE / "nvml.c"
FUNCTIONS = re.findall(r"^    F\((\w+)\)", SOURCE.read_text(), re.MULTILINE)
GIB = 1024**3
MAX_GPUS, MAX_MIG, MAX_PROCESSES, MAX_ACCOUNTED, MAX_EVENTS, MAX_FUNCTIONS = 16, 8, 512, 64, 16, 64
NO_VALUE = 2**64 - 1

U32, U64, I32, F64 = ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int32, ctypes.c_double


class Process(ctypes.Structure):
    _fields_ = [
        ("pid", U32), ("gpu", U32), ("mig", I32), ("kinds", U32), ("bytes", U64), ("rate", F64),
        ("saw_bytes", U64), ("saw_period_s", F64), ("from_s", F64), ("to_s", F64),
        ("verbatim", U32), ("unused", U32),
    ]  # fmt: skip


class Mig(ctypes.Structure):
    _fields_ = [
        ("uuid", ctypes.c_char * 96), ("present", U32), ("gi", U32), ("ci", U32), ("unused", U32),
        ("total", U64), ("reserved", U64),
    ]  # fmt: skip


class Accounted(ctypes.Structure):
    _fields_ = [("pid", U32), ("running", U32), ("peak", U64), ("time_ms", U64), ("start_us", U64)]


class Gpu(ctypes.Structure):
    _fields_ = [
        ("uuid", ctypes.c_char * 96), ("name", ctypes.c_char * 96), ("bus_id", ctypes.c_char * 32),
        ("total", U64), ("reserved", U64), ("base_used", U64),
        ("override", U32), ("lost", U32), ("lethal", U32), ("generation", U32),
        ("raw_total", U64), ("raw_reserved", U64), ("raw_free", U64), ("raw_used", U64),
        ("util", U32), ("mem_util", U32), ("power_mw", U32), ("power_limit_mw", U32),
        ("temp_c", U32), ("sm_mhz", U32), ("mem_mhz", U32), ("pcie_kib", U32),
        ("throttle", U64), ("event_types", U64),
        ("mig_mode", U32), ("accounting", U32), ("n_accounted", U32), ("reported_lost", U32),
        ("mig", Mig * MAX_MIG), ("accounted", Accounted * MAX_ACCOUNTED),
    ]  # fmt: skip


class Event(ctypes.Structure):
    _fields_ = [("gpu", U32), ("unused", U32), ("type", U64), ("data", U64)]


class Scenario(ctypes.Structure):
    _fields_ = [
        ("magic", U32), ("size", U32), ("n_gpus", U32), ("n_processes", U32),
        ("down", I32), ("heal_on_init", U32), ("stride", U32), ("n_events", U32),
        ("t0_ns", U64), ("driver", ctypes.c_char * 80), ("nvml", ctypes.c_char * 80),
        ("gpus", Gpu * MAX_GPUS), ("processes", Process * MAX_PROCESSES),
        ("events", Event * MAX_EVENTS),
        ("fault", (I32 * MAX_GPUS) * MAX_FUNCTIONS),
        ("stall", (U32 * MAX_GPUS) * MAX_FUNCTIONS),
        ("latency_ns", (U64 * MAX_GPUS) * MAX_FUNCTIONS),
        ("calls", (U64 * MAX_GPUS) * MAX_FUNCTIONS),
    ]  # fmt: skip


def build(missing: Iterable[str] = ()) -> Path:
    """The folder of a libnvidia-ml.so.1 that lacks the functions `missing`.

    Compiled once per content of nvml.c and linked once per set of missing functions.
    """
    lacking = sorted(set(missing))
    unknown = set(lacking) - set(FUNCTIONS)
    if unknown:
        raise ValueError(f"the fake driver never had {sorted(unknown)}")
    key = hashlib.sha256(SOURCE.read_bytes() + "\0".join(lacking).encode()).hexdigest()[:16]
    root = HERE / "build"
    target = root / key
    library = target / "libnvidia-ml.so.1"
    if library.exists():
        return target
    root.mkdir(exist_ok=True)
    # Made aside and renamed: test processes may build at the same time.
    aside = root / f"{key}.{os.getpid()}"
    aside.mkdir(exist_ok=True)
    hidden = "".join(f"{name}; " for name in lacking)
    script = aside / "symbols"
    script.write_text(f"{{ global: nvml*; local: {hidden} *; }};\n")
    compiler = os.environ.get("CC", "cc")
    subprocess.run(
        [compiler, "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared",
         "-Wl,-soname,libnvidia-ml.so.1", f"-Wl,--version-script={script}",
         "-o", str(aside / "libnvidia-ml.so.1"), str(SOURCE)],
        check=True,
    )  # fmt: skip
    # Another process may have been first; its library is the same.
    with contextlib.suppress(OSError):
        aside.rename(target)
    shutil.rmtree(aside, ignore_errors=True)
    return target


class FakeDriver:
    """A scenario and the environment in which programs see it.

    Args:
        folder: Where the scenario file goes.
        missing: Functions this driver lacks.
        driver: Its version.
    """

    def __init__(
        self, folder: Path, *, missing: Iterable[str] = (), driver: str = "580.95.05"
    ) -> None:
        self.library = build(missing)
        self.path = folder / f"nvml-{os.getpid()}-{time.monotonic_ns()}.scenario"
        self._file = self.path.open("x+b")
        self._file.truncate(ctypes.sizeof(Scenario))
        self._map = mmap.mmap(self._file.fileno(), ctypes.sizeof(Scenario))
        self.state: Any = Scenario.from_buffer(self._map)
        self.state.magic, self.state.size = 0x766D656B, ctypes.sizeof(Scenario)
        self.state.stride = 24
        self.state.t0_ns = time.monotonic_ns()
        self.state.driver, self.state.nvml = driver.encode(), b"13." + driver.encode()
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> FakeDriver:  # noqa: PYI034 - typing.Self needs Python 3.11
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the dummy GPU processes and let go of the scenario."""
        self.release()
        for child in self._children:
            child.kill()
            child.wait()
        self._children.clear()
        del self.state
        # A test may still hold a piece of the scenario; the map goes with the last of them.
        with contextlib.suppress(BufferError):
            self._map.close()
        self._file.close()

    def env(self, **more: str) -> dict[str, str]:
        """The environment for a program that shall see this driver."""
        return {
            **os.environ,
            "LD_LIBRARY_PATH": str(self.library),
            "VRAMTOP_FAKE_NVML": str(self.path),
            **more,
        }

    # The scenario ---------------------------------------------------------------------

    def add_gpu(self, *, total: int = 80 * GIB, reserved: int = GIB // 2, **fields: Any) -> Any:
        """One more GPU; its fields can be changed at any time."""
        index = self.state.n_gpus
        gpu = self.state.gpus[index]
        gpu.uuid = f"GPU-{index:08x}-0000-4000-8000-000000000000".encode()
        gpu.name = b"NVIDIA Fake H200"
        gpu.bus_id = f"00000000:{index + 1:02X}:00.0".encode()
        gpu.total, gpu.reserved = total, reserved
        gpu.util, gpu.mem_util, gpu.power_mw, gpu.power_limit_mw = 37, 12, 250_000, 700_000
        gpu.temp_c, gpu.sm_mhz, gpu.mem_mhz, gpu.pcie_kib = 45, 1980, 2619, 1000
        gpu.throttle, gpu.event_types = 1, 0x8
        for name, value in fields.items():
            setattr(gpu, name, value)
        self.state.n_gpus = index + 1
        return gpu

    def add_mig(self, gpu: int, *, gi: int, ci: int = 0, total: int = 10 * GIB) -> int:
        """One more MIG device on `gpu`; returns its index there."""
        board = self.state.gpus[gpu]
        board.mig_mode = 1
        index = next(i for i in range(MAX_MIG) if not board.mig[i].present)
        mig = board.mig[index]
        mig.uuid = f"MIG-{gpu:04x}{index:04x}-0000-4000-8000-00000000{gi:02x}{ci:02x}".encode()
        mig.gi, mig.ci, mig.total, mig.reserved, mig.present = gi, ci, total, 2**20, 1
        return index

    def add_process(
        self, *, gpu: int, pid: int, used: int, kinds: int = 1, mig: int = -1, **fields: Any
    ) -> Any:
        """One more process on `gpu`; kinds: 1 compute, 2 graphics, 4 MPS, or a sum of them."""
        process = self.state.processes[self.state.n_processes]
        process.pid, process.gpu, process.bytes, process.mig = pid, gpu, used, mig
        for name, value in fields.items():
            setattr(process, name, value)
        process.kinds = kinds
        self.state.n_processes += 1
        return process

    def spawn(self, *command: str) -> subprocess.Popen[bytes]:
        """A real process to put on a GPU, so that its /proc is real; ends with the driver."""
        child = subprocess.Popen(command or ("sleep", "300"), stdin=subprocess.DEVNULL)
        self._children.append(child)
        return child

    def fault(self, function: str, gpu: int, code: int) -> None:
        """From now on `function` returns `code` for `gpu`; 0 heals it."""
        self.state.fault[FUNCTIONS.index(function)][gpu] = code

    def latency(self, function: str, gpu: int, seconds: float) -> None:
        """From now on `function` takes this much longer."""
        self.state.latency_ns[FUNCTIONS.index(function)][gpu] = round(seconds * 1e9)

    def stall(self, function: str, gpu: int) -> None:
        """Calls do not return until `release`."""
        self.state.stall[FUNCTIONS.index(function)][gpu] = 1

    def release(self) -> None:
        """Every stalled call returns."""
        for row in self.state.stall:
            for gpu in range(MAX_GPUS):
                row[gpu] = 0

    def event(self, gpu: int, kind: int, data: int) -> None:
        """An event such as an Xid (kind 8)."""
        event = self.state.events[self.state.n_events % MAX_EVENTS]
        event.gpu, event.type, event.data = gpu, kind, data
        self.state.n_events += 1

    def calls(self, function: str | None = None, gpu: int | None = None) -> int:
        """Calls so far, of one function or all, on one GPU or all."""
        rows = (
            self.state.calls if function is None else [self.state.calls[FUNCTIONS.index(function)]]
        )
        return sum(sum(row) if gpu is None else row[gpu] for row in rows)

    # Programs under it ----------------------------------------------------------------

    def python(self, code: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `code` in a child that sees this driver."""
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            env=self.env(**env), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def source(self, **options: Any) -> Iterator[Stream]:
        """An NvmlSource in a child; its ticks arrive as they are made.

        `options` are those of NvmlSource, and probe_s: seconds between looks for a lost GPU;
        often_s: seconds between process lists and utilisation, where the interval is shorter.
        """
        child = subprocess.Popen(
            [sys.executable, "-W", "error", str(HERE / "child.py"), repr(options)],
            env=self.env(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            yield Stream(child)
        finally:
            self.release()
            child.kill()
            child.wait()
            assert child.stdin is not None
            assert child.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            child.stdout.close()


class Stream:
    """Ticks from a source in a child process."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self.seen: list[Any] = []

    def _load(self) -> Any:
        assert self.child.stdout is not None
        return pickle.load(self.child.stdout)

    def next(self, count: int = 1) -> Any:
        """The tick `count` places on."""
        for _ in range(count):
            item = self._load()
            if isinstance(item, BaseException):
                raise item
            self.seen.append(item)
        return self.seen[-1]

    def until(self, condition: Any, *, limit: int = 100) -> Any:
        """The first tick for which `condition(tick)` holds."""
        for _ in range(limit):
            tick = self.next()
            if condition(tick):
                return tick
        raise AssertionError(f"not within {limit} ticks: {condition}")

    def until_observed(self, what: str, *, limit: int = 100) -> Any:
        """The first tick from here on with an observation `what`; returns (tick, observation)."""
        tick = self.until(lambda t: any(o.what == what for o in t.observations), limit=limit)
        return tick, next(o for o in tick.observations if o.what == what)

    def observed(self, what: str) -> list[Any]:
        """Every observation `what` so far."""
        return [o for tick in self.seen for o in tick.observations if o.what == what]

    def finish(self) -> dict[str, Any]:
        """Close the source; returns its last stats with `close_s` and `ticks_after_close`."""
        assert self.child.stdin is not None
        self.child.stdin.write(b"close\n")
        self.child.stdin.flush()
        while True:
            item = self._load()
            if isinstance(item, dict):
                return item
            self.seen.append(item)
