"""The simulator keeps the promises of a source: order, tiers, facts, pace, reproducibility."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
from itertools import pairwise

import pytest

from vramtop.blocks import Block
from vramtop.enrich.oom_text import as_observation, scan
from vramtop.errors import UsageError
from vramtop.samples import (
    CLOCK_STEP,
    DEVICE,
    FAULT,
    GAP,
    GONE,
    GPU_BACK,
    GPU_LOST,
    HOST,
    INTERVAL,
    LOOKED_PROCESSES,
    LOOKED_SLOW,
    LOOKED_UTIL,
    MARK,
    OOM_EVIDENCE,
    PROCESS,
    SIMULATED,
    TRUTH,
    SeriesKey,
)
from vramtop.sources import open_source
from vramtop.sources.sim import SCENARIOS, SimSource
from vramtop.sources.sim.faults import Troubles
from vramtop.sources.sim.source import START_T_US


def ticks_of(scenario, **options):
    return list(SimSource(scenario, pace=None, **options).ticks())


def digest(ticks):
    return hashlib.sha256("\n".join(map(repr, ticks)).encode()).hexdigest()


@pytest.mark.parametrize(
    ("scenario", "seconds", "expected"),
    [
        ("training-oom", 900, "37693e4121dcc491"),
        ("gaps-and-losses", 120, "547f5f962fda0f38"),
        ("shared-server", 200, "71543dbe5191acf2"),
    ],
)
def test_a_seed_gives_these_ticks_on_every_python_and_machine(scenario, seconds, expected):
    """Whoever changes what a seed gives raises the scenario's version and this digest."""
    # The version of vramtop stands in the host facts and may change.
    rows = [
        (tick.mono_ns, tick.devices, tick.processes, tick.observations[tick.seq == 0 :])
        for tick in ticks_of(scenario, seed=3, duration_s=seconds)
    ]
    assert digest(rows)[:16] == expected


@pytest.mark.parametrize("scenario", ["training-oom", "gaps-and-losses"])
def test_seeds_differ_and_repeat(scenario):
    runs = [digest(ticks_of(scenario, seed=seed, duration_s=100)) for seed in (0, 1, 0)]
    assert runs[0] == runs[2] != runs[1]


