"""What others do to the files of a recording while it is written."""

import os
import signal
import time

import pytest
from record_fixtures import eventually, recording
from recording_fixtures import read, regrouped, training

from vramtop.errors import RecordingError
from vramtop.recording.reader import open_recording
from vramtop.recording.recover import recover
from vramtop.recording.wal import list_parts
from vramtop.recording.writer import RecordingWriter


def test_a_log_that_is_cut_off_costs_what_was_cut_and_what_came_until_it_was_seen(tmp_path):
    """Everything behind the hole was lost, to the end of the part and without a word."""
    path = tmp_path / "r.parquet"
    ticks = list(training(40))
    writer = RecordingWriter(path, seal=False, sync_s=0.02)
    for tick in ticks[:20]:
        writer.append(tick)
    (part,) = list_parts(path)
    os.truncate(part, part.stat().st_size - 100)
    deadline = time.monotonic() + 10
    while not writer.faults and time.monotonic() < deadline:
        time.sleep(0.01)
    for tick in ticks[20:]:
        writer.append(tick)
    writer.close()
    assert "was cut off; beginning another" in writer.faults[0]
    found = read(open_recording(path))
    assert found == regrouped([*ticks[:19], *ticks[20:]])
    recover(path)
    assert read(open_recording(path)) == found


def test_a_recording_that_was_moved_away_is_not_said_to_be_where_it_is_not(tmp_path):
    """The exit code was 0 and the path printed, though nothing is there."""
    folder = tmp_path / "here"
    folder.mkdir()
    with recording("-o", "here/r.parquet", cwd=tmp_path) as recorder:
        eventually(
            lambda: list(folder.glob("*.wal-*")) and open_recording(folder / "r.parquet").ticks > 2
        )
        folder.rename(tmp_path / "there")
        recorder.send_signal(signal.SIGINT)
        out, err = recorder.communicate(timeout=20)
    assert (recorder.returncode, out) == (1, b"")
    assert b"was moved or removed while it was written" in err
    assert b"hint:" in err
    moved = tmp_path / "there" / "r.parquet"
    assert recover(moved).ticks > 2
    assert open_recording(moved).state == "sealed"


def test_a_writer_whose_directory_was_removed_says_so(tmp_path):
    folder = tmp_path / "here"
    folder.mkdir()
    writer = RecordingWriter(folder / "r.parquet", seal=False)
    for tick in training(3):
        writer.append(tick)
    for each in folder.iterdir():
        each.unlink()
    folder.rmdir()
    with pytest.raises(RecordingError, match="moved or removed"):
        writer.close(timeout_s=0.2)
