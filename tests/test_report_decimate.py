"""Decimation keeps every peak in bounded memory, however the samples arrive."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramtop.blocks import NULL
from vramtop.report.decimate import EMPTY, Decimator, Series
from vramtop.report.stack import line

levels = st.lists(st.integers(-1, 50), max_size=400)


def decimated(values, *, buckets, cuts=(), step_ns=1_000_000_000):
    times = np.arange(len(values), dtype=np.int64) * step_ns
    column = np.array(values, np.int64)
    decimator = Decimator(buckets=buckets)
    bounds = [0, *sorted(cuts), len(values)]
    for start, stop in itertools.pairwise(bounds):
        decimator.add(times[start:stop], column[start:stop])
    return decimator.series()


def held_everywhere(series, count, step_ns=1_000_000_000):
    return series.held(np.arange(count, dtype=np.int64) * step_ns).tolist()


@given(levels)
def test_a_series_that_fits_is_kept_exactly(values):
    series = decimated(values, buckets=max(len(values), 1))
    assert held_everywhere(series, len(values)) == values


@given(levels, st.integers(1, 40))
def test_peak_and_first_time_of_the_peak_survive_any_reduction(values, buckets):
    series = decimated(values, buckets=buckets)
    readings = [value for value in values if value != NULL]
    if not readings:
        assert series.peak is None
        return
    highest = max(readings)
    assert series.peak == (values.index(highest) * 1_000_000_000, highest)


@given(levels, st.integers(1, 40))
def test_a_missing_reading_survives_any_reduction(values, buckets):
    series = decimated(values, buckets=buckets)
    assert (NULL in series.value.tolist()) == (NULL in values)


@given(levels, st.integers(1, 40), st.data())
def test_the_result_does_not_depend_on_how_samples_were_split(values, buckets, data):
    cuts = data.draw(st.lists(st.integers(0, len(values)), max_size=20))
    whole = decimated(values, buckets=buckets)
    split = decimated(values, buckets=buckets, cuts=cuts)
    assert whole.elapsed_ns.tolist() == split.elapsed_ns.tolist()
    assert whole.value.tolist() == split.value.tolist()


@given(levels, st.integers(1, 40))
def test_every_point_kept_is_a_sample_that_was_taken(values, buckets):
    series = decimated(values, buckets=buckets)
    for at_ns, value in zip(series.elapsed_ns.tolist(), series.value.tolist(), strict=True):
        assert values[at_ns // 1_000_000_000] == value


@given(st.integers(0, 86_399))
@settings(max_examples=20, deadline=None)
def test_one_sample_of_a_day_is_kept(second):
    values = np.full(86_400, 7, np.int64)
    values[second] = 9
    series = decimated(values, buckets=1000, cuts=range(0, 86_400, 4096))
    assert series.peak == (second * 1_000_000_000, 9)
    assert series.held_at(second * 1_000_000_000) == 9


def test_memory_stays_within_four_points_a_bucket():
    rng = np.random.default_rng(1)
    decimator = Decimator(buckets=100)
    for start in range(0, 100_000, 1000):
        times = np.arange(start, start + 1000, dtype=np.int64) * 1_000_000_000
        decimator.add(times, rng.integers(0, 1 << 36, 1000))
        assert len(decimator._times) <= 400
        assert decimator._pending_count <= 400 + 1000
    assert len(decimator.series().value) <= 400


def test_a_plateau_becomes_two_points():
    series = decimated([5] * 1000, buckets=2000)
    assert series.value.tolist() == [5, 5]
    assert series.elapsed_ns.tolist() == [0, 999_000_000_000]


def test_an_empty_series_has_no_peak_no_last_and_no_value():
    assert EMPTY.peak is None
    assert EMPTY.last is None
    assert EMPTY.held_at(5) is None
    assert Decimator().series().value.tolist() == []


def test_before_the_first_sample_there_is_no_value():
    series = Series(np.array([10, 20], np.int64), np.array([1, 2], np.int64))
    assert series.held(np.array([9, 10, 19, 20, 99], np.int64)).tolist() == [NULL, 1, 1, 2, 2]


@pytest.mark.parametrize("start", [0, 15])
def test_a_line_has_nan_where_there_is_no_reading_and_holds_to_the_end(start):
    series = Series(np.array([0, 10, 20], np.int64), np.array([4, NULL, 6], np.int64))
    times, values = line(series, start, 30)
    assert times[-1] == 30 / 1e9
    assert values[-1] == 6
    assert np.isnan(values).sum() == 1
