"""The same recording on GPUs of another size, or judged with other parameters."""

from __future__ import annotations

import random
from datetime import timezone

import pytest
from test_analyzers_behaviour import PID, quantised, stream

from vramtop.analyzers import DEFAULT_ANALYZERS
from vramtop.blocks import NULL, Block
from vramtop.cli import main
from vramtop.engine import Engine
from vramtop.engine.cut import rechunked, replay
from vramtop.engine.whatif import WhatIf, parse_settings, with_settings
from vramtop.errors import UsageError
from vramtop.recording.store import write_recording
from vramtop.samples import OOM_EVIDENCE, DeviceReading, Observation, Tick
from vramtop.units import GIB, MIB


def played(ticks, capacity=None, settings=(), cut=None):
    what_if = WhatIf(capacity, parse_settings(settings))
    blocks = [Block.from_ticks(ticks)]
    if cut is not None:
        blocks = rechunked(blocks, random.Random(cut), 50)
    stream = replay(what_if.engine(Engine()), what_if.blocks(blocks))
    return list(what_if.events(stream)), what_if.summary(timezone.utc)


def growth(**more):
    """From 2 GiB by 20 MiB/s on 24 GiB; 13.7 GiB at the end."""
    return stream(lambda t: quantised(2 * GIB + 20 * MIB * t), seconds=600, **more)


def test_a_smaller_gpu_runs_out_at_the_first_tick_that_exceeds_it():
    events, (line,) = played(growth(), 10 * GIB)

    ooms = [event for event in events if event.kind == "oom"]
    first = next(
        tick for tick in growth() if tick.devices[0].used_bytes > 10 * GIB
    )  # fmt: skip
    assert [(e.seq, e.pid, e.certainty, e.requested_bytes) for e in ooms] == [
        (first.seq, None, "inferred", None)
    ]
    assert ooms[0].evidence[0].startswith("what if the GPU had 10 GiB: ")
    assert "gpu 0: would have run out at 1970-01-01 00:06:49.000 +00:00 with 10 GiB" in line
    assert "13.7 GiB hold all that was ever in use" in line


def test_the_summary_says_how_early_it_was_warned():
    events, (line,) = played(growth(), 10 * GIB)

    risks = [event for event in events if event.kind == "oom_risk" and event.seq < 409]
    assert risks
    assert "warned " in line
    assert "without a warning" not in line


def test_a_larger_gpu_would_have_survived_and_free_memory_is_what_it_would_have_had():
    what_if = WhatIf(80 * GIB, {})
    (block,) = what_if.blocks([Block.from_ticks(growth())])

    assert set(block.device["total_bytes"].tolist()) == {80 * GIB}
    assert (block.device["free_bytes"] + block.used[: len(growth())] == 80 * GIB).all()
    assert "would have survived with 80 GiB" in what_if.summary(timezone.utc)[0]


def test_the_reservation_stays_and_missing_readings_stay_missing():
    device = DeviceReading(
        gpu=0, uuid="GPU-a", total_bytes=24 * GIB, used_bytes=GIB, reserved_bytes=GIB
    )
    blind = DeviceReading(gpu=0, uuid="GPU-a")
    ticks = [
        Tick(seq=seq, mono_ns=seq, t_us=seq, devices=(reading,))
        for seq, reading in enumerate((device, blind))
    ]

    (block,) = WhatIf(10 * GIB, {}).blocks([Block.from_ticks(ticks)])

    assert block.device["total_bytes"].tolist() == [10 * GIB, NULL]
    assert block.device["free_bytes"].tolist() == [8 * GIB, NULL]


def test_a_failure_for_want_of_memory_does_not_happen_on_a_larger_gpu():
    """What the run would have done later is not in the recording, and that is said."""
    message = Observation(
        what=OOM_EVIDENCE, gpu=0, uuid="GPU-a", pid=PID, start_time=9, text="CUDA out of memory.",
        data={"requested_bytes": 3 * GIB},
    )  # fmt: skip
    ticks = growth(notes={590.0: [message]}, gone=591)

    real, _ = played(ticks)
    events, (line,) = played(ticks, 80 * GIB)

    assert [event.certainty for event in real if event.kind == "oom"] == ["confirmed"]
    assert [event for event in events if event.kind == "oom"] == []
    assert "the recorded run failed for want of 3 GiB more" in line
    assert "is not known" in line


