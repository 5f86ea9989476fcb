"""Every label is reached from a stream, through the engine, and is shown somehow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vramtop.analyzers.changepoints import ChangepointAnalyzer
from vramtop.analyzers.labels import NOTEBOOK, OTHER, SERVER, role_of
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.labels import LABELS
from vramtop.samples import (
    GONE,
    LOOKED_PROCESSES,
    LOOKED_UTIL,
    PROCESS,
    DeviceReading,
    Observation,
    ProcessReading,
    Tick,
)
from vramtop.sources.sim import SimSource
from vramtop.units import MIB, NS_PER_S

PID, TOTAL_MIB = 77, 24_000


class Life:
    """A process written down second by second, in MiB; it begins when the stream does."""

    def __init__(self, framework="pytorch", command="python train.py"):
        self.framework, self.command = framework, command
        self.levels: list[float] = []
        self.busy: list[int | None] = []

    def hold(self, mib, seconds, util=90):
        self.levels += [mib] * seconds
        self.busy += [util] * seconds
        return self

    def to(self, mib, seconds, util=90):
        """A straight line from the last level."""
        start = self.levels[-1]
        for second in range(1, seconds + 1):
            self.hold(start + (mib - start) * second / seconds, 1, util)
        return self

    def stairs(self, by, every, count, util=90):
        for _ in range(count):
            self.hold(self.levels[-1] + by, every, util)
        return self

    def rested(self, mib=4000):
        """A start-up that is long over."""
        return self.hold(300, 5, 0).to(mib, 10, 0).hold(mib, 300)

    def ticks(self):
        facts = {"framework": self.framework, "command": self.command}
        about = {"gpu": 0, "uuid": "GPU-a", "pid": PID, "start_time": 1}
        for seq, (level, util) in enumerate(zip(self.levels, self.busy, strict=True)):
            used = int(level) // 2 * 2 * MIB
            seen = (
                [Observation(what=PROCESS, name="python", data=facts, **about)] if not seq else []
            )
            yield Tick(
                seq=seq, mono_ns=(seq + 1) * NS_PER_S, t_us=(seq + 1) * 10**6,
                devices=(
                    DeviceReading(
                        gpu=0, uuid="GPU-a", total_bytes=TOTAL_MIB * MIB, used_bytes=used,
                        free_bytes=TOTAL_MIB * MIB - used, gpu_util_pct=util,
                        looked=LOOKED_PROCESSES | LOOKED_UTIL,
                    ),
                ),
                processes=(ProcessReading(used_bytes=used, **about),),
                observations=tuple(seen),
            )  # fmt: skip
        yield Tick(
            seq=len(self.levels), mono_ns=(len(self.levels) + 1) * NS_PER_S,
            t_us=(len(self.levels) + 1) * 10**6, observations=(Observation(what=GONE, **about),),
        )  # fmt: skip

    def labels(self):
        """(label, start, end) of the process's segments; the first second is 0."""
        engine = Engine([ChangepointAnalyzer()])
        found = engine.update(Block.from_ticks(list(self.ticks()))) + engine.finish()
        return [
            (event.label_id, event.start - 1, event.end - 1)
            for event in found
            if event.kind == "segment" and event.pid == PID
        ]

    def names(self):
        return [label for label, _, _ in self.labels()]


def server():
    return Life("vllm", "vllm serve some/model")


STARTED = ["initialization", "steady_state"]


def test_a_load_and_the_first_steps_are_told_apart():
    """Weights layer by layer, activations, the optimizer's states, then work."""
    life = Life().hold(500, 8, 3).to(4500, 12, 3).hold(9000, 3, 60).hold(15_000, 200)

    assert life.names() == ["initialization", "warmup", "optimizer_init", "steady_state"]


def test_a_pool_taken_at_once_is_a_pre_allocation():
    life = Life("jax").hold(500, 4, 3).hold(18_000, 300)

    assert life.names() == ["initialization", "pre_allocation", "steady_state"]


def test_small_growth_after_a_pool_is_warmup():
    life = Life("jax").hold(500, 4, 3).hold(16_000, 12).hold(16_300, 12).hold(16_500, 200)

    assert life.names() == ["initialization", "pre_allocation", "warmup", "steady_state"]


