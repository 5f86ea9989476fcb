"""`record -- COMMAND` on a terminal: a real pty with a real shell's job control."""

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from record_fixtures import LIMIT_S, PYTHON, SIMULATED, eventually

from vramtop.recording.reader import open_recording

# A child that has just begun a session makes the pty on its stdin its controlling terminal.
# A login does not ignore hang-ups, whatever ran the tests (nohup, a service) may.
TAKE_TERMINAL = (
    "import fcntl,os,signal,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGHUP, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A pty with a session leader in it, as a terminal window has."""

    def __init__(self, argv, cwd):
        self.output = b""
        self.master, slave = os.openpty()
        self.process = subprocess.Popen(
            [*PYTHON, TAKE_TERMINAL, *argv], cwd=cwd, start_new_session=True,
            stdin=slave, stdout=slave, stderr=slave,
        )  # fmt: skip
        os.close(slave)

    def read(self, until: bytes) -> bytes:
        deadline = time.monotonic() + LIMIT_S
        start = len(self.output)
        while until not in self.output[start:]:
            left = deadline - time.monotonic()
            assert left > 0, f"no {until!r} in {self.output[start:]!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.output += os.read(self.master, 65536)
                except OSError:
                    assert until in self.output[start:], self.output
        return self.output[start:]

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait(self) -> int:
        """The exit status, after all output was read."""
        with contextlib.suppress(OSError):
            while chunk := os.read(self.master, 65536):
                self.output += chunk
        return self.process.wait(LIMIT_S)

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = os.open(os.devnull, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.master)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def terminal(tmp_path):
    opened = []

    def open_terminal(*argv):
        opened.append(Terminal(list(argv), tmp_path))
        return opened[-1]

    yield open_terminal
    for each in opened:
        each.close()


COUNT = (
    "import os, signal, sys, time\n"
    "count = 0\n"
    "def heard(*_):\n"
    "    global count; count += 1\n"
    "signal.signal({number}, heard)\n"
    "sys.stderr.write('ready\\n')\n"
    "end = time.monotonic() + 10\n"
    "while not count and time.monotonic() < end: time.sleep(0.02)\n"
    "time.sleep(0.3)\n"
    "sys.stderr.write(f'heard {{count}}\\n')\n"
    "sys.exit(7)\n"
)


@pytest.mark.parametrize(("key", "number"), [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)])
def test_a_key_of_the_terminal_reaches_the_command_once(terminal, tmp_path, key, number):
    """The kernel gave it to the whole process group: forwarding it would make it two."""
    script = COUNT.format(number=int(number))
    screen = terminal(*SIMULATED, "-o", "r.parquet", "--", *PYTHON, script)
    screen.read(b"ready\r\n")
    screen.type(key)
    assert b"heard 1\r\n" in screen.read(b"heard ") + screen.read(b"\n")
    assert screen.wait() == 7
    assert screen.output.endswith(b"r.parquet\r\n")
    assert open_recording(tmp_path / "r.parquet").state == "sealed"


def test_a_program_that_dies_of_ctrl_c_says_its_last_words(terminal):
    speak = "import sys,time; sys.stderr.write('ready\\n'); time.sleep(10)"
    screen = terminal(*SIMULATED, "-o", "r.parquet", "--", sys.executable, "-c", speak)
    screen.read(b"ready\r\n")
    screen.type(b"\x03")
    assert screen.wait() == -signal.SIGINT
    assert screen.output.index(b"KeyboardInterrupt") < screen.output.index(b"r.parquet")


def test_all_three_streams_stay_terminals_of_the_real_size(terminal):
    look = (
        "import os, sys, time\n"
        "print([os.isatty(fd) for fd in (0, 1, 2)], [tuple(os.get_terminal_size(fd)) for fd in (1, 2)])\n"
        "print('controlled', os.tcgetpgrp(0) == os.getpgrp(), flush=True)\n"
        "sys.stderr.write('\\x1b[31mno \\\\r is added: a\\nb\\x1b[0m\\n')\n"
        "end = time.monotonic() + 10\n"
        "while tuple(os.get_terminal_size(2)) != (91, 33) and time.monotonic() < end: time.sleep(0.02)\n"
        "print('now', tuple(os.get_terminal_size(2)))\n"
    )
    with_size = 'stty cols 120 rows 44; exec "$@"'
    screen = terminal(
        "/bin/sh", "-c", with_size, "sh", *SIMULATED, "-o", "r.parquet", "--", *PYTHON, look
    )
    screen.read(b"\x1b[0m\r\n")
    assert b"[True, True, True] [(120, 44), (120, 44)]\r\ncontrolled True\r\n" in screen.output
    assert b"added: a\r\nb\x1b[0m\r\n" in screen.output
    fcntl.ioctl(screen.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 91, 0, 0))
    assert screen.wait() == 0
    assert b"now (91, 33)\r\n" in screen.output


def test_the_shell_gets_its_terminal_back_on_ctrl_z_and_goes_on_with_fg(terminal, tmp_path):
    """The job stops as a whole and continues as a whole; nothing of it is stuck."""
    shell = terminal("/bin/bash", "--norc", "--noprofile", "-i")
    work = "import os,sys,time; sys.stderr.write('rea'+'dy\\n'); time.sleep(0.8); sys.stderr.write('fin'+'ished\\n'); sys.exit(6)"
    line = " ".join([*SIMULATED, "-o", "r.parquet", "--", *PYTHON, f'"{work}"'])
    shell.type(b"PS1='$ '\n")
    shell.type(line.encode() + b"\n")
    shell.read(b"ready\r\n")
    time.sleep(0.2)
    shell.type(b"\x1a")
    shell.read(b"Stopped")
    shell.type(b"echo the-$((1+1))-shell\n")
    shell.read(b"the-2-shell")
    shell.type(b"fg\n")
    shell.read(b"finished\r\n")
    shell.read(b"r.parquet\r\n")
    shell.type(b"echo code $?\n")
    shell.read(b"code 6\r\n")
    shell.type(b"exit\n")
    shell.wait()
    assert open_recording(tmp_path / "r.parquet").state == "sealed"


def test_kill_9_of_the_recorder_on_a_terminal_leaves_the_program_speaking(terminal, tmp_path):
    speak = (
        "import os, sys, time\n"
        "for i in range(30):\n"
        "    sys.stderr.write(f'word {i}\\n'); time.sleep(0.02)\n"
        "open('done', 'w').write('yes')\n"
    )
    outer = '"$@"; echo recorder gone; sleep 3'
    screen = terminal(
        "/bin/sh", "-c", outer, "sh", *SIMULATED, "-o", "r.parquet", "--", *PYTHON, speak
    )
    screen.read(b"word 3\r\n")
    (recorder,) = _children_of(screen.process.pid)
    os.kill(recorder, signal.SIGKILL)
    screen.read(b"word 29\r\n")
    eventually((tmp_path / "done").exists)


def _children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii")
    return [int(child) for child in text.split()]


def test_ctrl_c_without_a_command_ends_the_recording_and_tells_where_it_is(terminal, tmp_path):
    screen = terminal(*SIMULATED, "-o", "r.parquet")
    eventually(lambda: list(tmp_path.glob("r.parquet.wal-*")))
    screen.type(b"\x03")
    assert screen.wait() == 0
    assert screen.output.endswith(b"r.parquet\r\n")
    assert open_recording(tmp_path / "r.parquet").state == "sealed"
