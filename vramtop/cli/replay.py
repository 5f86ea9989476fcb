"""`vramtop replay`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vramtop.errors import UsageError
from vramtop.events import Event
from vramtop.units import US_PER_S, format_time

if TYPE_CHECKING:
    from datetime import tzinfo

    from vramtop.blocks import Block
    from vramtop.recording.reader import Recording


@click.command(epilog="Example: vramtop replay run.parquet --events --from oom-60s")
@click.argument("file", type=click.Path(readable=False))
@click.option("--events", is_flag=True, help="Print the events (the default without a terminal).")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@click.option("--from", "from_", metavar="T", help="Print only what is at or after T.")
@click.option("--to", metavar="T", help="End the stream at T.")
@click.option("--at", metavar="T", help="Print who held what at T.")
@click.option("--speed", type=float, metavar="X", help="Seconds of recording per second.")
@click.option(
    "--derived", type=click.Path(dir_okay=False, path_type=Path), metavar="OUT.parquet",
    help="Write per-tick series of phase, risk and verdict.",
)  # fmt: skip
def command(
    file: str,
    events: bool,  # noqa: ARG001 - the viewer will be the other way
    as_json: bool,
    from_: str | None,
    to: str | None,
    at: str | None,
    speed: float | None,
    derived: Path | None,
) -> None:
    """Run a recording through the analyzers again and print what they conclude.

    FILE is a recording, finished or still being written, or - for a stream on stdin. Times are
    absolute, +90s from the first tick, -30s from the last, 50%, 10m ago, or relative to an
    event: oom-30s, oom#2, mark#last+5s.
    """
    from datetime import timezone

    if speed is not None and speed <= 0:
        raise UsageError(
            f"--speed {speed} is not above 0", hint="--speed 60 plays a minute a second"
        )
    if file == "-":
        from vramtop.recording.stream import read_stream

        if from_ or to or at:
            raise UsageError("a stream has no end yet", hint="save it to a file first")
        _print(_run(read_stream(sys.stdin.buffer), derived), timezone.utc, as_json, speed)
        return
    from vramtop.recording.reader import open_recording

    recording = open_recording(file)
    _warn(recording)
    start = _time(from_, recording)
    stop = _time(to, recording)
    if at is not None:
        _print_state(recording, _time(at, recording), as_json=as_json)
        return
    blocks: Iterable[Block] = recording.blocks()
    if stop is not None:
        from vramtop.engine.cut import until

        blocks = until(blocks, stop)
    stream = _run(blocks, derived)
    if start is not None:
        stream = (event for event in stream if event.t_us >= start)
    _print(stream, recording.zone, as_json, speed)


def _warn(recording: Recording) -> None:
    if recording.simulated is not None:
        click.echo(f"SIMULATED: scenario {recording.simulated}, no real GPU", err=True)
    if recording.state == "interrupted":
        click.echo(
            f"{recording.path} was interrupted; `vramtop recover {recording.path}` seals it",
            err=True,
        )


def _run(blocks: Iterable[Block], derived: Path | None) -> Iterator[Event]:
    from vramtop.engine import Engine

    engine = Engine()
    if derived is not None:
        from vramtop.export.derived import write_derived

        yield from write_derived(derived, blocks, engine)
        return
    for block in blocks:
        yield from engine.update(block)
    yield from engine.finish()


def _time(text: str | None, recording: Recording) -> int | None:
    if text is None:
        return None
    from vramtop.engine.times import Span, parse_time

    first, last = recording.first, recording.last
    return parse_time(
        text,
        Span(
            first_us=0 if first is None else first.t_us,
            last_us=0 if last is None else last.t_us,
            zone=recording.zone,
            now_us=time.time_ns() // 1000,
            event_times=lambda kind: [
                event.t_us for event in _run(recording.blocks(), None) if event.kind == kind
            ],
        ),
    )


def _print(stream: Iterable[Event], zone: tzinfo, as_json: bool, speed: float | None) -> None:
    from vramtop.engine.pace import paced
    from vramtop.findings.sentences import sentence

    if speed is not None:
        stream = paced(stream, speed)
    out = sys.stdout
    for event in stream:
        if as_json:
            out.write(json.dumps(event.to_json()) + "\n")
        else:
            out.write(f"{format_time(event.t_us, zone)}  {sentence(event)}\n")
        if speed is not None:
            out.flush()
    out.flush()


def _print_state(recording: Recording, at_us: int | None, *, as_json: bool) -> None:
    from vramtop.engine.state import state_at

    if at_us is None:
        return
    for row in state_at(recording.blocks(), at_us):
        if as_json:
            click.echo(json.dumps(row.to_json()))
        else:
            click.echo(row.as_text())
    click.echo(f"as of {format_time(at_us, recording.zone)} ({at_us / US_PER_S:.3f})", err=True)
