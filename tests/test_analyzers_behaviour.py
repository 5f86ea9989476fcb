"""What each analyzer says of streams whose truth is known."""

from __future__ import annotations

import itertools

import pytest

from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.samples import (
    EXIT,
    GAP,
    GONE,
    INTERVAL,
    LOOKED_PROCESSES,
    OOM_EVIDENCE,
    PROCESS,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.sources.sim import SimSource
from vramtop.units import GIB, MIB, NS_PER_S

PID = 77


def stream(level, *, seconds, step=1.0, total=24 * GIB, notes=None, born=0.0, gone=None):
    """One process whose memory is `level(t)`; `notes` maps a second to observations."""
    notes = dict(notes or {})
    ticks = []
    alive = False
    count = int(seconds / step)
    for seq in range(count):
        t = seq * step
        seen = list(notes.get(round(t, 3), ()))
        if seq == 0:
            seen.append(Observation(what=INTERVAL, data={"interval_ns": int(step * NS_PER_S)}))
        processes = ()
        used = 20 * MIB
        if t >= born and (gone is None or t < gone):
            if not alive:
                alive = True
                seen.append(
                    Observation(
                        what=PROCESS, gpu=0, uuid="GPU-a", pid=PID, start_time=9, name="train"
                    )
                )
            bytes_ = int(level(t))
            used += bytes_
            processes = (
                ProcessReading(gpu=0, uuid="GPU-a", pid=PID, start_time=9, used_bytes=bytes_),
            )
        elif alive:
            alive = False
            seen.append(Observation(what=GONE, gpu=0, uuid="GPU-a", pid=PID, start_time=9))
        ticks.append(
            Tick(
                seq=seq, mono_ns=int(t * NS_PER_S), t_us=int(t * 10**6),
                devices=(
                    DeviceReading(
                        gpu=0, uuid="GPU-a", total_bytes=total, used_bytes=used,
                        free_bytes=max(0, total - used), looked=LOOKED_PROCESSES,
                    ),
                ),
                processes=processes, observations=tuple(seen),
            )
        )  # fmt: skip
    return ticks


def events(ticks, *kinds):
    engine = Engine()
    found = engine.update(Block.from_ticks(ticks)) + engine.finish()
    return [event for event in found if event.kind in kinds] if kinds else found


def levels(found):
    return [event.level for event in found]


def quantised(value):
    return int(value) // (2 * MIB) * 2 * MIB


@pytest.mark.parametrize("step", [0.2, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("rate_mib_s", [0.5, 3.0, 20.0])
def test_a_leak_is_growth_at_any_sampling_rate(step, rate_mib_s):
    ticks = stream(lambda t: quantised(2 * GIB + rate_mib_s * MIB * t), seconds=900, step=step)

    found = [e for e in events(ticks, "phase") if e.pid == PID]

    assert found[-1].phase == "growing"
    assert found[-1].rate_bytes_per_s == pytest.approx(rate_mib_s * MIB, rel=0.4)


@pytest.mark.parametrize("period", [3, 5, 10, 12, 30])
def test_a_flat_sawtooth_is_no_growth_and_no_risk(period):
    ticks = stream(lambda t: quantised(10 * GIB + 6 * GIB * ((t % period) / period)), seconds=1800)

    found = events(ticks, "phase", "oom_risk", "verdict")

    assert [e for e in found if e.kind == "oom_risk"] == []
    assert {e.verdict for e in found if e.kind == "verdict"} == {"OK"}
    settled = [e for e in found if e.kind == "phase" and e.t > 300]
    assert [e for e in settled if e.phase == "growing"] == []


@pytest.mark.parametrize("seconds", [40, 120])
def test_a_model_load_raises_no_alarm(seconds):
    """From 0 to 18 of 24 GiB and flat from there on: nobody is to be woken."""
    ticks = stream(
        lambda t: quantised(18 * GIB * min(1.0, (t - 30) / seconds)), seconds=1200, born=30
    )

    assert levels(events(ticks, "oom_risk")) == []


def test_a_steady_leak_is_forecast_with_ranges_that_hold_the_end():
    """Four in five of the ranges are meant to."""
    limit = 24 * GIB
    ends = (22 * GIB) / (20 * MIB)
    ticks = stream(lambda t: quantised(2 * GIB + 20 * MIB * t), seconds=int(ends) - 5, total=limit)

    found = events(ticks, "oom_risk")

    assert levels(found)[0] == "warning"
    assert levels(found)[-1] == "critical"
    inside = [e.eta_low_s <= ends - e.t <= e.eta_high_s for e in found]
    assert sum(inside) >= 0.8 * len(inside)
    assert ends - next(e.t for e in found if e.level == "critical") > 60


def test_a_jump_is_no_growth():
    """One step, however large, is over when it is seen."""
    ticks = stream(lambda t: 2 * GIB if t < 300 else 16 * GIB, seconds=900)

    assert levels(events(ticks, "oom_risk")) == []
    points = [e for e in events(ticks, "changepoint") if e.pid == PID]
    assert [(e.at, e.before_bytes, e.after_bytes) for e in points if e.state == "confirmed"] == [
        (300.0, 2 * GIB, 16 * GIB)
    ]
    assert [e.state for e in points] in (["tentative", "confirmed"], ["confirmed"])


def test_segments_cover_a_series_without_gap_or_overlap():
    ticks = stream(
        lambda t: (2, 5, 3, 9)[int(t // 200) % 4] * GIB, seconds=1600, born=20, gone=1500
    )

    found = sorted((e for e in events(ticks, "segment") if e.pid == PID), key=lambda e: e.start)

    assert found[0].start == 20.0
    assert found[-1].end == 1500.0
    assert all(one.end == two.start for one, two in itertools.pairwise(found))
    # A jump between two rests has some seconds to its own name.
    rests = [e for e in found if e.end - e.start > 10]
    assert [round(e.mean_bytes / GIB) for e in rests] == [2, 5, 3, 9, 2, 5, 3, 9]


def test_a_peak_that_would_not_fit_again_is_tight():
    """It went to 20 GiB, fell to 4, and another tenant took the room."""
    ticks = stream(lambda t: 20 * GIB if 100 <= t < 130 else 4 * GIB, seconds=400)
    crowded = []
    for tick in ticks:
        device = tick.devices[0]
        if tick.seq >= 200:
            device = DeviceReading(
                gpu=0, uuid="GPU-a", total_bytes=24 * GIB, used_bytes=16 * GIB, free_bytes=8 * GIB,
                looked=LOOKED_PROCESSES,
            )  # fmt: skip
        crowded.append(
            Tick(seq=tick.seq, mono_ns=tick.mono_ns, t_us=tick.t_us, devices=(device,),
                 processes=tick.processes, observations=tick.observations)
        )  # fmt: skip

    found = events(crowded, "verdict")

    assert [e.verdict for e in found] == ["OK", "TIGHT"]
    assert found[-1].need_low_bytes == 16 * GIB
    assert found[-1].free_bytes == 8 * GIB
    assert found[-1].seq == 202


def test_a_message_confirms_and_is_not_inferred_again():
    message = Observation(
        what=OOM_EVIDENCE, gpu=0, uuid="GPU-a", pid=PID, start_time=9, text="CUDA out of memory.",
        data={"requested_bytes": 20 * GIB},
    )  # fmt: skip
    ticks = stream(
        lambda t: 2 * GIB + 60 * MIB * t, seconds=400, notes={350.0: [message]}, gone=352
    )

    found = events(ticks, "oom")

    assert [(e.certainty, e.requested_bytes, e.seq) for e in found] == [
        ("confirmed", 20 * GIB, 350)
    ]


def test_a_recoverable_message_is_no_failure():
    message = Observation(what=OOM_EVIDENCE, text="retrying", data={"fatal": False})
    ticks = stream(lambda _: 2 * GIB, seconds=100, notes={50.0: [message]})

    assert events(ticks, "oom") == []


def test_a_death_at_the_limit_is_inferred():
    """The allocator frees its cache first, so the last reading before the death dips."""
    ticks = stream(
        lambda t: min(23.7 * GIB, 2 * GIB + 60 * MIB * t) if t < 368 else 6 * GIB,
        seconds=400, gone=371,
    )  # fmt: skip

    found = events(ticks, "oom")

    assert [(e.certainty, e.pid, e.requested_bytes) for e in found] == [("inferred", PID, None)]


def test_a_full_server_that_is_stopped_did_not_fail():
    """Flat at 98 % for an hour, then shut down: no OOM."""
    ticks = stream(lambda t: min(23.5 * GIB, GIB + 200 * MIB * t), seconds=900, gone=800)

    assert events(ticks, "oom") == []


def test_an_exit_code_of_zero_is_no_oom():
    bye = Observation(what=EXIT, pid=PID, data={"exit_code": 0})
    ticks = stream(lambda t: 2 * GIB + 60 * MIB * t, seconds=400, gone=370, notes={369.0: [bye]})

    assert events(ticks, "oom") == []
    assert [e.exit_code for e in events(ticks, "process_exit")] == [0]


def test_births_and_deaths_are_said_once():
    ticks = stream(lambda _: GIB, seconds=100, born=10, gone=50)

    found = events(ticks, "process_start", "process_exit")

    assert [(e.kind, e.seq, e.name) for e in found] == [
        ("process_start", 10, "train"), ("process_exit", 50, "train"),
    ]  # fmt: skip
    assert found[0].already_running is False


def test_what_stood_in_the_first_list_was_already_running():
    found = events(stream(lambda _: GIB, seconds=5), "process_start")

    assert [e.already_running for e in found] == [True]


def paused(ticks, after, seconds):
    return [
        tick if tick.seq <= after else Tick(
            seq=tick.seq, mono_ns=tick.mono_ns + seconds * NS_PER_S,
            t_us=tick.t_us + seconds * 10**6, devices=tick.devices, processes=tick.processes,
            observations=tick.observations,
        )
        for tick in ticks
    ]  # fmt: skip


def test_a_gap_is_said_with_its_length_and_reason():
    reason = Observation(what=GAP, text="suspended")
    ticks = paused(stream(lambda _: GIB, seconds=60, notes={31.0: [reason]}), 30, 45)

    found = events(ticks, "gap")

    assert [(e.seq, e.duration_s, e.text) for e in found] == [(31, 46.0, "suspended")]


def test_a_slow_declared_interval_is_no_gap():
    assert events(stream(lambda _: GIB, seconds=600, step=10.0), "gap") == []


def test_without_a_declared_interval_past_spacing_judges():
    """An imported log of one row a minute has no gaps; an hour's pause in it is one."""
    ticks = stream(lambda _: GIB, seconds=3600, step=60.0)
    undeclared = [
        Tick(seq=t.seq, mono_ns=t.mono_ns, t_us=t.t_us, devices=t.devices, processes=t.processes)
        for t in paused(ticks, 30, 3600)
    ]

    assert [e.seq for e in events(undeclared, "gap")] == [31]


def test_one_gpu_that_missed_ticks_has_a_gap_of_its_own():
    ticks = stream(lambda _: GIB, seconds=60)
    holed = [
        Tick(seq=t.seq, mono_ns=t.mono_ns, t_us=t.t_us, observations=t.observations,
             devices=t.devices if not 20 <= t.seq < 40 else ())
        for t in ticks
    ]  # fmt: skip

    assert [(e.seq, e.uuid, e.duration_s) for e in events(holed, "gap")] == [(40, "GPU-a", 21.0)]


@pytest.mark.parametrize(
    "scenario",
    ["steady-training", "variable-length", "prealloc-server", "jax-prealloc", "checkpoint-saves",
     "epochs", "evaluation-spike", "multi-gpu", "shared-server"],
)  # fmt: skip
@pytest.mark.parametrize("seed", [1, 2])
def test_no_critical_alarm_on_simulated_runs_that_live(scenario, seed):
    ticks = list(SimSource(scenario, seed=seed, interval_s=1.0, pace=None).ticks())

    found = events(ticks, "oom_risk", "oom", "leak")

    assert [e for e in found if e.kind != "oom_risk" or e.level == "critical"] == []


def test_the_demo_run_is_warned_of_and_confirmed():
    ticks = list(SimSource("training-oom", seed=1, interval_s=1.0, pace=None).ticks())

    found = events(ticks, "oom_risk", "oom")

    oom = [e for e in found if e.kind == "oom"]
    warned = [e for e in found if e.kind == "oom_risk" and e.level == "critical"]
    assert [e.certainty for e in oom] == ["confirmed"]
    assert warned
    assert oom[0].t - warned[0].t >= 30
