"""Verdicts a person believes: flat is OK, and tight is what would not fit again."""

from __future__ import annotations

import random

import pytest

from vramtop.analyzers.observed import ObservedAnalyzer
from vramtop.analyzers.peak import job_of
from vramtop.analyzers.service import ServiceAnalyzer
from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.analyzers.verdict import VerdictAnalyzer
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.engine.cut import rechunked
from vramtop.findings.sentences import told
from vramtop.samples import (
    GONE,
    LOOKED_PROCESSES,
    PROCESS,
    SERVICE,
    DeviceReading,
    Observation,
    ProcessReading,
    SeriesKey,
    Tick,
)
from vramtop.sources.sim import SimSource
from vramtop.units import GIB, MIB, NS_PER_S

TOTAL = 80 * GIB


def stream(seconds, held, *, step=1.0, facts=None, notes=None, unseen=lambda _: 0):
    """One GPU of 80 GiB; `held(t)` gives {pid: bytes}, `facts` {pid: data of its PROCESS}.

    `unseen(t)` bytes are held by nobody who can be seen.
    """
    ticks, alive = [], set()
    for seq in range(int(seconds / step)):
        t = seq * step
        now = held(t)
        seen = [
            Observation(what=GONE, gpu=0, uuid="GPU-a", pid=pid, start_time=1)
            for pid in sorted(alive - now.keys())
        ]
        seen += [
            Observation(
                what=PROCESS, gpu=0, uuid="GPU-a", pid=pid, start_time=1, name="python",
                data=(facts or {}).get(pid),
            )
            for pid in sorted(now.keys() - alive)
        ]  # fmt: skip
        seen += (notes or {}).get(t, ())
        alive = set(now)
        used = sum(now.values()) + unseen(t)
        ticks.append(
            Tick(
                seq=seq, mono_ns=int(t * NS_PER_S), t_us=int(t * 10**6), observations=tuple(seen),
                devices=(
                    DeviceReading(gpu=0, uuid="GPU-a", total_bytes=TOTAL, used_bytes=used,
                                  free_bytes=TOTAL - used, looked=LOOKED_PROCESSES),
                ),
                processes=tuple(
                    ProcessReading(gpu=0, uuid="GPU-a", pid=pid, start_time=1, used_bytes=value)
                    for pid, value in now.items()
                ),
            )
        )  # fmt: skip
    return ticks


class Forecast(SweepAnalyzer):
    """Stands for the risk: says what it was told at a device's changes."""

    def __init__(self, *values):
        super().__init__()
        self.values = values

    def on_change(self, tick, change):
        for since, value in self.values:
            if change.key.pid is None and self.now_ns(tick) == since * NS_PER_S:
                self.publish("forecast", tick, change.key, value)


def found(ticks, *before, analyzer=VerdictAnalyzer, cut=None):
    engine = Engine([ObservedAnalyzer(), *before, analyzer()])
    blocks = [Block.from_ticks(ticks)]
    if cut is not None:
        blocks = rechunked(blocks, random.Random(cut), 40)
    events = [event for block in blocks for event in engine.update(block)] + engine.finish()
    return [event for event in events if event.kind in {"verdict", "service"}]


def verdicts(events, pid=7):
    return [(e.verdict, e.t) for e in events if e.pid == pid]


@pytest.mark.parametrize("share", [0.3, 0.6, 0.92, 0.96, 0.99])
@pytest.mark.parametrize(
    "command",
    ["vllm serve m", "python -m sglang.launch_server", "python train.py --optim adamw --model 7b",
     "python -m jax_train", "ollama serve", "./own"],
)  # fmt: skip
def test_a_process_that_is_flat_is_ok_however_full_the_device_and_whatever_it_is(share, command):
    ticks = stream(600, lambda _: {7: int(TOTAL * share)}, step=5, facts={7: {"cmdline": command}})

    assert verdicts(found(ticks)) == [("OK", 0.0)]


def spiky(t, high=30, low=10, every=300, lasts=20):
    return (high if t % every < lasts else low) * GIB


def test_its_own_peak_that_no_longer_fits_is_tight_until_the_room_is_back():
    """60 GiB are somebody else's from 600 to 1200 s; the peak needs 20 more."""
    ticks = stream(
        1800,
        lambda t: {7: spiky(t) if t < 600 else 10 * GIB},
        unseen=lambda t: 60 * GIB if 600 <= t < 1200 else 0,
    )

    events = found(ticks)

    assert verdicts(events) == [("OK", 0.0), ("TIGHT", 602.0), ("OK", 1230.0)]
    tight = next(e for e in events if e.verdict == "TIGHT")
    assert (tight.need_low_bytes, tight.free_bytes) == (20 * GIB, 10 * GIB)
    assert "its peak of 30 GiB would no longer fit: 20 GiB more, 10 GiB free" in told(tight)