def test_the_parent_of_mig_instances_keeps_its_size():
    parent = DeviceReading(gpu=0, uuid="GPU-p", total_bytes=80 * GIB, used_bytes=20 * GIB)
    part = DeviceReading(
        gpu=0, uuid="MIG-1", parent_uuid="GPU-p", total_bytes=20 * GIB, used_bytes=12 * GIB
    )
    what_if = WhatIf(10 * GIB, {})

    (block,) = what_if.blocks(
        [Block.from_ticks([Tick(seq=0, mono_ns=1, t_us=1, devices=(parent, part))])]
    )

    assert dict(zip((k.uuid for k in block.keys), block.device["total_bytes"].tolist(), strict=True)) == {
        "GPU-p": 80 * GIB, "MIG-1": 10 * GIB,
    }  # fmt: skip
    assert len(what_if.summary(timezone.utc)) == 1


def test_what_if_says_the_same_in_any_blocks():
    ticks = growth()
    whole = played(ticks, 10 * GIB, ["risk.clear_hold_s=5s"])

    assert played(ticks, 10 * GIB, ["risk.clear_hold_s=5s"], cut=3) == whole


def test_a_setting_changes_the_analyzer_and_the_fingerprint():
    engine = with_settings(
        Engine(), parse_settings(["Verdict.flat_bytes=32MiB", "idle_holder.idle_s=10m"])
    )

    values = {type(one).__name__: one for one in engine.analyzers}
    assert values["VerdictAnalyzer"].flat_bytes == 32 * MIB
    assert values["IdleHolderAnalyzer"].idle_s == 600.0
    assert engine.fingerprint() != Engine().fingerprint()
    assert len(engine.analyzers) == len(DEFAULT_ANALYZERS)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("risk", "not of the form", "--set risk.critical_at=0.8"),
        ("risky.x=1", "no analyzer risky", " risk, "),
        ("risk.x=1", "risk has no parameter x", "critical_at"),
        ("risk.critical_at=high", "not a number", "default"),
        ("risk.critical_at=nan", "not finite", "default"),
        ("risk.critical_at=-1", "below 0", "default"),
        ("verdict.flat_bytes=much", "is not a size", "38GiB"),
        ("verdict.hold_s=soon", "is not a duration", "90s"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line_that_says_what_there_is(text, message, hint):
    with pytest.raises(UsageError) as caught:
        parse_settings([text])

    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("what-if") / "run.parquet"
    write_recording(path, growth())
    return path


def run(capsys, *args):
    with pytest.raises(SystemExit) as done:
        main([str(arg) for arg in args])
    return done.value.code, *capsys.readouterr()


def test_the_command_prints_events_on_stdout_and_what_it_supposed_on_stderr(recording, capsys):
    code, out, err = run(
        capsys, "replay", recording, "--events", "--json", "--capacity", "10GiB", "--set",
        "risk.clear_hold_s=5s", "--from", "oom-1s", "--to", "+500s",
    )  # fmt: skip

    lines = err.splitlines()
    assert code in (0, None)
    assert '"kind": "oom"' in out
    assert lines[0].startswith("what if: every GPU has 10 GiB; risk.clear_hold_s is 5.0, not ")
    assert lines[-1].startswith("gpu 0: would have run out")


@pytest.mark.parametrize(
    "args", [["--capacity", "big"], ["--capacity", "0"], ["--set", "a.b=c"], ["--set", "risk.warn_at=0.1", "--at", "50%"]],
    ids=" ".join,
)  # fmt: skip
def test_wrong_suppositions_exit_with_2_and_a_hint(recording, capsys, args):
    code, out, err = run(capsys, "replay", recording, "--events", *args)

    assert code == 2
    assert out == ""
    assert len(err.splitlines()) == 2
    assert err.splitlines()[1].startswith("hint: ")
