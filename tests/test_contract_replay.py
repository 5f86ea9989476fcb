"""`vramtop replay` from outside: what is replayed, and the times users give."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vramtop.recording.store import write_recording
from vramtop.recording.stream import StreamWriter
from vramtop.sources.sim import SimSource


def vramtop(*args: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "vramtop", *map(str, args)],
        input=given,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes of one GPU; nothing runs out."""
    path = tmp_path_factory.mktemp("replay") / "run.parquet"
    write_recording(path, SimSource("training-oom", pace=None, duration_s=120.0).ticks())
    return path


@pytest.fixture(scope="module")
def stream() -> bytes:
    """The same as a stream."""
    pipe = io.BytesIO()
    writer = StreamWriter(pipe)
    for tick in SimSource("training-oom", pace=None, duration_s=120.0).ticks():
        writer.append(tick)
    writer.close()
    return pipe.getvalue()


def test_a_stream_is_replayed_like_its_recording(recording: Path, stream: bytes) -> None:
    """Times from the beginning work on both, and both say that they are simulated."""
    for times in ([], ["--from", "+20s", "--to", "+60s"], ["--to", "2026-01-01 00:01"]):
        here = vramtop("replay", recording, "--events", "--json", *times)
        there = vramtop("replay", "-", "--events", "--json", *times, given=stream)
        assert (here.returncode, here.stdout, here.stderr) == (
            there.returncode,
            there.stdout,
            there.stderr,
        )
        assert here.stdout.count(b"\n") > 1
        assert b"SIMULATED" in here.stderr


def test_a_stream_that_breaks_off_says_so(stream: bytes) -> None:
    """What came is replayed; the reader is told that it is not all."""
    run = vramtop("replay", "-", "--events", given=stream[: len(stream) * 2 // 3])
    assert run.returncode == 0
    assert run.stdout
    assert b"the stream broke off" in run.stderr
    assert b"broke off" not in vramtop("replay", "-", "--events", given=stream).stderr


@pytest.mark.parametrize("time", ["-5s", "50%", "oom-5s"])
def test_a_stream_knows_no_times_from_its_end(stream: bytes, time: str) -> None:
    run = vramtop("replay", "-", f"--from={time}", given=stream)
    assert run.returncode == 2
    assert b"hint: count from its beginning" in run.stderr


def test_a_directory_with_one_recording_stands_for_it(recording: Path, tmp_path: Path) -> None:
    """Other files in it do not matter, a second recording does."""
    shutil.copy(recording, tmp_path / "run.parquet")
    (tmp_path / "other.parquet").write_bytes(b"no recording")
    (tmp_path / "notes.txt").write_text("hello")
    named = vramtop("replay", recording, "--events", "--json")
    assert vramtop("replay", tmp_path, "--events", "--json").stdout == named.stdout
    shutil.copy(recording, tmp_path / "second.parquet")
    several = vramtop("replay", tmp_path, "--events")
    assert several.returncode == 2
    assert b"2 recordings: run.parquet, second.parquet" in several.stderr


def test_a_directory_without_a_recording_is_refused(tmp_path: Path) -> None:
    run = vramtop("replay", tmp_path)
    assert run.returncode == 1
    assert run.stderr.decode() == (
        f"vramtop: {tmp_path} holds no recording\nhint: name a recording\n"
    )


def test_a_log_part_is_no_recording_but_says_how_to_read_it(stream: bytes, tmp_path: Path) -> None:
    part = tmp_path / "run.parquet.wal-000000"
    part.write_bytes(stream)
    run = vramtop("replay", part)
    assert run.returncode == 1
    assert f"vramtop replay - < {part}".encode() in run.stderr


def test_a_time_can_be_copied_from_the_output(recording: Path) -> None:
    """The t of a JSON event and the stamp of a line of text name the tick they stand at."""
    lines = vramtop("replay", recording, "--events").stdout.decode().splitlines()
    objects = [
        json.loads(line)
        for line in vramtop("replay", recording, "--events", "--json").stdout.splitlines()
    ]
    middle = objects[len(objects) // 2]
    wanted = sum(one["t"] >= middle["t"] for one in objects)
    stamp = lines[len(objects) // 2][: len("2026-01-01 00:00:00.000 +00:00")]
    for text in (repr(middle["t"]), stamp):
        run = vramtop("replay", recording, "--events", "--json", "--from", text)
        assert run.stdout.count(b"\n") == wanted


@pytest.mark.parametrize("option", ["--from", "--to", "--at"])
@pytest.mark.parametrize("time", ["99999999999999999d ago", "+9999999999999999999d", "0001-01-01"])
def test_a_time_outside_the_calendar_is_refused(recording: Path, option: str, time: str) -> None:
    run = vramtop("replay", recording, option, time)
    assert run.returncode == 2
    assert b"is outside the years 1 to 9999" in run.stderr
    assert b"Traceback" not in run.stderr


def test_a_speed_that_is_no_number_is_refused(recording: Path) -> None:
    assert vramtop("replay", recording, "--speed", "nan").returncode == 2


def test_live_is_what_runs_without_a_command() -> None:
    """`vramtop --source …` is `vramtop live --source …`."""
    run = vramtop("--source", "sim:multi-gpu", "--gpu", "2", "--duration", "0.1", "--json")
    assert run.returncode == 0
    assert {json.loads(line)["gpu"] for line in run.stdout.splitlines()} == {2}


def test_a_gpu_that_a_scenario_has_not_is_refused() -> None:
    run = vramtop("live", "--source", "sim:training-oom", "--gpu", "7")
    assert run.returncode == 2
    assert b"no GPU 7: training-oom has 1, numbered from 0" in run.stderr
