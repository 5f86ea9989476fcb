"""The seal child, as a recorder starts it."""

import fcntl
import os
import signal
from pathlib import Path

from record_fixtures import LIMIT_S, eventually
from recording_fixtures import training

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
