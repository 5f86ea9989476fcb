"""Runs `vramtop record` as users do: a real process, a simulated source, real children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vramtop.recording.reader import open_recording
from vramtop.samples import Observation

RECORD = [sys.executable, "-m", "vramtop", "record"]
SIMULATED = [*RECORD, "--source", "sim:steady-training", "--interval", "0.1"]
PYTHON = [sys.executable, "-S", "-c"]
LIMIT_S = 20.0


def record(*arguments: str, cwd: Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run to the end with a simulated source."""
    return subprocess.run(
        [*SIMULATED, *arguments], cwd=cwd, capture_output=True, timeout=LIMIT_S, check=False,
        stdin=subprocess.DEVNULL, **options,
    )  # fmt: skip


@contextlib.contextmanager
def recording(*arguments: str, cwd: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run in the background; what is left of it at the end is killed."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(
        [*SIMULATED, *arguments], cwd=cwd, start_new_session=True, **{**streams, **options}
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=LIMIT_S)


def eventually(claim: Callable[[], object], *, within_s: float = LIMIT_S) -> object:
    """Wait until `claim()` is true; returns what it gave."""
    deadline = time.monotonic() + within_s
    while not (value := claim()):
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def observed(path: Path, what: str) -> list[Observation]:
    """All observations of one kind in a recording."""
    blocks = open_recording(path).blocks()
    return [seen for block in blocks for _, seen in block.observations if seen.what == what]
