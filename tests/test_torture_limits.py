"""The recorder under limits that leave it no room: COMMAND runs, and nothing is left about."""

import shlex
import subprocess
import sys

import pytest
from record_fixtures import LIMIT_S, SIMULATED

from vramtop.recording.reader import open_recording

SPEAK = "import os, sys; os.write(1, b'out'); os.write(2, b'err\\n'); sys.exit(4)"


def limited(limit: str, *arguments: str, cwd) -> subprocess.CompletedProcess[bytes]:
    """Record a program under `ulimit LIMIT`."""
    program = [sys.executable, "-S", "-c", SPEAK]
    line = shlex.join([*SIMULATED, *arguments, "--", *program])
    return subprocess.run(
        ["sh", "-c", f"ulimit {limit}; exec {line}"],
        cwd=cwd, capture_output=True, timeout=LIMIT_S, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("files", [6, 8, 9, 11])
def test_too_few_descriptors_cost_the_recording_something_and_the_command_nothing(tmp_path, files):
    """At 8 there was none for the relay's socket, and the recorder died before COMMAND."""
    done = limited(f"-n {files}", "-o", "r.parquet", cwd=tmp_path)
    assert done.returncode == 4
    assert done.stdout == b"out"
    assert b"err" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("kib", [50_000, 60_000, 80_000])
def test_too_little_address_space_costs_the_command_nothing(tmp_path, kib):
    """A thread more is an address space of 8 MB more, and starting it raises RuntimeError."""
    done = limited(f"-v {kib}", "-o", "r.parquet", cwd=tmp_path)
    assert done.returncode == 4
    assert done.stdout == b"out"
    assert b"err" in done.stderr
    assert b"Traceback" not in done.stderr
    if b"not recording" not in done.stderr:
        assert open_recording(tmp_path / "r.parquet").ticks >= 1


def test_where_no_byte_can_be_written_nothing_is_left_about(tmp_path):
    done = limited("-f 0", "-o", "r.parquet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, b"out")
    assert b"not recording" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_working_directory_that_is_gone_is_said_in_one_line(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    line = shlex.join([*SIMULATED, "-o", "r.parquet", "--", "/bin/sh", "-c", "exit 4"])
    done = subprocess.run(
        ["sh", "-c", f"rmdir ../gone; exec {line}"],
        cwd=gone, capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 4
    assert b"not recording: the working directory has been removed" in done.stderr
