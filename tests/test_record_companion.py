"""`record --watch` and `--on-risk`: companions that may die without costing a tick."""

import io
import os
import signal
from pathlib import Path

import pytest
from record_fixtures import LIMIT_S, PYTHON, eventually, observed, record, recording

from vramtop.companions.actions import Episodes, Rule, parse_rule
from vramtop.companions.watch import Watcher
from vramtop.errors import UsageError
from vramtop.events import OomRiskChanged, VerdictChanged
from vramtop.recording.reader import open_recording
from vramtop.samples import ACTION, FAULT


def risk(level, *, uuid="GPU-a", seq=0):
    return OomRiskChanged(
        t_us=0, seq=seq, gpu=0, uuid=uuid, level=level, eta_low_s=40.0, eta_high_s=90.0,
        p_oom_60s=0.1, p_oom_300s=0.5, p_oom_900s=0.9, reason="it grows",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("critical=signal:USR1", Rule("critical", "signal", "USR1")),
        ("warning=signal:10", Rule("warning", "signal", "USR1")),
        ("critical=exec:./save.sh a=b:c", Rule("critical", "exec", "./save.sh a=b:c")),
    ],
)
def test_a_rule_is_read(text, rule):
    assert parse_rule(text) == rule
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        "critical",
        "none=exec:true",
        "critical=signal:NOSUCH",
        "critical=exec:",
        "=",
        "critical=kill:9",
    ],
)
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(UsageError):
        parse_rule(text)


def test_a_rule_fires_once_per_episode_and_device():
    critical, warning = Rule("critical", "exec", "a"), Rule("warning", "exec", "b")
    episodes = Episodes((critical, warning))
    levels = ["warning", "critical", "critical", "warning", "critical", "none", "critical"]
    assert [episodes.due(risk(level)) for level in levels] == [
        [warning], [critical], [], [], [], [], [critical, warning],
    ]  # fmt: skip
    assert episodes.due(risk("warning", uuid="GPU-b")) == [warning]


def test_a_line_is_printed_when_level_or_verdict_change_and_never_a_control_character():
    out = io.StringIO()
    watcher = Watcher(Path("r.parquet"), (), out)
    verdict = VerdictChanged(
        t_us=0, seq=1, gpu=0, uuid="GPU-a", pid=7, verdict="TIGHT", reason="evil \x1b[2J name",
        need_low_bytes=1, need_high_bytes=2, free_bytes=2**30,
    )  # fmt: skip
    watcher.take([risk("warning"), risk("warning"), verdict, risk("none")])
    assert out.getvalue().splitlines() == [
        "vramtop: gpu 0: risk warning, full in 40 s to 2 min 30 s (it grows)".replace(
            "2 min 30 s", "1 min 30 s"
        ),
        "vramtop: gpu 0 pid 7: verdict TIGHT, 1 GiB free (evil ?[2J name)",
        "vramtop: gpu 0: risk is over (it grows)",
    ]


def test_a_companion_says_what_changes_and_acts_and_the_recording_knows(tmp_path):
    wait_for_both = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGUSR1, lambda *_: open('got', 'w').close())\n"
        "end = time.monotonic() + 15\n"
        "while not (os.path.exists('got') and os.path.exists('saved')):\n"
        "    time.sleep(0.05)\n"
        "    if time.monotonic() > end: break\n"
        "time.sleep(0.2)\n"
    )
    done = record(
        "--source", "sim:training-oom", "--interval", "1s", "--pace", "150", "-o", "r.parquet",
        "--on-risk", "warning=exec:echo $VRAMTOP_LEVEL $VRAMTOP_GPU $VRAMTOP_RECORDING > saved",
        "--on-risk", "warning=signal:USR1", "--", *PYTHON, wait_for_both, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "got").exists()
    level, gpu, path = (tmp_path / "saved").read_text().split()
    # At 150 seconds a second the companion may see the next level first.
    assert level in {"warning", "critical"}
    assert (gpu, path) == ("0", str(tmp_path / "r.parquet"))
    actions = observed(tmp_path / "r.parquet", ACTION)
    assert sorted((seen.data["action"], seen.data.get("sent")) for seen in actions) == [
        ("exec", None), ("signal", True),
    ]  # fmt: skip
    *lines, last = done.stderr.decode().splitlines()
    assert last == "r.parquet"
    assert any(line.startswith(f"vramtop: gpu 0: risk {level}, full in ") for line in lines)
    assert all(line.startswith("vramtop: gpu 0") for line in lines)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_companion_that_dies_or_hangs_costs_the_recording_nothing(tmp_path, number):
    with recording("--watch", "-o", "r.parquet", cwd=tmp_path) as process:
        (companion,) = eventually(lambda: _children(process.pid))
        os.kill(companion, number)
        ticks = open_recording(tmp_path / "r.parquet").ticks
        eventually(lambda: open_recording(tmp_path / "r.parquet").ticks > ticks + 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        if number == signal.SIGSTOP:
            # Left alone, it would keep the stderr open for ever.
            assert b"did not end in time and was killed" in process.stderr.read()
        else:
            assert b"ended too early (signal 9)" in process.stderr.read()
            (fault,) = observed(tmp_path / "r.parquet", FAULT)
            assert fault.name == "companion"
    assert open_recording(tmp_path / "r.parquet").state == "sealed"


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        + [
            c
            for t in Path(f"/proc/{pid}/task").iterdir()
            for c in (t / "children").read_text().split()
        ]
        if b"companions" in Path(f"/proc/{child}/cmdline").read_bytes()
    ][:1]


def test_a_killed_recorder_takes_its_companion_along(tmp_path):
    with recording("--watch", "-o", "r.parquet", cwd=tmp_path) as process:
        (companion,) = eventually(lambda: _children(process.pid))
        process.kill()
        process.wait(LIMIT_S)
        eventually(lambda: not Path(f"/proc/{companion}").exists() or _is_zombie(companion))


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
