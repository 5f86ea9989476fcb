"""The online segmentation meets the exact optimum."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruptures.detection import KernelCPD

from vramtop.stats.envelope import Envelope
from vramtop.stats.fpop import Fpop

levels = st.one_of(
    st.lists(st.integers(0, 12), min_size=2, max_size=60),
    st.lists(st.floats(-50, 50, allow_nan=False), min_size=2, max_size=40),
    st.lists(st.sampled_from((0, 1, 8, 9)), min_size=2, max_size=80),
)
penalties = st.sampled_from((0.5, 2.0, 10.0, 50.0))


def cost(values, weights, cuts, penalty):
    bounds = [0, *cuts, len(values)]
    total = penalty * len(cuts)
    for start, stop in itertools.pairwise(bounds):
        part, weight = np.array(values[start:stop], float), np.array(weights[start:stop], float)
        mean = (part * weight).sum() / weight.sum()
        total += (weight * (part - mean) ** 2).sum()
    return total


@settings(max_examples=300, deadline=None)
@given(values=levels, penalty=penalties)
def test_cost_equals_that_of_ruptures(values, penalty):
    """KernelCPD with a linear kernel is an exact offline solver of the same problem."""
    online = Fpop(penalty=penalty)
    for value in values:
        online.push(float(value), 1.0)
    signal = np.array(values, float)
    offline = KernelCPD(kernel="linear", min_size=1, jump=1).fit(signal).predict(pen=penalty)[:-1]

    found = cost(values, [1.0] * len(values), online.changepoints(), penalty)

    assert found == pytest.approx(
        cost(values, [1.0] * len(values), offline, penalty), rel=1e-9, abs=1e-7
    )
    assert online.cost == pytest.approx(found, rel=1e-9, abs=1e-7)


@settings(max_examples=200, deadline=None)
@given(values=levels, penalty=penalties)
def test_runs_with_weights_cost_what_their_samples_cost(values, penalty):
    """A plateau pushed once with its length is the same problem as its samples one by one."""
    runs: list[list[float]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1][1] += 1
        else:
            runs.append([value, 1])
    by_run, by_sample = Fpop(penalty=penalty), Fpop(penalty=penalty)
    for value, weight in runs:
        by_run.push(float(value), float(weight))
    for value in values:
        by_sample.push(float(value), 1.0)

    assert by_run.cost == pytest.approx(by_sample.cost, rel=1e-9, abs=1e-7)


@settings(max_examples=200, deadline=None)
@given(values=levels, more=levels, penalty=penalties)
def test_what_is_settled_stays(values, more, penalty):
    """A changepoint that all candidates share is in every later optimum's partition."""
    online = Fpop(penalty=penalty)
    root = online.newest
    for value in values:
        online.push(float(value), 1.0)
    settled = online.settled(root)
    for value in more:
        online.push(float(value), 1.0)

    assert settled.index == 0 or settled.index in online.changepoints()


