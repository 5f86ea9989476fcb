"""`vramtop simulate`: make a simulated recording."""

from __future__ import annotations

import os
from pathlib import Path

import click

from vramtop.cli import options
from vramtop.errors import RecordingError, UsageError
from vramtop.sources.sim import SCENARIOS, SimSource


@click.command(
    epilog="Example: vramtop simulate training-oom --seed 7 -o oom.parquet",
)
@click.argument("scenario", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The recording to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another run of the kind.")
@click.option(
    "--duration",
    callback=options.duration,
    metavar="TIME",
    help="Simulated time, such as 600 or 10m.",
)
@click.option(
    "--interval",
    callback=options.duration,
    default="1s",
    show_default=True,
    metavar="TIME",
    help="Spacing of ticks, such as 0.1.",
)
@click.option("--force", is_flag=True, help="Replace the output if it exists.")
@click.option("--list", "listing", is_flag=True, help="Print the scenarios, one a line.")
def command(
    scenario: str | None,
    output: Path | None,
    seed: int,
    duration: float | None,
    interval: float,
    force: bool,
    listing: bool,
) -> None:
    """Make a simulated recording of SCENARIO.

    The recording says that it is simulated, and carries its ground truth. The same scenario,
    seed, interval and duration give the same file to the last byte.
    """
    if listing:
        width = max(map(len, SCENARIOS))
        for known in SCENARIOS.values():
            click.echo(f"{known.name:<{width}}  {known.text}")
        return
    if scenario is None:
        raise UsageError("no scenario is named", hint="vramtop simulate --list names them all")
    source = SimSource(
        scenario,
        seed=seed,
        interval_s=interval,
        pace=None,
        duration_s=duration,
    )
    if output is None:
        raise UsageError("no output is given", hint="name the recording to write with -o FILE")
    if os.path.lexists(output) and not force:
        raise RecordingError(
            f"{output} exists already", hint="choose another file with -o, or add --force"
        )
    from vramtop.recording.store import write_recording

    count = write_recording(
        output, source.ticks(), overwrite=force, recording_id=source.recording_id
    )
    click.echo(f"simulated {scenario}, seed {seed}: {count} ticks, nothing measured", err=True)
    click.echo(str(output))
