"""Process facts from the real /proc."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vramtop.enrich.process_facts import read_facts


@contextmanager
def running(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """The program says when it runs, so that its exec is over."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert child.stdout is not None
    try:
        child.stdout.readline()
        yield child
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def script(folder: Path, name: str = "train.py") -> str:
    path = folder / name
    path.write_text("import time\nprint('up', flush=True)\ntime.sleep(60)\n")
    return str(path)


def test_a_python_script_is_known_by_its_name_and_its_command_is_masked(tmp_path: Path):
    path = script(tmp_path)
    with running(sys.executable, "-u", path, "--api-key", "sesame", "--lr=3") as child:
        facts = read_facts(child.pid, start_time(child.pid))
    assert facts["name"] == "train.py"
    assert facts["cmdline"] == f"{sys.executable} -u {path} --api-key *** --lr=3"
    assert facts["ppid"] == os.getpid()
    assert facts["pgrp"] == os.getpgrp()
    assert facts["uid"] == os.getuid()
    assert facts["user"] == pwd.getpwuid(os.getuid()).pw_name
    assert Path(str(facts["exe"])).samefile(sys.executable)
    assert "sesame" not in repr(facts)


def test_a_hostile_name_comes_out_as_one_plain_line(tmp_path: Path):
    path = script(tmp_path, "a\x1b[31m\n\u202eb.py")
    with running(sys.executable, path, "\x1b]0;x\x07[/bad]") as child:
        facts = read_facts(child.pid)
    assert facts["name"] == "a b.py"
    assert str(facts["cmdline"]).isprintable()
    assert str(facts["cmdline"]).endswith("[/bad]")


def test_another_process_under_the_same_pid_gives_no_facts():
    assert read_facts(os.getpid(), start_time(os.getpid()) + 1) == {}
    assert read_facts(os.getpid(), start_time(os.getpid()))["ppid"] == os.getppid()


def test_a_process_that_is_gone_gives_no_facts():
    child = subprocess.Popen(["true"])
    child.wait()
    assert read_facts(child.pid) == {}


def test_a_zombie_is_known_by_what_is_left_of_it():
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    facts = read_facts(child.pid)
    child.wait()
    assert facts["name"] == "true"
    assert "cmdline" not in facts


def test_a_process_whose_files_may_not_be_read_gives_what_may(tmp_path: Path):
    """As with another user's process: its stat is readable, its exe is not."""
    folder = tmp_path / "7"
    folder.mkdir()
    fields = ["S", "3", "4"] + ["0"] * 16 + ["99"] + ["0"] * 20
    (folder / "stat").write_text(f"7 (python) {' '.join(fields)}\n")
    assert read_facts(7, 99, proc=tmp_path) == {
        "name": "python", "comm": "python", "ppid": 3, "pgrp": 4,
    }  # fmt: skip


def test_a_user_without_a_name_is_a_number(tmp_path: Path):
    folder = tmp_path / "7"
    folder.mkdir()
    fields = ["S", "3", "4"] + ["0"] * 16 + ["99"] + ["0"] * 20
    (folder / "stat").write_text(f"7 (x) {' '.join(fields)}\n")
    (folder / "status").write_text("Name:\tx\nUid:\t3999999\t0\t0\t0\n")
    facts = read_facts(7, proc=tmp_path)
    assert (facts["uid"], "user" in facts) == (3999999, False)


def test_an_endless_command_line_is_cut(tmp_path: Path):
    path = script(tmp_path)
    with running(sys.executable, path, *["word"] * 20000) as child:
        facts = read_facts(child.pid)
    assert len(str(facts["cmdline"])) == 2048
    assert str(facts["cmdline"]).endswith("…")


@pytest.mark.parametrize("garbage", ["", "7", "7 (x", "7 (x) S 1", "7 (x) S 1 2 " + "z " * 40])
def test_a_stat_file_that_makes_no_sense_gives_no_facts(tmp_path: Path, garbage: str):
    folder = tmp_path / "7"
    folder.mkdir()
    (folder / "stat").write_text(garbage)
    assert read_facts(7, proc=tmp_path) == {}
