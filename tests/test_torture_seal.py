"""The seal child, as a recorder starts it."""

import errno
import fcntl
import os
import signal
import subprocess
from pathlib import Path

import pytest
from record_fixtures import LIMIT_S, eventually
from recording_fixtures import read, regrouped, training

from vramtop.recording import recover as recover_module
from vramtop.recording.reader import open_recording
from vramtop.recording.recover import recover
from vramtop.recording.spawn import spawn_seal
from vramtop.recording.wal import part_path
from vramtop.recording.writer import RecordingWriter


def test_a_seal_gives_way_and_can_be_ended_though_its_recorder_holds_signals_back(tmp_path):
    """A child inherits what is blocked: SIGTERM did not end it."""
    path = tmp_path / "r.parquet"
    writer = RecordingWriter(path, seal=False)
    for tick in training(5):
        writer.append(tick)
    writer.close()
    held = os.open(part_path(path, 0), os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        child = spawn_seal(path, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert child is not None
    folder = Path(f"/proc/{child.pid}")
    # It has got to the part, and waits there for us.
    eventually(
        lambda: any(part_path(path, 0) == each.resolve() for each in (folder / "fd").iterdir())
    )
    assert os.getpriority(os.PRIO_PROCESS, child.pid) >= 10
    assert (folder / "oom_score_adj").read_text().strip() == "1000"
    child.terminate()
    assert child.wait(LIMIT_S) == -signal.SIGTERM
    os.close(held)
    assert open_recording(path).ticks == 5
    assert recover(path).ticks == 5


def test_a_recovery_into_another_file_and_a_seal_left_behind_do_not_add_up(tmp_path, monkeypatch):
    """The seal of a killed recorder goes on; what it seals meanwhile must not come twice."""
    path, other = tmp_path / "r.parquet", tmp_path / "other.parquet"
    writer = RecordingWriter(path, seal=False, rotate_s=5)
    for tick in training(18):
        writer.append(tick)
    writer.close()
    first = spawn_seal(path, 0)
    assert first is not None
    assert first.wait(LIMIT_S) == 0
    seals = []

    def seal_first(*arguments):
        seals.append(spawn_seal(path, 99))
        with pytest.raises(subprocess.TimeoutExpired):
            seals[0].wait(1.0)
        write_sealed(*arguments)

    write_sealed = recover_module.write_sealed
    monkeypatch.setattr(recover_module, "write_sealed", seal_first)
    recover(path, other)
    assert seals[0].wait(LIMIT_S) == 0
    assert read(open_recording(other)) == read(open_recording(path)) == regrouped(training(18))


def test_parts_are_locked_as_nfs_wants_it(tmp_path, monkeypatch):
    """There an exclusive lock needs a descriptor that is open for writing, else EBADF."""
    path = tmp_path / "r.parquet"
    writer = RecordingWriter(path, seal=False)
    for tick in training(5):
        writer.append(tick)
    writer.close()
    flock = fcntl.flock

    def nfs_flock(fd, operation):
        writable = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if operation & fcntl.LOCK_EX and not writable:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", nfs_flock)
    assert recover(path).ticks == 5
