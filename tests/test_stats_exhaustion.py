"""How a level approaches its limit: `vramtop.stats.exhaustion`."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramtop.stats.exhaustion import History

GIB = 1 << 30
MIB = 1 << 20
S = 10**9
LIMIT = 80 * GIB


def followed(level, seconds, every_s=1):
    """A history of `level(t)`, asked at the end."""
    history = History(0, int(level(0)), LIMIT)
    for t in range(every_s, seconds + 1, every_s):
        if int(level(t)) != history.level:
            history.put(t * S, int(level(t)), LIMIT)
    return history.outlook(seconds * S)


def leak(rate_mib, start_gib=40):
    return lambda t: (start_gib * GIB + int(t * rate_mib * MIB)) // (2 * MIB) * 2 * MIB


@pytest.mark.parametrize("rate_mib", [1, 3, 12, 30])
def test_the_time_left_of_a_ramp_is_what_is_left_over_its_rate(rate_mib):
    outlook = followed(leak(rate_mib), 900)

    true = (LIMIT - leak(rate_mib)(900)) / (rate_mib * MIB)
    assert outlook.left_s == pytest.approx(true, rel=0.12)
    assert outlook.spread > 0.8
    assert outlook.agreement > 0.8
    assert not outlook.flushed


@pytest.mark.parametrize("every_s", [2, 5, 10])
def test_the_time_left_hardly_depends_on_the_sampling(every_s):
    assert followed(leak(8), 900, every_s).left_s == pytest.approx(
        followed(leak(8), 900).left_s, rel=0.05
    )


def test_a_leak_under_a_sawtooth_is_seen_through_it():
    """A sawtooth of 4 GiB every 12 s over 5 MiB/s."""
    outlook = followed(lambda t: leak(5)(t) + t % 12 * 4 * GIB // 12, 1200)

    top = leak(5)(1200) + 11 * 4 * GIB // 12
    assert outlook.left_s == pytest.approx((LIMIT - top) / (5 * MIB), rel=0.15)


@pytest.mark.parametrize("period", [10, 60, 240])
def test_a_sawtooth_around_a_level_leads_nowhere(period):
    outlook = followed(lambda t: 40 * GIB + t % period * 8 * GIB // period, 3600)

    assert outlook.left_s == inf
    assert 0.1 < outlook.swing < 0.5


def test_a_single_step_has_no_spread():
    outlook = followed(lambda t: 40 * GIB if t < 600 else 60 * GIB, 700)

    assert outlook.spread == 0.0 or outlook.left_s == inf


def test_a_cache_that_is_emptied_at_the_limit_is_judged_by_its_floor():
    """It rises to the limit in 100 s and falls to a floor that climbs by 20 MiB/s."""

    def level(t):
        floor = 40 * GIB + t * 20 * MIB
        return floor + (LIMIT - floor) * (t % 100) // 99

    outlook = followed(level, 1000)

    assert outlook.flushed
    assert outlook.left_s == pytest.approx((LIMIT - 40 * GIB) / (20 * MIB) - 1000, rel=0.25)


def test_a_touch_is_forgotten_after_twenty_minutes():
    history = History(0, 20 * GIB, LIMIT)
    history.put(10 * S, LIMIT - 1, LIMIT)
    history.put(20 * S, 20 * GIB, LIMIT)

    assert history.outlook(1200 * S).flushed
    assert not history.outlook(1300 * S).flushed


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 80 * 1024)), min_size=1, max_size=80))
def test_whatever_the_level_does_shares_stay_shares(steps):
    history = History(0, 0, LIMIT)
    now = 0
    for seconds, mib in steps:
        now += seconds * S
        history.put(now, mib * MIB, LIMIT)
        outlook = history.outlook(now)

        assert outlook.left_s >= 0
        assert all(
            0 <= share <= 1
            for share in (
                outlook.lasted, outlook.spread, outlook.recent, outlook.steps,
                outlook.agreement, outlook.swing,
            )
        )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12 * S), st.integers(0, 80 * 1024)), min_size=1, max_size=80)
)
def test_asking_in_between_changes_nothing(steps):
    """Changes within five seconds are gathered; whoever asks gets them all."""
    asked, silent = History(0, 0, LIMIT), History(0, 0, LIMIT)
    now = 0
    for wait_ns, mib in steps:
        now += wait_ns
        asked.put(now, mib * MIB, LIMIT)
        silent.put(now, mib * MIB, LIMIT)
        asked.outlook(now)
        now += wait_ns
        asked.outlook(now)

    assert silent.outlook(now) == asked.outlook(now)
