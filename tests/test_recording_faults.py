"""Disks that are full, limited, or do not answer: ticks go on, and what is lost is counted."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from recording_fixtures import files_of, read, regrouped, training

from vramtop.errors import RecordingError
from vramtop.recording.decode import PartDecoder
from vramtop.recording.reader import open_recording
from vramtop.recording.recover import recover
from vramtop.recording.wal import decode_header, list_parts, scan_frames
from vramtop.recording.writer import RecordingWriter
from vramtop.samples import FAULT


@contextlib.contextmanager
def small_disk(folder, size):
    """A real filesystem of `size` bytes, where this machine lets us mount one."""
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if done.returncode:
        pytest.skip("cannot mount a small filesystem here")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def wait_until(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.01)


def test_a_full_disk_stops_no_tick_and_nothing_buffered_is_lost(tmp_path):
    said = []
    ticks = list(training(400))
    with small_disk(tmp_path, "64k"):
        path = tmp_path / "run.parquet"
        ballast = tmp_path / "ballast"
        ballast.write_bytes(bytes(20_000))
        writer = RecordingWriter(path, seal=False, on_fault=said.append, patience_s=0.01)
        slowest = 0.0
        for tick in ticks:
            start = time.monotonic()
            writer.append(tick)
            slowest = max(slowest, time.monotonic() - start)
        kept = read(open_recording(path))
        assert kept == regrouped(ticks)[: len(kept)]
        assert 20 < len(kept) < 400
        assert slowest < 0.3
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path)], check=True)
        writer.close()
        assert said == [f"cannot write {path.name}: No space left on device; trying again"]
        assert writer.dropped == 0
        assert read(open_recording(path)) == regrouped(ticks)
        assert recover(path).ticks == 400


def test_what_a_full_disk_costs_is_counted_and_recorded(tmp_path):
    said = []
    ticks = list(training(600))
    with small_disk(tmp_path, "64k"):
        path = tmp_path / "run.parquet"
        writer = RecordingWriter(
            path, seal=False, on_fault=said.append, patience_s=0.5, buffer_bytes=20_000
        )
        for tick in ticks[:500]:
            writer.append(tick)
        lost = writer.dropped
        assert lost > 50
        subprocess.run(["mount", "-o", "remount,size=4m", str(tmp_path)], check=True)
        wait_until(lambda: writer._waiting_bytes == 0, timeout_s=10)
        for tick in ticks[500:]:
            writer.append(tick)
            wait_until(lambda: writer._waiting_bytes == 0)
        writer.close()
        recording = open_recording(path)
        found = read(recording)
        faults = [o for tick in found for o in tick.observations if o.what == FAULT]
    assert [tick.seq for tick in found] == [*range(500 - lost), *range(500, 600)]
    assert [fault.data for fault in faults] == [
        {"dropped_ticks": lost, "dropped_ticks_total": lost}
    ]
    assert faults[0].text == f"{lost} ticks could not be written and are lost"
    assert said[0].startswith("cannot write run.parquet: No space left")
    assert said[1:] == [f"{lost} ticks of run.parquet could not be written"]


def test_a_disk_that_stays_full_leaves_what_was_acknowledged(tmp_path):
    with small_disk(tmp_path, "48k"):
        path = tmp_path / "run.parquet"
        writer = RecordingWriter(path, patience_s=0.001)
        for tick in training(300):
            writer.append(tick)
        start = time.monotonic()
        writer.close(timeout_s=0.5)
        assert time.monotonic() - start < 5
        assert "could not be written" in " ".join(writer.faults)
        recording = open_recording(path)
        assert recording.state == "interrupted"
        kept = read(recording)
        assert kept == regrouped(training(300))[: len(kept)]
        assert len(kept) + writer.dropped >= 300
        with pytest.raises(RecordingError, match="No space left") as caught:
            recover(path)
        assert "-o OUT" in caught.value.hint
        output = tmp_path.parent / f"{tmp_path.name}-out.parquet"
        assert recover(path, output).ticks == len(kept)
        assert read(open_recording(output)) == kept


LIMITED = """
import resource, sys
from recording_fixtures import training
from vramtop.recording.writer import RecordingWriter
writer = RecordingWriter(sys.argv[1], seal=False, on_fault=print)
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
for tick in training(300):
    writer.append(tick)
