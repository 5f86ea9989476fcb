"""Odd but legal logs: what a stranger's script or tool may hand to `vramtop import`."""

from __future__ import annotations

from pathlib import Path

import pytest

from vramtop.samples import Tick
from vramtop.sources.logs import LogOptions, open_log
from vramtop.units import MIB


def read(tmp_path: Path, text: str) -> tuple[list[Tick], str]:
    """The ticks of a log, and what is said about it."""
    log = tmp_path / "log.csv"
    log.write_text(text)
    source = open_log([log], LogOptions(recording="run"))
    ticks = list(source.ticks())
    return ticks, "\n".join(source.summary.said)


def stamp(second: float) -> str:
    """A time as nvidia-smi prints it."""
    minutes, seconds = divmod(second, 60)
    return f"2026/04/30 22:{int(minutes):02d}:{seconds:06.3f}"


@pytest.mark.parametrize("spacing_s", [0.1, 1.0])
def test_one_pause_does_not_make_a_gpu_of_every_row_before_it(
    tmp_path: Path, spacing_s: float
) -> None:
    """15 rows, a pause of five minutes, 15 rows: one GPU, not 15."""
    seconds = [index * spacing_s + (300 if index >= 15 else 0) for index in range(30)]
    rows = [f"{stamp(second)}, {1000 + int(second)} MiB, 81920 MiB" for second in seconds]
    ticks, said = read(
        tmp_path, "timestamp, memory.used [MiB], memory.total [MiB]\n" + "\n".join(rows)
    )
    assert [len(tick.devices) for tick in ticks] == [1] * 30
    assert "all its rows are of one" in said


def test_two_polls_of_four_gpus_milliseconds_apart_are_told_apart(tmp_path: Path) -> None:
    """A log too short to repeat itself, with rows too close to be polls."""
    rows = [
        f"{stamp(poll + 0.003 * gpu)}, {1000 + gpu} MiB, 81920 MiB"
        for poll in range(2)
        for gpu in range(4)
    ]
    ticks, _ = read(
        tmp_path, "timestamp, memory.used [MiB], memory.total [MiB]\n" + "\n".join(rows)
    )
    assert [len(tick.devices) for tick in ticks] == [4, 4]


def test_pids_that_a_data_frame_made_floats_are_pids(tmp_path: Path) -> None:
    """A column of integers with empty cells is written as 4711.0 by most."""
    text = "t_s,gpu,pid,used_mib,total_mib,util_pct\n0.0,0.0,,1024.0,24564.0,\n0.0,0.0,4711.0,1000.0,,\n"
    ticks, said = read(tmp_path, text)
    assert [(row.pid, row.used_bytes) for row in ticks[0].processes] == [(4711, 1000 * MIB)]
    assert "left out" not in said


def test_a_clock_that_goes_back_and_a_missing_size_are_said(tmp_path: Path) -> None:
    """Neither is left for the reader of the events to wonder about."""
    _, said = read(tmp_path, "t_s,gpu,used_mib\n0,0,1\n1,0,1\n2,0,1\n0,0,1\n1,0,1\n")
    assert "the stamps of log.csv go back" in said
    assert "no log says how much memory a GPU has" in said
