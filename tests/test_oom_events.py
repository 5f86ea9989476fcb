"""Who failed, who was to blame, who held the rest, and what is no failure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_analyzers_behaviour import PID, quantised, stream
from test_verdict import stream as crowd

from vramtop.analyzers.observed import ObservedAnalyzer
from vramtop.analyzers.oom import OomAnalyzer
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.findings.sentences import told
from vramtop.samples import EXIT, OOM_EVIDENCE, TRUTH, Observation
from vramtop.sources.sim import SimSource
from vramtop.units import GIB, MIB


def ooms(ticks):
    engine = Engine([ObservedAnalyzer(), OomAnalyzer()])
    found = engine.update(Block.from_ticks(ticks)) + engine.finish()
    return [event for event in found if event.kind == "oom"]


def message(pid, **data):
    return Observation(
        what=OOM_EVIDENCE, gpu=0, uuid="GPU-a", pid=pid, start_time=1,
        text="CUDA out of memory.", data={"kind": "device", **data},
    )  # fmt: skip


def test_a_newcomer_is_to_blame_for_the_failure_of_who_was_there_before():
    """Pid 7 has had its spike of 20 GiB before; what is new is pid 8 with 30 GiB."""
    held = lambda t: {7: (50 if t % 300 > 280 else 30) * GIB} | ({8: 30 * GIB} if t >= 700 else {})  # noqa: E731
    ticks = crowd(890, held, notes={885.0: [message(7, requested_bytes=2 * GIB, free_bytes=GIB)]})

    (oom,) = ooms(ticks)

    assert (oom.certainty, oom.pid, oom.blamed_pid, oom.requested_bytes) == (
        "confirmed",
        7,
        8,
        2 * GIB,
    )
    assert oom.holders == ((7, 50 * GIB), (8, 30 * GIB))
    assert oom.evidence == (
        "CUDA out of memory.",
        "pid 7 (python) asked for 2 GiB with 1 GiB free",
        "to blame is pid 8 (python): it came 3 min 5 s before and took up to 30 GiB",
        "the rest was held by pid 8 30 GiB",
    )
    assert told(oom).startswith("confirmed, 2 GiB asked: CUDA out of memory.")


def test_a_message_that_names_who_held_what_is_believed_before_the_readings():
    data = {"process_bytes": 41 * GIB, "neighbours": [{"pid": 99, "used_bytes": 33 * GIB}]}
    ticks = crowd(100, lambda _: {7: 40 * GIB}, notes={50.0: [message(7, **data)]})

    (oom,) = ooms(ticks)

    assert oom.holders == ((7, 41 * GIB), (99, 33 * GIB))


def test_memory_of_nobody_is_named_among_those_who_held_the_rest():
    ticks = crowd(
        100, lambda _: {7: 40 * GIB}, notes={50.0: [message(7)]}, unseen=lambda _: 30 * GIB
    )

    (oom,) = ooms(ticks)

    assert oom.holders == ((7, 40 * GIB), (None, 30 * GIB))
    assert "the rest was held by no visible process 30 GiB" in oom.evidence


def test_without_growth_nobody_is_blamed():
    (oom,) = ooms(crowd(3000, lambda _: {7: 40 * GIB, 8: 30 * GIB}, notes={2900.0: [message(7)]}))

    assert oom.blamed_pid is None


def test_a_leak_is_to_blame_itself_for_what_it_took_beyond_its_earlier_peak():
    ticks = stream(lambda t: quantised(2 * GIB + 60 * MIB * t), seconds=376, gone=375)

    (oom,) = ooms(ticks)

    assert (oom.certainty, oom.blamed_pid) == ("inferred", PID)
    assert any(text.startswith("it is to blame itself: it went ") for text in oom.evidence)


@pytest.mark.parametrize("step", [0.2, 0.5, 1.0, 2.0, 5.0])
def test_a_death_at_the_limit_is_inferred_at_any_sampling(step):
    """With the dip of a cache that is freed before the failure is final."""
    ticks = stream(
        lambda t: min(23.8 * GIB, 2 * GIB + 60 * MIB * t) if t < 375 else 5 * GIB,
        seconds=420, step=step, gone=385,
    )  # fmt: skip

    assert [oom.certainty for oom in ooms(ticks)] == ["inferred"]


def ending(**data):
    return {369.0: [Observation(what=EXIT, pid=PID, data=data)]}


@pytest.mark.parametrize("data", [
    {"exit_code": 0}, {"exit_code": 143}, {"exit_code": -15}, {"exit_code": 137}, {"signal": 2},
], ids=str)  # fmt: skip
def test_who_ended_well_or_was_ended_has_not_failed(data):
    ticks = stream(lambda t: 2 * GIB + 60 * MIB * t, seconds=400, gone=370, notes=ending(**data))

    assert ooms(ticks) == []


def test_a_process_that_is_known_to_have_failed_needs_less_evidence():
    """3 GiB of 24 are free: a large request is refused before memory looks full."""
    level = lambda t: quantised(GIB + 54 * MIB * t)  # noqa: E731

    (oom,) = ooms(stream(level, seconds=400, gone=370, notes=ending(exit_code=1)))

    assert "its exit code says that it failed" in oom.evidence
    assert ooms(stream(level, seconds=400, gone=370)) == []


def test_a_clean_end_is_not_held_to_the_credit_of_the_next_process_of_that_pid():
    """PIDs come again; a minute later the code says nothing any more."""
    bye = {10.0: [Observation(what=EXIT, pid=PID, data={"exit_code": 0})]}
    ticks = stream(lambda t: 2 * GIB + 60 * MIB * t, seconds=400, gone=375, notes=bye)

    assert [oom.certainty for oom in ooms(ticks)] == ["inferred"]


@pytest.mark.parametrize("scenario", ["second-tenant", "startup-oom", "burst-oom", "training-oom"])
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("told_so", [True, False], ids=["with the message", "without it"])
def test_simulated_failures_are_found_and_the_culprit_named(scenario, seed, told_so):
    ticks = list(SimSource(scenario, seed=seed, interval_s=1.0, pace=None).ticks())
    truths = [
        seen.data
        for tick in ticks
        for seen in tick.observations
        if seen.what == TRUTH and seen.name == "oom"
    ]
    if not told_so:
        ticks = [
            replace(t, observations=tuple(o for o in t.observations if o.what != OOM_EVIDENCE))
            for t in ticks
        ]

    found = ooms(ticks)

    assert [(oom.pid, oom.blamed_pid) for oom in found] == [
        (truth["victim_pid"], truth["culprit_pid"]) for truth in truths
    ]
    assert {oom.certainty for oom in found} <= {"confirmed" if told_so else "inferred"}
