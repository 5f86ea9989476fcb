"""What survives: kills, cut-off files, altered bytes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import pytest
from recording_fixtures import files_of, read, regrouped, training

from vramtop.errors import LockedError, RecordingError
from vramtop.recording.reader import open_recording
from vramtop.recording.recover import recover
from vramtop.recording.wal import frame, list_parts, scan_frames
from vramtop.recording.writer import RecordingWriter

CHILD = Path(__file__).with_name("recording_child.py")


def start_child(path, *, spacing_s=0.001, rotate_bytes=40_000, count=10**9):
    return subprocess.Popen(
        [sys.executable, str(CHILD), str(path), str(spacing_s), str(rotate_bytes), str(count)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def kill_after(child, delay_s):
    """The last tick it acknowledged before it was killed."""
    first = child.stdout.readline()
    time.sleep(delay_s)
    child.send_signal(signal.SIGKILL)
    out, err = child.communicate()
    assert err == b""
    return int((first + out).split(b"\n")[-2])


def keys_twice(path):
    rows = pl.read_parquet(path).filter(pl.col("kind") != "observation")
    return rows.select("kind", "seq", "uuid", "pid", "start_time").is_duplicated().sum()


@pytest.mark.parametrize("round_", range(4))
def test_no_acknowledged_tick_is_lost_by_a_kill(tmp_path, round_):
    rng = random.Random(round_)
    path = tmp_path / "run.parquet"
    acknowledged = kill_after(start_child(path), rng.uniform(0.0, 0.6))

    before = open_recording(path)
    assert before.state == "interrupted"
    assert before.last.seq >= acknowledged
    ticks = regrouped(training(before.last.seq + 1))
    assert read(before) == ticks, "readable before recovery, every value as it was"

    recovery = recover(path)
    assert recovery.ticks == len(ticks)
    assert files_of(path) == ["run.parquet"]
    assert open_recording(path).state == "sealed"
    assert read(open_recording(path)) == ticks
    assert keys_twice(path) == 0


RECOVER = """
import sys
from vramtop.recording.recover import recover
print("now", flush=True)
recover(sys.argv[1])
"""


def test_a_killed_recover_can_be_repeated(tmp_path):
    rng = random.Random(5)
    path = tmp_path / "run.parquet"
    writer = RecordingWriter(path, seal=False, rotate_bytes=8_000)
    ticks = list(training(600))
    for tick in ticks:
        writer.append(tick)
    writer.close()
    killed = 0
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", RECOVER, str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        child.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.04))
        child.kill()
        child.communicate()
        killed += child.returncode != 0
        assert read(open_recording(path)) == regrouped(ticks)
    assert killed
    assert recover(path).ticks == 600
    assert files_of(path) == ["run.parquet"]
    assert read(open_recording(path)) == regrouped(ticks)
    assert keys_twice(path) == 0


def test_a_seal_killed_at_each_of_its_steps_loses_and_repeats_nothing(tmp_path):
    """The states on the disk between the steps of a seal, made by hand."""
    path = tmp_path / "run.parquet"
    ticks = list(training(200))
    writer = RecordingWriter(path, seal=False, rotate_bytes=30_000)
    for tick in ticks:
        writer.append(tick)
    writer.close()
    saved = tmp_path / "saved"
    saved.mkdir()
    for part in list_parts(path):
        shutil.copy(part, saved)
    path.with_name("run.parquet.tmp-0123").write_bytes(b"PAR1 half a file")
    assert read(open_recording(path)) == regrouped(ticks)
    recover(path)
    assert files_of(path) == ["run.parquet"]
    for part in saved.iterdir():
        shutil.copy(part, tmp_path)  # sealed, but not removed yet
    again = open_recording(path)
    assert (again.state, again.ticks) == ("interrupted", 200)
    assert read(again) == regrouped(ticks)
    assert recover(path).ticks_added == 0
    assert read(open_recording(path)) == regrouped(ticks)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A log of 40 ticks in one part, as bytes."""
    path = tmp_path_factory.mktemp("whole") / "run.parquet"
    writer = RecordingWriter(path, seal=False)
    for tick in training(40):
        writer.append(tick)
    writer.close()
    (part,) = list_parts(path)
    return part.read_bytes()


def opened(folder, data):
    path = folder / "run.parquet"
    path.with_name("run.parquet.wal-000000").write_bytes(data)
    return open_recording(path)


