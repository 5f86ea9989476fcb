"""The command line as its user meets it: help, examples, exit codes, bad input."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vramtop.cli import COMMANDS, group
from vramtop.recording.store import write_recording
from vramtop.sources.sim import SimSource

HEAVY = ("pyarrow", "polars", "numpy", "matplotlib", "textual", "ruptures", "scipy", "pynvml")


def vramtop(*args, cwd=None, env=None, timeout=60, **options):
    return subprocess.run(
        [sys.executable, "-m", "vramtop", *map(str, args)],
        cwd=cwd, env={**os.environ, **(env or {})}, timeout=timeout, check=False,
        capture_output=True, text=True, **options,
    )  # fmt: skip


def assert_one_line_and_a_hint(done, code):
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert lines[-2].startswith("vramtop: "), done.stderr
    assert lines[-1].startswith("hint: "), done.stderr


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "run.parquet"
    write_recording(path, SimSource("training-oom", seed=1, interval_s=1.0, pace=None).ticks())
    return path


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["replay", "--help"], ["live", "--help"]]
)
def test_help_loads_nothing_heavy(args):
    script = (
        "import sys\nfrom vramtop.cli import main\n"
        f"try:\n    main({args!r})\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    done = vramtop(name, "--help")
    assert done.returncode == 0
    assert f"Example: vramtop {name}" in done.stdout.replace("\n", " ").replace("  ", " ")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "import"])
def test_the_example_in_the_help_runs(name, recording, tmp_path):
    """In a directory that holds a run.parquet, a train.log and a train.py."""
    (tmp_path / "run.parquet").write_bytes(recording.read_bytes())
    (tmp_path / "train.py").write_text("print('one step')\n")
    (tmp_path / "train.log").write_text("step 1\nCUDA out of memory. Tried to allocate 2.00 GiB\n")
    command = group.get_command(None, name)
    example = re.search(r"Example: (vramtop .*)", command.epilog)
    words = shlex.split(example[1])[1:]
    fast = ["--pace", "100"] if "sim:" in example[1] and name in {"live", "record"} else []
    done = vramtop(*(words[:1] + fast + words[1:]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def bad_inputs(folder):
    (folder / "empty.parquet").write_bytes(b"")
    (folder / "random.parquet").write_bytes(os.urandom(5000))
    (folder / "log.csv").write_text(
        "timestamp, memory.used [MiB]\n2026/01/01 00:00:00.000, 3 MiB\n"
    )
    pq.write_table(pa.table({"a": [1, 2, 3]}), folder / "foreign.parquet")
    (folder / "folder").mkdir()
    return ["missing.parquet", "empty.parquet", "random.parquet", "log.csv", "foreign.parquet",
            "truncated.parquet", "folder"]  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [["replay", "--events"], ["info"], ["verify"], ["recover"], ["report", "-o", "out.html"]],
    ids=lambda command: command[0],
)
def test_what_is_no_recording_is_refused_in_one_line(command, recording, tmp_path):
    names = bad_inputs(tmp_path)
    (tmp_path / "truncated.parquet").write_bytes(recording.read_bytes()[:-3000])
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for name in names:
        done = vramtop(*command, name, cwd=tmp_path)
        assert_one_line_and_a_hint(done, 1)
        assert name in done.stderr
        assert done.stdout == ""
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_unreadable_recording_is_refused_in_one_line(recording, tmp_path):
    """As `nobody`, of a file that belongs to root."""
    path = tmp_path / "private.parquet"
    path.write_bytes(recording.read_bytes())
    path.chmod(0o600)
    script = (
        "import os\nfrom vramtop.cli import main\n"
        # Once as root, so that everything is loaded: nobody may not read root's Python.
        f"try:\n    main(['info', {str(path)!r}])\nexcept SystemExit:\n    os.setuid(65534)\n"
        f"main(['info', {str(path)!r}])\n"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert_one_line_and_a_hint(done, 1)


@pytest.mark.parametrize(
    "args",
    [["replay"], ["nonsense"], ["replay", "run.parquet", "--from", "soon"], ["replay", "run.parquet", "--wrong"],
     ["simulate", "no-such", "-o", "x.parquet"], ["record", "--source", "amd"],
     ["replay", "run.parquet", "--events", "--speed", "0"], ["live", "--interval", "zero"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_usage_exits_with_2(args, recording):
    assert_one_line_and_a_hint(vramtop(*args, cwd=recording.parent), 2)


@pytest.mark.parametrize("command", [["live"], ["record"], ["record", "-o", "x.parquet"], []])
def test_without_a_driver_nothing_is_simulated(command, tmp_path):
    done = vramtop(*command, cwd=tmp_path, env={"LD_LIBRARY_PATH": str(tmp_path)})
    assert_one_line_and_a_hint(done, 1)
    assert "libnvidia-ml" in done.stderr
    assert "--source sim:" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_events_as_json_have_the_contract_s_fields(recording):
    fields = {
        "process_start": {"name", "already_running"},
        "process_exit": {"name", "exit_code"},
        "phase": {"phase", "rate_bytes_per_s", "confidence"},
        "changepoint": {"at", "before_bytes", "after_bytes", "state"},
        "segment": {"start", "end", "label", "label_id", "mean_bytes", "delta_bytes", "slope_bytes_per_s"},
        "oom_risk": {"level", "eta_low_s", "eta_high_s", "p_oom_60s", "p_oom_300s", "p_oom_900s", "reason"},
        "verdict": {"verdict", "reason", "need_low_bytes", "need_high_bytes", "free_bytes"},
        "oom": {"certainty", "evidence", "requested_bytes", "blamed_pid", "holders"},
    }  # fmt: skip
    common = {"t", "seq", "kind", "host", "gpu", "uuid", "pid", "start_time"}

    lines = vramtop("replay", recording, "--events", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]

    assert {event["kind"] for event in events} == set(fields)
    for event in events:
        assert set(event) == common | fields[event["kind"]]
        assert isinstance(event["t"], float)
        if event["kind"] == "oom_risk" and event["level"] != "none":
            assert 0 < event["eta_low_s"] <= event["eta_high_s"]
            assert 0 <= event["p_oom_60s"] <= event["p_oom_300s"] <= event["p_oom_900s"] <= 1
    assert [event["seq"] for event in events] == sorted(event["seq"] for event in events)


def test_from_filters_output_only(recording):
    everything = vramtop("replay", recording, "--events", "--json").stdout.splitlines()

    late = vramtop(
        "replay", recording, "--events", "--json", "--from", "oom-60s"
    ).stdout.splitlines()

    start = next(json.loads(x)["t"] for x in everything if json.loads(x)["kind"] == "oom") - 60
    assert late == [line for line in everything if json.loads(line)["t"] >= start]
    assert 0 < len(late) < len(everything)


def test_to_ends_the_stream_there_and_finishes_it(recording):
    everything = vramtop("replay", recording, "--events", "--json").stdout.splitlines()
    start = json.loads(everything[0])["t"]

    early = [
        json.loads(x)
        for x in vramtop(
            "replay", recording, "--events", "--json", "--to", "+120s"
        ).stdout.splitlines()
    ]

    assert max(event["t"] for event in early) <= start + 120
    open_ends = [
        e for e in early if e["kind"] == "segment" and e["end"] == pytest.approx(start + 120, abs=1)
    ]
    assert open_ends


def test_at_shows_who_held_what(recording):
    done = vramtop("replay", recording, "--at", "oom-1s", "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]

    device = next(row for row in rows if row["pid"] is None)
    processes = [row for row in rows if row["pid"] is not None]
    assert device["risk"] == "critical"
    assert sum(row["used_bytes"] for row in processes) <= device["used_bytes"]
    assert device["used_bytes"] + device["free_bytes"] <= device["total_bytes"]


def test_derived_series_have_a_row_per_device_and_tick(recording, tmp_path):
    out = tmp_path / "derived.parquet"
    done = vramtop("replay", recording, "--events", "--derived", out)
    assert done.returncode == 0, done.stderr
    table = pq.read_table(out)
    rows = pq.read_table(recording, columns=["kind", "seq"]).to_pylist()

    devices = [row for row in table.to_pylist() if row["pid"] is None]

    assert [row["seq"] for row in devices] == sorted(
        r["seq"] for r in rows if r["kind"] == "device"
    )
    assert {row["phase"] for row in devices} <= {None, "stable", "growing", "shrinking", "volatile"}
    critical = [row for row in devices if row["eta_low_s"] is not None]
    assert critical
    assert all(
        row["p_oom_300s"] <= row["p_oom_900s"] for row in devices if row["p_oom_60s"] is not None
    )
    verdicts = {row["verdict"] for row in table.to_pylist() if row["pid"] is not None}
    assert {"OK", "OOM"} <= verdicts


def test_a_closed_pipe_ends_quietly(recording):
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m vramtop replay {recording} --events | head -1"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1
    assert "Broken" not in done.stderr
    assert "Traceback" not in done.stderr


def test_live_with_record_leaves_a_digest_that_verify_confirms(tmp_path):
    path = tmp_path / "live.parquet"
    done = vramtop(
        "live", "--source", "sim:training-oom", "--pace", "300", "--duration", "460", "--record", path,
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "SIMULATED" in done.stderr

    proof = vramtop("verify", path)

    assert proof.returncode == 0, proof.stdout + proof.stderr
    assert "live digest: equal" in proof.stdout
    replayed = vramtop("replay", path, "--events", "--json").stdout
    assert replayed == done.stdout


def test_verify_fails_on_a_forged_live_digest(tmp_path):
    from dataclasses import replace

    from vramtop.engine import Engine
    from vramtop.engine.live import watch

    class Kept(list):
        def close(self):
            pass

    ticks = Kept()
    source = SimSource("steady-training", seed=1, interval_s=1.0, pace=None, duration_s=60.0)
    list(watch(source, Engine(), sink=ticks))
    last = ticks[-1]
    forged = replace(last.observations[0], data={**last.observations[0].data, "sha256": "0" * 64})
    path = tmp_path / "forged.parquet"
    write_recording(path, [*ticks[:-1], replace(last, observations=(forged,))])

    proof = vramtop("verify", path)

    assert proof.returncode == 1
    assert "live digest: different" in proof.stdout
