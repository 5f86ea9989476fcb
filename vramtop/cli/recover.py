"""`vramtop recover`: seal what a crash left behind."""

from __future__ import annotations

from pathlib import Path

import click

from vramtop.units import format_time


@click.command(epilog="Example: vramtop recover run.parquet")
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the recovered recording there and leave FILE as it is.",
)
def command(file: Path, output: Path | None) -> None:
    """Seal an interrupted recording; say what was found and what was lost.

    Reading a recording never needs this: it makes the file whole for other Parquet readers.
    """
    from vramtop.recording.reader import open_recording
    from vramtop.recording.recover import recover

    recovery = recover(file, output)
    for sentence in recovery.lost:
        click.echo(sentence, err=True)
    if recovery.last is None:
        click.echo("it holds no tick", err=True)
    else:
        zone = open_recording(recovery.path).zone
        click.echo(
            f"{recovery.ticks} ticks, {recovery.ticks_added} of them from the log; the last, "
            f"{recovery.last.seq}, is of {format_time(recovery.last.t_us, zone)}",
            err=True,
        )
    click.echo(str(recovery.path))
