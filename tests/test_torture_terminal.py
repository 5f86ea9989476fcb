"""`record -- COMMAND` on a terminal: shells, hang-ups and impatient fingers."""

import shutil
import sys
import time

import pytest
from record_fixtures import LIMIT_S, SIMULATED, eventually
from test_record_terminal import terminal  # noqa: F401 - a fixture

from vramtop.recording.reader import open_recording
from vramtop.samples import END, EXIT


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_a_recorded_shell_keeps_its_job_control(terminal, monkeypatch):  # noqa: F811
    """bash takes its terminal from fd 2: with the relay's there, Ctrl-Z stopped nothing."""
    monkeypatch.setenv("PS1", "ready> ")
    shell = terminal(*SIMULATED, "-o", "r.parquet", "--", "bash", "--norc", "-i")
    shell.read(b"ready> ")
    shell.type(b"echo on; sleep 30\n")
    shell.read(b"on\r\n")
    time.sleep(0.1)
    shell.type(b"\x1a")
    shell.read(b"Stopped")
    shell.type(b"fg\n")
    shell.read(b"sleep 30\r\n")
    shell.type(b"\x03")
    shell.type(b"exit 7\n")
    assert shell.wait() == 7


@pytest.mark.skipif(shutil.which("less") is None, reason="no less")
def test_a_pager_in_a_recorded_interpreter_takes_its_keys(terminal, monkeypatch):  # noqa: F811
    """less opens the terminal that its fd 2 is; on the relay's, no key ever came."""
    monkeypatch.setenv("TERM", "xterm")
    window = terminal(*SIMULATED, "-o", "r.parquet", "--", sys.executable, "-q")
    window.read(b">>> ")
    window.type(b"import os; os.system('seq 500 | less')\n")
    window.read(b"\r\n2")
    window.type(b"q")
    window.type(b"exit(6)\n")
    assert window.wait() == 6


def test_a_terminal_that_goes_away_ends_the_command_as_without_us(terminal, tmp_path):  # noqa: F811
    """The kernel tells the first process of the session alone, and that is the recorder."""
    program = "echo $$ > pid; trap 'touch heard; exit 1' HUP; echo go; while :; do sleep 0.02; done"
    window = terminal(*SIMULATED, "-o", "r.parquet", "--", "sh", "-c", program)
    window.read(b"go")
    window.hang_up()
    window.process.wait(LIMIT_S)
    assert (tmp_path / "heard").exists()
    assert open_recording(tmp_path / "r.parquet").state == "sealed"


def test_a_ctrl_c_too_many_does_not_cost_the_last_words(terminal, tmp_path):  # noqa: F811
    """It comes while the recording is being closed; the last tick says how COMMAND ended."""
    window = terminal(*SIMULATED, "-o", "r.parquet", "--", "sh", "-c", "echo go; exit 5")
    window.read(b"go")
    window.type(b"\x03")
    assert window.wait() == 5
    path = tmp_path / "r.parquet"
    eventually(lambda: open_recording(path).state == "sealed")
    whats = {seen.what for _, seen in open_recording(path).observations()}
    assert {EXIT, END} <= whats
