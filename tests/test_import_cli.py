"""`vramtop import` as a user meets it."""

from __future__ import annotations

import os
import shutil
import stat
from datetime import datetime, timezone
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from import_fixtures import TRACES

from vramtop.cli import main
from vramtop.recording.reader import open_recording
from vramtop.units import MIB


def run(*args: str | os.PathLike[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["import", *(os.fspath(arg) for arg in args)])
    code = ended.value.code
    assert isinstance(code, int)
    return code


def test_import_writes_a_recording_and_prints_its_path_last(tmp_path, capsys):
    out = tmp_path / "run.parquet"
    assert run(TRACES / "mend-a--gpu_profile.csv", "-o", out, "--host", "node1") == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert "8 GPUs are told apart" in said.err
    assert "222 ticks over 5 min, 8 GPUs" in said.err
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    recording = open_recording(out)
    assert (recording.state, recording.ticks, recording.host) == ("sealed", 222, "node1")
    assert sum(len(block) for block in recording.blocks()) == 222


def test_plain_polars_and_pyarrow_see_the_values_of_the_log(tmp_path):
    log, out = TRACES / "lso-2080ti--gpu_mem.csv", tmp_path / "lso.parquet"
    assert run(log, "-o", out, "--zone", "America/Chicago") == 0
    rows = [line.split(", ") for line in log.read_text().splitlines()[1:]]
    frame = pl.read_parquet(out).filter(pl.col("kind") == "device").sort("seq")
    assert frame["used_bytes"].to_list() == [int(row[12][:-4]) * MIB for row in rows]
    assert frame["free_bytes"].to_list() == [int(row[11][:-4]) * MIB for row in rows]
    assert frame["total_bytes"].unique().to_list() == [11264 * MIB]
    assert frame["temp_c"].to_list() == [int(row[7]) for row in rows]
    assert frame["t"][0] == datetime(2023, 3, 6, 15, 53, 44, 773000, tzinfo=timezone.utc)
    table = pq.read_table(out, columns=["kind", "what", "name", "text"])
    imported = [row for row in table.to_pylist() if row["what"] == "imported"]
    assert [row["name"] for row in imported] == ["query-gpu"]


def test_an_existing_recording_is_kept_unless_forced(tmp_path, capsys):
    out = tmp_path / "run.parquet"
    log = TRACES / "mend-c--gpu_profile.csv"
    assert run(log, "-o", out) == 0
    before = out.read_bytes()
    capsys.readouterr()
    assert run(log, "-o", out) == 1
    said = capsys.readouterr()
    assert "exists already" in said.err
    assert "hint:" in said.err
    assert said.out == ""
    assert out.read_bytes() == before
    assert run(TRACES / "mend-b--gpu_profile.csv", "-o", out, "--force") == 0
    assert open_recording(out).ticks == 1120


def test_a_log_is_never_replaced_by_its_recording(tmp_path, capsys):
    log = tmp_path / "log.csv"
    shutil.copy(TRACES / "mend-c--gpu_profile.csv", log)
    assert run(log, "-o", log, "--force") == 2
    assert "is a log and the output" in capsys.readouterr().err
    assert log.read_bytes() == (TRACES / "mend-c--gpu_profile.csv").read_bytes()


def bad_files(folder: Path) -> dict[str, Path]:
    (folder / "empty").touch()
    (folder / "blank").write_text("\n\n  \n")
    (folder / "binary").write_bytes(os.urandom(4096))
    (folder / "foreign").write_text("epoch,loss\n1,0.5\n2,0.4\n")
    (folder / "recording").write_bytes(b"PAR1" + bytes(100))
    (folder / "late").write_text("timestamp, memory.used [MiB]\n" + "nonsense\n" * 5)
    return {
        name: folder / name
        for name in ("empty", "blank", "binary", "foreign", "recording", "late", "missing", ".")
    }


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("empty", "is empty"),
        ("blank", "is empty"),
        ("binary", "is binary"),
        ("foreign", "no form that can be imported"),
        ("recording", "is a Parquet file"),
        ("late", "has no reading"),
        ("missing", "No such file"),
        (".", "Is a directory"),
    ],
)
def test_a_file_that_is_no_log_is_one_line_and_a_hint(tmp_path, capsys, name, says):
    out = tmp_path / "out.parquet"
    assert run(bad_files(tmp_path)[name], "-o", out) == 1
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("vramtop: ")
    assert says in lines[0]
    assert lines[1].startswith("hint: ")
    assert said.out == ""
    assert not out.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_log_that_may_not_be_read(tmp_path, capsys):
    log = tmp_path / "log.csv"
    log.write_text("x")
    log.chmod(0)
    assert run(log, "-o", tmp_path / "out.parquet") == 1
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--zone", "Mars/Phobos"],
        ["--total", "much"],
        ["--form", "excel"],
        ["--interval", "0"],
        ["--interval", "nan"],
        ["--start", "yesterday"],
        ["--columns"],
    ],
)
def test_an_option_that_means_nothing_is_wrong_usage(tmp_path, capsys, options):
    out = tmp_path / "out.parquet"
    assert run(TRACES / "mend-c--gpu_profile.csv", "-o", out, *options) == 2
    assert "hint:" in capsys.readouterr().err
    assert not out.exists()


def test_an_ambiguous_log_is_refused_with_the_flag_that_settles_it(tmp_path, capsys):
    log = tmp_path / "log.csv"
    log.write_text("".join(f"2026/04/30 22:19:4{n}.1, {n}, {100 - n}\n" for n in range(9)))
    out = tmp_path / "out.parquet"
    assert run(log, "-o", out) == 1
    assert "--columns timestamp,…,…" in capsys.readouterr().err
    assert run(log, "-o", out, "--columns", "timestamp,memory.used,memory.free") == 0
    assert open_recording(out).ticks == 9


def test_the_example_of_the_help_text_works(tmp_path, capsys, monkeypatch):
    assert run("--help") == 0
    words = capsys.readouterr().out.split("Example: vramtop import ")[1].split()
    shutil.copy(TRACES / "mend-c--gpu_profile.csv", tmp_path / words[0])
    (tmp_path / words[1]).write_text(
        "timestamp, pid, process_name, used_gpu_memory [MiB]\n"
        "2025/05/15 15:48:16.700, 7, python, 10 MiB\n"
    )
    monkeypatch.chdir(tmp_path)
    assert run(*words) == 0
    assert capsys.readouterr().out == "run.parquet\n"
