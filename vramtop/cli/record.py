"""`vramtop record`: record, alone or while a command runs. Loads nothing heavy."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vramtop.capture.beside import Beside, record_alone
from vramtop.capture.command import Command, Ended, occupy_closed_standard_streams
from vramtop.capture.companion import Companion, record_action
from vramtop.capture.evidence import Evidence
from vramtop.capture.naming import default_path
from vramtop.capture.session import Session
from vramtop.capture.signals import HeldSignals
from vramtop.cli import options
from vramtop.companions.actions import Rule, parse_rule
from vramtop.errors import UsageError, VramtopError
from vramtop.samples import FAULT, MARK, Observation

if TYPE_CHECKING:
    from vramtop.protocols import Sink, Source

_COMPANION_S = 3.0
"""How long a companion may take to say what it saw last."""


@click.command(
    name="record",
    context_settings={"ignore_unknown_options": False},
    epilog="Example: vramtop record -o run.parquet --interval 0.1 -- python train.py",
)
@click.option("-o", "--output", metavar="FILE", help="The recording; - streams it to stdout.")
@click.option("--interval", callback=options.duration, default="1s", show_default=True, metavar="TIME",
              help="Spacing of ticks.")  # fmt: skip
@click.option(
    "--duration",
    callback=options.duration,
    metavar="TIME",
    help="End the recording after this time.",
)
@click.option("--source", default="nvml", show_default=True, metavar="SRC",
              help="nvml, or sim:SCENARIO.")  # fmt: skip
@click.option("--gpu", "gpus", type=click.IntRange(0), multiple=True, metavar="I",
              help="Record this GPU only; may be repeated.")  # fmt: skip
@click.option("--pcie", is_flag=True, help="PCIe throughput too; blocks 20 ms per direction.")
@click.option("--seed", type=int, default=0, help="Of a simulated source.")
@click.option("--pace", callback=options.pace, default="1", show_default=True,
              help="Simulated seconds per second, or max; simulated sources only.")  # fmt: skip
@click.option("--mark", "marks", multiple=True, metavar="TEXT", help="A note at the beginning.")
@click.option("--strict", is_flag=True, help="Do not run COMMAND without a recording.")
@click.option("--watch", is_flag=True, help="Say on stderr when risk or verdict change.")
@click.option("--on-risk", "on_risk", multiple=True, metavar="LEVEL=ACTION",
              help="signal:NAME to COMMAND, or exec:CMD, once per episode.")  # fmt: skip
@click.argument("command_line", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def command(
    output: str | None,
    interval: float,
    duration: float | None,
    source: str,
    gpus: tuple[int, ...],
    pcie: bool,
    seed: int,
    pace: float | None,
    marks: tuple[str, ...],
    strict: bool,
    watch: bool,
    on_risk: tuple[str, ...],
    command_line: tuple[str, ...],
) -> int:
    """Record until Ctrl-C, SIGTERM or --duration, or while COMMAND runs.

    COMMAND keeps its terminal, stdin, stdout, signals and exit code, and runs to its end
    whatever happens to the recording. What it writes to stderr is read along for
    out-of-memory messages. Without COMMAND the path is printed last on stdout.
    """
    occupy_closed_standard_streams()
    rules = tuple(map(parse_rule, on_risk))
    streaming = output == "-"
    _check_usage(streaming, rules, command_line, watching=watch)
    path = default_path(os.environ) if output is None else Path(output)
    signals = HeldSignals()
    program = Command(command_line, signals) if command_line else None

    def open_source() -> Source:
        from vramtop.enrich.process_facts import read_facts
        from vramtop.sources import open_source

        return open_source(
            source, interval_s=interval, gpus=gpus, seed=seed, pace=pace, pcie=pcie,
            facts=read_facts,
        )  # fmt: skip

    def open_sink() -> Sink:
        if streaming:
            from vramtop.recording.stream import StreamWriter

            return StreamWriter(os.fdopen(os.dup(1), "wb"))
        from vramtop.recording.writer import RecordingWriter

        return RecordingWriter(path, on_fault=_say)

    companion: Companion | None = None
    evidence: Evidence | None = None

    def on_companion_lost(how: str) -> None:
        # Whoever relies on an action must hear that none will come.
        text = f"the process for --watch ended too early ({how}); no more lines or actions from it"
        session.observe(Observation(what=FAULT, name="companion", text=text))
        _say(text)

    def on_change() -> None:
        nonlocal companion
        if companion is None and session.ticks and (watch or rules) and session.error is None:
            arguments = [str(path.absolute()), *(f"--on-risk={rule}" for rule in rules)]
            companion = Companion(
                "vramtop.companions.watch",
                arguments,
                lambda message: record_action(message, session, program),
                lost=on_companion_lost,
            )
            if not companion.start(signals):
                _say("the process for --watch could not be started")
        signals.wake()

    session = Session(
        open_source=open_source,
        open_sink=open_sink,
        duration_s=duration,
        on_change=on_change,
        look=lambda tick: None if evidence is None else evidence.look(tick),
    )
    for text in marks:
        session.observe(Observation(what=MARK, text=text))
    if program is None:
        sealed = record_alone(session, signals)
        _finish(companion)
        if session.error is not None:
            raise session.error
        if not streaming:
            click.echo(path)
        return 0 if sealed else 1
    evidence = Evidence(program, session.observe, os.environ, all_gpus=not gpus)
    beside = Beside(
        program, session, signals, evidence,
        warn=_warn, stdout_is_ours=streaming, strict=strict,
    )  # fmt: skip
    beside.start()
    ended = beside.run()
    _finish(companion)
    if session.ticks and not streaming:
        with contextlib.suppress(OSError):
            click.echo(path, err=True)
    return _exit_code(program, ended, failed=strict and session.error is not None)


def _check_usage(
    streaming: bool, rules: tuple[Rule, ...], command_line: tuple[str, ...], *, watching: bool
) -> None:
    if streaming and (watching or rules):
        raise UsageError("--watch needs a file to follow", hint="name one with -o")
    if streaming and os.isatty(1):
        raise UsageError("a recording is no text for a terminal", hint="… -o - | vramtop replay -")
    if not command_line and any(rule.kind == "signal" for rule in rules):
        raise UsageError("there is no COMMAND to signal", hint="use exec:CMD, or add -- COMMAND")


def _say(sentence: str) -> None:
    # Words to a stderr that is gone must not cost the recording, or COMMAND its parent.
    with contextlib.suppress(OSError):
        click.echo(f"vramtop: {sentence}", err=True)


def _warn(error: VramtopError) -> None:
    _say(f"not recording: {error.message}" + (f" (hint: {error.hint})" if error.hint else ""))


def _finish(companion: Companion | None) -> None:
    if companion is not None and not companion.wait(_COMPANION_S):
        _say("the process for --watch did not end in time and was killed")
        companion.stop()


def _exit_code(program: Command, ended: Ended, *, failed: bool) -> int:
    """End as COMMAND did: by its signal, or with its exit code."""
    sys.stdout.flush()
    sys.stderr.flush()
    if failed and ended.exit_code == 0:
        return 1
    return program.end_alike(ended)