def test_hash_randomisation_changes_nothing():
    script = (
        "import hashlib;from vramtop.sources.sim import SimSource;"
        "print(hashlib.sha256(repr(list(SimSource('gaps-and-losses',pace=None).ticks()))"
        ".encode()).hexdigest())"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


def test_the_recorder_process_can_load_it_without_heavy_packages():
    script = (
        "import sys;from vramtop.sources.sim import SimSource;"
        "next(SimSource('training-oom',pace=None).ticks());"
        "print(sorted({'numpy','pyarrow','polars','matplotlib','click'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"


def test_what_processes_do_does_not_depend_on_the_interval():
    def memory(interval_s):
        return {
            tick.mono_ns: tuple(device.used_bytes for device in tick.devices)
            for tick in ticks_of("leak-under-sawtooth", interval_s=interval_s, duration_s=120)
        }

    coarse, fine = memory(1.0), memory(0.25)
    assert coarse == {at: fine[at] for at in coarse}


def test_ticks_may_be_late_and_dropped_without_moving_what_happens():
    """What is seen late is what was then; the truth about the run is the same."""
    plain = ticks_of("burst-oom", seed=4)
    uneven = ticks_of("burst-oom", seed=4, troubles=Troubles(drop_share=0.1, late_share=0.4))
    assert [tick.seq for tick in uneven] == list(range(len(uneven)))
    assert 0.85 < len(uneven) / len(plain) < 0.95
    gaps = [(b.mono_ns - a.mono_ns) / 1e9 for a, b in pairwise(uneven)]
    assert 0.6 < min(gaps) < 0.9
    assert 2.0 < max(gaps) < 6.0
    truths = [
        [seen for tick in ticks for seen in told(tick, TRUTH) if seen.name != "phase"]
        for ticks in (plain, uneven)
    ]
    assert truths[0] == truths[1]
    assert len(truths[0]) > 1


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_truth_does_not_depend_on_the_interval(scenario):
    """Every statement about a run's first twenty minutes, seen at 1 s and at 7 s."""
    told_by = []
    for interval_s in (1.0, 7.0):
        ticks = ticks_of(scenario, seed=5, interval_s=interval_s, duration_s=1200)
        # Both look at 1190 s, and by then both have heard of all that happened.
        until_ns = ticks[0].mono_ns + 1_190_000_000_000
        told_by.append(
            [
                (seen.name, seen.pid, seen.data)
                for tick in ticks
                if tick.mono_ns <= until_ns
                for seen in told(tick, TRUTH)
            ]
        )
    assert told_by[0] == told_by[1] != []


def test_a_longer_run_begins_like_a_shorter_one():
    short = ticks_of("shared-server", duration_s=60)
    long = ticks_of("shared-server", duration_s=90)
    assert [tick.devices for tick in short] == [tick.devices for tick in long[:60]]
    assert [tick.processes for tick in short] == [tick.processes for tick in long[:60]]


def test_the_first_tick_carries_the_snapshot():
    first = ticks_of("training-oom", seed=5, interval_s=0.5, duration_s=2)[0]
    told = [observation.what for observation in first.observations]
    assert told[:4] == [HOST, SIMULATED, INTERVAL, DEVICE]
    assert PROCESS in told
    host, simulated, interval, device = first.observations[:4]
    assert host.name == "simulated"
    assert set(host.data) == {"boot_id", "zone", "utc_offset_s", "driver", "nvml", "vramtop"}
    assert simulated.name == "training-oom"
    assert simulated.text.startswith("simulated, not measured")
    assert simulated.data == {
        "seed": 5,
        "version": 1,
        "interval_ns": 500_000_000,
        "duration_s": 2,
    }
    assert interval.data == {"interval_ns": 500_000_000}
    assert (device.gpu, device.uuid) == (0, first.devices[0].uuid)


@pytest.mark.parametrize("interval_s", [1.0, 0.1, 3.0])
def test_ticks_are_numbered_and_spaced_as_declared(interval_s):
    ticks = ticks_of("epochs", interval_s=interval_s, duration_s=30)
    assert [tick.seq for tick in ticks] == list(range(round(30 / interval_s)))
    step_ns = round(interval_s * 1e9)
    assert {b.mono_ns - a.mono_ns for a, b in pairwise(ticks)} == {step_ns}
    assert ticks[0].t_us == START_T_US
    assert ticks[-1].t_us - ticks[0].t_us == (ticks[-1].mono_ns - ticks[0].mono_ns) // 1000


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_memory_adds_up_on_every_tick(scenario):
    """Total = reserved + used + free, and processes never hold more than is used."""
    for tick in ticks_of(scenario, seed=2, duration_s=150):
        for device in tick.devices:
            if device.used_bytes is None:
                continue
            assert device.total_bytes == (
                device.reserved_bytes + device.used_bytes + device.free_bytes
            )
            if device.looked & LOOKED_PROCESSES:
                listed = sum(
                    process.used_bytes or 0
                    for process in tick.processes
                    if process.uuid == device.uuid
                )
                assert device.used_bytes >= listed
                assert all(
                    process.used_bytes is None or process.used_bytes > 0
                    for process in tick.processes
                )


def test_at_ten_hertz_lists_are_read_every_second_and_at_jumps():
    ticks = ticks_of("burst-oom", interval_s=0.1, duration_s=450)
    looks = [tick.mono_ns for tick in ticks if tick.devices[0].looked & LOOKED_PROCESSES]
    assert max(b - a for a, b in pairwise(looks)) <= 1_100_000_000
    at_look = None
    for tick in ticks:
        device = tick.devices[0]
        if device.looked & LOOKED_PROCESSES:
            at_look = device.used_bytes
        assert abs(device.used_bytes - at_look) <= max(64 * 2**20, device.total_bytes // 200)


def test_sensors_are_null_exactly_where_nobody_looked():
    for tick in ticks_of("multi-gpu", interval_s=0.25, duration_s=30):
        for device in tick.devices:
            quick = (device.gpu_util_pct, device.mem_util_pct, device.power_mw)
            slow = (device.temp_c, device.sm_clock_mhz, device.mem_clock_mhz, device.throttle)
            for readings, bit in ((quick, LOOKED_UTIL), (slow, LOOKED_SLOW)):
                expected = bool(device.looked & bit)
                assert all((reading is not None) is expected for reading in readings)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_processes_are_told_of_once_when_listed_and_once_when_gone(scenario):
    """Between PROCESS and GONE a process is in every list that was read, and never outside."""
    alive: set[tuple[str, SeriesKey]] = set()
    for tick in ticks_of(scenario, seed=1, duration_s=150, interval_s=0.5):
        came = keys(tick, PROCESS)
        gone = keys(tick, GONE)
        assert len(came) == len(set(came))
        assert not set(came) & alive
        assert set(gone) <= alive
        alive = (alive | set(came)) - set(gone)
        looked = {d.uuid for d in tick.devices if d.looked & LOOKED_PROCESSES}
        assert {process.key for process in tick.processes} == {
            key for key in alive if key.uuid in looked
        }


def keys(tick, what):
    return [
        SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
        for seen in tick.observations
        if seen.what == what
    ]


def test_an_out_of_memory_error_shows_as_evidence_then_exit():
    ticks = ticks_of("training-oom", seed=0)
    (evidence_at,) = [tick.seq for tick in ticks if told(tick, OOM_EVIDENCE)]
    evidence = told(ticks[evidence_at], OOM_EVIDENCE)[0]
    ((_, message),) = scan([evidence.text.encode() + b"\n"])
    assert evidence == as_observation(
        message,
        pid=evidence.pid,
        start_time=evidence.start_time,
        gpu=evidence.gpu,
        uuid=evidence.uuid,
    ), "the recorder would have read something else out of this message"
    (gone_at,) = [tick.seq for tick in ticks if (evidence.pid in pids(tick, GONE))]
    assert 1 <= gone_at - evidence_at <= 2
    gone = [seen for seen in told(ticks[gone_at], GONE) if seen.pid == evidence.pid]
    assert gone[0].data == {"exit_code": 1}
    assert ticks[gone_at].devices[0].used_bytes < ticks[evidence_at].devices[0].used_bytes


def test_nobody_testifies_for_a_process_that_was_not_watched():
    """The server's jobs were not started by the recorder, so an end for want of memory is mute."""
    ticks = ticks_of("shared-server", seed=5, interval_s=2.0)
    truths = [seen for tick in ticks for seen in told(tick, TRUTH) if seen.name == "oom"]
    assert len(truths) >= 1
    assert not [tick for tick in ticks if told(tick, OOM_EVIDENCE)]


def told(tick, what):
    return [seen for seen in tick.observations if seen.what == what]


def pids(tick, what):
    return [seen.pid for seen in told(tick, what)]


def test_troubles_are_recorded_as_such():
    ticks = ticks_of("gaps-and-losses")
    started = ticks[0].mono_ns
    seconds = [(tick.mono_ns - started) / 1e9 for tick in ticks]
    gaps = [(seconds[i - 1], seconds[i]) for i in range(1, len(ticks)) if told(ticks[i], GAP)]
    assert gaps == [(39.0, 50.0), (94.0, 99.0)]
    lost = [at for at, tick in zip(seconds, ticks, strict=True) if told(tick, GPU_LOST)]
    back = [at for at, tick in zip(seconds, ticks, strict=True) if told(tick, GPU_BACK)]
    assert (lost, back) == ([60.0], [80.0])
    for at, tick in zip(seconds, ticks, strict=True):
        assert [device.gpu for device in tick.devices] == ([0, 2] if 60 <= at < 80 else [0, 1, 2])
        first = tick.devices[0]
        assert (first.gpu_util_pct is None) is (22 <= at < 30)
        assert (first.used_bytes is None) is (52 <= at < 57)
        assert first.total_bytes is not None
    assert len([tick for tick in ticks if told(tick, FAULT)]) == 3
    assert len([tick for tick in ticks if told(tick, MARK)]) == 1
    (step,) = [tick.seq for tick in ticks if told(tick, CLOCK_STEP)]
    assert ticks[step].t_us - ticks[step - 1].t_us == -500_000
    assert ticks[step].mono_ns - ticks[step - 1].mono_ns == 1_000_000_000


def test_a_reused_pid_is_two_series():
    series = {process.key for tick in ticks_of("gaps-and-losses") for process in tick.processes}
    known = [key for key in series if key.pid == 4100]
    unknown = [key for key in series if key.pid == 4200]
    assert len({key.start_time for key in known}) == 2
    assert {(key.start_time, key.life) for key in unknown} == {(None, 0), (None, 1)}


def test_hidden_bytes_are_null_not_zero():
    readings = [p for tick in ticks_of("gaps-and-losses") for p in tick.processes]
    assert any(reading.used_bytes is None for reading in readings)
    assert not any(reading.used_bytes == 0 for reading in readings)


@pytest.mark.parametrize("scenario", ["gaps-and-losses", "training-oom"])
def test_ticks_survive_the_way_through_a_block(scenario):
    ticks = ticks_of(scenario, duration_s=120)
    there_and_back = list(Block.from_ticks(ticks).ticks())
    assert [set(t.devices) for t in there_and_back] == [set(t.devices) for t in ticks]
    assert [set(t.processes) for t in there_and_back] == [set(t.processes) for t in ticks]
    assert [t.observations for t in there_and_back] == [t.observations for t in ticks]


def test_a_paced_run_starts_now_and_keeps_its_pace():
    before = time.time_ns() // 1000
    started = time.monotonic()
    source = open_source("sim:steady-training", interval_s=1.0, pace=20.0)
    ticks = []
    for tick in source.ticks():
        ticks.append(tick)
        if len(ticks) == 9:
            source.close()
    took = time.monotonic() - started
    assert len(ticks) == 9
    assert 0.4 <= took < 2.0
    assert 0 <= ticks[0].t_us - before < 1_000_000
    assert ticks[8].t_us - ticks[0].t_us == 8_000_000


def test_close_ends_a_sleeping_source_within_a_tenth_of_a_second():
    source = SimSource("steady-training", interval_s=600.0)
    ticks = source.ticks()
    next(ticks)
    ended: list[float] = []

    def wait():
        for _ in ticks:
            raise AssertionError("no second tick was due")
        ended.append(time.monotonic())

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    closed = time.monotonic()
    source.close()
    source.close()
    thread.join(5)
    # The bound is 0.1 s; a loaded machine may add to it.
    assert ended[0] - closed < 0.1 + 0.4


def test_a_run_ends_by_itself_when_the_last_job_has():
    ticks = ticks_of("training-oom")
    (end,) = [tick.seq for tick in ticks if told(tick, OOM_EVIDENCE)]
    assert len(ticks) < 900
    assert 20 <= len(ticks) - end <= 25
    assert len(ticks_of("training-oom", duration_s=700)) == 700


def test_an_unknown_scenario_names_the_nearest_one():
    with pytest.raises(UsageError) as error:
        SimSource("slow-laek")
    assert "slow-laek" in error.value.message
    assert "slow-leak" in error.value.hint


@pytest.mark.parametrize(
    "options",
    [{"interval_s": 0.0}, {"pace": -1.0}, {"duration_s": float("nan")}, {"duration_s": 0}],
)
def test_times_that_are_not_above_zero_are_refused(options):
    with pytest.raises(UsageError, match="no finite number above zero"):
        SimSource("epochs", **options)


def test_stats_count_the_ticks():
    source = SimSource("epochs", pace=None, duration_s=5)
    list(source.ticks())
    assert source.stats() == {"ticks": 5}