def test_a_peak_of_the_start_is_not_expected_for_ever():
    """Loading took twice the room; half an hour later nobody expects that again."""
    ticks = stream(
        4000,
        lambda t: (
            {8: 10 * GIB}
            | ({7: (60 if t < 100 else 30) * GIB} if t >= 10 else {})
            | ({9: 35 * GIB} if t >= 400 else {})
        ),
        step=5,
    )

    assert verdicts(found(ticks)) == [
        ("OK", 10.0),
        ("TIGHT", 405.0),
        ("OK", pytest.approx(1840, abs=70)),
    ]


def test_peaks_that_would_not_fit_together_are_tight_when_both_have_come_of_late():
    """Each fits beside any other, 20 more of 50 free; not all three."""
    all_three = lambda t: {pid: spiky(t + 100 * pid) for pid in (7, 8, 9)}  # noqa: E731
    one = lambda t: {7: spiky(t), 8: 10 * GIB, 9: 10 * GIB}  # noqa: E731

    tight = [e for e in found(stream(900, all_three)) if e.verdict == "TIGHT"]

    assert {e.pid for e in tight} == {7, 8, 9}
    assert "have all been reached of late and would not fit together" in tight[0].reason
    assert [e for e in found(stream(900, one)) if e.verdict == "TIGHT"] == []


