"""Memory held in vain: by idle processes, and by nobody."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from streams import random_ticks

from vramtop.analyzers.holders import IdleHolderAnalyzer
from vramtop.analyzers.orphans import OrphanAnalyzer
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.engine.cut import rechunked
from vramtop.findings.sentences import told
from vramtop.samples import (
    GONE,
    GPU_LOST,
    LOOKED_PROCESSES,
    LOOKED_UTIL,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.units import GIB, MIB, NS_PER_S

TOTAL = 80 * GIB
FLOOR = 400 * MIB


def stream(seconds, held, util=lambda _: 0, *, step=10.0, extra=lambda _: 0, notes=None):
    """One GPU; `held(t)` gives {pid: bytes or None}, `util(t)` a percentage, None, or "unread"."""
    ticks, alive = [], {}
    for seq in range(int(seconds / step)):
        t = seq * step
        now = held(t)
        seen = list((notes or {}).get(t, ()))
        seen += [
            Observation(what=GONE, gpu=0, uuid="GPU-a", pid=pid, start_time=1)
            for pid in alive.keys() - now.keys()
        ]
        alive = now
        used = FLOOR + extra(t) + sum(value or 0 for value in now.values())
        looked = LOOKED_PROCESSES | (0 if util(t) == "unread" else LOOKED_UTIL)
        ticks.append(
            Tick(
                seq=seq, mono_ns=int(t * NS_PER_S), t_us=int(t * 10**6), observations=tuple(seen),
                devices=(
                    DeviceReading(
                        gpu=0, uuid="GPU-a", total_bytes=TOTAL, used_bytes=used,
                        free_bytes=TOTAL - used, looked=looked,
                        gpu_util_pct=None if util(t) == "unread" else util(t),
                    ),
                ),
                processes=tuple(
                    ProcessReading(gpu=0, uuid="GPU-a", pid=pid, start_time=1, used_bytes=value)
                    for pid, value in now.items()
                ),
            )
        )  # fmt: skip
    return ticks


def found(ticks, analyzer, cut=None):
    engine = Engine([analyzer])
    blocks = [Block.from_ticks(ticks)]
    if cut is not None:
        blocks = rechunked(blocks, random.Random(cut), 40)
    return [event for block in blocks for event in engine.update(block)] + engine.finish()


def test_a_process_on_an_idle_gpu_is_named_after_the_time_and_costed_at_the_end():
    """20 GiB for two hours in vain are 40 GiB-hours."""
    ticks = stream(9000, lambda t: {7: 20 * GIB} if t < 7200 else {})

    events = found(ticks, IdleHolderAnalyzer())

    assert [(e.state, e.t, e.pid, e.since, e.held_bytes) for e in events] == [
        ("idle", 1800.0, 7, 0.0, 20 * GIB),
        ("ended", 7200.0, 7, 0.0, 20 * GIB),
    ]
    assert [e.gib_hours for e in events] == [10.0, 40.0]
    assert told(events[1]).startswith("no longer idle: 20 GiB had been held on an idle GPU for 2 h")


def test_what_still_stands_when_the_recording_ends_is_told_with_its_cost():
    events = found(stream(3600, lambda _: {7: 2 * GIB}), IdleHolderAnalyzer())

    assert [(e.state, e.t) for e in events] == [("idle", 1800.0), ("open", 3590.0)]
    assert events[-1].gib_hours == pytest.approx(2 * 3590 / 3600)


@pytest.mark.parametrize(
    "util",
    [lambda _: None, lambda _: "unread", lambda t: 5 if t % 1500 == 0 else 0, lambda _: 2],
    ids=["no reading", "never looked at", "busy for a moment every 25 min", "two per cent"],
)
def test_unknown_or_some_utilisation_is_never_idle(util):
    assert found(stream(7200, lambda _: {7: 20 * GIB}, util), IdleHolderAnalyzer()) == []


def test_utilisation_that_is_not_read_any_more_ends_the_certainty():
    """Idle for 29 minutes, then nobody looked: nothing can be said at 30."""
    util = lambda t: 0 if t < 1740 else "unread"  # noqa: E731

    assert found(stream(7200, lambda _: {7: 20 * GIB}, util), IdleHolderAnalyzer()) == []


def test_a_pause_in_looking_ends_an_episode_at_the_last_look_and_counts_no_more():
    ticks = stream(3600, lambda _: {7: 36 * GIB})
    later = [
        t if t.seq < 300 else replace(t, mono_ns=t.mono_ns + 6000 * NS_PER_S, t_us=t.t_us + 6 * 10**9)
        for t in ticks
    ]  # fmt: skip

    events = found(later, IdleHolderAnalyzer())

    assert [(e.state, e.gib_hours) for e in events] == [("idle", 18.0), ("ended", 29.9)]


def test_little_memory_is_not_worth_a_word():
    assert found(stream(7200, lambda _: {7: GIB}), IdleHolderAnalyzer()) == []


@pytest.mark.parametrize("step", [0.5, 1.0, 5.0, 30.0])
def test_an_idle_holder_is_named_alike_at_any_sampling(step):
    ticks = stream(2400, lambda _: {7: 20 * GIB}, lambda t: 90 if t < 300 else 0, step=step)

    events = found(ticks, IdleHolderAnalyzer())

    assert [(e.state, e.since) for e in events] == [("idle", 300.0), ("open", 300.0)]
    assert events[0].t == 2100.0


def test_memory_that_stays_after_its_process_has_gone_is_orphaned():
    """Of 10 GiB that pid 7 held 6 GiB are still in use, and for half an hour."""
    ticks = stream(
        3600,
        lambda t: {7: 10 * GIB, 8: GIB} if t < 600 else {8: GIB},
        extra=lambda t: 6 * GIB if 600 <= t < 2400 else 0,
    )

    events = found(ticks, OrphanAnalyzer())

    assert [(e.state, e.t, e.held_bytes, e.since, e.former_pids, e.pid) for e in events] == [
        ("orphaned", 660.0, 6 * GIB, 600.0, (7,), None),
        ("ended", 2410.0, 6 * GIB, 600.0, (7,), None),
    ]
    assert events[1].gib_hours == pytest.approx(6 * 1800 / 3600, rel=0.02)


@pytest.mark.parametrize(
    ("held", "extra", "notes"),
    [
        (lambda t: {7: 10 * GIB} if t < 600 else {}, lambda _: 6 * GIB, {}),
        (lambda t: {7: 10 * GIB} if t < 600 else {}, lambda t: 6 * GIB if 600 <= t < 640 else 0, {}),
        (lambda _: {7: 10 * GIB}, lambda t: 6 * GIB if t > 600 else 0, {}),
        (lambda t: {7: 10 * GIB, 8: None} if t < 600 else {8: None}, lambda t: 6 * GIB if t >= 600 else 0, {}),
        (lambda t: {7: 10 * GIB} if t < 600 else {}, lambda t: 6 * GIB if t >= 600 else 0,
         {630.0: [Observation(what=GPU_LOST, uuid="GPU-a")]}),
        (lambda t: {7: 256 * MIB} if t < 600 else {}, lambda t: 6 * GIB if t >= 600 else 0, {}),
    ],
    ids=["was there before", "cleared up within 40 s", "nobody has gone", "a process is hidden",
         "the GPU was lost", "more than it ever held"],
)  # fmt: skip
def test_memory_of_nobody_is_no_orphan_when_something_else_explains_it(held, extra, notes):
    assert found(stream(3600, held, extra=extra, notes=notes), OrphanAnalyzer()) == []


@pytest.mark.parametrize("make", [
    lambda: IdleHolderAnalyzer(least_bytes=100 * MIB, idle_pct=60, idle_s=3.0, unseen_s=8.0),
    lambda: OrphanAnalyzer(least_bytes=1, hold_s=1.0, window_s=2.0),
], ids=["idle", "orphan"])  # fmt: skip
def test_hostile_streams_say_the_same_in_any_blocks(make):
    """With hidden readings, reused PIDs, lost GPUs; bounds so low that much is said."""
    said = 0
    for seed in range(14):
        draw = random.Random(seed)
        ticks, nobodys = [], 0
        for tick in random_ticks(seed, count=300):
            if any(seen.what == GONE for seen in tick.observations):
                nobodys += draw.choice((0, 600, 5000)) * MIB
            elif draw.random() < 0.05:
                nobodys = 0
            more = [
                d if d.used_bytes is None else replace(d, used_bytes=d.used_bytes + nobodys)
                for d in tick.devices
            ]
            ticks.append(replace(tick, devices=tuple(more)))

        whole = found(ticks, make())

        assert found(ticks, make(), cut=seed) == whole
        assert found(ticks, make(), cut=seed + 99) == whole
        said += len(whole)
    assert said >= 10
