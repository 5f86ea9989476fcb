"""Runs every benchmark in turn; each prints its own lines.

python benchmarks/run.py [NAME ...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
LEFT_OUT = ("run", "fit_risk")
"""Not this script again, nor the one that writes tables instead of printing figures."""


def main() -> int:
    """Run the named benchmarks, or all; returns the number that could not run."""
    chosen = sys.argv[1:] or sorted(
        path.stem for path in HERE.glob("*.py") if path.stem not in LEFT_OUT
    )
    failed = 0
    for name in chosen:
        print(f"# {name}", flush=True)
        failed += subprocess.run([sys.executable, HERE / f"{name}.py"], check=False).returncode != 0
    return failed


if __name__ == "__main__":
    sys.exit(main())
