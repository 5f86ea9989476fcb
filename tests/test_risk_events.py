"""Levels, ranges and reasons of the risk analyzer, from ticks to events."""

from __future__ import annotations

from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.samples import (
    GONE,
    INTERVAL,
    LOOKED_PROCESSES,
    PROCESS,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.units import GIB, MIB, NS_PER_S

TOTAL, RESERVED = 80 * GIB, 600 * MIB
LIMIT = TOTAL - RESERVED


def risks(levels, seconds, *, gone=(), every_s=1, parent=None):
    """Risk events of a GPU whose processes hold `levels[pid](t)` bytes.

    `gone` maps a process to when it ends; with `parent` the GPU is an instance of that one.
    """
    gone = dict(gone)
    ticks = []
    for seq, t in enumerate(range(0, seconds, every_s)):
        alive = {pid: int(level(t)) for pid, level in levels.items() if t < gone.get(pid, 1 << 60)}
        seen = [Observation(what=INTERVAL, data={"interval_ns": every_s * NS_PER_S})] * (t == 0)
        if t == 0:
            seen += [
                Observation(
                    what=PROCESS, gpu=0, uuid="GPU-a", pid=pid, start_time=1, name=f"p{pid}"
                )
                for pid in levels
            ]
        seen += [
            Observation(what=GONE, gpu=0, uuid="GPU-a", pid=pid, start_time=1)
            for pid, end in gone.items()
            if t - every_s < end <= t
        ]
        used = sum(alive.values())
        device = DeviceReading(
            gpu=0, uuid="GPU-a", total_bytes=TOTAL, reserved_bytes=RESERVED, used_bytes=used,
            free_bytes=LIMIT - used, looked=LOOKED_PROCESSES, parent_uuid=parent,
        )  # fmt: skip
        above = () if parent is None else (
            DeviceReading(
                gpu=0, uuid=parent, total_bytes=2 * TOTAL, reserved_bytes=RESERVED,
                used_bytes=LIMIT + used, free_bytes=LIMIT - used, looked=0,
            ),
        )  # fmt: skip
        ticks.append(
            Tick(
                seq=seq, mono_ns=t * NS_PER_S, t_us=t * 10**6, devices=(*above, device),
                processes=tuple(
                    ProcessReading(gpu=0, uuid="GPU-a", pid=pid, start_time=1, used_bytes=held)
                    for pid, held in alive.items()
                ),
                observations=tuple(seen),
            )
        )  # fmt: skip
    engine = Engine()
    events = engine.update(Block.from_ticks(ticks)) + engine.finish()
    return [event for event in events if event.kind == "oom_risk"]


def leak(rate_mib, start_gib):
    return lambda t: min(start_gib * GIB + t * rate_mib * MIB, LIMIT - 12 * GIB)


def flat(gib):
    return lambda _: gib * GIB


def test_a_leak_becomes_critical_within_its_range_and_names_who_leaks():
    """68 GiB less 30 GiB at 20 MiB/s: full after 1914 s."""
    found = risks({7: leak(20, 30), 8: flat(11)}, 1830)

    critical = next(event for event in found if event.level == "critical")
    left = (LIMIT - 41 * GIB) / (20 * MIB) - critical.t
    assert 60 <= left <= 600
    assert critical.eta_low_s <= left <= critical.eta_high_s
    assert "p7 (pid 7)" in critical.reason
    assert "+20 MiB/s" in critical.reason
    assert found[-1].level == "critical"


def test_a_level_is_raised_once_and_stands():
    """No flicker: one change to each level on the way to the limit."""
    found = risks({7: leak(20, 30), 8: flat(11)}, 1830)

    levels = [event.level for event in found]
    changes = [
        level for before, level in zip(["none", *levels], levels, strict=False) if level != before
    ]
    assert changes == ["warning", "critical"]


def test_a_full_device_that_is_still_raises_nothing():
    assert risks({7: flat(76)}, 1200) == []


def test_the_alarm_goes_with_the_process_that_grew():
    """It ends at 1850 s, and with it what threatened; nobody waits for 50 s to pass."""
    found = risks({7: leak(20, 30), 8: flat(11)}, 1900, gone={7: 1850})

    assert found[-1].level == "none"
    assert 1850 <= found[-1].t <= 1860
    assert found[-2].level == "critical"


def test_the_alarm_stays_when_a_process_ends_that_held_the_same_all_along():
    """A neighbour's 4 GiB are free at 1800 s; the growth goes on, and there is more time."""
    found = risks({7: leak(20, 30), 8: flat(7), 9: flat(4)}, 1860, gone={9: 1800})

    raised = [event for event in found if event.level != "none"]
    assert raised == found
    assert found[0].t < 1800
    after = next(event for event in found if event.t >= 1800)
    assert after.eta_high_s > [event for event in found if event.t < 1800][-1].eta_high_s


def test_a_gpu_that_is_split_is_not_judged_itself():
    found = risks({7: leak(20, 30), 8: flat(11)}, 1830, parent="GPU-whole")

    assert {event.uuid for event in found} == {"GPU-a"}
    assert found[-1].level == "critical"


def test_sampling_does_not_decide_the_alarm():
    """Every second and every five seconds, the critical alarm comes within half a minute."""
    one, five = (
        next(
            e.t
            for e in risks({7: leak(20, 30), 8: flat(11)}, 1830, every_s=s)
            if e.level == "critical"
        )
        for s in (1, 5)
    )

    assert abs(one - five) <= 30