def test_a_log_cut_off_anywhere_gives_the_ticks_before_the_cut(tmp_path, whole):
    ticks = regrouped(training(40))
    seen = set()
    for cut in sorted(random.Random(1).sample(range(len(whole)), 120)):
        recording = opened(tmp_path, whole[:cut])
        found = read(recording)
        assert found == ticks[: len(found)]
        seen.add(len(found))
        (part,) = recording.parts
        assert part.damage == (None if part.end == cut and cut else "torn")
        zeros = opened(tmp_path, whole[:cut] + bytes(500))
        assert len(read(zeros)) == len(found)
        assert zeros.parts[0].damage == "torn"
    assert len(seen) > 20


def test_an_altered_bit_is_always_noticed(tmp_path, whole):
    ticks = regrouped(training(40))
    rng = random.Random(2)
    for position in sorted(rng.sample(range(len(whole)), 200)):
        data = bytearray(whole)
        data[position] ^= 1 << rng.randrange(8)
        recording = opened(tmp_path, bytes(data))
        found = read(recording)
        assert found == ticks[: len(found)], "never silently wrong"
        assert recording.parts[0].damage is not None
        assert recording.parts[0].end <= position


def test_a_frame_of_another_file_is_not_taken_for_ours():
    stale = frame(b"\x01" + bytes(40), seed=1)
    assert scan_frames(stale, 0, 1).damage is None
    assert scan_frames(stale, 0, 2).payloads == []


def test_recover_says_what_was_lost_and_keeps_what_it_does_not_understand(tmp_path, whole):
    path = tmp_path / "run.parquet"
    data = bytearray(whole)
    data[len(data) // 2] ^= 4
    before = opened(tmp_path, bytes(data))
    recovery = recover(path)
    assert recovery.ticks == before.ticks < 40
    (sentence,) = recovery.lost
    assert f"after tick {recovery.last.seq}" in sentence
    assert not recovery.closed
    assert files_of(path) == ["run.parquet", "run.parquet.damaged-000000"]


def test_recover_with_an_output_leaves_the_source_as_it_is(tmp_path, whole):
    path, output = tmp_path / "run.parquet", tmp_path / "out.parquet"
    opened(tmp_path, whole[:-30])
    before = files_of(path)
    recovery = recover(path, output)
    assert (recovery.path, recovery.ticks) == (output, 40)
    assert files_of(path) == before
    assert files_of(output) == ["out.parquet"]
    assert read(open_recording(output)) == regrouped(training(40))
    with pytest.raises(RecordingError, match="exists already"):
        recover(path, output)


def test_recover_refuses_while_the_writer_lives(tmp_path):
    path = tmp_path / "run.parquet"
    writer = RecordingWriter(path, seal=False)
    for attempt in ((path,), (path, tmp_path / "out.parquet")):
        with pytest.raises(LockedError):
            recover(*attempt)
    writer.close()


def test_recover_of_a_sealed_recording_changes_nothing(tmp_path):
    path = tmp_path / "run.parquet"
    writer = RecordingWriter(path)
    for tick in training(5):
        writer.append(tick)
    writer.close()
    stamp = path.stat().st_mtime_ns
    recovery = recover(path)
    assert (recovery.ticks, recovery.ticks_added, recovery.lost) == (5, 0, ())
    assert path.stat().st_mtime_ns == stamp


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_in_a_read_only_directory_reading_works_and_recover_says_how(whole):
    script = """
import os, sys
from pathlib import Path
from vramtop.recording.reader import open_recording
from vramtop.recording.recover import recover
from vramtop.recording.writer import RecordingWriter
from vramtop.errors import RecordingError
os.setegid(65534)
os.seteuid(65534)
path = Path(sys.argv[1])
print(open_recording(path).ticks)
for attempt in (recover, lambda p: RecordingWriter(p.with_name("new.parquet"))):
    try:
        attempt(path)
    except RecordingError as error:
        print(error.message, "|", error.hint)
"""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.parquet")
        opened(Path(folder), whole)
        for entry in (Path(folder), *Path(folder).iterdir()):
            entry.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
        )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "40",
        f"cannot write in {folder}: Permission denied | recover into a file elsewhere with -o OUT",
        f"cannot write in {folder}: Permission denied | choose another place with -o",
    ]