def test_jumps_with_flat_stretches_between_are_gradient_steps():
    assert Life().rested().stairs(150, 9, 12).hold(5800, 200).names() == [
        *STARTED, "gradient_steps", "steady_state",
    ]  # fmt: skip


def test_much_more_within_moments_is_an_allocation_event():
    assert Life().rested().to(9000, 4).hold(9000, 200).names() == [
        *STARTED, "allocation_event", "steady_state",
    ]  # fmt: skip


def test_a_jump_between_two_rests_has_some_seconds_to_its_name():
    assert Life().rested().hold(9000, 200).labels()[2:] == [
        ("allocation_event", 315.0, 318.0), ("steady_state", 318.0, 515.0),
    ]  # fmt: skip


@pytest.mark.parametrize("rate", [0.3, 2, 15])
def test_growth_that_does_not_end_is_a_leak(rate):
    assert Life().rested().to(4000 + 1200 * rate, 1200).names() == [*STARTED, "memory_leak"]


def test_a_leak_in_segments_of_64_mib_every_half_minute_is_one():
    assert Life().rested().stairs(64, 30, 60).names() == [*STARTED, "memory_leak"]


def test_a_leak_under_a_sawtooth_is_one():
    life = Life().rested()
    for tooth in range(120):
        for step in range(6):
            life.hold(4000 + 50 * tooth + 300 * step, 2)

    assert life.names() == [*STARTED, "memory_leak"]


def test_a_minute_of_growth_is_memory_growth():
    assert Life().rested().to(5500, 60).hold(5500, 300).names() == [
        *STARTED, "memory_growth", "steady_state",
    ]  # fmt: skip


def test_growth_of_a_server_is_a_cache_that_fills():
    life = server().hold(500, 10, 2).to(9000, 30, 2).hold(9000, 300, 50).to(15_000, 400, 50)

    assert life.hold(15_000, 300, 50).names() == [
        "initialization", "active_inference", "cache_filling", "active_inference",
    ]  # fmt: skip


def test_growth_above_seventy_percent_is_pressure():
    assert Life().rested(17_500).to(22_000, 90).names() == [*STARTED, "memory_pressure"]


def test_nothing_to_do_for_long_is_idle():
    assert Life().rested().hold(4000, 10).hold(1500, 400, 0).names()[-1] == "idle"


def test_unknown_utilisation_is_never_idle():
    life = Life().hold(300, 5, None).to(4000, 10, None).hold(4000, 600, None)

    assert "idle" not in life.names()


def test_a_notebook_at_rest_is_idle_whatever_else_computes():
    life = Life(None, "python -m ipykernel_launcher -f kernel.json")

    assert life.hold(600, 300, 80).hold(2600, 400, 80).names()[-1] == "idle"


def test_some_seconds_between_two_rises_are_a_plateau():
    names = Life().rested().to(5000, 3).hold(5000, 6).to(6000, 3).hold(6000, 200).names()

    assert names == [
        *STARTED, "allocation_event", "plateau", "allocation_event", "steady_state",
    ]  # fmt: skip


def test_flat_and_nearly_full_is_saturation():
    assert Life().rested(21_500).names() == ["initialization", "saturation"]


def test_a_pool_by_plan_is_no_saturation():
    life = Life("jax").hold(500, 4, 3).hold(21_500, 300)

    assert "saturation" not in life.names()


def test_a_server_at_one_level_is_at_inference():
    life = server().hold(500, 10, 2).to(9000, 30, 2).hold(9000, 300, 40)

    assert life.names() == ["initialization", "active_inference"]


def test_a_cache_that_creeps_up_and_is_flushed_is_fragmentation():
    life = Life().rested()
    for _ in range(5):
        life.stairs(790, 5, 24).hold(5000, 5)

    assert life.names()[2:] == ["fragmentation"]


def test_a_rise_to_one_height_while_nothing_computes_is_a_checkpoint():
    life = Life().rested()
    for _ in range(3):
        life.to(8000, 3, 10).hold(8000, 7, 10).hold(4000, 200)

    assert life.names() == [*STARTED, *["checkpoint_save", "steady_state"] * 3]


def test_a_rise_that_computes_is_a_batch():
    life = Life().rested().hold(9000, 15, 80).hold(4000, 200)

    assert life.names() == [*STARTED, "batch_processing", "steady_state"]


