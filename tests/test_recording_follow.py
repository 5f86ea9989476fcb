"""Reading a recording while it is being written, from the file and through a pipe."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_fixtures import regrouped, training
from recording_strategies import streams

from vramtop.errors import CorruptError, RecordingError
from vramtop.recording.follow import follow
from vramtop.recording.seal import seal_parts
from vramtop.recording.store import write_recording
from vramtop.recording.stream import StreamWriter, read_stream
from vramtop.recording.writer import RecordingWriter

CHILD = Path(__file__).with_name("recording_child.py")


def as_ticks(blocks):
    return [tick for block in blocks for tick in block.ticks()]


def test_a_follower_sees_every_tick_once_across_rotation_and_sealing(tmp_path):
    """The recorder is a process of its own, with seal children; a part is 25 ticks."""
    path = tmp_path / "run.parquet"
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(path), "0.004", "10000", "250"], stdout=subprocess.PIPE
    )
    child.stdout.readline()
    found, sizes = [], []
    for block in follow(path, stop=threading.Event(), poll_s=0.01):
        found += block.ticks()
        sizes.append(len(block))
    child.communicate()
    assert found == regrouped(training(250))
    assert len(sizes) > 10, "ticks were seen as they came"


def test_a_slow_follower_misses_nothing_that_was_sealed_and_removed_meanwhile(tmp_path):
    path = tmp_path / "run.parquet"
    ticks = list(training(120))
    writer = RecordingWriter(path, seal=False, rotate_bytes=8_000)
    writer.append(ticks[0])
    blocks = follow(path, stop=threading.Event(), poll_s=0.01)
    found = list(next(blocks).ticks())
    for tick in ticks[1:]:
        writer.append(tick)
    seal_parts(path, 2)
    found += next(blocks).ticks()
    assert len(found) > 1
    writer.close()
    seal_parts(path)
    found += as_ticks(blocks)
    assert found == regrouped(ticks)


def test_a_follower_ends_when_the_recorder_was_killed(tmp_path):
    path = tmp_path / "run.parquet"
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(path), "0.002", "100000"], stdout=subprocess.PIPE
    )
    acknowledged = int(child.stdout.readline())
    found = []
    for block in follow(path, stop=threading.Event(), poll_s=0.01):
        found += block.ticks()
        if len(found) > 30 and child.returncode is None:
            child.kill()
            acknowledged = int(child.communicate()[0].split()[-1])
    assert len(found) > acknowledged
    assert found == regrouped(training(len(found)))


def test_a_follower_stops_when_it_is_told(tmp_path):
    writer = RecordingWriter(tmp_path / "run.parquet", seal=False)
    stop = threading.Event()
    blocks = follow(tmp_path / "run.parquet", stop=stop, poll_s=10)
    timer = threading.Timer(0.1, stop.set)
    timer.start()
    start = time.monotonic()
    assert list(blocks) == []
    assert time.monotonic() - start < 5
    timer.join()
    writer.close()


def test_a_finished_recording_is_followed_to_its_end(tmp_path):
    path = tmp_path / "run.parquet"
    write_recording(path, training(20))
    assert as_ticks(follow(path, stop=threading.Event())) == regrouped(training(20))
    with pytest.raises(RecordingError, match="does not exist"):
        next(follow(tmp_path / "other", stop=threading.Event()))


def test_a_frame_that_was_cut_off_and_written_again_is_read_once(tmp_path):
    """What a follower may see of a disk that fills up and then has room again."""
    path = tmp_path / "run.parquet"
    ticks = list(training(3))
    writer = RecordingWriter(path, seal=False)
    writer.append(ticks[0])
    blocks = follow(path, stop=threading.Event(), poll_s=0.01)
    found = list(next(blocks).ticks())
    os.write(writer._fd, b"\x50\0\0\0 half a frame")
    timer = threading.Timer(0.05, lambda: (os.ftruncate(writer._fd, writer._size),
                                           writer.append(ticks[1])))  # fmt: skip
    timer.start()
    found += next(blocks).ticks()
    timer.join()
    writer.append(ticks[2])
    writer.close()
    found += as_ticks(blocks)
    assert found == regrouped(ticks)


@settings(max_examples=40, deadline=None)
@given(ticks=streams(), data=st.data())
def test_any_stream_of_ticks_comes_through_a_pipe(ticks, data):
    sent = io.BytesIO()
    writer = StreamWriter(sent)
    for tick in ticks:
        writer.append(tick)
    writer.close()
    whole = sent.getvalue()
    assert as_ticks(read_stream(Dribble(whole, data.draw(st.integers(1, 500))))) == regrouped(ticks)
    cut = data.draw(st.integers(0, len(whole) - 1), label="broken off after")
    try:
        found = as_ticks(read_stream(io.BytesIO(whole[:cut])))
    except CorruptError:
        found = []
    assert found == regrouped(ticks)[: len(found)]


class Dribble(io.RawIOBase):
    """A pipe that gives a little at a time."""

    def __init__(self, data, step):
        super().__init__()
        self._rest, self._step = data, step

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), self._step, len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def test_ticks_of_a_stream_are_there_as_soon_as_they_are_sent():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as incoming, os.fdopen(writing, "wb") as outgoing:
        ticks = list(training(3))
        writer = StreamWriter(outgoing)
        blocks = read_stream(incoming)
        for tick in ticks:
            writer.append(tick)
            assert list(next(blocks).ticks()) == regrouped([tick])
        writer.close()
        assert list(blocks) == []


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "nothing came in"),
        (b"PAR1....", "no stream of vramtop"),
        (b"hello world", "no stream of vramtop"),
        (b"VRAMWAL\n1234", "does not begin like a recording"),
    ],
)
def test_what_is_no_stream_is_refused_in_one_line(data, words):
    with pytest.raises(CorruptError, match=words) as caught:
        next(read_stream(io.BytesIO(data)))
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_bytes_altered_on_the_way_are_noticed():
    sent = io.BytesIO()
    writer = StreamWriter(sent)
    for tick in training(10):
        writer.append(tick)
    writer.close()
    data = bytearray(sent.getvalue())
    data[len(data) // 2] ^= 16
    found = []
    blocks = read_stream(io.BytesIO(bytes(data)))
    found += next(blocks).ticks()
    with pytest.raises(CorruptError, match=r"damaged after tick \d"):
        next(blocks)
    assert found == regrouped(training(10))[: len(found)]
