"""`vramtop live`."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import click

from vramtop.cli import options
from vramtop.units import format_time


@click.command(epilog="Example: vramtop live --source sim:training-oom --duration 60")
@click.option("--source", "spec", default="nvml", metavar="SRC", help="nvml, or sim:SCENARIO.")
@click.option("--interval", callback=options.duration, default="1s", show_default=True,
              metavar="TIME", help="Spacing of ticks.")  # fmt: skip
@click.option("--duration", callback=options.duration, metavar="TIME", help="End after this time.")
@click.option(
    "--gpu", "gpus", type=click.IntRange(0), multiple=True, metavar="I", help="Only these GPUs."
)
@click.option("--seed", type=int, default=0, help="Of a simulated source.")
@click.option("--pace", callback=options.pace, default="1", show_default=True,
              help="Simulated seconds per second, or max; simulated sources only.")  # fmt: skip
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Also record the same ticks, with the digest of what was concluded.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--no-kill", is_flag=True, help="Never signal a process (this view never does).")
@click.option("--accessible", is_flag=True, help="Words only (this view has nothing else).")
def command(
    spec: str = "nvml",
    interval: float = 1.0,
    duration: float | None = None,
    gpus: tuple[int, ...] = (),
    seed: int = 0,
    pace: float | None = 1.0,
    record: Path | None = None,
    as_json: bool = False,
    no_kill: bool = False,  # noqa: ARG001 - nothing here signals anybody
    accessible: bool = False,  # noqa: ARG001 - nothing here is drawn
) -> None:
    """Watch the GPUs of this machine: what starts, grows, changes and runs out, as it happens.

    A line per event, until Ctrl-C.
    """
    from datetime import datetime, timezone

    from vramtop.engine import Engine
    from vramtop.engine.live import watch
    from vramtop.enrich.process_facts import read_facts
    from vramtop.findings.sentences import sentence
    from vramtop.sources import open_source

    source = open_source(
        spec, interval_s=interval, gpus=gpus, seed=seed, pace=pace, facts=read_facts
    )
    sink = None
    if record is not None:
        from vramtop.recording.writer import RecordingWriter

        sink = RecordingWriter(record)
    if spec.startswith("sim:"):
        click.echo(f"SIMULATED: {spec}, no real GPU", err=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        # An exception in mid-tick could leave the digest behind the recording.
        signal.signal(number, lambda *_: source.close())
    zone = datetime.now().astimezone().tzinfo or timezone.utc
    for events in watch(source, Engine(), sink=sink, duration_s=duration):
        for event in events:
            if as_json:
                sys.stdout.write(json.dumps(event.to_json()) + "\n")
            else:
                sys.stdout.write(f"{format_time(event.t_us, zone)}  {sentence(event)}\n")
        if events:
            sys.stdout.flush()
    if record is not None:
        click.echo(str(record), err=True)