def test_up_and_down_again_and_again_is_batch_processing():
    life = Life().rested()
    for _ in range(40):
        life.hold(7000, 5).hold(4000, 6)

    assert life.names() == [*STARTED, "batch_processing"]


def test_a_rise_of_a_server_that_comes_back_is_a_burst():
    life = server().hold(500, 10, 2).to(9000, 30, 2).hold(9000, 300, 40)

    assert life.hold(12_000, 20, 95).hold(9000, 200, 40).names() == [
        "initialization", "active_inference", "request_burst", "active_inference",
    ]  # fmt: skip


def test_the_fall_and_rise_between_equal_stretches_is_an_epoch_boundary():
    life = Life().rested()
    for _ in range(3):
        life.hold(2000, 6, 5).hold(2600, 15, 60).hold(2000, 5, 5).hold(4000, 200)

    assert life.names() == [*STARTED, *["epoch_boundary", "steady_state"] * 3]


def test_a_small_fall_is_a_collection():
    assert Life().rested().hold(3960, 200).names() == [
        *STARTED, "gc_collection", "steady_state",
    ]  # fmt: skip


def test_a_fall_by_most_is_a_cleanup():
    assert Life().rested().hold(1000, 200).names() == [*STARTED, "cleanup", "steady_state"]


def test_a_slow_long_fall_is_a_cooldown():
    assert Life().rested().to(2500, 240).hold(2500, 200).names() == [
        *STARTED, "cooldown", "steady_state",
    ]  # fmt: skip


def test_a_fall_by_a_part_releases_memory():
    assert Life().rested().hold(3000, 200).names() == [
        *STARTED, "releasing_memory", "steady_state",
    ]  # fmt: skip


def test_a_fall_of_a_server_is_an_eviction():
    life = server().hold(500, 10, 2).to(9000, 30, 2).hold(9000, 300, 40).hold(7000, 200, 40)

    assert life.names() == [
        "initialization", "active_inference", "cache_eviction", "active_inference",
    ]  # fmt: skip


def test_an_hour_into_a_run_nothing_is_a_start():
    """The predecessor called a growth of 400 MB an initialization, then an optimizer's."""
    life = Life().rested().hold(4000, 3600).to(4400, 40).hold(4400, 100).hold(9000, 100)

    names = [label for label, start, _ in life.labels() if start > 1000]
    assert not {"initialization", "warmup", "optimizer_init", "pre_allocation"} & set(names)


def test_the_whole_vocabulary_is_said_on_the_tour_or_here():
    """The simulator's tour of all labels; the truth never names one that has no entry."""
    ticks = list(SimSource("label-tour", seed=1, interval_s=1.0, pace=None).ticks())
    engine = Engine([ChangepointAnalyzer()])
    found = engine.update(Block.from_ticks(ticks)) + engine.finish()

    said = {event.label_id for event in found if event.kind == "segment"}
    assert said <= set(LABELS)
    assert len(said) >= 18


def test_there_are_25_labels_each_with_its_looks():
    assert len(LABELS) == 25
    assert len({label.short for label in LABELS.values()}) == 25
    assert len({label.name for label in LABELS.values()}) == 25
    for name, label in LABELS.items():
        assert label.id == name
        assert label.name.lower().replace(" ", "_").replace("-", "_") == name
        assert 1 <= len(label.short) <= 7
        assert len(label.arrow) == 1
        assert re.fullmatch(r"#[0-9a-f]{6}", label.colour)
        assert label.sentence.endswith(".")


def test_every_label_has_a_test_here_that_reaches_it():
    source = Path(__file__).read_text(encoding="utf-8")
    body = source[: source.index("def test_there_are_25_labels")]
    assert [name for name in LABELS if f'"{name}"' not in body] == []


@pytest.mark.parametrize(
    ("framework", "command", "role"),
    [
        ("vllm", None, SERVER),
        (None, "python serve_chat.py --model 7b", SERVER),
        (None, "/usr/bin/tritonserver --model-repository=/m", SERVER),
        ("pytorch", "python train.py --observer", OTHER),
        (None, "/opt/conserve/train", OTHER),
        (None, "python -m ipykernel_launcher -f k.json", NOTEBOOK),
        (None, None, OTHER),
    ],
)
def test_a_role_is_told_from_whole_words(framework, command, role):
    """`observer` serves nobody, and neither does `/opt/conserve`."""
    assert role_of(framework, command) == role
