"""Events of plain CSV streams with a known course, as `replay --events` gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from vramtop.engine import Engine
from vramtop.events import Event
from vramtop.recording.reader import open_recording
from vramtop.recording.store import write_recording
from vramtop.sources.logs import LogOptions, open_log

TOTAL_MIB = 24564
CONTEXT_MIB = 300
"""What the device holds beside the process."""


def rows(times: Sequence[float], level: Callable[[float], float | None]) -> list[str]:
    """A device row per time, and one of process 4711 while `level` is not None (MiB)."""
    lines = ["t_s,gpu,pid,used_mib,total_mib,util_pct"]
    for t in times:
        held = level(t)
        lines.append(f"{t:.3f},0,,{(held or 0) + CONTEXT_MIB:.2f},{TOTAL_MIB},80")
        if held is not None:
            lines.append(f"{t:.3f},0,4711,{held:.2f},,")
    return lines


def events_of(tmp_path: Path, lines: list[str]) -> list[Event]:
    """The events of an import of `lines`."""
    log, recording = tmp_path / "log.csv", tmp_path / "run.parquet"
    log.write_text("\n".join(lines) + "\n")
    source = open_log([log], LogOptions(recording="run"))
    write_recording(recording, source.ticks(), overwrite=True)
    engine = Engine()
    found: list[Event] = []
    for block in open_recording(recording).blocks():
        found += engine.update(block)
    return found + engine.finish()


def of(events: list[Event], kind: str) -> list[dict[str, object]]:
    """The JSON objects of one kind."""
    return [event.to_json() for event in events if event.kind == kind]


def test_a_step_is_reported_seconds_later_however_long_the_level_before_it_held(
    tmp_path: Path,
) -> None:
    """The look that the old level still had due is minutes away; the new one has its own."""
    lines = rows(range(400), lambda t: 4000 if t < 300 else 9000)
    found = of(events_of(tmp_path, lines), "changepoint")
    assert [(one["at"], one["t"], one["pid"], one["state"]) for one in found] == [
        (300.0, 305.0, None, "confirmed"),
        (300.0, 305.0, 4711, "confirmed"),
    ]


def test_a_fast_growth_after_a_slow_one_is_seen_as_soon_as_after_rest(tmp_path: Path) -> None:
    """A series that waits for its next minute is judged earlier when it starts to move."""

    def level(t: float) -> float:
        # Restless by a few megabytes every two minutes, then a ramp just after the minute.
        return 4000 + 4 * (min(t, 605) // 120 % 2) + max(0, t - 605) * 100

    phases = [
        (one["phase"], float(str(one["t"])))
        for one in of(events_of(tmp_path, rows(range(700), level)), "phase")
        if one["pid"] == 4711
    ]
    assert phases[0] == ("stable", 5.0)
    grows_s = next(t for phase, t in phases if phase == "growing")
    assert 605 < grows_s <= 650


def test_a_leak_of_half_a_megabyte_a_second_that_ends_at_the_brim_is_an_oom(
    tmp_path: Path,
) -> None:
    """However slowly the last megabytes were taken, the process that took them is gone."""
    brim = TOTAL_MIB - CONTEXT_MIB
    lines = rows(range(700), lambda t: brim - 1 - 0.5 * (600 - t) if t < 600 else None)
    (oom,) = of(events_of(tmp_path, lines), "oom")
    assert (oom["t"], oom["pid"], oom["certainty"]) == (600.0, 4711, "inferred")


def test_a_process_that_leaves_a_full_device_without_having_asked_is_no_oom(
    tmp_path: Path,
) -> None:
    """A server that took 99.9 % long ago may be stopped by anyone."""
    brim = TOTAL_MIB - CONTEXT_MIB - 10
    lines = rows(range(400), lambda t: brim if t < 300 else None)
    assert of(events_of(tmp_path, lines), "oom") == []
