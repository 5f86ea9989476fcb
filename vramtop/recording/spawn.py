"""Starts the seal child. Standard library only."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import vramtop


def can_seal() -> bool:
    """Whether a child of this interpreter could seal; imports nothing."""
    return bool(sys.executable) and all(
        importlib.util.find_spec(name) is not None for name in ("pyarrow", "numpy")
    )


def spawn_seal(path: Path, part: int) -> subprocess.Popen[bytes] | None:
    """Start sealing the parts of `path` up to `part`, in a process of its own session."""
    package = str(Path(vramtop.__file__).parent.parent)
    known = os.environ.get("PYTHONPATH")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{package}:{known}" if known else package,
        # Arrow's own pool holds on to a fifth more memory.
        "ARROW_DEFAULT_MEMORY_POOL": "system",
    }
    command = [sys.executable, "-m", "vramtop.recording.seal", str(path), "--part", str(part)]
    with contextlib.suppress(OSError):
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
            cwd="/",
        )
    return None
