"""Leaks: named once with a slope that holds the true one, and nothing else is."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import KEY, UUID, block, jitter, said, sawtooth

from vramtop.blocks import Block
from vramtop.engine.cut import rechunked
from vramtop.samples import GONE, LOOKED_PROCESSES, DeviceReading, Observation, ProcessReading, Tick
from vramtop.units import GIB, MIB

JITTER = jitter(20)
SHAPES = {
    "plain": lambda rate: lambda t: 4000 + rate * t,
    "with 20 MiB of jitter": lambda rate: lambda t: 4000 + rate * t + JITTER(t),
    "under teeth of 4 GiB in 12 s": lambda rate: lambda t: 4000 + rate * t + sawtooth(t, 4000, 12, 0.8),
    "under teeth of 4 GiB in 33 s": lambda rate: lambda t: 4000 + rate * t + sawtooth(t, 4000, 33, 0.8),
    "under teeth of 4 GiB in 60 s": lambda rate: lambda t: 4000 + rate * t + sawtooth(t, 4000, 60, 0.8),
    "in segments of 64 MiB": lambda rate: lambda t: 4000 + 64 * (t * rate // 64),
}  # fmt: skip


@pytest.mark.parametrize("step", [0.5, 1.0, 5.0])
@pytest.mark.parametrize("rate", [0.3, 1.0, 5.0, 40.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_leak_is_named_once_with_a_slope_that_holds_the_true_one(shape, rate, step):
    """Within 12 minutes where it shows at once, within 40 where teeth or steps hide it."""
    leaks = said([block(SHAPES[shape](rate), seconds=2600, step=step, start=17.3)], "leak")

    assert len(leaks) == 1
    assert leaks[0].slope_low_bytes_per_s <= rate * MIB <= leaks[0].slope_high_bytes_per_s
    assert leaks[0].t - 17.3 <= (720 if shape == "plain" else 2400)
    assert leaks[0].since - 17.3 <= leaks[0].t - 17.3 - 600


def test_large_equal_steps_are_a_leak_if_they_come_like_a_clock():
    """620 MiB every four and a half minutes; the same steps at odd times are allocations."""
    odd = (300, 500, 1100, 1900, 2000, 2600, 3100, 3200)

    leaks = said([block(lambda t: 4000 + 620 * (t // 270), seconds=3600, step=2.0)], "leak")
    none = said(
        [block(lambda t: 4000 + 620 * sum(when <= t for when in odd), seconds=3600)], "leak"
    )

    assert len(leaks) == 1
    assert leaks[0].slope_low_bytes_per_s <= 620 / 270 * MIB <= leaks[0].slope_high_bytes_per_s
    assert none == []


def test_since_is_when_it_began():
    """Twenty quiet minutes of a process that ran already, then 2 MiB/s."""
    leaks = said([block(lambda t: 4000 + 2 * max(0, t - 1200), seconds=2400)], "leak")

    assert [abs(e.since - 1200) <= 90 for e in leaks] == [True]


def test_a_leak_that_rests_and_comes_back_is_two():
    level = lambda t: 4000 + 3 * min(t, 1200) + 3 * max(0, t - 3000)  # noqa: E731

    leaks = said([block(level, seconds=4500)], "leak")

    assert len(leaks) == 2
    assert leaks[1].since == pytest.approx(3000, abs=90)


def test_the_start_of_a_process_is_left_out_unless_it_ran_already():
    """The same growth: an unknown past is none, a birth is."""
    level = lambda t: 300 + 20 * t  # noqa: E731
    born = said(
        [block(lambda t: level(t - 60), seconds=1000, device=lambda _: 500, born=60.0)], "leak"
    )
    ran = said([block(level, seconds=1000, device=lambda _: 500)], "leak")

    assert ran[0].t <= 720
    assert born[0].t >= 60 + 120 + 600
    assert {e.pid for e in born + ran} == {7}


def test_growth_that_no_process_accounts_for_is_the_devices():
    hidden = said([block(lambda _: 4000, seconds=1500, device=lambda t: 900 + 3 * t)], "leak")
    shown = said([block(lambda t: 4000 + 3 * t, seconds=1500, device=lambda _: 900)], "leak")

    assert [(e.pid, e.uuid) for e in hidden] == [(None, UUID)]
    assert [(e.pid, e.uuid) for e in shown] == [(7, UUID)]
    assert hidden[0].slope_low_bytes_per_s <= 3 * MIB <= hidden[0].slope_high_bytes_per_s


def test_a_card_that_holds_mig_instances_does_not_leak_beside_them():
    """Its use is theirs; said once is enough."""
    ticks = []
    for t in range(900):
        used = (2000 + 3 * t) * MIB
        rows = (
            DeviceReading(gpu=0, uuid="GPU-a", used_bytes=used, total_bytes=80 * GIB),
            DeviceReading(
                gpu=0, uuid="MIG-a", parent_uuid="GPU-a", used_bytes=used, total_bytes=40 * GIB,
                looked=LOOKED_PROCESSES,
            ),
        )  # fmt: skip
        own = (ProcessReading(gpu=0, uuid="MIG-a", pid=7, start_time=1, used_bytes=used),)
        ticks.append(Tick(seq=t, mono_ns=t * 10**9, t_us=t * 10**6, devices=rows, processes=own))

    leaks = said([Block.from_ticks(ticks)], "leak")

    assert [(e.uuid, e.pid) for e in leaks] == [("MIG-a", 7)]


def test_a_process_that_is_gone_takes_its_leak_along():
    """The same identity seen again is another life."""
    whole = block(lambda t: 4000 + 3 * (t % 1000), seconds=2000)
    gone = Observation(what=GONE, gpu=0, uuid=UUID, pid=KEY.pid, start_time=KEY.start_time)
    fields = {name: getattr(whole, name) for name in type(whole).__dataclass_fields__}
    cut = Block(**{**fields, "observations": (*whole.observations, (1000, gone))})

    leaks = said([cut], "leak")

    assert [e.t < 1000 for e in leaks] == [True, False]


@st.composite
def quiet(draw):
    """Levels that rise, or move, and are no leak."""
    base = draw(st.floats(300, 20000))
    noise = jitter(draw(st.sampled_from((0, 2, 20))), draw(st.integers(0, 99)))
    begin = draw(st.floats(0, 900))
    kind = draw(st.sampled_from(("fills", "load", "teeth", "steps", "noise", "records")))
    if kind == "fills":
        tau, height = draw(st.floats(20, 900)), draw(st.floats(500, 20000))
        return lambda t: base + height * (1 - math.exp(-max(0, t - begin) / tau)) + noise(t)
    if kind == "load":
        lasts, height = draw(st.floats(30, 600)), draw(st.floats(500, 40000))
        shards = draw(st.sampled_from((4, 12, 40, 1000)))

        def load(t):
            share = math.floor(min(1, max(0, (t - begin) / lasts)) * shards) / shards
            return base + height * share + noise(t)

        return load
    if kind == "teeth":
        period, height = draw(st.floats(3, 120)), draw(st.floats(50, 8000))
        up = draw(st.floats(0.5, 0.9))
        return lambda t: base + sawtooth(t, height, period, up) + noise(t)
    if kind == "steps":
        times = draw(st.lists(st.floats(0, 3600), min_size=1, max_size=6))
        return lambda t: base + 700 * sum(when <= t for when in times) + noise(t)
    if kind == "noise":
        return lambda t: base + 10 * noise(t)
    dice = random.Random(draw(st.integers(0, 10**6)))
    longest, highs = base, []
    for _ in range(3600):
        longest = max(longest, base + 40 * math.exp(dice.gauss(0, 1)) * dice.choice((1, 20)))
        highs.append(longest)
    return lambda t: highs[int(t)]


@settings(max_examples=60, deadline=None)
@given(level=quiet(), step=st.sampled_from((1.0, 2.0, 5.0)), start=st.floats(0, 60))
def test_caches_loads_teeth_steps_and_noise_are_no_leaks(level, step, start):
    """Filling caches with a time constant of up to a quarter of an hour, loads of ten minutes."""
    assert said([block(level, seconds=3600, step=step, start=start)], "leak") == []


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6), longest=st.integers(1, 200))
def test_leaks_do_not_depend_on_blocks(seed, longest):
    draw = random.Random(seed)
    noise = jitter(draw.choice((0, 20)), seed)
    whole = block(
        lambda t: 3000 + draw.choice((1, 1, 3)) * min(t, 1500) + noise(t),
        seconds=2400, step=5.0, start=draw.uniform(0, 100), device=lambda t: 500 + t,
    )  # fmt: skip

    pieces = said(rechunked([whole], draw, longest), "leak")

    assert [e.canonical() for e in pieces] == [e.canonical() for e in said([whole], "leak")]
