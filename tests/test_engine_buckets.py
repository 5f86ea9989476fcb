"""The range of levels per bucket of the clock, against a count by hand."""

from __future__ import annotations

import ast
import pickle
import random

import numpy as np
import pytest
import test_analyzers_contract as contract
from hypothesis import given, settings
from hypothesis import strategies as st
from streams import random_ticks

from vramtop.analyzers.leak import LeakAnalyzer
from vramtop.analyzers.observed import ObservedAnalyzer
from vramtop.analyzers.phase import PhaseAnalyzer
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.engine.carry import Carry
from vramtop.engine.cut import rechunked
from vramtop.samples import GONE, SeriesKey
from vramtop.stats.buckets import NO_HIGH, NO_LOW
from vramtop.view import DEVICES, NOTHING, PROCESSES, SHORT_COUNT, SHORT_NS


def by_hand(ticks, width_ns, count):
    """(seq of closing, key) -> the last `count` ranges, oldest first, one tick at a time."""
    level, ranges, out, open_bucket = {}, {}, {}, None
    for tick in ticks:
        bucket = tick.mono_ns // width_ns
        for seen in tick.observations:
            if seen.what == GONE:
                key = SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
                level.pop(key, None)
                ranges.pop(key, None)
        if open_bucket is not None and bucket > open_bucket:
            for key, held in level.items():
                history = ranges[key]
                closed = list(range(max(open_bucket, bucket - count), bucket))
                found = [history.get(index, (held, held)) for index in closed]
                for index, pair in zip(closed, found, strict=True):
                    history[index] = pair
                history[bucket] = (held, held)
                for index in [index for index in history if index < bucket - count]:
                    del history[index]
                window = range(bucket - count, bucket)
                out[tick.seq, key] = [history.get(i, (NO_LOW, NO_HIGH)) for i in window]
        open_bucket = bucket
        for row in (*tick.devices, *tick.processes):
            if row.used_bytes is None:
                continue
            used = row.used_bytes
            history = ranges.setdefault(row.key, {})
            before = level.get(row.key)
            low, high = history.get(bucket, (NO_LOW, NO_HIGH) if before is None else (before,) * 2)
            history[bucket] = (min(low, used), max(high, used))
            level[row.key] = used
    return out


def closings(blocks, which):
    """The same from the shared tables; series that stood still are not in them."""
    carry, out = Carry(), {}
    for block in blocks:
        for ranges in getattr(carry.view(block), which):
            closed = ranges.closed
            count = closed.low.shape[1] - len(closed.tick)
            for row, key in enumerate(ranges.keys):
                for column in closed.last.tolist():
                    tick = int(closed.tick[column])
                    if tick >= ranges.until[row]:
                        continue
                    cells = slice(column + 1, column + 1 + count)
                    out[int(block.seq[tick]), key] = list(
                        zip(
                            closed.low[row, cells].tolist(),
                            closed.high[row, cells].tolist(),
                            strict=True,
                        )
                    )
    return out


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), longest=st.sampled_from([1, 9, 400]))
def test_buckets_hold_the_range_of_held_levels_however_the_stream_is_cut(seed, longest):
    """Nulls, gaps, deaths and returns included; a series that is left out has stood still."""
    ticks = random_ticks(seed, count=160)
    expected = by_hand(ticks, SHORT_NS, SHORT_COUNT)

    blocks = rechunked([Block.from_ticks(ticks)], random.Random(seed), longest)
    found = closings(blocks, "short")

    for place, ranges in expected.items():
        if place in found:
            assert found[place] == ranges
        else:
            assert len(set(ranges)) == 1 or ranges[0] == (NO_LOW, NO_HIGH)
    assert {place for place in found if any(high >= 0 for _, high in found[place])} <= set(expected)


def test_a_gap_of_years_closes_no_more_buckets_than_are_kept():
    """A machine that slept, or a clock of another recording, costs neither time nor memory."""
    ticks = random_ticks(3, count=20)
    block = Block.from_ticks(ticks)
    mono = block.mono_ns.copy()
    mono[10:] += 10**18
    carry = Carry()

    view = carry.view(type(block)(**{**_fields(block), "mono_ns": mono}))

    assert sum(len(ranges.closed.tick) for ranges in view.short) < 20 * (SHORT_COUNT + 1)


@pytest.mark.parametrize("seed", range(6))
def test_a_block_of_many_buckets_is_worked_on_in_parts(seed, monkeypatch):
    """Sparse ticks close thousands of buckets in one block; the tables stay small."""
    ticks = random_ticks(seed, count=300)
    whole = growth(ticks)

    monkeypatch.setattr("vramtop.stats.buckets._LONGEST", 30)

    assert growth(ticks) == whole
    assert whole


def growth(ticks):
    engine = Engine([ObservedAnalyzer(), PhaseAnalyzer(), LeakAnalyzer()])
    return [e.canonical() for e in engine.update(Block.from_ticks(ticks)) + engine.finish()]


def test_a_clock_that_was_set_back_closes_nothing_twice():
    block = Block.from_ticks(random_ticks(3, count=40))
    mono = block.mono_ns.copy()
    mono[20:] -= 10**10
    carry = Carry()

    view = carry.view(type(block)(**{**_fields(block), "mono_ns": mono}))

    ends = np.concatenate([ranges.closed.end[ranges.closed.last] for ranges in view.short])
    assert (np.diff(ends) > 0).all()


def test_changes_are_handed_out_by_kind_and_in_stream_order():
    block = Block.from_ticks(random_ticks(8))
    view = Carry().view(block)
    where = {key: index for index, key in enumerate(block.keys)}

    changes = view.changes

    assert changes == sorted(changes, key=lambda change: (change.tick, where[change.key]))
    assert [c for c in changes if c.key.pid is None] == view.changes_of(DEVICES)
    assert [c for c in changes if c.key.pid is not None] == view.changes_of(PROCESSES)
    assert view.changes_of(NOTHING) == []


def test_tables_shrink_after_a_long_block_of_short_lives():
    """Seeking keeps a pickled state every few minutes; the dead may not stay in it."""
    block = Block.from_ticks(random_ticks(5, count=3000))
    carry = Carry()
    whole = carry.view(block)

    alive = len(carry._slots)

    assert len(whole.gone) > 20
    assert len(carry._level) <= 4 * alive + 16
    assert len(pickle.dumps(carry)) < 200_000


def test_what_makes_views_computes_nothing_a_processor_could_do_otherwise():
    path = contract.PACKAGE / "engine" / "carry.py"

    contract.test_no_operation_whose_last_bits_depend_on_the_machine(path)

    assert ast.parse(path.read_text()).body


def _fields(block):
    return {name: getattr(block, name) for name in type(block).__dataclass_fields__}
