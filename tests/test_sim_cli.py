"""`vramtop simulate` writes recordings that say what they are."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vramtop.recording.reader import open_recording
from vramtop.sources.sim import SCENARIOS, SimSource


def simulate(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", "vramtop", "simulate", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_list_has_one_scenario_a_line_name_first(tmp_path):
    done = simulate("--list", cwd=tmp_path)
    assert done.returncode == 0
    assert [line.split(None, 1)[0] for line in done.stdout.splitlines()] == list(SCENARIOS)
    assert all(line.split(None, 1)[1] for line in done.stdout.splitlines())


def test_a_recording_is_written_and_its_path_printed_last(tmp_path):
    """The example of the help text."""
    done = simulate("training-oom", "--seed", "7", "-o", "oom.parquet", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "oom.parquet\n")
    assert "simulated training-oom, seed 7" in done.stderr
    recording = open_recording(tmp_path / "oom.parquet")
    expected = list(SimSource("training-oom", seed=7, pace=None).ticks())
    assert (recording.state, recording.simulated) == ("sealed", "training-oom")
    assert [tick for block in recording.blocks() for tick in block.ticks()] == expected
    assert (tmp_path / "oom.parquet").stat().st_mode & 0o777 == 0o600


def test_the_same_arguments_give_the_same_bytes_and_others_do_not(tmp_path):
    runs = {}
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        simulate("epochs", "--duration", "2m", "--seed", seed, "-o", name, cwd=tmp_path)
        runs[name] = (tmp_path / name).read_bytes()
    assert runs["a"] == runs["b"] != runs["c"]


def test_duration_and_interval_are_taken_as_durations(tmp_path):
    simulate("epochs", "--duration", "1m", "--interval", "500ms", "-o", "x", cwd=tmp_path)
    assert open_recording(tmp_path / "x").ticks == 120


def test_an_existing_file_is_kept_unless_forced(tmp_path):
    (tmp_path / "x").write_text("mine")
    refused = simulate("epochs", "--duration", "5", "-o", "x", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.splitlines() == [
        "vramtop: x exists already",
        "hint: choose another file with -o, or add --force",
    ]
    assert (tmp_path / "x").read_text() == "mine"
    assert simulate("epochs", "--duration", "5", "-o", "x", "--force", cwd=tmp_path).returncode == 0
    assert open_recording(tmp_path / "x").ticks == 5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["slow-laek", "-o", "x"], 2, "did you mean slow-leak?"),
        (["zzzzqqq", "-o", "x"], 2, "--list"),
        ([], 2, "--list"),
        (["epochs"], 2, "-o FILE"),
        (["epochs", "-o", "x", "--duration", "soon"], 2, "not a duration"),
        (["epochs", "-o", "x", "--interval", "0"], 2, "above zero"),
        (["epochs", "-o", "nowhere/x", "--duration", "5"], 1, "nowhere"),
    ],
)
def test_mistakes_end_in_one_line_and_a_hint(tmp_path, arguments, code, words):
    done = simulate(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("vramtop: ")
    assert lines[1].startswith("hint: ")
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []
