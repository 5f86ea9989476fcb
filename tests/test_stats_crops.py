"""Penalty paths."""

from __future__ import annotations

import random

import pytest
from test_stats_fpop import random_series

from vramtop.stats.crops import crops
from vramtop.stats.fpop import Fpop


def solved(runs, penalty):
    optimum = Fpop(penalty=penalty)
    for value, weight in runs:
        optimum.push(value, weight)
    return optimum


def test_the_path_holds_the_optimum_of_every_penalty():
    """Between the steps' bounds the optimum has the number of changepoints that the step says."""
    draw = random.Random(6)
    for _ in range(15):
        runs = [(value, 1.0) for value in random_series(draw, 60)]
        steps, whole = crops(runs, low=1.0, high=2000.0, max_solves=500)

        assert whole
        assert steps[0].low == 1.0
        assert steps[-1].high == 2000.0
        for step in steps:
            if step.high > step.low * 1.001:
                middle = (step.low + step.high) / 2
                least = step.cost + middle * step.changes
                assert solved(runs, middle).cost == pytest.approx(least, rel=1e-9, abs=1e-6)


def test_steps_get_coarser():
    runs = [(float(value), 1.0) for value in [0] * 20 + [10] * 20 + [100] * 20 + [0] * 20]

    steps, _ = crops(runs, low=1.0, high=1e6)

    assert [step.changes for step in steps] == sorted({step.changes for step in steps})[::-1]
    assert steps[0].changes == 3
    assert steps[-1].changes == 0


def test_an_early_end_is_told():
    draw = random.Random(4)
    runs = [(draw.gauss(0, 10), 1.0) for _ in range(200)]

    _, whole = crops(runs, low=0.5, high=5000.0, max_solves=4)

    assert not whole


@pytest.mark.parametrize(("runs", "low", "high"), [([], 1.0, 2.0), ([(1.0, 1.0)], 3.0, 2.0)])
def test_nothing_to_solve_is_refused(runs, low, high):
    with pytest.raises(ValueError, match="no optimum"):
        crops(runs, low=low, high=high)
