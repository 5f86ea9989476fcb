"""COMMAND: the program a recording is made beside. Started, signalled, waited for, mirrored.

Towards the shell, vramtop behaves as COMMAND would have: the same process group and
terminal, stopped when it is stopped, ended as it ended, by the same signal if it was one.
"""

from __future__ import annotations

import errno
import os
import re
import resource
import shutil
import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from vramtop.capture.signals import HeldSignals
from vramtop.errors import CommandError
from vramtop.samples import EXIT, Observation


@dataclass(frozen=True, slots=True)
class Ended:
    """How COMMAND ended: with an exit code, or by a signal; the other is None."""

    exit_code: int | None
    signal: int | None

    @property
    def shell_code(self) -> int:
        """What a shell would report: the exit code, or 128 + signal."""
        if self.signal is not None:
            return 128 + self.signal
        return 0 if self.exit_code is None else self.exit_code


def find_program(name: str) -> str:
    """The file that a shell would run for `name`.

    Raises:
        CommandError: not found (exit code 127), or not executable (126).
    """
    found = shutil.which(name)
    if found is not None:
        return found
    path = name if "/" in name else None
    if path is None or not os.path.lexists(path):
        raise CommandError(f"{name}: command not found", code=127)
    why = "is a directory" if Path(path).is_dir() else "permission denied"
    raise CommandError(f"{name}: {why}", code=126)


_SHELL = re.compile(r"(ba|c|da|fi|k|mk|tc|z)?sh|su")
_PROMPT = re.compile(r"(b|i|pt)?python[0-9.]*|R|julia")


def is_for_typing(argv: Sequence[str]) -> bool:
    """Whether `argv` starts a shell or an interpreter for a person to type into.

    bash does its job control through fd 2, and `less`, the pager of all of them, takes its keys
    from the terminal that fd 2 is: that must then be the real one.

    >>> [is_for_typing(line.split()) for line in ("bash -i", "sh -c x", "bash a.sh", "zsh")]
    [True, False, False, True]
    >>> [is_for_typing(line.split()) for line in ("python3", "ipython", "python -m x", "python a")]
    [True, True, False, False]
    """
    name, arguments = Path(argv[0]).name, argv[1:]
    short = "".join(each[1:] for each in arguments if each[:1] == "-" and each[:2] != "--")
    if _SHELL.fullmatch(name):
        if "c" in short or "--command" in arguments:
            return False
        if name == "su" or "i" in short:
            return True
    elif not _PROMPT.fullmatch(name) or {"c", "e", "m"} & set(short):
        return False
    return all(each.startswith("-") for each in arguments)


def _start_failed(name: str, error: OSError) -> CommandError:
    code = 127 if isinstance(error, FileNotFoundError) else 126
    return CommandError(f"{name}: {error.strerror}", code=code)