def random_series(draw, count):
    """One of seven kinds, among them heavy tails and an offset that eats digits."""
    kind = draw.randrange(7)
    if kind == 0:
        return [float(t // draw.randrange(1, 9) * 2) for t in range(count)]
    if kind == 1:
        period = draw.randrange(2, 12)
        return [float(t % period * 8) for t in range(count)]
    if kind == 2:
        return list(itertools.accumulate(float(draw.choice((-2, 0, 0, 2))) for _ in range(count)))
    if kind == 3:
        return [draw.gauss(0, 1) / max(abs(draw.gauss(0, 1)), 0.05) for _ in range(count)]
    if kind == 4:
        return [7.0] * count
    if kind == 5:
        return [8e10 + 2.0 * draw.randrange(9) for _ in range(count)]
    return [draw.gauss(0, 1) + 5 * (t > count // 2) for t in range(count)]


def test_cost_equals_that_of_ruptures_on_600_series_of_all_kinds():
    """Staircases, sawteeth, walks, heavy tails, constants, levels of 8e10; same cost each time."""
    draw = random.Random(20)
    for _ in range(600):
        values = random_series(draw, draw.randrange(2, 80))
        penalty = draw.choice((0.5, 2.0, 10.0, 50.0, 500.0))
        online = Fpop(penalty=penalty)
        for value in values:
            online.push(value, 1.0)
        # ruptures works on inner products, which lose the offset's digits.
        shifted = [value - values[0] for value in values]
        cuts = KernelCPD(kernel="linear", min_size=1, jump=1).fit(np.array(shifted))
        least = cost(shifted, [1.0] * len(values), cuts.predict(pen=penalty)[:-1], penalty)
        found = cost(shifted, [1.0] * len(values), online.changepoints(), penalty)

        assert found == pytest.approx(least, rel=1e-9, abs=1e-7)
        assert online.cost == pytest.approx(least, rel=1e-9, abs=1e-7)
        assert online.exact


def test_every_prefix_is_at_its_own_optimum():
    """The stream may end anywhere: what was found by then is optimal for what came by then."""
    draw = random.Random(3)
    for _ in range(12):
        values = random_series(draw, 45)
        shifted = np.array(values) - values[0]
        online = Fpop(penalty=10.0)
        for count, value in enumerate(values, 1):
            online.push(value, 1.0)
            if count > 1:
                cuts = KernelCPD(kernel="linear", min_size=1, jump=1).fit(shifted[:count])
                ones = [1.0] * count
                least = cost(shifted[:count], ones, cuts.predict(pen=10.0)[:-1], 10.0)
                assert online.cost == pytest.approx(least, rel=1e-9, abs=1e-7)


def test_cost_equals_that_of_skchange():
    """A second oracle, where it is installed."""
    detectors = pytest.importorskip("skchange.detectors")
    draw = random.Random(5)
    for _ in range(40):
        values = random_series(draw, 60)
        shifted = np.array(values) - values[0]
        online = Fpop(penalty=20.0)
        for value in values:
            online.push(value, 1.0)
        signal = shifted[:, None]
        cuts = [int(cut) for cut in detectors.FPOP(penalty=20.0).fit(signal).predict(signal)]
        assert online.cost == pytest.approx(
            cost(shifted, [1.0] * 60, cuts, 20.0), rel=1e-9, abs=1e-7
        )


def test_the_latest_of_equal_partitions_is_taken():
    """0 1 2 at a penalty of 0.75: cutting before or after the 1 costs the same."""
    online = Fpop(penalty=0.75)
    for value in (0.0, 1.0, 2.0):
        online.push(value, 1.0)

    assert online.changepoints() == [2]


def test_a_bound_on_pieces_is_kept_and_told():
    """The worst curve found keeps over a hundred pieces; held to 16 it says that it guesses."""
    free, bound = Fpop(penalty=30.0), Fpop(penalty=30.0, max_pieces=16)
    for t in range(3000):
        free.push(t**0.5, 1.0)
        bound.push(t**0.5, 1.0)
        assert bound.live <= 18

    assert free.exact
    assert not bound.exact
    assert bound.cost >= free.cost * (1 - 1e-12)


def test_candidates_stay_few_on_a_long_plateau_with_noise():
    draw = np.random.default_rng(1)
    online = Fpop(penalty=30.0)
    most = 0
    for value in draw.normal(size=5000):
        online.push(float(value), 1.0)
        most = max(most, online.live)

    assert most < 60
    assert online.changepoints() == []


def test_a_held_level_fills_its_buckets():
    window = Envelope(width_ns=10, count=3)
    window.put(5, 100)
    window.put(12, 300)
    window.put(13, 200)
    window.advance(55)

    assert window.highs == [200, 200, 200, 200]
    assert window.lows == [200, 200, 200, 200]
    assert window.boundary_ns == 60


def test_a_peak_inside_a_bucket_is_kept():
    window = Envelope(width_ns=10, count=3)
    window.put(5, 100)
    window.put(6, 900)
    window.put(7, 100)
    window.advance(19)

    assert (window.lows, window.highs) == ([100, 100], [900, 100])
