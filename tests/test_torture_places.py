"""What others do to the files of a recording while it is written."""

import os
import signal
import threading
import time
from dataclasses import replace

import pytest
from record_fixtures import eventually, recording
from recording_fixtures import read, regrouped, training

from vramtop.errors import RecordingError
from vramtop.recording.reader import open_recording
from vramtop.recording.recover import recover
from vramtop.recording.wal import list_parts
from vramtop.recording.writer import RecordingWriter
from vramtop.samples import FAULT, MARK, Observation


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


def test_what_was_observed_while_ticks_were_lost_comes_with_the_next_tick(tmp_path, monkeypatch):
    """Who a process is, a mark, or an out-of-memory message is said once: it must not be lost."""
    path = tmp_path / "r.parquet"
    ticks = list(training(60))
    mark = Observation(what=MARK, text="step 40")
    ticks[40] = replace(ticks[40], observations=(mark,))
    answers = threading.Event()
    real = RecordingWriter._try_write

    def stalled(self, item):
        answers.wait(10)
        return real(self, item)

    monkeypatch.setattr(RecordingWriter, "_try_write", stalled)
    writer = RecordingWriter(path, seal=False, buffer_bytes=4000, patience_s=0.001)
    for tick in ticks[:50]:
        writer.append(tick)
    lost = writer.dropped
    assert 10 < lost < 45
    answers.set()
    deadline = time.monotonic() + 10
    while writer._waiting_bytes and time.monotonic() < deadline:
        time.sleep(0.01)
    for tick in ticks[50:]:
        writer.append(tick)
    writer.close()
    found = read(open_recording(path))
    assert [tick.seq for tick in found] == [*range(50 - lost), *range(50, 60)]
    after = next(tick for tick in found if tick.seq == 50)
    assert after.observations[0] == mark
    assert [seen.what for seen in after.observations] == [MARK, FAULT]
