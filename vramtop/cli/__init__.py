"""The command line: parse, call one library function, print.

Each command has a file of its own, imported only when it is run, so that `vramtop --help`
loads nothing heavy. This is the only place that handles `VramtopError`.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import click

from vramtop import __version__
from vramtop.errors import VramtopError

# Name, module, one-line help. A literal, so that the list costs no imports.
COMMANDS: dict[str, tuple[str, str]] = {
    "live": ("vramtop.cli.live", "Watch the GPUs of this machine."),
    "record": ("vramtop.cli.record", "Record, alone or while a command runs."),
    "replay": ("vramtop.cli.replay", "Run a recording through the analyzers again."),
    "report": ("vramtop.cli.report", "Write a post-mortem of a recording."),
    "info": ("vramtop.cli.info", "Say what a recording holds."),
    "verify": ("vramtop.cli.verify", "Prove that a recording replays identically."),
    "recover": ("vramtop.cli.recover", "Seal what a crash left behind."),
    "import": ("vramtop.cli.import_", "Make a recording from what other tools logged."),
    "explain": ("vramtop.cli.explain", "Say what a training log tells about running out."),
    "simulate": ("vramtop.cli.simulate", "Make a simulated recording."),
}

_OWN_OPTIONS = ("-h", "--help", "--version")
_NOT_FOR_RECORDING = ("matplotlib", "numpy", "polars", "pyarrow")


class LazyGroup(click.Group):
    """A group whose commands are imported when they are asked for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:  # noqa: D102 - click's
        # `vramtop --record run.parquet` is `vramtop live --record run.parquet`.
        if not args or (args[0].startswith("-") and args[0] not in _OWN_OPTIONS):
            args = ["live", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002, D102 - click's
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002, D102
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002, D102
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    subcommand_metavar="[COMMAND] [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: vramtop record -- python train.py",
)
@click.version_option(__version__, "--version", prog_name="vramtop")
def group() -> None:
    """Record what holds GPU memory, survive the crash, explain why memory ran out.

    Without a command, vramtop watches the GPUs of this machine, as vramtop live does.
    """


def fail(error: VramtopError) -> int:
    """Print what happened and the hint on stderr; returns the exit code."""
    click.echo(f"vramtop: {error.message}", err=True)
    click.echo(f"hint: {error.hint}", err=True)
    return error.exit_code


def main(args: list[str] | None = None) -> Any:
    """Run the command line and exit with the contract's code: 0, 1 or 2."""
    _open_closed_streams()
    try:
        code = group.main(args=args, prog_name="vramtop", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except VramtopError as error:
        sys.exit(fail(error))
    except click.UsageError as error:
        click.echo(f"vramtop: {error.format_message()}", err=True)
        where = error.ctx.command_path if error.ctx is not None else "vramtop"
        click.echo(f"hint: {where} --help", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        # A recorder may be installed alone; what is missing then is one of the heavy packages.
        package = (error.name or "").partition(".")[0]
        if package not in _NOT_FOR_RECORDING:
            raise
        missing = VramtopError(
            f"this command needs {package}, and only the recorder is installed here",
            hint="pip install vramtop, here or where you read the recording",
        )
        sys.exit(fail(missing))
    except click.exceptions.Exit as request:
        sys.exit(request.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our stdout went away (`| head`).
        _drop_stdout()
        sys.exit(0)
    except OSError as error:
        # Files that a command opens are its own to judge; what is left is a full disk behind `>`.
        _drop_stdout()
        where = error.filename or "the output"
        sys.exit(
            fail(
                VramtopError(
                    f"cannot read or write {where}: {error.strerror or error}",
                    hint="look at the space and the permissions there",
                )
            )
        )


def _open_closed_streams() -> None:
    """Give `print` somewhere to write to if we were started with a stream closed (`>&-`)."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as we run
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115


def _drop_stdout() -> None:
    """Python flushes stdout at exit, and would complain once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
