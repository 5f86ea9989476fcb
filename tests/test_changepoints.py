"""Changepoints and segments through the engine: what is one stretch, and what is none."""

from __future__ import annotations

import itertools
import json
import pickle
import random

import pytest
from test_cli import assert_one_line_and_a_hint, vramtop

from vramtop.analyzers.changepoints import ChangepointAnalyzer
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.engine.cut import rechunked
from vramtop.recording.store import write_recording
from vramtop.samples import LOOKED_PROCESSES, DeviceReading, ProcessReading, Tick
from vramtop.sources.sim import SimSource
from vramtop.units import GIB, MIB, NS_PER_S

PID = 77


def ticks_of(levels, *, step=1.0, util=90):
    """One process on one GPU; `levels` in bytes, one for each tick."""
    return [
        Tick(
            seq=seq, mono_ns=int(seq * step * NS_PER_S), t_us=int(seq * step * 10**6),
            devices=(
                DeviceReading(
                    gpu=0, uuid="GPU-a", total_bytes=80 * GIB, used_bytes=int(level) + 20 * MIB,
                    free_bytes=80 * GIB - int(level) - 20 * MIB, looked=LOOKED_PROCESSES | 1,
                    gpu_util_pct=util,
                ),
            ),
            processes=(
                ProcessReading(
                    gpu=0, uuid="GPU-a", pid=PID, start_time=0, used_bytes=int(level)
                ),
            ),
        )
        for seq, level in enumerate(levels)
    ]  # fmt: skip


def said(blocks, **settings):
    engine = Engine([ChangepointAnalyzer(**settings)])
    found = [event for block in blocks for event in engine.update(block)] + engine.finish()
    return [event for event in found if event.pid is not None]


def segments(levels, *, step=1.0, **settings):
    found = said([Block.from_ticks(ticks_of(levels, step=step))], **settings)
    return [event for event in found if event.kind == "segment"]


def confirmed(levels, *, step=1.0):
    found = said([Block.from_ticks(ticks_of(levels, step=step))])
    return [e for e in found if e.kind == "changepoint" and e.state == "confirmed"]


def quantised(value):
    return int(value) // (2 * MIB) * 2 * MIB


REST = [4 * GIB] * 300


def after_rest(levels):
    """From a process that has long come to rest."""
    return REST + list(levels)


