"""The recorder's side of a recording needs the standard library and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from recording_fixtures import files_of, read

from vramtop.recording.reader import open_recording
from vramtop.recording.recover import recover

WRITE = """
import sys
sys.path.insert(0, sys.argv[2])
import io
import vramtop.recording.stream
from vramtop.recording.writer import RecordingWriter
from vramtop.samples import DeviceReading, Tick
writer = RecordingWriter(sys.argv[1], on_fault=print)
for seq in range(30):
    writer.append(Tick(seq=seq, mono_ns=seq, t_us=seq,
                       devices=(DeviceReading(gpu=0, uuid="u", used_bytes=seq),)))
writer.close()
stream = vramtop.recording.stream.StreamWriter(io.BytesIO())
stream.close()
print(sorted(name for name in sys.modules if name.split(".")[0] in
             ("numpy", "pyarrow", "polars", "click", "matplotlib")))
"""


def test_a_recording_made_without_any_package_is_sealed_and_read_elsewhere(tmp_path):
    """`-I -S` is an interpreter without site-packages: nothing but the standard library."""
    path = tmp_path / "run.parquet"
    root = str(Path(__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", WRITE, str(path), root],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert files_of(path) == ["run.parquet.wal-000000"]
    recording = open_recording(path)
    assert (recording.state, recording.ticks) == ("interrupted", 30)
    recovery = recover(path)
    assert (recovery.ticks, recovery.closed, recovery.lost) == (30, True, ())
    (block,) = open_recording(path).blocks()
    assert block.used.tolist() == list(range(30))


def test_the_recorder_loads_no_heavy_package_even_where_they_are_installed(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            WRITE,
            str(tmp_path / "run.parquet"),
            str(Path(__file__).parents[1]),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert files_of(tmp_path / "run.parquet") == ["run.parquet"]
    assert read(open_recording(tmp_path / "run.parquet"))[29].seq == 29
