"""`vramtop import`: a recording from what other tools logged."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from vramtop.errors import UsageError
from vramtop.units import US_PER_S, format_duration, parse_size


@click.command(
    "import",
    epilog="Example: vramtop import gpu_log.csv apps_log.csv -o run.parquet --zone Europe/Berlin",
)
@click.argument(
    "logs", metavar="LOG…", nargs=-1, required=True, type=click.Path(readable=False, path_type=Path)
)
@click.option(
    "-o", "--output", required=True, metavar="FILE", type=click.Path(path_type=Path),
    help="The recording to write.",
)  # fmt: skip
@click.option(
    "--columns", metavar="LIST",
    help="Names of the columns of a CSV without header, such as timestamp,memory.used; - leaves one out.",
)  # fmt: skip
@click.option(
    "--zone", metavar="ZONE", help="Time zone of the stamps: Europe/Berlin, +09:00. Else UTC."
)
@click.option(
    "--total", metavar="SIZE", help="Memory of each GPU, such as 24GiB, where no log has it."
)
@click.option("--host", metavar="NAME", help="Name of the machine.")
@click.option("--form", metavar="FORM", help="Form of the logs, if it is not recognised.")
@click.option(
    "--interval", metavar="S", type=float, help="Seconds between the polls of a log without times."
)
@click.option("--start", metavar="TIME", help="Time of the first poll of a log without dates.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def command(
    logs: tuple[Path, ...],
    output: Path,
    columns: str | None,
    zone: str | None,
    total: str | None,
    host: str | None,
    form: str | None,
    interval: float | None,
    start: str | None,
    force: bool,
) -> None:
    """Make a recording from what other tools logged.

    Reads nvidia-smi (--query-gpu and --query-compute-apps csv, the plain table, dmon, pmon),
    gpustat --json, vramtop 0.1.0 --export-csv, and a plain CSV with
    t_s,gpu,pid,used_mib,total_mib,util_pct. Several logs of one run are laid side by side by
    time. What was assumed is said on stderr and kept in the recording.
    """
    from vramtop.recording.store import write_recording
    from vramtop.sources.logs import LogOptions, open_log

    if any(log.resolve() == output.resolve() for log in logs):
        raise UsageError(f"{output} is a log and the output", hint="give -o another name")
    names = tuple(name.strip().lower() for name in columns.split(",")) if columns else ()
    source = open_log(
        logs,
        LogOptions(
            columns=names,
            zone=zone,
            total_bytes=parse_size(total) if total else None,
            host=host,
            form=form,
            interval_s=interval,
            start=start,
            recording=output.stem,
        ),
    )
    with contextlib.closing(source):
        write_recording(output, source.ticks(), overwrite=force)
    summary = source.summary
    for text in summary.said:
        click.echo(text, err=True)
    span_us = (summary.last_t_us or 0) - (summary.first_t_us or 0)
    click.echo(
        f"{'+'.join(source.forms)}: {summary.ticks} ticks over"
        f" {format_duration(span_us / US_PER_S)}, {summary.gpus} GPUs,"
        f" {summary.processes} processes",
        err=True,
    )
    click.echo(output)