def test_another_rise_of_a_size_that_came_twice_must_fit():
    """Steps of 12 GiB; after the fifth there are 8 GiB left."""
    ticks = stream(3000, lambda t: {7: 12 * GIB * (1 + min(5, int(t // 200)))})

    events = found(ticks)

    assert verdicts(events) == [("OK", 0.0), ("TIGHT", 1002.0), ("OK", pytest.approx(2630, abs=90))]
    tight = next(e for e in events if e.verdict == "TIGHT")
    assert (tight.need_low_bytes, tight.need_high_bytes) == (0, 12 * GIB)


def test_one_more_newcomer_like_the_last_concerns_who_needs_the_room_and_not_who_is_flat():
    """While 22 GiB that came are there, 23 are left: room for another, but not for a peak then."""
    ticks = stream(
        1500,
        lambda t: {7: spiky(t), 6: 25 * GIB} | ({8: 22 * GIB} if 700 <= t < 800 else {}),
    )

    events = found(ticks)

    assert verdicts(events) == [("OK", 0.0), ("TIGHT", 702.0), ("OK", 830.0)]
    tight = next(e for e in events if e.verdict == "TIGHT")
    assert "one more newcomer of 22 GiB, as has come before" in tight.reason
    assert [v for v, _ in verdicts(events, 6) + verdicts(events, 8)] == ["OK", "OK"]


def test_where_no_tenant_ever_came_none_is_expected():
    assert verdicts(found(stream(1500, lambda t: {7: spiky(t), 6: 25 * GIB}))) == [("OK", 0.0)]


def test_a_training_is_told_before_its_first_step_what_its_model_lets_expect():
    """10 GiB of weights with Adam need 40 to 100 GiB; the range is said, and taken back."""
    facts = {7: {"cmdline": "python train.py --optim adamw", "model_bytes": 10 * GIB}}

    def held(t):
        if t < 10:
            return {8: 20 * GIB}
        return {8: 20 * GIB, 7: (10 if t < 60 else 55) * GIB}

    events = found(stream(400, held, facts=facts))

    assert verdicts(events)[:2] == [("TIGHT", 10.0), ("OK", pytest.approx(160, abs=31))]
    tight = next(e for e in events if e.pid == 7)
    assert (tight.need_low_bytes, tight.need_high_bytes) == (30 * GIB, 90 * GIB)
    assert "training (adam) a model of 10 GiB" in tight.reason


@pytest.mark.parametrize("facts", [
    {"cmdline": "python train.py --optim adamw"},
    {"cmdline": "python madame.py", "model_bytes": 10 * GIB},
    {"cmdline": "/home/trainer/ollama serve", "model_bytes": 10 * GIB},
    {"cmdline": "vllm serve my-finetuned", "model_bytes": 10 * GIB},
])  # fmt: skip
def test_without_a_known_size_or_a_word_that_says_training_nothing_is_estimated(facts):
    ticks = stream(
        400, lambda t: {8: 20 * GIB} | ({7: 10 * GIB} if t >= 10 else {}), facts={7: facts}
    )

    assert verdicts(found(ticks)) == [("OK", 10.0)]


@pytest.mark.parametrize(
    ("line", "framework", "method"),
    [
        ("torchrun --nproc-per-node 8 run_sft.py --optim adamw_torch", None, "adam"),
        ("accelerate launch finetune_lora.py", None, "lora"),
        ("python train.py --optimizer=sgd", None, "sgd"),
        ("python -m vllm.entrypoints.openai.api_server", "vllm", None),
        ("VLLM::EngineCore", "vllm", None),
        ("python /data/vllm_logs/plot.py", None, None),
        ("vim ollama.md", None, None),
        ("/usr/bin/domain --model x", None, None),
        ("llama-server -m constrained.gguf", "llamacpp", None),
        ("python eval.py --train-file data/train.json", None, None),
    ],
)
def test_words_count_whole_and_only_where_programs_and_options_stand(line, framework, method):
    job = job_of(None, {"cmdline": line})

    assert (job.framework, job.method) == (framework, method)


class Risk:
    """What the risk says, as far as verdicts read it."""

    def __init__(self, level, p_900, pid):
        self.level, self.p_oom, self.rate = level, (0.0, 0.0, p_900), 50e6
        self.driver = SeriesKey("GPU-a", pid, 1)


def test_who_drives_a_critical_device_is_oom_and_others_are_not():
    ticks = stream(300, lambda t: {7: 10 * GIB + int(t) * 50 * MIB, 8: 20 * GIB})
    risk = Forecast(
        (100, Risk("warning", 0.5, 7)),
        (150, Risk("critical", 0.9, 7)),
        (200, Risk("none", 0.0, None)),
    )

    events = found(ticks, risk)

    assert verdicts(events) == [("OK", 0.0), ("TIGHT", 102.0), ("OOM", 150.0), ("OK", 230.0)]
    assert verdicts(events, 8) == [("OK", 0.0)]


def test_a_server_that_takes_its_pool_is_not_tight_for_the_rise_of_that():
    ticks = stream(
        300, lambda t: {7: min(70, 2 + int(t)) * GIB}, facts={7: {"cmdline": "vllm serve m"}}
    )
    warned = Forecast((60, Risk("warning", 0.6, 7)), (150, Risk("none", 0.0, None)))

    assert verdicts(found(ticks, warned)) == [("OK", 0.0)]


@pytest.mark.parametrize("step", [0.2, 1.0, 5.0])
def test_the_same_verdicts_come_at_any_sampling(step):
    ticks = stream(
        900, lambda t: {7: spiky(t)}, step=step,
        unseen=lambda t: 60 * GIB if 650 <= t < 750 else 0,
    )  # fmt: skip

    assert verdicts(found(ticks)) == [
        ("OK", 0.0), ("TIGHT", pytest.approx(652, abs=3)), ("OK", 780.0),
    ]  # fmt: skip


@pytest.mark.parametrize("scenario", ["second-tenant", "evaluation-spike", "shared-server"])
def test_verdicts_do_not_depend_on_blocks(scenario):
    ticks = list(SimSource(scenario, seed=3, interval_s=2.0, pace=None, duration_s=700.0).ticks())
    whole = found(ticks)

    assert found(ticks, cut=5) == whole
    assert whole


VLLM = {7: {"cmdline": "vllm serve m --gpu-memory-utilization 0.8"}}


def test_a_full_cache_is_a_question_of_service_and_not_of_memory():
    """Full for half of the time, requests waiting for a quarter of it, 12 thrown out."""
    figures = {
        float(t): [
            Observation(
                what=SERVICE, pid=7, uuid="GPU-a",
                data={"kv_usage_pct": 99 if t < 500 else 40, "waiting": int(t < 250), "running": 9,
                      "preemptions": min(t, 500) // 50 + 2},
            )
        ]
        for t in range(0, 1000, 10)
    }  # fmt: skip
    ticks = stream(
        1000, lambda t: {7: 64 * GIB, 8: int(2 + t // 500) * GIB}, facts=VLLM, notes=figures
    )

    (said,) = found(ticks, analyzer=ServiceAnalyzer)

    assert verdicts(found(ticks)) == [("OK", 0.0)]
    assert (said.framework, said.preemptions) == ("vllm", 10)
    assert said.kv_full_share == pytest.approx(0.5, abs=0.01)
    assert said.waiting_share == pytest.approx(0.25, abs=0.01)
    # 64 of 80 GiB were taken and 3 by others; 13 GiB are 16 % more, less the margin of 3 %.
    assert said.setting_high == pytest.approx(0.8 + 13 / 80)
    assert said.setting_low == pytest.approx(0.8 + 13 / 80 - 0.03)


def test_without_figures_of_the_server_its_service_is_not_known():
    (said,) = found(stream(100, lambda _: {7: 64 * GIB}, facts=VLLM), analyzer=ServiceAnalyzer)

    assert said.service.startswith("not known")
    assert (said.kv_full_share, said.preemptions, said.waiting_share) == (None, None, None)
    assert (said.setting_low, said.setting_high) == (None, None)
