"""Levels, lines and restless stretches beside the unpruned dynamic program."""

from __future__ import annotations

import random

import pytest
from test_stats_fpop import random_series

from vramtop.stats.constline import LEVEL, LINE, RESTLESS, ConstLine, Moments


def rule(penalty, **changed):
    settings = {
        "scale": 1.0, "penalty": penalty, "line_ratio": 0.5, "restless_ratio": 4.0,
        "restless": 12.0, "restless_young": 4.0, "restless_from": 0, "max_candidates": 1000,
        "start": Moments(),
    }  # fmt: skip
    return ConstLine(**{**settings, **changed})


def boundaries(values, point=0):
    moments, out = Moments(), []
    for place, value in enumerate(values):
        moments = moments.after(value, place + 1, point)
        out.append(moments)
    return out


def least_cost(stops, solver):
    """Every partition tried: quadratic, nothing pruned."""
    points = [Moments(), *stops]
    best = [0.0]
    for stop in range(1, len(points)):
        best.append(
            min(
                best[start] + solver.cost(points[start], points[stop])[0] + solver.penalty
                for start in range(stop)
            )
        )
    return best[-1]


def segments(values, penalty, **changed):
    """What is found, as (start, end, model), and its cost."""
    solver = rule(penalty, **changed)
    for place, stop in enumerate(boundaries(values)):
        solver.push(stop, place + 1)
    found, total, start, at = [], 0.0, Moments(), 0
    for stop in solver.finish():
        total += solver.cost(start, stop.moments)[0] + penalty
        found.append((at, stop.tag, stop.model))
        start, at = stop.moments, stop.tag
    return found, total, solver


def test_pruning_loses_nothing():
    """Over all runs of short random series the cost is that of the unpruned program."""
    draw = random.Random(8)
    for _ in range(80):
        values = [round(value * 10) for value in random_series(draw, draw.randrange(4, 45))]
        penalty = draw.choice((50.0, 500.0, 5000.0))
        _, total, solver = segments(values, penalty)

        assert total == pytest.approx(least_cost(boundaries(values), solver), rel=1e-9)
        assert not solver.thinned


def test_a_bound_on_candidates_costs_little_and_is_told():
    """Sixteen candidates instead of a hundred and twenty: never cheaper, at most a third dearer."""
    draw = random.Random(9)
    thinned = 0
    for _ in range(20):
        values = [round(draw.gauss(0, 30)) for _ in range(120)]
        _, least, _ = segments(values, 3000.0)
        _, total, solver = segments(values, 3000.0, max_candidates=16)
        thinned += solver.thinned

        assert least * (1 - 1e-12) <= total <= least * 1.34
    assert thinned == 20


def test_flat_ramp_flat_ramp_is_four_segments():
    values = [100] * 60 + list(range(100, 700, 10)) + [700] * 60 + list(range(700, 1300, 10))

    found, _, _ = segments(values, 3000.0)

    assert [model for _, _, model in found] == [LEVEL, LINE, LEVEL, LINE]
    assert [start for start, _, _ in found] == pytest.approx([0, 60, 120, 180], abs=6)


def test_large_rare_steps_stay_steps():
    """Through five steps of a minute each a line would be wrong by half a step."""
    values = [1000 * (t // 60) for t in range(300)]

    found, _, _ = segments(values, 3000.0)

    assert found == [(start, start + 60, LEVEL) for start in range(0, 300, 60)]


def test_many_changes_in_short_time_are_one_restless_stretch():
    values = [0] * 60 + [900 * (t // 3 % 2) for t in range(90)] + [0] * 60

    found, _, _ = segments(values, 3000.0)

    assert [model for _, _, model in found] == [LEVEL, RESTLESS, LEVEL]
    assert found[1][0] == pytest.approx(60, abs=4)


def test_readings_on_a_ramp_are_points():
    """A ramp held between readings is a staircase; counted as points it costs nothing."""
    stops = boundaries(range(0, 5000, 100), point=1)
    held = boundaries(range(0, 5000, 100))
    solver = rule(10.0)

    assert solver.cost(Moments(), stops[-1])[1] == LINE
    assert solver.cost(Moments(), stops[-1])[0] == pytest.approx(5.0, abs=1e-6)
    assert solver.cost(Moments(), held[-1])[0] > 40.0


def test_a_level_of_ninety_gigabytes_loses_no_digits():
    """Squares of such levels have more digits than a float; differences of them must not."""
    base = 9 * 10**10
    stops = boundaries([base, base + 2, base, base + 2] * 20)

    assert rule(1e9).cost(Moments(), stops[-1])[0] == 80.0


def test_what_was_said_to_be_final_is_in_the_end_result():
    draw = random.Random(10)
    for _ in range(30):
        values = [round(value * 20) for value in random_series(draw, 60)]
        solver, early = rule(800.0), []
        for place, stop in enumerate(boundaries(values)):
            solver.push(stop, place + 1)
            early += [one.tag for one in solver.settle()]
        late = [one.tag for one in solver.finish()]
        found, _, _ = segments(values, 800.0)

        assert early + late == [end for _, end, _ in found]
