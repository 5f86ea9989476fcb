"""Live and replay agree to the last bit, however the stream is cut."""

from __future__ import annotations

import os
import pickle
import random
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from streams import random_ticks

from vramtop.analyzers import DEFAULT_ANALYZERS
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.engine.cut import rechunked
from vramtop.engine.verify import verify
from vramtop.events import Event, ordered
from vramtop.samples import MARK, Observation, Tick
from vramtop.sources.sim import SimSource


def run(blocks, engine=None):
    engine = engine or Engine()
    events = [event for block in blocks for event in engine.update(block)]
    return [event.canonical() for event in events], [e.canonical() for e in engine.finish()]


def singly(block):
    return [block.part(tick, tick + 1) for tick in range(len(block))]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), cuts=st.integers(0, 10**6), longest=st.integers(1, 200))
def test_any_chunking_of_a_hostile_stream_gives_the_same_events(seed, cuts, longest):
    """Births, deaths, reused PIDs, gaps, lost GPUs, nulls and messages included."""
    block = Block.from_ticks(random_ticks(seed, count=150))

    whole = run([block])

    assert run(rechunked([block], random.Random(cuts), longest)) == whole
    assert run(singly(block)) == whole


@pytest.mark.parametrize(
    "scenario", ["training-oom", "shared-server", "gaps-and-losses", "leak-under-sawtooth"]
)
def test_a_simulated_run_is_judged_alike_live_and_replayed(scenario):
    ticks = list(SimSource(scenario, seed=3, interval_s=1.0, pace=None).ticks())[:700]
    live = run([Block.from_ticks([tick]) for tick in ticks])

    replayed = run([Block.from_ticks(ticks)])

    assert replayed == live
    assert len(live[0]) > 5


def test_state_survives_pickling_between_blocks():
    """Seeking restores pickled engines, so a round trip may not change what follows."""
    block = Block.from_ticks(random_ticks(7))
    engine, restored = Engine(), Engine()
    straight, resumed = [], []
    for part in rechunked([block], random.Random(1), 60):
        straight += engine.update(part)
        restored = pickle.loads(pickle.dumps(restored))
        resumed += restored.update(part)

    assert [e.canonical() for e in resumed] == [e.canonical() for e in straight]
    assert [e.canonical() for e in restored.finish()] == [e.canonical() for e in engine.finish()]


def test_events_come_in_stream_order_across_blocks():
    block = Block.from_ticks(random_ticks(11))
    engine = Engine()

    events = [event for part in singly(block) for event in engine.update(part)]

    assert events == ordered(events)
    assert {event.seq for event in events} <= set(block.seq.tolist())


def test_a_block_gives_back_its_ticks():
    ticks = random_ticks(5, count=60)

    returned = list(Block.from_ticks(ticks).ticks())

    assert [(t.seq, t.mono_ns, t.t_us, t.observations) for t in returned] == [
        (t.seq, t.mono_ns, t.t_us, t.observations) for t in ticks
    ]
    for before, after in zip(ticks, returned, strict=True):
        assert sorted(before.processes, key=lambda p: p.key.sort_key) == list(after.processes)
        assert list(before.devices) == list(after.devices)


def test_parts_of_a_block_hold_its_rows_and_no_others():
    block = Block.from_ticks(random_ticks(6, count=90))

    parts = list(rechunked([block], random.Random(2), 20))

    assert sum(part.rows for part in parts) == block.rows
    assert [t for part in parts for t in part.ticks()] == list(block.ticks())


def test_one_bit_less_numpy_dispatch_gives_the_same_digest():
    """Sums and quotients may not depend on which vector units the machine has."""
    script = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from streams import random_ticks\n"
        "from vramtop.blocks import Block; from vramtop.engine import Engine\n"
        "from vramtop.events import EventDigest\n"
        "digest = EventDigest()\n"
        "for seed in range(3):\n"
        "    engine = Engine(); digest.add(engine.update(Block.from_ticks(random_ticks(seed))))\n"
        "    digest.add(engine.finish())\n"
        "print(digest.count, digest.hexdigest())\n"
    )
    import numpy as np

    core = np._core if hasattr(np, "_core") else np.core
    known = core._multiarray_umath
    __cpu_dispatch__, __cpu_features__ = known.__cpu_dispatch__, known.__cpu_features__

    features = [name for name in __cpu_dispatch__ if __cpu_features__.get(name)]
    assert features, f"NumPy {np.__version__} dispatches on nothing here"
    results = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **extra},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for extra in ({}, {"NPY_DISABLE_CPU_FEATURES": " ".join(features)})
    }

    assert len(results) == 1
    assert int(next(iter(results)).split()[0]) > 100


class Forgetful:
    """An analyzer that breaks the rule: it says where a block ends."""

    def update(self, view):
        from vramtop.events import Mark

        block = view.block
        return [Mark(t_us=int(block.t_us[-1]), seq=int(block.seq[-1]), text="block")]

    def finish(self):
        return []


def test_verify_notices_an_analyzer_that_depends_on_blocks(monkeypatch):
    """The proof can fail: a cheating analyzer is found, and the first difference is named."""
    block = Block.from_ticks(random_ticks(1, count=50))
    monkeypatch.setattr("vramtop.engine.engine.DEFAULT_ANALYZERS", (*DEFAULT_ANALYZERS, Forgetful))

    proof = verify(lambda: [block], seed=4)

    assert not proof.holds
    assert proof.difference is not None
    assert proof.difference[0] == "single ticks"


def test_verify_holds_for_the_default_analyzers():
    block = Block.from_ticks(random_ticks(1, count=200))

    proof = verify(lambda: [block], seed=4)

    assert proof.holds
    assert len({run.digest for run in proof.runs}) == 1
    assert proof.live == "absent"


def test_equal_keys_of_order_keep_what_was_said_first():
    first = Observation(what=MARK, text="one")
    second = Observation(what=MARK, text="two")
    block = Block.from_ticks([Tick(seq=0, mono_ns=1, t_us=1, observations=(first, second))])

    events = Engine().update(block)

    assert [event.text for event in events] == ["one", "two"]
    assert all(isinstance(event, Event) for event in events)
    assert replace(events[0], text="two") == events[1]