class Command:
    """One program, from its start to its end.

    Args:
        argv: The program and its arguments.
        signals: The recorder's own, for what the program must inherit instead.

    Raises:
        CommandError: there is no such program, or it may not be run.
    """

    def __init__(self, argv: Sequence[str], signals: HeldSignals) -> None:
        self.argv = list(argv)
        self.pid: int | None = None
        self.start_time: int | None = None
        self.ended: Ended | None = None
        self.stopped = False
        self._program = find_program(argv[0])
        self._signals = signals
        self._lock = threading.Lock()  # between a kill and the reaping that frees the PID

    def replace_us(self) -> NoReturn:
        """Become the program: without a recorder there is nothing to stay for.

        Raises:
            CommandError: it could not be started.
        """
        self._signals.release()
        try:
            try:
                os.execv(self._program, self.argv)  # noqa: S606 - what the user asked for
            except OSError as error:
                if error.errno != errno.ENOEXEC:
                    raise
                # A script without #!, which a shell would run.
                os.execv("/bin/sh", ["sh", self._program, *self.argv[1:]])  # noqa: S606
        except OSError as error:
            raise _start_failed(self.argv[0], error) from error

    def start(self, *, stderr_fd: int | None, stdout_to_stderr: bool = False) -> None:
        """Start the program in our process group, with our stdin, stdout and terminal.

        Args:
            stderr_fd: What its stderr shall be; None leaves it ours.
            stdout_to_stderr: Our stdout is taken by the recording.

        Raises:
            CommandError: it could not be started.
        """
        actions: list[tuple[int, int, int]] = []
        if stderr_fd is not None:
            actions.append((os.POSIX_SPAWN_DUP2, stderr_fd, 2))
        if stdout_to_stderr:
            actions.append((os.POSIX_SPAWN_DUP2, 2, 1))
        try:
            self.pid = self._spawn(self._program, self.argv, actions)
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise _start_failed(self.argv[0], error) from error
            script = ["sh", self._program, *self.argv[1:]]
            self.pid = self._spawn("/bin/sh", script, actions)
        self.start_time = start_time_of(self.pid)

    def _spawn(self, path: str, argv: list[str], actions: list[tuple[int, int, int]]) -> int:
        return os.posix_spawn(
            path,
            argv,
            os.environ,
            file_actions=actions,
            setsigmask=sorted(self._signals.original_mask),
            setsigdef=sorted(self._signals.restored_to_default),
        )

    def send(self, number: int) -> bool:
        """Send a signal, unless the program has ended; returns whether it was sent."""
        with self._lock:
            if self.pid is None or self.ended is not None:
                return False
            try:
                os.kill(self.pid, number)
            except PermissionError:  # it runs as another user (sudo): not ours to signal
                return False
            return True

    def look(self) -> None:
        """Take notice of what has become of the program (`ended`, `stopped`); never waits."""
        with self._lock:
            while self.pid is not None and self.ended is None:
                status = os.waitid(
                    os.P_PID, self.pid, os.WEXITED | os.WSTOPPED | os.WCONTINUED | os.WNOHANG
                )
                if status is None:
                    return
                if status.si_code == os.CLD_EXITED:
                    self.ended = Ended(status.si_status, None)
                elif status.si_code in {os.CLD_KILLED, os.CLD_DUMPED}:
                    self.ended = Ended(None, status.si_status)
                else:
                    self.stopped = status.si_code == os.CLD_STOPPED

    def stop_with(self, number: int) -> None:
        """Stop as the program was stopped, so that the shell gets its terminal back.

        Returns when somebody continues us; the program is then continued too.
        """
        self._signals.raise_on_self(number)
        self.continue_()
        self.stopped = False

    def continue_(self) -> None:
        """Continue the program if it is stopped."""
        if self.pid is not None and state_of(self.pid) == "T":
            self.send(signal.SIGCONT)

    def exit_observation(self, ended: Ended) -> Observation:
        """The record of its end."""
        data: dict[str, object] = (
            {"exit_code": ended.exit_code} if ended.signal is None else {"signal": ended.signal}
        )
        return Observation(
            what=EXIT,
            pid=self.pid,
            start_time=self.start_time,
            name=Path(self.argv[0]).name,
            data=data,
        )

    def end_alike(self, ended: Ended) -> int:
        """End this process as the program ended; returns an exit code if that has no effect.

        A death by signal is repeated, so that a shell, `wait` or a scheduler sees the same.
        A process that is number 1 of a container cannot die that way: 128 + signal.
        """
        if ended.signal is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_CORE)
            # 1 is the limit at which the kernel also skips a core handler: the core that
            # matters is the program's.
            soft = 1 if hard == resource.RLIM_INFINITY else min(1, hard)
            resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
            self._signals.raise_on_self(ended.signal)
        return ended.shell_code


def _stat_fields(pid: int) -> list[str]:
    """Fields of `/proc/PID/stat` from the third on; empty when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return []
    return stat.rpartition(")")[2].split()


def start_time_of(pid: int) -> int | None:
    """Clock ticks since boot at which `pid` started; None if unknown."""
    fields = _stat_fields(pid)
    return int(fields[19]) if len(fields) > 19 else None


def state_of(pid: int) -> str | None:
    """The state letter of `pid` (`T` for stopped); None if unknown."""
    fields = _stat_fields(pid)
    return fields[0] if fields else None


def occupy_closed_standard_streams() -> None:
    """Keep files we open off descriptors 0 to 2 when we were started with them closed.

    What takes their place is closed again in the program we start.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # noqa: PERF203 - three of them
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
