"""The compiled segmentation gives the bits of the Python one, and nothing needs it."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_stats_fpop import random_series

from vramtop.stats import fpop
from vramtop.stats.fpop import PureFpop

ROOT = Path(__file__).parent.parent

DIGESTS = """
import hashlib
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.sources.sim import SimSource
from vramtop.stats import fpop

print(fpop.Fpop.__name__ == "PureFpop" or fpop.Fpop.__module__)
for name in ("training-oom", "leak-under-sawtooth", "kv-cache-growth"):
    engine, digest, held = Engine(), hashlib.sha256(), []
    def told(events):
        for event in events:
            digest.update(repr(event.to_json()).encode())
    for tick in SimSource(name, seed=3, start_t_us=0, pace=None, duration_s=1500).ticks():
        held.append(tick)
        if len(held) == 97:
            told(engine.update(Block.from_ticks(held)))
            held = []
    if held:
        told(engine.update(Block.from_ticks(held)))
    told(engine.finish())
    print(name, digest.hexdigest())
"""


@pytest.fixture(scope="module")
def kernel():
    try:
        from vramtop.stats import _fpop
    except ImportError as error:
        pytest.skip(f"the kernel was not built at installation, or is refused: {error}")
    return _fpop.Fpop


def some_series(draw):
    """Of all kinds, with ties, and with weights of many sizes."""
    values = random_series(draw, draw.randrange(2, 120))
    weights = draw.choice(((1.0,), (0.2, 1.0, 5.0), (1e-9, 1.0, 3600.0)))
    return [(value, draw.choice(weights)) for value in values], draw.choice((0.5, 10.0, 500.0))


def parts(online):
    """Everything that decides how it goes on, nodes by number."""
    penalty, bound, cost, exact, best, newest, origin, runs, searched, rows, highs, owners = (
        online.__getstate__()
    )
    candidates = [(*row[:3], row[3].index) for row in rows]
    return repr(
        (penalty, bound, cost, exact, best.index, newest.index, origin, runs, searched, candidates)
    ) + repr((highs, owners, online.live, online.changepoints()))


def test_every_push_leaves_equal_bits(kernel):
    """Costs, means, pieces, candidates, changepoints, what is settled: repr shows every bit."""
    draw = random.Random(8)
    for _ in range(300):
        pushes, penalty = some_series(draw)
        one, other = kernel(penalty=penalty), PureFpop(penalty=penalty)
        roots = [one.newest, other.newest]
        for value, weight in pushes:
            assert one.push(value, weight, "tag").tag == other.push(value, weight, "tag").tag
            assert parts(one) == parts(other)
            roots = [one.settled(roots[0]), other.settled(roots[1])]
            assert roots[0].index == roots[1].index
        assert parts(one) == parts(other)


def test_a_bound_on_pieces_binds_alike(kernel):
    """Thinning happens, and leaves the same candidates."""
    one, other = kernel(penalty=30.0, max_pieces=16), PureFpop(penalty=30.0, max_pieces=16)
    for t in range(1500):
        one.push(t**0.5, 1.0)
        other.push(t**0.5, 1.0)

    assert not one.exact
    assert parts(one) == parts(other)


def outcome(online, value, weight):
    try:
        online.push(value, weight)
    except (ArithmeticError, ValueError) as error:
        return type(error)
    return None


def test_what_cannot_be_counted_fails_alike(kernel):
    """NaN, infinities, weights of zero and below: the same results or the same exceptions."""
    odd = (float("nan"), float("inf"), float("-inf"), 0.0, -0.0, -1.0, 1e308, 5e-324, 2.0)
    draw = random.Random(9)
    failures = set()
    for _ in range(400):
        one = kernel(penalty=draw.choice(odd))
        other = PureFpop(penalty=one.penalty)
        for _ in range(12):
            value, weight = draw.choice((*odd, 3.0, 4.0)), draw.choice((*odd, 1.0, 1.0))
            results = [outcome(online, value, weight) for online in (one, other)]
            failures.add(results[0])
            assert results[0] is results[1]
            assert parts(one) == parts(other)

    assert failures == {None, ZeroDivisionError, ValueError}


def test_wrong_arguments_are_refused(kernel):
    online = kernel(penalty=1.0)
    for arguments in ((), (1.0,), ("1", 1.0), (1.0, None), (1.0, 1.0, None, None)):
        with pytest.raises(TypeError):
            online.push(*arguments)
    with pytest.raises(TypeError, match="penalty"):
        kernel()
    for state in ([], (), (1.0,) * 12):
        with pytest.raises((TypeError, ValueError)):
            online.__setstate__(state)
    assert parts(online) == parts(PureFpop(penalty=1.0))


def test_each_takes_up_the_others_state(kernel, monkeypatch):
    """Pickled with the kernel and restored without it, and the other way round, it goes on."""
    draw = random.Random(10)
    for _ in range(60):
        pushes, penalty = some_series(draw)
        half = len(pushes) // 2
        for begun, resumed in ((kernel, PureFpop), (PureFpop, kernel)):
            whole, first = PureFpop(penalty=penalty), begun(penalty=penalty)
            for value, weight in pushes[:half]:
                whole.push(value, weight, (value, weight))
                first.push(value, weight, (value, weight))
            data = pickle.dumps(first)
            monkeypatch.setattr(fpop, "Fpop", resumed)
            second = pickle.loads(data)
            monkeypatch.undo()
            assert type(second) is resumed
            for value, weight in pushes[half:]:
                whole.push(value, weight)
                second.push(value, weight)
            assert parts(second) == parts(whole)


def test_memory_is_given_back(kernel):
    """A hundred thousand pushes with growing, pickling and failing in between."""
    Path("/proc/self/statm").exists() or pytest.skip("needs /proc")

    def work():
        for _ in range(10):
            online = kernel(penalty=20.0, max_pieces=64)
            root = online.newest
            for t in range(1000):
                online.push(t**0.5 if t % 3 else 40.0, 1.0, bytes(200))
                settled = online.settled(root)
                settled.parent, root = None, settled
                if t % 100 == 0:
                    online.__setstate__(online.__getstate__())
                    online.changepoints()
            with pytest.raises(ZeroDivisionError):
                online.push(0.0, 0.0)

    def pages():
        return int(Path("/proc/self/statm").read_text().split()[1])

    work()
    before = pages()
    for _ in range(9):
        work()

    assert (pages() - before) * 4096 < 2_000_000


def run(code, **more):
    environment = {**os.environ, **more}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout.splitlines()


def test_the_environment_refuses_it_and_events_stay(kernel):
    """A simulated run, digest by digest, with and without."""
    compiled, pure = run(DIGESTS, VRAMTOP_PURE=""), run(DIGESTS, VRAMTOP_PURE="1")

    assert compiled[0] == "vramtop.stats._fpop"
    assert pure[0] == "True"
    assert compiled[1:] == pure[1:]
    assert len(pure) == 4


def test_segmentation_works_where_the_kernel_is_not_built():
    """Its import fails, as on a machine without a compiler."""
    code = (
        "import sys; sys.modules['vramtop.stats._fpop'] = None\n"
        "from vramtop.stats.fpop import Fpop\n"
        "f = Fpop(penalty=1.0)\n"
        "for v in (0.0, 0.0, 9.0, 9.0): f.push(v, 1.0)\n"
        "print(Fpop.__name__, f.changepoints())"
    )

    assert run(code) == ["PureFpop [2]"]


def test_the_recorder_does_not_load_it():
    code = (
        "import sys, json, vramtop.capture.session, vramtop.recording.writer\n"
        "print(json.dumps([m for m in sys.modules if m.startswith('vramtop.stats')]))"
    )

    assert "vramtop.stats._fpop" not in json.loads(run(code)[0])


def test_a_compiler_that_fails_is_no_fault(tmp_path):
    """The build goes on without the kernel; the wheel is then one of pure Python."""
    pytest.importorskip("setuptools", minversion="77")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(
        ROOT / "vramtop", tmp_path / "vramtop", ignore=shutil.ignore_patterns("*.so", "__pycache__")
    )

    done = subprocess.run(
        [sys.executable, "-c", "import setuptools; setuptools.setup()", "-q", "build"],
        cwd=tmp_path, env={**os.environ, "CC": "/bin/false"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("build/lib*/vramtop/stats/fpop.py"))
    assert not list(tmp_path.rglob("*.so"))
