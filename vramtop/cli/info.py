"""`vramtop info`: what a recording holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from vramtop.units import format_bytes, format_duration


@click.command(epilog="Example: vramtop info run.parquet")
@click.argument("file", type=click.Path(readable=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")
def command(file: Path, as_json: bool) -> None:
    """Say what a recording holds: times, GPUs, processes, peaks, gaps."""
    from vramtop.analyzers.gaps import GapAnalyzer
    from vramtop.engine import Engine
    from vramtop.events import Gap
    from vramtop.recording.reader import open_recording
    from vramtop.recording.summary import Summary

    recording = open_recording(file)
    summary, engine = Summary(), Engine([GapAnalyzer()])
    gaps: list[float] = []
    for block in recording.blocks():
        summary.add(block)
        gaps += (event.duration_s for event in engine.update(block) if isinstance(event, Gap))
    facts = summary.to_json(recording)
    facts["gaps"] = {"count": len(gaps), "longest_s": max(gaps, default=None)}
    click.echo(json.dumps(facts) if as_json else "\n".join(map(_plain, _lines(facts))))


def _lines(facts: dict[str, Any]) -> list[str]:
    lines = [f"{facts['path']}: {facts['state']}"]
    if facts["simulated"]:
        lines.append(f"SIMULATED: scenario {facts['simulated']}")
    if facts["imported"]:
        lines.append(f"imported from {facts['imported']}")
    if not facts["ticks"]:
        return [*lines, "no ticks"]
    interval = facts["interval_s"]
    every = "spacing not declared" if interval is None else f"every {format_duration(interval)}"
    lines += [
        f"{facts['ticks']} ticks, {every}, over {format_duration(facts['duration_s'])}",
        f"from {facts['start_text']}",
        f"to   {facts['end_text']}" + (f" ({facts['ended']})" if facts["ended"] else ""),
        f"host {facts['host'] or 'unknown'}, driver {facts['driver'] or 'unknown'}",
    ]
    gaps = facts["gaps"]
    longest = f", the longest {format_duration(gaps['longest_s'])}" if gaps["count"] else ""
    size, per_row = format_bytes(facts["bytes"]), facts["bytes_per_row"] or 0
    counts = f"{facts['faults']} faults, {facts['marks']} marks"
    lines += [
        f"{gaps['count']} gaps{longest}; {counts}, {facts['oom_messages']} out-of-memory messages",
        f"{size}, {facts['rows']} rows, {per_row:.1f} B per row",
    ]
    recorder = facts["recorder"]
    if recorder is not None and recorder["cpu_s"] is not None:
        lines.append(
            f"recording took {format_duration(recorder['cpu_s'])} of CPU and at most "
            f"{format_bytes(recorder['resident_bytes'])} of memory"
        )
    for gpu in facts["gpus"]:
        lines.append(
            f"gpu {gpu['gpu']}: {gpu['name'] or gpu['uuid']}, "
            f"peak {format_bytes(gpu['peak_used_bytes'])} of {format_bytes(gpu['total_bytes'])}"
        )
        lines += (
            f"  pid {process['pid']}: {process['name'] or 'unknown'}, "
            f"peak {format_bytes(process['peak_bytes'])}, "
            f"seen for {format_duration(process['last'] - process['first'])}"
            for process in facts["processes"]
            if process["uuid"] == gpu["uuid"]
        )
    return lines


def _plain(line: str) -> str:
    """Names come from outside; control characters in them must not reach the terminal."""
    return "".join(character if character.isprintable() else "?" for character in line)
