"""The scale of noise, from the past."""

from __future__ import annotations

import random

import pytest

from vramtop.stats.noise import HALVE_AT, NoiseScale


def scale_of(levels, lasts=1000):
    noise = NoiseScale(below=10_000)
    lasted, before = 0, levels[0]
    for level in levels[1:]:
        lasted += lasts
        if level != before:
            noise.add(level - before, lasted)
            lasted, before = 0, level
    return noise


def test_white_noise_is_measured_within_a_factor_of_two():
    draw = random.Random(1)
    noise = scale_of([round(draw.gauss(0, 1000)) for _ in range(3000)])

    height, length = noise.excursion()

    assert 500 <= height <= 2000
    assert 500 <= length <= 2000


@pytest.mark.parametrize(
    "levels",
    [
        [5] * 100,
        list(range(0, 4000, 2)),
        [t // 40 * 900 for t in range(2000)],
        [t % 20 * 100 for t in range(2000)],
    ],
    ids=["constant", "ramp", "staircase", "sawtooth"],
)
def test_what_goes_its_way_is_no_noise(levels):
    """The usual estimate, from first differences, takes a ramp's steps for noise."""
    assert scale_of(levels).excursion() == (0.0, 0.0)


def test_a_burst_of_changes_in_a_calm_hour_is_no_noise():
    """Time counts, not changes: most of the time nothing moves."""
    levels = ([100] * 300 + [100, 900, 100, 500, 100, 800] * 3) * 20

    assert scale_of(levels).excursion() == (0.0, 0.0)


def test_a_slow_square_wave_is_no_noise():
    assert scale_of([900 * (t // 30 % 2) for t in range(3000)]).excursion() == (0.0, 0.0)


def test_the_recent_past_weighs_more():
    draw = random.Random(2)
    levels = [round(draw.gauss(0, 10)) for _ in range(2000)]
    levels += [round(draw.gauss(0, 10_000)) for _ in range(2000)]
    noise = scale_of(levels)

    assert noise.excursion()[0] > 5000
    assert noise.count <= HALVE_AT
