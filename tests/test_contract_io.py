"""Places that cannot be written, and streams that are closed: one line, and nothing lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vramtop.recording.lock import WriterLock
from vramtop.recording.store import write_recording
from vramtop.sources.sim import SimSource

VRAMTOP = f"{sys.executable} -m vramtop"


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of one GPU."""
    path = tmp_path_factory.mktemp("io") / "run.parquet"
    write_recording(path, SimSource("training-oom", pace=None, duration_s=60.0).ticks())
    return path


def shell(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of shell."""
    return subprocess.run(
        ["sh", "-c", command], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", ["replay --events", "info", "info --json", "verify"])
def test_a_full_disk_behind_stdout_is_one_line(recording: Path, command: str) -> None:
    run = shell(f"{VRAMTOP} {command} {recording.name} > /dev/full", recording.parent)
    assert run.returncode == 1
    assert "vramtop: cannot read or write the output: No space left on device" in run.stderr
    assert "Traceback" not in run.stderr
    assert "Exception ignored" not in run.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_failure(recording: Path, closed: str) -> None:
    for command in ("replay --events", "info --json"):
        run = shell(f"{VRAMTOP} {command} {recording.name} {closed}", recording.parent)
        assert (run.returncode, "Traceback" in run.stderr) == (0, False)


def test_derived_series_never_replace_the_recording(recording: Path) -> None:
    """Nor a device, whose place a rename would take."""
    before = recording.read_bytes()
    for target in (recording, recording.parent / "." / recording.name, "/dev/null"):
        run = shell(f"{VRAMTOP} replay {recording.name} --derived {target}", recording.parent)
        assert run.returncode == 2
        assert "give --derived another name" in run.stderr
    assert recording.read_bytes() == before
    assert Path("/dev/null").is_char_device()


def test_a_lock_file_that_cannot_be_removed_is_let_go(tmp_path: Path) -> None:
    """In a directory that became read-only, sealing ends with its own words, not with the lock's."""
    lock = WriterLock(tmp_path / "run.parquet")
    (tmp_path / "run.parquet.lock").rename(tmp_path / "aside")
    (tmp_path / "run.parquet.lock").mkdir()  # unlink refuses it, for root as well
    lock.release()
    (tmp_path / "run.parquet.lock").rmdir()
    WriterLock(tmp_path / "run.parquet").release()
