"""Rules that every analyzer in `DEFAULT_ANALYZERS` keeps."""

from __future__ import annotations

import ast
import inspect
import pickle
import random
from pathlib import Path

import pytest
from streams import random_ticks

import vramtop
from vramtop.analyzers import DEFAULT_ANALYZERS
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.engine.cut import rechunked
from vramtop.samples import (
    GONE,
    LOOKED_PROCESSES,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.units import GIB

PACKAGE = Path(vramtop.__file__).parent
each = pytest.mark.parametrize("kind", DEFAULT_ANALYZERS, ids=lambda kind: kind.__name__)
CPU_DEPENDENT = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "pow", "power", "float_power",
    "dot", "vdot", "matmul", "inner", "tensordot", "einsum", "lstsq", "solve", "polyfit", "sin",
    "cos", "tan", "tanh", "logaddexp", "cbrt", "hypot", "convolve", "correlate", "mean", "average",
    "std", "var", "nansum", "nanmean",
}  # fmt: skip


def said(kind, blocks):
    engine = Engine([upstream() for upstream in DEFAULT_ANALYZERS[: DEFAULT_ANALYZERS.index(kind)]])
    analyzer = kind()
    engine.analyzers = (*engine.analyzers, analyzer)
    out = [event.canonical() for block in blocks for event in engine.update(block)]
    return out + [event.canonical() for event in engine.finish()]


@each
def test_chunking_does_not_matter(kind):
    for seed in range(4):
        block = Block.from_ticks(random_ticks(seed, count=120))
        assert said(kind, rechunked([block], random.Random(seed), 30)) == said(kind, [block])


@each
@pytest.mark.parametrize(
    "ticks",
    [
        [Tick(seq=0, mono_ns=5, t_us=5)],
        [Tick(seq=n, mono_ns=n * 10**9, t_us=n * 10**6) for n in range(50)],
        [Tick(seq=0, mono_ns=5, t_us=5, devices=(DeviceReading(gpu=0, uuid="GPU-a"),))],
        [
            Tick(
                seq=n, mono_ns=n * 10**9, t_us=n * 10**6,
                devices=(DeviceReading(gpu=0, uuid="GPU-a", total_bytes=0, used_bytes=0, free_bytes=0),),
            )
            for n in range(50)
        ],
        [
            Tick(
                seq=0, mono_ns=1, t_us=1,
                processes=(ProcessReading(gpu=0, uuid="GPU-a", pid=7),),
                observations=(Observation(what=GONE, uuid="GPU-b", pid=8),),
            )
        ],
    ],
    ids=["one empty tick", "no devices", "nothing read", "a device of no size", "a stranger gone"],
)  # fmt: skip
def test_poor_streams_are_survived(kind, ticks):
    """Nothing to judge is no error, and one tick at a time says the same."""
    assert said(kind, [Block.from_ticks(ticks)]) == said(
        kind, [Block.from_ticks([t]) for t in ticks]
    )


@each
def test_a_constant_level_is_calm(kind):
    """A day at one level raises no warning, no changepoint, no verdict but OK."""
    ticks = [
        Tick(
            seq=n, mono_ns=n * 30 * 10**9, t_us=n * 30 * 10**6,
            devices=(
                DeviceReading(
                    gpu=0, uuid="GPU-a", total_bytes=24 * GIB, used_bytes=20 * GIB,
                    free_bytes=4 * GIB, looked=LOOKED_PROCESSES,
                ),
            ),
            processes=(ProcessReading(gpu=0, uuid="GPU-a", pid=7, used_bytes=19 * GIB),),
        )
        for n in range(2880)
    ]  # fmt: skip

    lines = said(kind, [Block.from_ticks(ticks)])

    for word in ("warning", "critical", "TIGHT", '"OOM"', "changepoint", "growing", "volatile"):
        assert not [line for line in lines if word in line]


@each
def test_state_pickles_small(kind):
    """Checkpoints every few minutes of a long stream are kept in memory."""
    engine = Engine([kind()])
    engine.update(Block.from_ticks(random_ticks(3)))

    assert len(pickle.dumps(engine)) < 200_000


@each
def test_parameters_are_public_and_keyword_only(kind):
    analyzer = kind()
    for name, parameter in inspect.signature(kind).parameters.items():
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY
        assert getattr(analyzer, name) == parameter.default
    private = [name for name in vars(analyzer) if not name.startswith("_")]
    assert set(private) == set(inspect.signature(kind).parameters)


@pytest.mark.parametrize(
    "path",
    sorted([*PACKAGE.glob("analyzers/*.py"), *PACKAGE.glob("stats/*.py"), PACKAGE / "view.py"]),
    ids=lambda path: path.name,
)
def test_no_operation_whose_last_bits_depend_on_the_machine(path):
    """Only + - * / sqrt, comparisons and integers; no clock, no input, no randomness."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr not in CPU_DEPENDENT | {"cumsum"} or _is_field(node), node.attr
        if isinstance(node, ast.BinOp):
            assert not isinstance(node.op, ast.MatMult)
            assert not isinstance(node.op, ast.Pow) or isinstance(node.right, ast.Constant)
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or node.names[0].name
            assert module.split(".")[0] not in {"time", "random", "os", "io", "socket", "pathlib"}
            names = {alias.name for alias in node.names}
            assert not names & (CPU_DEPENDENT | {"open"})


def _is_field(node):
    """`candidate.mean` reads a field; `array.mean` would be called."""
    return (
        isinstance(node.value, ast.Name)
        and node.value.id in {"self", "candidate", "node", "best", "after"}
    ) or (isinstance(node.value, ast.Attribute) and node.value.attr == "_best")


def test_the_scan_finds_what_it_forbids(tmp_path):
    """The rule above can fail."""
    bad = tmp_path / "bad.py"
    bad.write_text("import numpy as np\n\ndef f(x):\n    return np.exp(x)\n")
    with pytest.raises(AssertionError, match="exp"):
        test_no_operation_whose_last_bits_depend_on_the_machine(bad)


def test_a_changed_parameter_changes_the_fingerprint():
    plain = Engine().fingerprint()
    kinds = [kind() for kind in DEFAULT_ANALYZERS]
    kinds[2].hold_s = 11.0

    assert Engine(kinds).fingerprint() != plain
    assert Engine().fingerprint() == plain
