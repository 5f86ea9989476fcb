"""What a process is, from `/proc`: read once, when it is first seen on a GPU."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Sequence
from pathlib import Path

from vramtop.enrich.secrets import mask_arguments
from vramtop.text import LINE_CHARACTERS, NAME_CHARACTERS, decode, sanitise

_READ_BYTES = 65536
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*t?")
_SHELLS = frozenset(("sh", "bash", "dash", "zsh"))
_WITH_VALUE = frozenset(("-X", "-W", "--check-hash-based-pycs"))


def read_facts(
    pid: int, start_time: int | None = None, *, proc: Path = Path("/proc")
) -> dict[str, object]:
    """Facts about one process, sanitised and with secrets masked.

    Args:
        pid: In this PID namespace.
        start_time: Field 22 of its stat file, if known; facts of another process that got
            the same PID meanwhile are not given.
        proc: Where /proc is.

    Returns:
        name, comm, cmdline, exe, uid, user, ppid, pgrp, as far as each can be read; empty if
        the process is gone.
    """
    folder = proc / str(pid)
    arguments = _arguments(_read(folder / "cmdline"))
    uid = _uid(_read(folder / "status"))
    exe = _link(folder / "exe")
    # Last, so that a PID that changed hands while we read is noticed.
    stat = _stat(_read(folder / "stat"))
    if stat is None or (start_time is not None and stat["start_time"] != start_time):
        return {}
    comm = str(stat["comm"])
    facts: dict[str, object] = {name: stat[name] for name in ("comm", "ppid", "pgrp")}
    facts["name"] = sanitise(display_name(arguments, comm), NAME_CHARACTERS) or None
    facts["cmdline"] = command_line(arguments) if arguments else None
    facts["exe"] = exe
    facts["uid"] = uid
    facts["user"] = None if uid is None else user_name(uid)
    return {name: value for name, value in facts.items() if value is not None}


def display_name(arguments: Sequence[str], comm: str) -> str:
    """What people call the process: the script or module rather than the interpreter.

    >>> display_name(["/usr/bin/python3.11", "-u", "-X", "dev", "src/train.py", "--lr", "1"], "python3.11")
    'train.py'
    >>> display_name(["python", "-m", "vllm.entrypoints.api_server"], "python")
    'vllm.entrypoints.api_server'
    >>> display_name(["VLLM::EngineCore"], "VLLM::EngineCor"), display_name([], "Xorg")
    ('VLLM::EngineCore', 'Xorg')
    >>> display_name(["sshd: me@pts/0"], "sshd"), display_name(["python", "-c", "pass"], "python")
    ('sshd: me@pts/0', 'python -c')
    """
    if not arguments or not arguments[0]:
        return comm
    first = arguments[0]
    if " " in first and not first.startswith("/"):
        # A title that the program gave itself (setproctitle).
        return first
    program = first.rpartition("/")[2].lstrip("-") or comm
    if _PYTHON.fullmatch(program) or program in _SHELLS:
        return _script(arguments[1:], program)
    return program


def _script(arguments: Sequence[str], interpreter: str) -> str:
    skip = False
    for position, argument in enumerate(arguments):
        if skip:
            skip = False
        elif argument == "-m" and position + 1 < len(arguments):
            return arguments[position + 1]
        elif argument == "-c":
            return f"{interpreter} -c"
        elif argument in _WITH_VALUE:
            skip = True
        elif not argument.startswith("-"):
            return argument.rpartition("/")[2] or interpreter
    return interpreter


def command_line(arguments: Sequence[str]) -> str:
    """The command as one line, secrets masked, quoted where it would read wrongly.

    >>> command_line(["train.py", "--api-key", "abc", "two words"])
    "train.py --api-key *** 'two words'"
    """
    parts = []
    for argument in mask_arguments(arguments):
        flat = sanitise(argument)
        parts.append(f"'{flat}'" if not flat or " " in flat else flat)
    return sanitise(" ".join(parts), LINE_CHARACTERS)


def user_name(uid: int) -> str | None:
    """Name of a user; None inside containers that do not know it."""
    try:
        return sanitise(pwd.getpwuid(uid).pw_name, NAME_CHARACTERS)
    except KeyError:
        return None


def _arguments(raw: bytes | None) -> list[str]:
    if not raw:
        return []
    # A program that writes its title over its arguments leaves zeros behind it.
    return [decode(part) for part in raw.rstrip(b"\0").split(b"\0")]


def _uid(status: bytes | None) -> int | None:
    """The real user. Not the owner of the folder, which is root where core dumps are off."""
    for line in (status or b"").splitlines():
        if line.startswith(b"Uid:"):
            return int(line.split()[1])
    return None


def _stat(line: bytes | None) -> dict[str, object] | None:
    """comm, ppid, pgrp and start_time from a stat file, whose name may contain anything."""
    head, _, tail = (line or b"").rpartition(b")")
    fields = tail.split()
    if len(fields) < 20 or not all(fields[n].lstrip(b"-").isdigit() for n in (1, 2, 19)):
        return None
    return {
        "comm": sanitise(decode(head.partition(b"(")[2]), NAME_CHARACTERS),
        "ppid": int(fields[1]),
        "pgrp": int(fields[2]),
        "start_time": int(fields[19]),
    }


def _read(path: Path) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(fd, _READ_BYTES)
    except OSError:
        return None
    finally:
        os.close(fd)


def _link(path: Path) -> str | None:
    try:
        return sanitise(str(path.readlink()))
    except OSError:
        return None
