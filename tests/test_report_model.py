"""What a report concludes from a recording, as values and sentences."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from report_fixtures import (
    RESERVED,
    TOTAL,
    UUID,
    MemoryRecording,
    about,
    gpu,
    held,
    oom_story,
    opening,
    report_of,
    tick,
    uuid_of,
)

from vramtop.blocks import NULL
from vramtop.events import Oom
from vramtop.report.build import build
from vramtop.samples import (
    CLOCK_STEP,
    FAULT,
    GONE,
    GPU_BACK,
    GPU_LOST,
    MARK,
    PROCESS,
    SELF,
    Observation,
)
from vramtop.units import GIB, MIB, NS_PER_S


def sentences(report):
    sections = (
        report.outcome, report.asked, report.history, report.warned, report.advice, report.quality,
    )  # fmt: skip
    return [sentence for one in sections if one is not None for sentence in one.sentences]


def rows_of(moment):
    return {row.label: row.held_bytes for row in moment.holdings}


@pytest.fixture(scope="module")
def failed():
    return report_of(oom_story())


def test_an_oom_is_told_with_who_when_asked_and_free(failed):
    assert failed.headline == "python train.py (pid 100) ran out of memory on GPU 0"
    (oom,) = failed.ooms
    assert (oom.pid, oom.uuid, oom.certainty) == (100, UUID, "confirmed")
    assert oom.elapsed_ns == 300 * NS_PER_S
    assert (oom.requested_bytes, oom.free_bytes) == (4 * GIB, round(1.5 * GIB))
    assert oom.free_source == "the message of the program"
    assert "2.5 GiB was missing." in sentences(failed)


def test_holdings_at_the_oom_add_up_to_the_whole_gpu(failed):
    moment = failed.ooms[0].moment
    rows = rows_of(moment)
    assert rows["python train.py (pid 100)"] == 10 * GIB + round(47.7 * GIB)
    assert rows["vllm serve (pid 200)"] == 20 * GIB
    assert rows["unattributed"] == round(0.3 * GIB)
    assert rows["reserved by the driver"] == RESERVED
    assert sum(rows.values()) == TOTAL


def test_growth_names_the_process_that_grew_not_only_the_one_that_failed(failed):
    rows = {row.pid: row.grown_bytes for row in failed.ooms[0].moment.holdings if row.pid}
    assert rows[200] == 0
    assert rows[100] == pytest.approx(47.7 * GIB * 60 / 300, rel=1e-6)
    assert any("(it is the one that failed) grew most: by 9.5 GiB" in s for s in sentences(failed))


def test_a_warning_before_the_oom_has_its_lead_time(failed):
    warning = failed.ooms[0].warned
    assert warning is not None
    assert 0 < warning.first_ns < 300 * NS_PER_S
    assert failed.warned.sentences[0].startswith("4 min" if warning.first_ns < 61e9 else "")


def test_a_process_that_came_late_and_was_decisive_is_named():
    ticks = []
    for second in range(400):
        rows = [held(1, 50 * GIB)]
        observations = [*opening(), about(PROCESS, 1, name="a")] if second == 0 else []
        if second == 200:
            observations.append(about(PROCESS, 2, name="b", data={"command": "generate x"}))
        if second >= 200:
            rows.append(held(2, 28 * GIB))
        if second == 390:
            observations.append(
                about("oom_evidence", 1, text="CUDA out of memory. Tried to allocate 4.00 GiB.")
            )
        used = sum(row.used_bytes for row in rows)
        ticks.append(tick(second, [gpu(used)], rows, observations))
    said = " ".join(sentences(report_of(ticks)))
    assert "generate (pid 2) came to this GPU 3 min 10 s before" in said
    assert "Without it this request would have fitted." in said


def test_the_failing_process_is_shown_as_it_was_even_if_it_is_gone_when_the_oom_is_known():
    """PyTorch lets go of everything before the message is seen; the table must not be empty."""
    ticks = []
    for second in range(100):
        rows = [held(1, 20 * GIB)] + ([held(2, 59 * GIB)] if second < 80 else [])
        observations = opening() if second == 0 else []
        if second == 80:
            observations = [
                about(GONE, 2), about("oom_evidence", 2, text="CUDA out of memory.")
            ]  # fmt: skip
        used = sum(row.used_bytes for row in rows)
        ticks.append(tick(second, [gpu(used)], rows, observations))
    (oom, *_) = report_of(ticks).ooms
    assert rows_of(oom.moment)["pid 2"] == 59 * GIB
    assert oom.moment.elapsed_ns == 79 * NS_PER_S


def test_memory_between_two_looks_is_a_row_of_its_own():
    """Device memory is read at every tick, the process list is not: neither is mixed up."""
    ticks = [
        tick(0, [gpu(10 * GIB)], [held(1, 9 * GIB)], opening()),
        tick(1, [gpu(10 * GIB)], [held(1, 9 * GIB)]),
        tick(2, [gpu(30 * GIB, looked=0)]),
    ]
    (peak,) = [moment for moment in report_of(ticks).moments if moment.occasion == "peak"]
    rows = {row.what: row.held_bytes for row in peak.holdings}
    assert rows["since_look"] == 20 * GIB
    assert rows["unattributed"] == GIB
    assert sum(rows.values()) == TOTAL


def test_a_calm_run_says_how_close_it_came():
    ticks = [
        tick(second, [gpu((70 if second == 5 else 30) * GIB)], [held(1, 30 * GIB)],
             opening() if second == 0 else [])
        for second in range(20)
    ]  # fmt: skip
    report = report_of(ticks)
    assert report.headline == "No sign of running out: at most 70 GiB of 79.5 GiB (88 %), on GPU 0"
    assert "9.5 GiB (12 %) free at the peak." in report.outcome.sentences[1]
    assert [moment.occasion for moment in report.moments] == ["peak", "end"]
    assert report.moments[0].elapsed_ns == 5 * NS_PER_S


def test_hidden_process_memory_is_unknown_not_zero():
    ticks = [
        tick(second, [gpu(30 * GIB)], [held(1, None), held(2, 8 * GIB)],
             opening() if second == 0 else [])
        for second in range(10)
    ]  # fmt: skip
    report = report_of(ticks)
    (device,) = report.devices
    hidden = next(process for process in device.processes if process.key.pid == 1)
    assert hidden.used.peak is None
    assert hidden.end_bytes is None
    assert device.unattributed.last is None
    assert device.hidden == 10
    end = report.moments[-1]
    assert rows_of(end)["pid 1"] is None
    assert rows_of(end)["unattributed"] is None
    assert end.note == "The driver hides what some of these processes hold."


def test_without_a_process_list_nobody_is_named_and_it_is_said():
    ticks = [
        tick(second, [gpu(30 * GIB, looked=0)], [], opening() if second == 0 else [])
        for second in range(10)
    ]
    report = report_of(ticks)
    assert report.devices[0].unattributed.value.tolist() == []
    unread = "GPU 0: the process list was never read, so who held what is not known."
    assert unread in report.quality.sentences
    assert report.moments[-1].note is not None


def test_a_total_that_is_not_recorded_is_unknown():
    ticks = [
        tick(second, [gpu(30 * GIB, total=None, reserved=None)], [],
             opening() if second == 0 else [])
        for second in range(10)
    ]  # fmt: skip
    report = report_of(ticks)
    assert report.devices[0].limit_bytes is None
    assert rows_of(report.moments[-1])["free"] is None
    assert any("how much that GPU has is not recorded" in words for words in sentences(report))


def test_a_gap_breaks_every_series_and_is_counted():
    ticks = [
        tick(seq, [gpu(30 * GIB)], [held(1, 29 * GIB)], opening() if seq == 0 else [],
             at_s=seq if seq < 50 else seq + 100)
        for seq in range(100)
    ]  # fmt: skip
    report = report_of(ticks)
    (device,) = report.devices
    for series in (device.used, device.processes[0].used):
        assert series.held_at(40 * NS_PER_S) is not None
        assert series.held_at(100 * NS_PER_S) is None
        assert series.held_at(160 * NS_PER_S) is not None
    ((start, stop, _, uuid),) = report.evidence.gaps
    assert (start, stop, uuid) == (49 * NS_PER_S, 150 * NS_PER_S, None)
    assert any(words.startswith("1 gap, 1 min 41 s in all") for words in report.quality.sentences)


def test_a_lost_gpu_has_no_reading_until_it_is_back():
    ticks = []
    for second in range(60):
        away = 20 <= second < 40
        observations = opening(gpus=2) if second == 0 else []
        if second == 20:
            observations = [Observation(what=GPU_LOST, gpu=1, uuid=uuid_of(1), text="Xid 79")]
        if second == 40:
            observations = [Observation(what=GPU_BACK, gpu=1, uuid=uuid_of(1))]
        devices = [gpu(GIB)] + ([] if away else [gpu(2 * GIB, index=1, uuid=uuid_of(1))])
        ticks.append(tick(second, devices, [], observations))
    report = report_of(ticks)
    assert report.device(uuid_of(1)).used.held_at(30 * NS_PER_S) is None
    assert report.device(uuid_of(1)).used.held_at(50 * NS_PER_S) == 2 * GIB
    assert report.device(UUID).used.held_at(30 * NS_PER_S) == GIB


def test_a_process_that_left_holds_nothing_and_is_gone_at_the_end():
    ticks = []
    for second in range(30):
        rows = [held(1, GIB)] if second < 10 else []
        observations = opening() if second == 0 else []
        if second == 10:
            observations = [about(GONE, 1)]
        ticks.append(tick(second, [gpu(2 * GIB)], rows, observations))
    (process,) = report_of(ticks).devices[0].processes
    assert process.used.held_at(9 * NS_PER_S) == GIB
    assert process.used.held_at(15 * NS_PER_S) is None
    assert (process.alive, process.end_bytes, process.last_ns) == (False, None, 9 * NS_PER_S)


def test_one_sample_of_a_long_recording_is_the_peak_in_figures_and_table():
    ticks = [
        tick(second, [gpu(30 * GIB + (7 * MIB if second == 7777 else 0))], [held(1, 29 * GIB)],
             opening() if second == 0 else [])
        for second in range(20_000)
    ]  # fmt: skip
    report = report_of(ticks, chunk=3600)
    assert report.devices[0].used.peak == (7777 * NS_PER_S, 30 * GIB + 7 * MIB)
    assert len(report.devices[0].used.value) < 100


@pytest.mark.parametrize("chunk", [1, 7, 320])
def test_the_report_does_not_depend_on_how_the_stream_was_cut(failed, chunk):
    other = report_of(oom_story(), chunk=chunk)
    assert sentences(other) == sentences(failed)
    assert other.moments == failed.moments
    assert other.events_seen == failed.events_seen
    for one, two in zip(failed.devices, other.devices, strict=True):
        for name in ("used", "reserved", "unattributed"):
            assert np.array_equal(getattr(one, name).value, getattr(two, name).value)
            assert np.array_equal(getattr(one, name).elapsed_ns, getattr(two, name).elapsed_ns)


def test_the_last_minute_is_kept_at_full_rate_however_long_the_run():
    report = build(MemoryRecording(oom_story(seconds=4000)), source="x", buckets=50)
    (oom,) = report.ooms
    process = next(one for one in oom.close_up.processes if one.key.pid == 100)
    inside = process.used.elapsed_ns[process.used.value != NULL]
    assert inside.tolist() == [second * NS_PER_S for second in range(3940, 4001)]


def test_recorder_cost_faults_and_clock_steps_are_told():
    cost = {"span_s": 30.0, "cpu_s": 0.03, "resident_bytes": 20 * MIB, "missed_ticks": 1}
    ticks = [
        tick(second, [gpu(GIB)], [], {
            0: opening(),
            30: [Observation(what=SELF, data=cost | {"late_max_us": 900})],
            40: [Observation(what=CLOCK_STEP, data={"step_ns": 5})],
            50: [Observation(what=FAULT, name="power", text="Not Supported")],
            60: [Observation(what=SELF, data=cost | {"late_max_us": 5000}),
                 Observation(what=MARK, text="epoch 3")],
        }.get(second, []))
        for second in range(80)
    ]  # fmt: skip
    said = " ".join(report_of(ticks).quality.sentences)
    assert "0.1 % of one CPU, 20 MiB resident, ticks at most 5 ms late, 2 ticks missed" in said
    assert "Could not be read: power (1 time)." in said
    assert "The wall clock was set 1 time" in said


@pytest.mark.parametrize(
    ("ticks", "headline"),
    [
        ([], "The recording holds no tick"),
        ([tick(0, [], [], opening(gpus=0))], "No memory reading"),
        ([tick(0, [gpu(None)], [], opening())], "No memory reading"),
        ([tick(0, [gpu(GIB)], [], opening())], "No sign of running out"),
    ],
)
def test_a_recording_with_almost_nothing_gives_an_honest_small_report(ticks, headline):
    report = report_of(ticks)
    assert report.headline.startswith(headline)
    assert report.ooms == ()
    assert report.outcome is not None


def test_an_oom_on_an_unknown_gpu_is_told_without_a_table():
    ticks = [
        tick(second, [gpu(GIB), gpu(GIB, index=1, uuid=uuid_of(1))], [],
             [Observation(what="oom_evidence", text="CUDA out of memory.")] if second == 50 else
             opening(gpus=2) if second == 0 else [])
        for second in range(60)
    ]  # fmt: skip
    report = report_of(ticks)
    assert report.headline == "A process ran out of memory on a GPU that is not known"
    assert report.ooms[0].moment is None
    assert "How much was asked for is not known: no message says so." in sentences(report)


def test_a_mig_instance_has_its_own_history_and_its_gpu_is_no_second_one():
    ticks = []
    for second in range(20):
        whole = gpu(20 * GIB)
        part = dataclasses.replace(
            gpu(10 * GIB, uuid="MIG-1", total=20 * GIB, reserved=0), parent_uuid=UUID
        )
        ticks.append(
            tick(second, [whole, part], [held(1, 9 * GIB, uuid="MIG-1")],
                 opening() if second == 0 else [])
        )  # fmt: skip
    report = report_of(ticks)
    parent, instance = report.devices
    assert (parent.is_parent, instance.is_parent) == (True, False)
    assert {moment.uuid for moment in report.moments} == {"MIG-1"}
    assert "GPU 0 instance MIG-1" in report.headline


def test_events_of_a_kind_are_capped_and_all_are_counted():
    ticks = [
        tick(second, [gpu(GIB)], [],
             [Observation(what=MARK, text=f"m{second}-{place}") for place in range(2)])
        for second in range(800)
    ]  # fmt: skip
    report = report_of(ticks)
    assert report.events_seen["mark"] == 1600
    assert sum(timed.event.kind == "mark" for timed in report.events) == 1000
    assert not any(isinstance(timed.event, Oom) for timed in report.events)


def test_the_end_of_the_story_is_told_though_events_before_it_were_cut(monkeypatch):
    """A process that changes phase without end must not hide how it stood when memory ran out."""
    monkeypatch.setattr("vramtop.report.build._MOST_EVENTS_OF_A_KIND", 100)
    ticks = []
    story = oom_story(seconds=400)
    quiet = 6000
    for second in range(quiet):
        rows = [held(200, 20 * GIB), held(300, (1 + second // 50 % 3) * GIB)]
        ticks.append(
            tick(second, [gpu(sum(row.used_bytes for row in rows))], rows,
                 [*story[0].observations, *(Observation(what=MARK, text="x") for _ in range(5))]
                 if second == 0 else [])
        )  # fmt: skip
    ticks += [
        tick(quiet + one.seq, one.devices, one.processes,
             [seen for seen in one.observations if seen.what != "host" and one.seq]
             + ([about(GONE, 300)] if one.seq == 0 else []))
        for one in story
    ]  # fmt: skip
    report = report_of(ticks)
    assert report.events_seen["changepoint"] > 100
    said = " ".join(report.history.sentences)
    assert "python train.py (pid 100) on GPU 0 was growing from" in said
    assert report.ooms[0].warned is not None
