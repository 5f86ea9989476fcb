"""`vramtop replay`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vramtop.errors import UsageError
from vramtop.events import Event
from vramtop.units import US_PER_S, format_bytes, format_time, parse_size

if TYPE_CHECKING:
    from datetime import tzinfo

    from vramtop.blocks import Block
    from vramtop.engine.whatif import WhatIf


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
@click.option(
    "--changepoints", "method", metavar="METHOD",
    help="Find changepoints afterwards: ruptures:l2, l1, rbf or normal; crops: print how many "
    "there are if changes up to a size are ignored.",
)  # fmt: skip
@click.option(
    "--capacity", metavar="SIZE", help="What if every GPU had so much memory, such as 40GiB?"
)
@click.option(
    "--set", "settings", multiple=True, metavar="ANALYZER.PARAM=VALUE",
    help="Judge with another parameter, such as risk.critical_at=0.8; may be repeated.",
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
    method: str | None,
    capacity: str | None,
    settings: tuple[str, ...],
) -> None:
    """Run a recording through the analyzers again and print what they conclude.

    FILE is a recording, finished or still being written, a directory with one in it, or - for a
    stream on stdin (the times of which count from its beginning). Times are
    absolute, +90s from the first tick, -30s from the last, 50%, 10m ago, or relative to an
    event: oom-30s, oom#2, mark#last+5s.
    """
    if speed is not None and not speed > 0:
        raise UsageError(
            f"--speed {speed} is not above 0", hint="--speed 60 plays a minute a second"
        )
    if derived is not None:
        _check_derived(derived, Path(file))
    if method is not None:
        from vramtop.engine.posthoc import check_method

        check_method(method)
    if at is not None and settings:
        raise UsageError("--at shows readings, which --set does not change", hint="leave one away")
    what_if = _what_if(capacity, settings)
    played = _stream() if file == "-" else _recording(Path(file))
    if what_if is not None:
        click.echo(what_if.conditions(), err=True)
        played = _under(played, what_if)
    start, stop = _time(from_, played), _time(to, played)
    if at is not None:
        _print_state(played, _time(at, played), as_json=as_json)
        return
    blocks = played.blocks()
    if stop is not None:
        from vramtop.engine.cut import until

        blocks = until(blocks, stop)
    if method == "crops":
        _print_sensitivities(blocks, as_json=as_json)
        return
    stream = _run(blocks, derived, method, what_if)
    if start is not None:
        stream = (event for event in stream if event.t_us >= start)
    _print(stream, played.zone, as_json, speed)
    if what_if is not None:
        for line in what_if.summary(played.zone):
            click.echo(line, err=True)


def _what_if(capacity: str | None, settings: tuple[str, ...]) -> WhatIf | None:
    if capacity is None and not settings:
        return None
    from vramtop.engine.whatif import WhatIf, parse_settings

    size = None if capacity is None else parse_size(capacity)
    return WhatIf(size, parse_settings(settings))


def _under(played: _Played, what_if: WhatIf) -> _Played:
    """The same recording under other conditions."""
    return replace(played, blocks=lambda: what_if.blocks(played.blocks()), what_if=what_if)


def _check_derived(derived: Path, file: Path) -> None:
    """The series replace a file that is there, but no recording and no device."""
    if derived.exists() and file.exists() and derived.samefile(file):
        raise UsageError(f"{derived} is the recording", hint="give --derived another name")
    if derived.exists() and not derived.is_file():
        raise UsageError(f"{derived} is no plain file", hint="give --derived another name")


@dataclass(slots=True)
class _Played:
    """What is replayed: `blocks` may be asked for once only if it is a stream (`last_us` None)."""

    blocks: Callable[[], Iterable[Block]]
    zone: tzinfo
    first_us: int
    last_us: int | None
    what_if: WhatIf | None = None


def _recording(path: Path) -> _Played:
    from vramtop.recording.reader import open_recording

    if path.is_dir():
        from vramtop.recording.directory import recording_in

        path = recording_in(path)
    recording = open_recording(path)
    _warn_simulated(recording.simulated)
    if recording.state == "interrupted":
        click.echo(
            f"{recording.path} was interrupted; `vramtop recover {recording.path}` seals it",
            err=True,
        )
    first, last = recording.first, recording.last
    return _Played(
        recording.blocks,
        recording.zone,
        0 if first is None else first.t_us,
        0 if last is None else last.t_us,
    )


def _stream() -> _Played:
    from vramtop.recording.reader import zone_of
    from vramtop.recording.stream import open_stream
    from vramtop.samples import HOST, SIMULATED

    arriving = open_stream(sys.stdin.buffer, on_cut=_warn_cut)
    introduction = {seen.what: seen for seen in arriving.introduction}
    simulated = introduction.get(SIMULATED)
    _warn_simulated(None if simulated is None else simulated.name or "unnamed")
    return _Played(
        lambda: arriving.blocks, zone_of(introduction.get(HOST)), arriving.first_us or 0, None
    )


def _warn_simulated(scenario: str | None) -> None:
    if scenario is not None:
        click.echo(f"SIMULATED: scenario {scenario}, no real GPU", err=True)


def _warn_cut() -> None:
    click.echo("the stream broke off: what came is replayed, the end is missing", err=True)


def _run(
    blocks: Iterable[Block],
    derived: Path | None,
    method: str | None = None,
    what_if: WhatIf | None = None,
) -> Iterator[Event]:
    from vramtop.engine import Engine
    from vramtop.engine.cut import replay

    if method is None:
        engine = Engine()
    else:
        from vramtop.engine.posthoc import engine_with

        engine = engine_with(method, lambda text: click.echo(text, err=True))
    if what_if is not None:
        engine = what_if.engine(engine)
    if derived is not None:
        from vramtop.export.derived import write_derived

        stream = write_derived(derived, blocks, engine)
    else:
        stream = replay(engine, blocks)
    yield from stream if what_if is None else what_if.events(stream)


def _time(text: str | None, played: _Played) -> int | None:
    if text is None:
        return None
    from vramtop.engine.times import Span, parse_time

    def event_times(kind: str) -> list[int]:
        if played.last_us is None:
            raise UsageError(
                f"{text} looks for an event, and a stream is read only once",
                hint="count from its beginning: +90s",
            )
        return [
            event.t_us
            for event in _run(played.blocks(), None, None, played.what_if)
            if event.kind == kind
        ]

    return parse_time(
        text,
        Span(
            first_us=played.first_us,
            last_us=played.last_us,
            zone=played.zone,
            now_us=time.time_ns() // 1000,
            event_times=event_times,
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


def _print_state(played: _Played, at_us: int | None, *, as_json: bool) -> None:
    from vramtop.engine.state import state_at

    if at_us is None:
        return
    for row in state_at(played.blocks(), at_us):
        if as_json:
            click.echo(json.dumps(row.to_json()))
        else:
            click.echo(row.as_text())
    click.echo(f"as of {format_time(at_us, played.zone)} ({at_us / US_PER_S:.3f})", err=True)


def _print_sensitivities(blocks: Iterable[Block], *, as_json: bool) -> None:
    from vramtop.engine.posthoc import sensitivities

    for found in sensitivities(blocks):
        if as_json:
            click.echo(json.dumps(asdict(found)))
            continue
        about = found.uuid if found.pid is None else f"{found.uuid} pid {found.pid}"
        sizes = f"{format_bytes(found.low_bytes)} to {format_bytes(found.high_bytes)}"
        count = "1 changepoint" if found.changes == 1 else f"{found.changes} changepoints"
        more = "" if found.whole else " (not all steps were searched)"
        click.echo(f"{about}: ignoring {sizes} for 10 s, {count}{more}")