writer.close()
print(writer.dropped)
"""


def test_a_limit_on_file_sizes_is_met_by_more_parts(tmp_path):
    path = tmp_path / "run.parquet"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert "File too large" in done.stdout
    parts = list_parts(path)
    assert len(parts) > 2
    assert all(part.stat().st_size <= 30_000 for part in parts)
    assert read(open_recording(path)) == regrouped(training(300))
    assert recover(path).lost == ()
    assert read(open_recording(path)) == regrouped(training(300))


def test_a_disk_that_does_not_answer_stalls_no_tick(tmp_path):
    """A full pipe in the place of the file: the write blocks, as on a dead NFS server."""
    path = tmp_path / "run.parquet"
    ticks = list(training(400))
    writer = RecordingWriter(path, seal=False, sync_s=1000, patience_s=0.02, buffer_bytes=30_000)
    writer.append(ticks[0])
    start_of_frames = writer._size
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    stuffed = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            stuffed += os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    real = os.dup(writer._fd)
    os.dup2(writing, writer._fd)
    slowest = 0.0
    for tick in ticks[1:300]:
        start = time.monotonic()
        writer.append(tick)
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 0.2
    assert writer.dropped > 0
    arrived = bytearray()

    def drain():
        while chunk := os.read(reading, 65536):
            arrived.extend(chunk)

    drainer = threading.Thread(target=drain)
    drainer.start()
    wait_until(lambda: writer._waiting_bytes == 0)
    for tick in ticks[300:]:
        writer.append(tick)
        wait_until(lambda: writer._waiting_bytes == 0)
    os.dup2(real, writer._fd)
    os.close(writing)
    writer.close()
    drainer.join()
    os.close(reading)
    os.close(real)

    (part,) = list_parts(path)
    written = part.read_bytes()
    header = decode_header(written, name="")
    decoder = PartDecoder(header)
    decoder.decode(scan_frames(written[:start_of_frames], header.size, header.seed).payloads)
    scan = scan_frames(bytes(arrived[stuffed:]), 0, header.seed)
    rows = decoder.decode(scan.payloads)
    assert scan.damage is None
    kept = 299 - writer.dropped
    assert rows.seq.tolist() == [*range(1, 1 + kept), *range(300, 400)]
    assert [(seq, seen.what, seen.data) for seq, seen in rows.observations] == [
        (300, FAULT, {"dropped_ticks": writer.dropped, "dropped_ticks_total": writer.dropped})
    ]
    assert "takes too long" in writer.faults[0]


def test_a_log_that_was_removed_is_begun_anew(tmp_path):
    path = tmp_path / "run.parquet"
    ticks = list(training(40))
    writer = RecordingWriter(path, seal=False, sync_s=0.02)
    for tick in ticks[:20]:
        writer.append(tick)
    for part in list_parts(path):
        part.unlink()
    wait_until(lambda: writer.faults)
    for tick in ticks[20:]:
        writer.append(tick)
    writer.close()
    assert "was removed" in writer.faults[0]
    found = read(open_recording(path))
    first = replace(found[0], observations=())
    assert [first, *found[1:]] == regrouped(ticks[20:])
    assert found[0].observations == ticks[0].observations, "it stands alone"
    assert open_recording(path).host == "node7"
    recover(path)
    assert read(open_recording(path)) == found


@pytest.mark.parametrize("where", ["missing/run.parquet", "file/run.parquet"])
def test_a_directory_that_is_none_is_refused_at_once(tmp_path, where):
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="is no directory") as caught:
        RecordingWriter(tmp_path / where)
    assert caught.value.hint == "make it first, or choose another with -o"
    assert files_of(tmp_path / "missing") == []


def test_a_crashed_recorders_lock_hinders_nobody(tmp_path):
    path = tmp_path / "run.parquet"
    path.with_name("run.parquet.lock").write_text('{"pid": 1}')
    RecordingWriter(path).close()
    assert files_of(path) == ["run.parquet"]