@pytest.mark.parametrize("rate_mib_s", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("step", [0.5, 1.0, 5.0])
def test_a_ramp_in_steps_of_2_mib_is_one_segment(rate_mib_s, step):
    count = int(3600 / step)
    ramp = [quantised(4 * GIB + rate_mib_s * MIB * t * step) for t in range(count)]

    found = segments([4 * GIB] * int(300 / step) + ramp, step=step)

    assert [e.label_id for e in found] == ["steady_state", "memory_leak"]
    assert found[-1].slope_bytes_per_s == pytest.approx(rate_mib_s * MIB, rel=0.05)


def test_flat_ramp_flat_ramp_is_four_segments():
    flat, ramp = [4 * GIB] * 600, [quantised(4 * GIB + 3 * MIB * t) for t in range(600)]
    high, more = [ramp[-1]] * 600, [quantised(ramp[-1] + 3 * MIB * t) for t in range(600)]

    found = segments(flat + ramp + high + more)

    assert [e.start for e in found] == pytest.approx([0, 600, 1200, 1800], abs=30)
    assert [round(e.slope_bytes_per_s / MIB) for e in found] == [0, 3, 0, 3]


def test_rare_large_steps_stay_steps():
    levels = [quantised((4 + t // 700 * 3) * GIB) for t in range(3500)]

    rests = [e for e in segments(levels) if e.end - e.start > 10]

    assert [round(e.mean_bytes / GIB) for e in rests] == [4, 7, 10, 13, 16]


@pytest.mark.parametrize("period", [3, 5, 10, 30, 60])
def test_a_flat_sawtooth_is_one_segment(period):
    teeth = [quantised(10 * GIB + 6 * GIB * (t % period) / period) for t in range(3600)]

    found = segments(after_rest(teeth))

    assert sum(e.end - e.start > 600 for e in found) == 1
    assert [e.label_id for e in found if e.end - e.start > 600] == ["batch_processing"]
    assert len(found) <= 4


@pytest.mark.parametrize("count", [1000, 3600])
def test_noise_of_20_mib_has_no_changepoint(count):
    """The predecessor found 84 in a thousand samples."""
    draw = random.Random(count)
    levels = [quantised(20 * GIB + draw.gauss(0, 20) * MIB) for _ in range(count)]

    found = said([Block.from_ticks(ticks_of(levels))])

    assert [e for e in found if e.kind == "changepoint"] == []


@pytest.mark.parametrize("sigma_mib", [60, 200])
def test_larger_noise_raises_the_penalty_and_then_has_none(sigma_mib):
    draw = random.Random(4)
    levels = [quantised(20 * GIB + draw.gauss(0, sigma_mib) * MIB) for _ in range(7200)]

    found = confirmed(levels)

    assert [e for e in found if e.at > 600] == []


def test_a_step_of_200_mib_in_noise_of_20_is_found():
    draw = random.Random(5)
    levels = [
        quantised(20 * GIB + (200 * MIB if t >= 900 else 0) + draw.gauss(0, 20) * MIB)
        for t in range(1800)
    ]

    found = confirmed(levels)

    assert [e.at for e in found] == pytest.approx([900.0], abs=1.0)


def test_what_is_to_be_ignored_is_ignored():
    """Two GiB for a minute are a bump, unless bumps of four GiB for a minute are to be ignored."""
    bump = [4 * GIB] * 600 + [6 * GIB] * 60 + [4 * GIB] * 600

    assert len(segments(bump)) == 3
    assert len(segments(bump, ignore_bytes=4 * GIB, ignore_s=60.0)) == 1


def test_a_burst_of_changes_does_not_blind():
    """Forty epochs of bumps, then a step of 500 MiB: it is found."""
    epoch = [8 * GIB] * 200 + [5 * GIB, 6 * GIB, 5 * GIB, 7 * GIB, 5 * GIB] * 4
    levels = epoch * 40 + [8 * GIB] * 300 + [8 * GIB + 500 * MIB] * 300

    assert len(epoch) * 40 + 300 in [round(e.at) for e in confirmed(levels)]


def test_a_changepoint_is_tentative_before_it_is_confirmed():
    """A rise that may be a bump is tentative until it cannot come back in time."""
    levels = [4 * GIB] * 100 + [9 * GIB] * 30 + [11 * GIB] * 300

    found = [e for e in said([Block.from_ticks(ticks_of(levels))]) if e.kind == "changepoint"]

    assert [(e.at, e.state) for e in found] == [
        (100.0, "confirmed"), (130.0, "tentative"), (130.0, "confirmed"),
    ]  # fmt: skip
    assert [e.seq for e in found][:2] == [105, 135]


def test_segments_are_told_in_order_without_gap_and_once():
    """Of a run with everything in it, and of every series."""
    ticks = list(SimSource("label-tour", seed=1, interval_s=1.0, pace=None).ticks())
    found = [e for e in said([Block.from_ticks(ticks)]) if e.kind == "segment"]

    for pid in {e.pid for e in found}:
        own = [e for e in found if e.pid == pid]
        assert len(own) > 10
        assert all(one.end == two.start for one, two in itertools.pairwise(own))
        assert all(e.end > e.start for e in own)


@pytest.mark.parametrize("scenario", ["label-tour", "kv-cache-growth", "fragmentation"])
def test_a_label_does_not_depend_on_blocks(scenario):
    """Not on live or replay either: ticks one by one, in random blocks, all at once."""
    ticks = list(SimSource(scenario, seed=2, interval_s=1.0, pace=None, duration_s=1500.0).ticks())
    whole = [e.canonical() for e in said([Block.from_ticks(ticks)])]

    cut = rechunked([Block.from_ticks(ticks)], random.Random(1), 50)
    assert [e.canonical() for e in said(cut)] == whole
    assert [e.canonical() for e in said(Block.from_ticks([tick]) for tick in ticks)] == whole


def test_state_stays_small_over_days_of_restlessness():
    """A sawtooth under a slow rise with noise, and a staircase for ever: nothing piles up."""
    draw = random.Random(7)
    engine = Engine([ChangepointAnalyzer()])
    sizes = []
    for part in range(6):
        levels = [
            quantised(
                10 * GIB + t % 9 * 300 * MIB + (part * 4000 + t) * MIB // 2 + draw.gauss(0, 9)
            )
            for t in range(4000)
        ]
        ticks = [
            Tick(
                seq=tick.seq + part * 4000, mono_ns=tick.mono_ns + part * 4000 * NS_PER_S,
                t_us=tick.t_us + part * 4000 * 10**6, devices=tick.devices,
                processes=tick.processes,
            )
            for tick in ticks_of(levels)
        ]  # fmt: skip
        engine.update(Block.from_ticks(ticks))
        sizes.append(len(pickle.dumps(engine.analyzers)))

    assert max(sizes) < 60_000
    assert sizes[-1] < 2 * sizes[1]


@pytest.fixture
def recorded(tmp_path):
    path = tmp_path / "run.parquet"
    levels = [4 * GIB] * 200 + [9 * GIB] * 200 + [6 * GIB] * 200
    write_recording(path, ticks_of(levels))
    return path


@pytest.mark.parametrize("model", ["l2", "rbf", "l1", "normal"])
def test_ruptures_finds_the_steps_afterwards(model, recorded):
    done = vramtop("replay", recorded, "--events", "--json", "--changepoints", f"ruptures:{model}")

    events = [json.loads(line) for line in done.stdout.splitlines()]
    found = [e["at"] for e in events if e["kind"] == "changepoint" and e["pid"] == PID]
    assert found == [200.0, 400.0]
    assert sum(e["kind"] == "segment" and e["pid"] == PID for e in events) == 3
    assert f"ruptures {model} on " in done.stderr


def test_an_unknown_method_is_refused_in_one_line(recorded):
    done = vramtop("replay", recorded, "--changepoints", "ruptures:l3")

    assert_one_line_and_a_hint(done, 2)
    assert "ruptures:l2" in done.stderr


def test_the_penalty_path_says_how_many_changes_are_left(recorded):
    """Steps of five and three GiB for 200 s."""
    done = vramtop("replay", recorded, "--json", "--changepoints", "crops")

    path = [row for line in done.stdout.splitlines() if (row := json.loads(line))["pid"] == PID]
    assert [row["changes"] for row in path] == [2, 1, 0]
    assert path[0]["low_bytes"] == 16 * MIB
    assert all(one["high_bytes"] == two["low_bytes"] for one, two in itertools.pairwise(path))
    assert all(row["whole"] for row in path)
