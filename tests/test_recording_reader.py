"""Bad input: one clear line and a hint; and what `info` says of good input."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from datetime import timedelta, timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from recording_fixtures import T0_US, read, regrouped, training

from vramtop.cli import group
from vramtop.errors import CorruptError, RecordingError, SchemaError, VramtopError
from vramtop.recording.reader import open_recording
from vramtop.recording.store import write_recording
from vramtop.recording.wal import list_parts
from vramtop.recording.writer import RecordingWriter
from vramtop.samples import (
    END,
    FAULT,
    HOST,
    SELF,
    SIMULATED,
    Observation,
    Tick,
)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    path = tmp_path_factory.mktemp("sealed") / "run.parquet"
    write_recording(path, training(60))
    return path


def foreign_parquet(path):
    pq.write_table(pa.table({"a": [1, 2]}), path)


def newer(path):
    table = pa.table({"a": [1]}).replace_schema_metadata({"vramtop": json.dumps({"format": 9})})
    pq.write_table(table, path)


BAD = {
    "missing": (lambda _: None, RecordingError, "does not exist"),
    "directory": (Path.mkdir, RecordingError, "is a directory"),
    "empty": (Path.touch, CorruptError, "is empty"),
    "csv": (lambda p: p.write_text("t,gpu\n1,2\n"), CorruptError, "no recording"),
    "random": (lambda p: p.write_bytes(random.Random(1).randbytes(5000)), CorruptError, "no rec"),
    "random behind a magic": (
        lambda p: p.write_bytes(b"PAR1" + random.Random(1).randbytes(5000)), CorruptError, "damaged"
    ),
    "a loop of links": (lambda p: p.symlink_to(p), RecordingError, "cannot read"),
    "foreign parquet": (foreign_parquet, CorruptError, "no recording of vramtop"),
    "newer format": (newer, SchemaError, "uses format 9; this vramtop reads up to 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_recording_is_refused_in_one_line_with_a_hint(tmp_path, name):
    make, kind, words = BAD[name]
    path = tmp_path / "run.parquet"
    make(path)
    with pytest.raises(kind, match=words) as caught:
        open_recording(path)
    assert "\n" not in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_a_sealed_file_cut_off_anywhere_is_said_to_be_damaged(tmp_path, sealed):
    data = sealed.read_bytes()
    path = tmp_path / "run.parquet"
    for cut in random.Random(3).sample(range(4, len(data)), 40):
        path.write_bytes(data[:cut])
        with pytest.raises(CorruptError, match="damaged"):
            open_recording(path)


def test_an_altered_bit_in_a_sealed_file_is_never_silently_wrong(tmp_path, sealed):
    data = sealed.read_bytes()
    path = tmp_path / "run.parquet"
    rng = random.Random(4)
    noticed = 0
    for position in rng.sample(range(len(data)), 150):
        changed = bytearray(data)
        changed[position] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        found = read_or_error(path)
        if isinstance(found, VramtopError):
            noticed += 1
            assert "\n" not in found.message
        else:
            assert found == regrouped(training(60)), position
    assert noticed > 75


def read_or_error(path):
    try:
        return read(open_recording(path))
    except VramtopError as error:
        return error


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_an_unreadable_recording_is_said_to_be_unreadable(sealed):
    script = (
        "import os, sys\n"
        "from vramtop.recording.reader import open_recording\n"
        "from vramtop.errors import RecordingError\n"
        "os.seteuid(65534)\n"
        "try: open_recording(sys.argv[1])\n"
        "except RecordingError as error: print(error.message)\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "run.parquet")
        path.write_bytes(sealed.read_bytes())
        path.chmod(0o600)
        done = subprocess.run(
            [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False
        )
    assert (done.stdout, done.stderr) == (f"cannot read {path}: Permission denied\n", "")


def test_a_log_of_a_newer_vramtop_is_refused(tmp_path):
    from vramtop.recording import wal

    path = tmp_path / "run.parquet"
    header = wal.encode_header({"recording_id": "x", "part": 0, "format": 2}, seed=1)
    path.with_name("run.parquet.wal-000000").write_bytes(header)
    with pytest.raises(SchemaError, match="uses format 2"):
        open_recording(path)


def test_a_window_reads_only_the_slices_it_needs(tmp_path):
    path = tmp_path / "run.parquet"
    writer = RecordingWriter(path, rotate_bytes=10_000)
    for tick in training(150):
        writer.append(tick)
    writer.close()
    recording = open_recording(path)
    assert len(list(recording.blocks())) > 4
    (block,) = recording.blocks(70, 72)
    assert block.seq.tolist() == [70, 71]
    assert list(recording.blocks(150)) == []


@pytest.mark.parametrize(
    ("data", "zone"),
    [
        ({"zone": "Asia/Kolkata", "utc_offset_s": 0}, "Asia/Kolkata"),
        ({"zone": "Not/There", "utc_offset_s": 3600}, str(timezone(timedelta(hours=1)))),
        ({"zone": None, "utc_offset_s": -1800}, str(timezone(timedelta(minutes=-30)))),
        ({"zone": "../../etc/passwd"}, "UTC"),
        ({}, "UTC"),
    ],
)
def test_the_zone_is_the_recorders(tmp_path, data, zone):
    path = tmp_path / "run.parquet"
    seen = (Observation(what=HOST, name="h", data=data), Observation(what=SIMULATED, name="leak"))
    write_recording(path, [Tick(seq=0, mono_ns=0, t_us=0, observations=seen)])
    recording = open_recording(path)
    assert str(recording.zone) == zone
    assert (recording.host, recording.simulated) == ("h", "leak")


def run(*arguments):
    return CliRunner().invoke(group, [str(argument) for argument in arguments])


def test_info_tells_what_a_recording_holds(tmp_path):
    path = tmp_path / "run.parquet"
    ticks = [
        *training(60),
        Tick(
            seq=60,
            mono_ns=10**12 + 90 * 10**9,
            t_us=T0_US + 90 * 10**6,
            observations=(
                Observation(what=FAULT, name="x"),
                Observation(what=SELF, data={"cpu_s": 0.5, "resident_bytes": 2**24}),
                Observation(what=END, text="asked to"),
            ),
        ),
    ]
    write_recording(path, ticks)
    result = run("info", path, "--json")
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    facts = json.loads(line)
    assert {name: facts[name] for name in ("ticks", "state", "start", "end", "start_text")} == {
        "ticks": 61,
        "state": "sealed",
        "start": T0_US / 1e6,
        "end": T0_US / 1e6 + 90,
        "start_text": "2023-11-14 23:13:20.000 +01:00",
    }
    assert (facts["interval_s"], facts["host"], facts["driver"]) == (1.0, "node7", "580.65.06")
    assert (facts["ended"], facts["faults"]) == ("asked to", 1)
    assert facts["gaps"] == {"count": 1, "longest_s": 31.0}
    assert facts["recorder"]["resident_bytes"] == 2**24
    assert facts["bytes"] == path.stat().st_size
    assert facts["gpus"] == [
        {
            "gpu": gpu,
            "uuid": uuid,
            "name": "NVIDIA H100",
            "total_bytes": 80 * 2**30,
            "peak_used_bytes": 10 * 2**30 + 8 * 2**20 + gpu,
            "rows": 60,
        }
        for gpu, uuid in ((0, "GPU-3"), (1, "GPU-0"))
    ]
    assert len(facts["processes"]) == 8
    first = facts["processes"][0]
    assert (first["pid"], first["start_time"], first["gpu"]) == (4000, 777, 0)
    assert first["peak_bytes"] == 2**30 + 49 * 4096
    assert (first["first"], first["last"]) == (T0_US / 1e6, T0_US / 1e6 + 49)


def test_info_reads_as_text_and_shows_no_control_characters(tmp_path):
    path = tmp_path / "run.parquet"
    ticks = list(training(5))
    named = Observation(what="device", uuid="GPU-3", name="evil\x1b[31m\nname")
    simulated = Observation(what=SIMULATED, name="leak")
    write_recording(
        path,
        [Tick(seq=0, mono_ns=0, t_us=T0_US, devices=ticks[0].devices,
              observations=(named, simulated))],
    )  # fmt: skip
    result = run("info", path)
    assert result.exit_code == 0
    assert "evil?[31m?name" in result.stdout
    assert "SIMULATED: scenario leak" in result.stdout
    assert "\x1b" not in result.stdout


def test_info_and_recover_of_an_interrupted_recording(tmp_path):
    path = tmp_path / "run.parquet"
    writer = RecordingWriter(path, seal=False)
    for tick in training(20):
        writer.append(tick)
    assert json.loads(run("info", path, "--json").stdout)["state"] == "recording"
    writer.close()
    assert json.loads(run("info", path, "--json").stdout)["state"] == "interrupted"
    result = run("recover", path)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[-1] == str(path)
    assert "20 ticks, 20 of them from the log; the last, 19, is of 2023-11-14" in result.output
    assert list_parts(path) == []
    assert read(open_recording(path)) == regrouped(training(20))


@pytest.mark.parametrize("command", ["info", "recover"])
def test_commands_end_with_one_line_and_a_hint(tmp_path, command):
    done = subprocess.run(
        [sys.executable, "-m", "vramtop", command, str(tmp_path / "none.parquet")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    words, hint = done.stderr.splitlines()
    assert words == f"vramtop: {tmp_path}/none.parquet does not exist"
    assert hint.startswith("hint: ")
