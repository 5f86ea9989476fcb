"""Phases: the same at any sampling rate, and neither teeth nor steps are growth."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from levels import block, jitter, said, sawtooth

from vramtop.analyzers.observed import ObservedAnalyzer
from vramtop.analyzers.phase import PhaseAnalyzer
from vramtop.engine import Engine
from vramtop.engine.cut import rechunked
from vramtop.units import MIB

INTERVALS = (0.2, 0.5, 1.0, 2.0, 5.0)


def up_rest_down(t):
    """20 MiB/s for five minutes, a rest of five, and half of it given back."""
    return 2000 + 20 * min(max(t - 200, 0), 300) - 10 * min(max(t - 800, 0), 300)


JITTER = jitter(20)
ONE_WAY = {
    "0.3 MiB/s": (0.3, lambda t: 2000 + 0.3 * t),
    "3 MiB/s": (3.0, lambda t: 2000 + 3 * t),
    "40 MiB/s": (40.0, lambda t: 2000 + 40 * t),
    "0.3 MiB/s at 60 GiB": (0.3, lambda t: 60000 + 0.3 * t),
    "3 MiB/s with 20 MiB of jitter": (3.0, lambda t: 5000 + 3 * t + JITTER(t)),
    "64 MiB every 30 s": (64 / 30, lambda t: 2000 + 64 * (t // 30)),
    "-3 MiB/s": (-3.0, lambda t: 9000 - 3 * t),
}


@pytest.mark.parametrize("step", INTERVALS)
def test_phases_change_at_the_same_times_at_any_sampling_rate(step):
    found = said([block(up_rest_down, seconds=1300, step=step)], "phase")

    assert [e.phase for e in found] == ["stable", "growing", "stable", "shrinking", "stable"]
    for event, expected in zip(found, (5, 235, 535, 835, 1135), strict=True):
        assert abs(event.t - expected) <= 10
    assert found[1].rate_bytes_per_s == pytest.approx(20 * MIB, rel=0.2)
    assert found[3].rate_bytes_per_s == pytest.approx(-10 * MIB, rel=0.2)


@pytest.mark.parametrize(
    "dropped",
    [
        lambda n, _: random.Random(n).random() < 0.5,
        lambda _, t: 350 < t < 380,
        lambda _, t: 560 < t < 700,
        lambda _, t: 300 < t < 301 or 900 < t < 920,
    ],
    ids=["half of all", "30 s of growth", "two minutes of rest", "here and there"],
)
def test_lost_ticks_and_gaps_do_not_change_the_phases(dropped):
    found = said([block(up_rest_down, seconds=1300, dropped=dropped)], "phase")

    assert [e.phase for e in found] == ["stable", "growing", "stable", "shrinking", "stable"]
    for event, expected in zip(found, (5, 235, 535, 835, 1135), strict=True):
        assert abs(event.t - expected) <= 15


@pytest.mark.parametrize("step", INTERVALS)
@pytest.mark.parametrize("name", ONE_WAY)
def test_what_goes_one_way_is_growing_or_shrinking_with_its_rate(name, step):
    true, level = ONE_WAY[name]

    engine = Engine([ObservedAnalyzer(), PhaseAnalyzer()])
    found = [e for e in engine.update(block(level, seconds=900, step=step)) if e.kind == "phase"]

    assert found[-1].phase == ("growing" if true > 0 else "shrinking")
    assert found[-1].t <= 180
    last = engine.view.signals["phase"][-1].value
    assert last[1] == pytest.approx(true * MIB, rel=0.2)


@pytest.mark.parametrize("step", [0.5, 1.0, 5.0])
@pytest.mark.parametrize("up", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("period", [3, 7, 12, 30, 60, 120])
def test_a_sawtooth_is_volatile_once_it_has_had_two_teeth(period, up, step):
    level = lambda t: 10000 + sawtooth(t, 4000, period, up)  # noqa: E731

    found = said([block(level, seconds=1500, step=step, start=3.0)], "phase")

    assert found[-1].phase == "volatile"
    assert found[-1].t <= 60 + 2 * period + 3


@pytest.mark.parametrize("step", [0.2, 1.0, 5.0])
@pytest.mark.parametrize(
    "level",
    [
        lambda t: 8000 + 2 * (int(t) * 7919 % 3 - 1),
        lambda t: 10000 + JITTER(t),
        lambda t: 4000 * (1 + min(3, t // 200)),
        lambda t: 2000 if t < 300 else 16000,
        lambda t: 12000 + 4000 * (300 <= t < 320),
        lambda t: 9000 - 6000 * (t > 600),
        lambda t: 5000 + sawtooth(t, 60, 20, 0.8),
    ],
    ids=["2 MiB wobble", "20 MiB jitter", "steps", "a jump", "a spike", "a fall", "small teeth"],
)
def test_small_movement_and_single_steps_are_stable(level, step):
    assert {e.phase for e in said([block(level, seconds=1200, step=step)], "phase")} == {"stable"}


def test_a_leak_under_a_sawtooth_is_growth_after_ten_minutes_and_stays_so():
    level = lambda t: 5000 + 2 * t + sawtooth(t, 4000, 12, 0.8)  # noqa: E731

    found = said([block(level, seconds=3600)], "phase")

    assert [e.phase for e in found] == ["stable", "volatile", "growing"]
    assert found[-1].rate_bytes_per_s == pytest.approx(2 * MIB, rel=0.2)


def test_judgements_that_take_turns_cannot_keep_an_old_phase_alive():
    """Flat for ten minutes, then teeth and ramps in turns: anything but stable."""
    level = lambda t: (  # noqa: E731
        8000 if t < 600 else 8000 + sawtooth(t, 3000, 9, 0.8) * (t // 8 % 2) + 3 * (t - 600)
    )

    found = said([block(level, seconds=1800)], "phase")

    assert found[0].phase == "stable"
    assert 600 < found[1].t < 720
    assert {e.phase for e in found[1:]} <= {"volatile", "growing"}


def test_the_signal_tells_a_rate_that_has_moved_by_a_tenth():
    """Growth that doubles its pace is one phase; who draws the rate still learns of it."""
    level = lambda t: 2000 + 5 * t + 5 * max(0, t - 600)  # noqa: E731
    engine = Engine([ObservedAnalyzer(), PhaseAnalyzer()])

    events = engine.update(block(level, seconds=1200))
    told = [signal.value for signal in engine.view.signals["phase"]]

    assert [e.phase for e in events if e.kind == "phase"] == ["stable", "growing"]
    assert told[-1][1] == pytest.approx(10 * MIB, rel=0.1)
    rates = [rate for _, rate in told[1:]]
    for before, after in itertools.pairwise(rates):
        assert abs(after - before) >= 0.1 * before


def test_confidence_grows_with_what_was_seen_and_falls_with_what_goes_against_it():
    clean = said([block(lambda t: 2000 + 10 * t, seconds=600, step=1.0)], "phase")
    torn = said([block(lambda t: 2000 + 3 * t + JITTER(t), seconds=600)], "phase")

    assert clean[0].confidence == pytest.approx(1 / 12)
    assert clean[1].confidence > torn[-1].confidence / 2
    assert all(0 <= e.confidence <= 1 for e in clean + torn)


def test_a_device_has_a_phase_of_its_own():
    found = said([block(lambda _: 4000, seconds=600, device=lambda t: 900 + 5 * t)], "phase")

    assert [(e.pid, e.phase) for e in found] == [
        (None, "stable"), (7, "stable"), (None, "growing"),
    ]  # fmt: skip


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), longest=st.integers(1, 90))
def test_phases_and_rates_do_not_depend_on_blocks(seed, longest):
    """The signal too, of which no event speaks."""
    draw = random.Random(seed)
    noise, rate = jitter(draw.choice((0, 2, 20)), seed), draw.choice((0, 0.5, 3, 20))
    height, period = draw.choice((0, 300, 4000)), draw.uniform(3, 100)
    whole = block(
        lambda t: 3000 + rate * t + sawtooth(t, height, period, 0.8) + noise(t),
        seconds=700, step=draw.choice((0.5, 1.0, 5.0)), start=draw.uniform(0, 100),
        dropped=lambda _, t: draw.random() < 0.02 or 300 < t < 300 + seed % 200,
    )  # fmt: skip

    assert told(rechunked([whole], draw, longest)) == told([whole])


def told(blocks):
    engine, out = Engine([ObservedAnalyzer(), PhaseAnalyzer()]), []
    for part in blocks:
        out += [event.canonical() for event in engine.update(part)]
        signals = engine.view.signals.get("phase", ())
        out += [f"{int(part.seq[s.tick])} {s.key} {s.value}" for s in signals]
    return sorted(out)
