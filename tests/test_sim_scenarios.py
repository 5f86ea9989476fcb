"""Every scenario does what its description and its ground truth say."""

from __future__ import annotations

from itertools import pairwise

import pytest

from vramtop.enrich.oom_text import as_observation, scan
from vramtop.samples import GONE, OOM_EVIDENCE, PROCESS, TRUTH
from vramtop.sources.sim import SCENARIOS, SimSource
from vramtop.sources.sim.truth import TRENDS
from vramtop.units import GIB, NS_PER_S

SEEDS = (0, 11)
NOBODY_WATCHES = ("notebooks", "shared-server")
_RUNS: dict[tuple[str, int], list] = {}


def interval_s(scenario):
    """Long runs are looked at rarely, so that no test takes long."""
    return max(1.0, SCENARIOS[scenario].duration_s // 3600)


def run(scenario, seed):
    """A run at full length; each is made once for all tests."""
    if (scenario, seed) not in _RUNS:
        source = SimSource(scenario, seed=seed, interval_s=interval_s(scenario), pace=None)
        _RUNS[scenario, seed] = list(source.ticks())
    return _RUNS[scenario, seed]


def truths(ticks, name):
    return [
        seen
        for tick in ticks
        for seen in tick.observations
        if seen.what == TRUTH and seen.name == name
    ]


def used_gib(ticks, gpu=0):
    return [
        device.used_bytes / GIB
        for tick in ticks
        for device in tick.devices
        if device.gpu == gpu and device.used_bytes is not None
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_runs_end_as_the_scenario_promises(scenario, seed):
    promised = SCENARIOS[scenario].ends
    strata = [oom.data["stratum"] for oom in truths(run(scenario, seed), "oom")]
    if promised == "none":
        assert strata == []
    elif promised == "mixed":
        assert set(strata) <= set(SCENARIOS[scenario].strata)
    else:
        assert strata == [promised]


MIXED = [name for name, scenario in SCENARIOS.items() if scenario.ends == "mixed"]


# Where every step is simulated, seeds that are known to end in both ways.
SLOW_TO_RUN = {"any-leak": (7, 6), "mig-instances": (3, 1)}


@pytest.mark.parametrize("scenario", [name for name in MIXED if name != "shared-server"])
def test_the_seed_decides_where_a_scenario_is_mixed(scenario):
    """Both ends come among thirty seeds."""
    dies = set()
    for seed in SLOW_TO_RUN.get(scenario, range(30)):
        source = SimSource(scenario, seed=seed, interval_s=60.0, pace=None)
        dies.add(bool(truths(source.ticks(), "oom")))
        if len(dies) == 2:
            break
    assert dies == {False, True}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_phases_follow_each_other_without_holes_through_a_whole_life(scenario):
    ticks = run(scenario, 0)
    lives: dict[tuple, list] = {}
    for seen in truths(ticks, "phase"):
        lives.setdefault((seen.pid, seen.start_time, seen.life), []).append(seen.data)
    assert lives
    for phases in lives.values():
        for phase in phases:
            assert phase["trend"] == TRENDS[phase["label"]]
            assert phase["start_s"] < phase["end_s"]
        for earlier, later in pairwise(phases):
            assert earlier["end_s"] == later["start_s"]
            assert earlier["label"] != later["label"]
    end_s = (ticks[-1].mono_ns - ticks[0].mono_ns) / NS_PER_S
    assert max(phases[-1]["end_s"] for phases in lives.values()) <= end_s


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_listed_process_has_a_workload_kind(scenario):
    ticks = run(scenario, 0)
    kinds = {
        (seen.pid, seen.start_time, seen.life): seen.data["kind"]
        for seen in truths(ticks, "workload")
    }
    listed = [seen for tick in ticks for seen in tick.observations if seen.what == PROCESS]
    assert listed
    for seen in listed:
        assert kinds[seen.pid, seen.start_time, seen.life]
        assert seen.name
        assert set(seen.data) == {"command", "user", "framework"}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_truth_about_an_end_agrees_with_what_was_seen(scenario, seed):
    ticks = run(scenario, seed)
    started = ticks[0].mono_ns
    for oom in truths(ticks, "oom"):
        data = oom.data
        assert data["requested_bytes"] > data["free_bytes"] >= 0
        assert data["victim_pid"] == oom.pid
        gone = [
            (tick.mono_ns - started) / NS_PER_S
            for tick in ticks
            for seen in tick.observations
            if seen.what == GONE and seen.pid == oom.pid and seen.start_time == oom.start_time
        ]
        assert len(gone) == 1
        assert 1.0 < gone[0] - data["t_s"] <= 2.0 + interval_s(scenario)
        evidence = [
            tick
            for tick in ticks
            for seen in tick.observations
            if seen.what == OOM_EVIDENCE and seen.pid == oom.pid
        ]
        watched = scenario not in NOBODY_WATCHES
        assert len(evidence) == watched or data["victim_pid"] != data["culprit_pid"]
        for tick in evidence:
            assert 0 <= (tick.mono_ns - started) / NS_PER_S - data["t_s"] < interval_s(scenario)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_message_says_what_a_recorder_would_read_out_of_it(scenario):
    for seed in SEEDS:
        for tick in run(scenario, seed):
            for seen in tick.observations:
                if seen.what == OOM_EVIDENCE:
                    ((_, message),) = scan([seen.text.encode() + b"\n"])
                    assert seen == as_observation(
                        message,
                        pid=seen.pid,
                        start_time=seen.start_time,
                        gpu=seen.gpu,
                        uuid=seen.uuid,
                    )


def test_frameworks_say_it_in_their_own_words():
    families = {
        seen.name
        for scenario, seed in (("jax-grows", 1), ("llama-load", 0), ("server-refuses", 0))
        for tick in run(scenario, seed)
        for seen in tick.observations
        if seen.what == OOM_EVIDENCE
    }
    assert families == {"xla", "ggml", "vllm.no-blocks"}


def test_a_refusal_is_no_running_out():
    ticks = run("server-refuses", 0)
    assert len(truths(ticks, "refused")) == 1
    assert truths(ticks, "oom") == []
    assert max(used_gib(ticks)) < 0.75 * ticks[0].devices[0].total_bytes / GIB


def test_the_tour_shows_every_label():
    shown = {seen.data["label"] for seen in truths(run("label-tour", 0), "phase")}
    assert shown == set(TRENDS) - {"dying"}


def test_mig_instances_have_rows_beside_their_gpu():
    """The GPU's row has what its instances hold; processes are listed by instance."""
    ticks = run("mig-instances", 0)
    parent, first, second = ticks[1200].devices
    assert parent.parent_uuid is None
    assert {first.parent_uuid, second.parent_uuid} == {parent.uuid}
    assert {row.gpu for row in (parent, first, second)} == {0}
    assert first.total_bytes + second.total_bytes < parent.total_bytes
    own_bytes = {
        tick.devices[0].used_bytes - tick.devices[1].used_bytes - tick.devices[2].used_bytes
        for tick in ticks
    }
    assert len(own_bytes) == 1
    assert {row.uuid for tick in ticks for row in tick.processes} == {first.uuid, second.uuid}


def test_a_hidden_process_shows_on_the_device_alone():
    hidden = set()
    for tick in run("hidden-tenant", 0):
        held = sum(row.used_bytes for row in tick.processes)
        hidden.add((tick.devices[0].used_bytes - held) // GIB)
        assert len(tick.processes) <= 1
    assert min(hidden) == 0
    assert max(hidden) >= 1


def test_steady_training_is_flat_after_its_start():
    for seed in SEEDS:
        assert len(set(used_gib(run("steady-training", seed))[120:])) == 1


def test_a_preallocating_server_stays_at_92_per_cent():
    for seed in SEEDS:
        ticks = run("prealloc-server", seed)
        total = ticks[0].devices[0].total_bytes / GIB
        late = used_gib(ticks)[200:]
        assert max(late) == min(late)
        assert 0.88 < late[0] / total < 0.93


def test_jax_takes_three_quarters_in_one_step():
    used = used_gib(run("jax-prealloc", 0))
    assert max(b - a for a, b in pairwise(used)) > 58
    assert max(used) / 79.6 < 0.78


def test_a_leak_grows_in_steps_of_whole_segments():
    """NVML sees segments, so a leak of a few MiB a step is a staircase."""
    used = [device.used_bytes for tick in run("slow-leak", 0)[600:2400] for device in tick.devices]
    steps = [b - a for a, b in pairwise(used) if b != a]
    assert all(step > 0 and step % (2 << 20) == 0 for step in steps)
    assert max(steps) >= 20 << 20
    assert used[-1] - used[0] > 15 * GIB


def test_a_sawtooth_falls_every_cycle_while_its_floor_rises():
    used = used_gib(run("leak-under-sawtooth", 0))
    falls = sum(b < a - 2 for a, b in pairwise(used))
    assert falls > 100
    floors = [min(used[at : at + 60]) for at in range(120, 2400, 300)]
    assert floors == sorted(floors)
    assert floors[-1] - floors[0] > 20


def test_fragmentation_ends_with_much_reserved_and_unused():
    (oom,) = [
        seen
        for tick in run("fragmentation", 0)
        for seen in tick.observations
        if seen.what == OOM_EVIDENCE
    ]
    assert oom.data["unused_bytes"] > 2 * oom.data["requested_bytes"]


def test_a_burst_takes_what_is_left_within_seconds():
    ticks = run("burst-oom", 0)
    (oom,) = truths(ticks, "oom")
    phase = [t for t in truths(ticks, "phase") if t.data["label"] == "allocation_event"][-1]
    assert 0.5 < oom.data["t_s"] - phase.data["start_s"] <= 12.0


def test_the_second_tenant_is_to_blame_whoever_fails():
    culprit_is_victim = set()
    for seed in range(10):
        ticks = run("second-tenant", seed)
        kinds = {seen.pid: seen.data["kind"] for seen in truths(ticks, "workload")}
        for oom in truths(ticks, "oom"):
            assert kinds[oom.data["culprit_pid"]] == "tenant-newcomer"
            culprit_is_victim.add(oom.data["culprit_pid"] == oom.data["victim_pid"])
    assert culprit_is_victim == {False, True}


def test_several_processes_share_each_gpu_of_multi_gpu():
    processes = run("multi-gpu", 0)[600].processes
    on_first = [process for process in processes if process.gpu == 0]
    assert len(on_first) == 4
    assert {process.gpu for process in processes} == {0, 1, 2, 3}
    assert len({process.pid for process in on_first[1:]} & {p.pid for p in processes if p.gpu}) == 3


def test_the_shared_server_is_crowded_and_restless():
    ticks = run("shared-server", 0)
    assert max(len(tick.processes) for tick in ticks) >= 32
    assert len(ticks[0].devices) == 8
    came = sum(seen.what == PROCESS for tick in ticks for seen in tick.observations)
    gone = sum(seen.what == GONE for tick in ticks for seen in tick.observations)
    assert came > 90
    assert gone > 60


def test_the_demo_shows_warm_up_plateau_evaluation_growth_and_the_end_within_ten_minutes():
    for seed in range(4):
        ticks = run("training-oom", seed)
        labels = [
            seen.data["label"]
            for seen in truths(ticks, "phase")
            if seen.data["label"] != "idle" and seen.pid == truths(ticks, "oom")[0].pid
        ]
        assert labels == [
            "initialization",
            "warmup",
            "optimizer_init",
            "steady_state",
            "batch_processing",
            "memory_leak",
            "dying",
        ]
        assert 300 < len(ticks) < 600
