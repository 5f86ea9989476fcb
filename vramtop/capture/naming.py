"""What a recording is called when nobody says."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "JOB_ID")
_OUTSIDE_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


def default_path(environ: Mapping[str, str], *, now_s: float | None = None) -> Path:
    """`vramtop-[JOB-]HOST-YYYYmmdd-HHMMSS-PID.parquet` in the current directory.

    Args:
        environ: Where a batch system says which job this is.
        now_s: Unix seconds; None for now. The name shows local time.
    """
    job = next((environ[name] for name in _JOB_VARIABLES if environ.get(name)), None)
    host = socket.gethostname().partition(".")[0] or "host"
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(now_s))
    parts = ["vramtop", job, host, stamp, str(os.getpid())]
    name = "-".join(_OUTSIDE_NAMES.sub("_", part)[:64] for part in parts if part)
    return Path(f"{name}.parquet")
