"""What processes are called: short, recognisable, never guessed."""

from __future__ import annotations

from vramtop.report.text import clean


def short_command(name: str | None, command: str | None) -> str | None:
    """The program and what it runs, without paths and options; None if nothing is known.

    >>> short_command("python3.11", "/usr/bin/python3.11 -u /home/ada/train.py --lr 1e-4")
    'python3.11 train.py'
    >>> short_command("python", "python -m vllm.entrypoints.api_server"), short_command("a b", None)
    ('python -m vllm.entrypoints.api_server', 'a b')
    >>> short_command("/opt/conda/bin/python", None)
    'python'
    >>> short_command("Xorg", "/usr/lib/xorg/Xorg :0"), short_command("python", "python -c x()")
    ('Xorg', 'python -c')
    """
    words = (command or "").split()
    if not words:
        if name is None or not name.startswith("/"):
            return name
        return name.rsplit("/", 1)[-1] or name
    program = words[0].rsplit("/", 1)[-1] or words[0]
    if not program.startswith(("python", "pypy")):
        runs = words[1:2] if program in {"vllm", "ollama", "torchrun", "accelerate"} else []
        return " ".join([program, *(word for word in runs if not word.startswith("-"))])
    for place, word in enumerate(words[1:], start=1):
        if word == "-c":
            return f"{program} -c"
        if word == "-m":
            return " ".join([program, *words[place : place + 2]])
        if not word.startswith("-"):
            return f"{program} {word.rsplit('/', 1)[-1]}"
    return program


def process_label(name: str | None, command: str | None, pid: int | None) -> str:
    """What a process is called in sentences and tables; cleaned, not escaped.

    >>> process_label("python", "python train.py", 4242), process_label(None, None, 7)
    ('python train.py (pid 4242)', 'pid 7')
    >>> process_label(None, None, None)
    'a process that is not known'
    """
    short = short_command(name, command)
    if pid is None:
        return "a process that is not known" if short is None else clean(short, 60)
    return f"pid {pid}" if short is None else f"{clean(short, 60)} (pid {pid})"
