"""Kills recorders at random and counts what was lost.

Each round starts a recorder in a process group of its own (10 Hz by default, each tick one
second of stream time, parts of 25 ticks, so that seals are at work), kills it with SIGKILL at
a random moment, and checks: every tick that was acknowledged can be read at once, each with
the values it was written with; `recover`, killed at random twice and then left alone, gives
one sealed file with the same ticks and no row twice.

    .venv/bin/python benchmarks/recording_kill.py [ROUNDS] [HZ]

Budget: 50 rounds, 0 acknowledged ticks lost, 0 rows twice, 0 values changed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import polars as pl

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))

from recording_fixtures import files_of, read, regrouped, training  # noqa: E402

from vramtop.recording.reader import open_recording  # noqa: E402
from vramtop.recording.recover import recover  # noqa: E402

RECOVER = """
import sys
from vramtop.recording.recover import recover
print("now", flush=True)
recover(sys.argv[1])
"""


def one_round(rng, path, hertz):
    """What happened: lost and changed ticks, rows twice, states met."""
    met = Counter()
    child = subprocess.Popen(
        [sys.executable, str(TESTS / "recording_child.py"), str(path), str(1 / hertz), "10000"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    first = child.stdout.readline()
    time.sleep(rng.uniform(0.0, 4.0))
    os.killpg(child.pid, signal.SIGKILL)
    out = first + child.communicate()[0]
    acknowledged = int(out[: out.rindex(b"\n")].split(b"\n")[-1])

    met["killed while a seal was due or at work"] += sum(".wal-" in n for n in files_of(path)) > 1
    recording = open_recording(path)
    last = recording.last.seq
    expected = regrouped(training(last + 1))
    met["ticks"] += acknowledged + 1
    met["lost"] += max(0, acknowledged - last)
    met["changed before recover"] += read(recording) != expected

    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", RECOVER, str(path)], stdout=subprocess.PIPE)
        child.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.05))
        child.kill()
        child.communicate()
        met["recovers killed"] += child.returncode != 0
    recover(path)
    met["changed after recover"] += read(open_recording(path)) != expected
    met["files left over"] += files_of(path) != [path.name]
    rows = pl.read_parquet(path).filter(pl.col("kind") != "observation")
    keys = rows.select("kind", "seq", "uuid", "pid", "start_time")
    met["rows twice"] += int(keys.is_duplicated().sum())
    return met


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    hertz = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    rng = random.Random(2026)
    total = Counter({"lost": 0})
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            total.update(one_round(rng, Path(folder, "run.parquet"), hertz))
    words = ", ".join(f"{name} {count}" for name, count in total.items())
    print(f"{rounds} kills at {hertz:g} Hz: {words}")
    failures = ("lost", "changed before recover", "changed after recover", "rows twice")
    sys.exit(any(total[name] for name in failures))


if __name__ == "__main__":
    main()
