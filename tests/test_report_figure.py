"""The picture: what must be in it, in every form, whatever the recording holds."""

from __future__ import annotations

import io
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image
from report_fixtures import (
    HOSTILE,
    UUID,
    about,
    gpu,
    held,
    oom_story,
    opening,
    report_of,
    tick,
    uuid_of,
)

from vramtop.report.figure import PNG_DPI, draw, render
from vramtop.report.legend import WIDTH_IN
from vramtop.report.stack import stacked
from vramtop.report.theme import DARK, LIGHT, PROCESSES, luminance
from vramtop.report.timeaxis import time_axis
from vramtop.samples import PROCESS, SIMULATED, Observation
from vramtop.units import GIB, NS_PER_S


def pixels(png):
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB")).astype(np.int64)


def texts(figure):
    found = [one.get_text() for one in figure.findobj(match=lambda one: hasattr(one, "get_text"))]
    return [text for text in found if text]


def calm(*, seconds=60, gpus=1, processes=2, spike_at=None, names=("python",)):
    ticks = []
    for second in range(seconds):
        devices, rows, observations = [], [], []
        if second == 0:
            observations = opening(gpus=gpus)
        for index in range(gpus):
            uuid = uuid_of(index)
            for place in range(processes):
                pid = 100 * (index + 1) + place
                used = (place + 1) * GIB
                if place == 0 and second == spike_at:
                    used += 60 * GIB
                rows.append(held(pid, used, index=index, uuid=uuid))
                if second == 0:
                    name = names[place % len(names)]
                    observations.append(about(PROCESS, pid, name=name, index=index, uuid=uuid))
            total = sum(row.used_bytes for row in rows if row.uuid == uuid)
            devices.append(gpu(total + GIB, index=index, uuid=uuid))
        ticks.append(tick(second, devices, rows, observations))
    return ticks


@pytest.fixture(scope="module")
def failed():
    return report_of(oom_story())


def test_png_has_the_width_made_for_and_shows_more_than_paper(failed):
    image = pixels(render([failed], "png"))
    assert image.shape[1] == WIDTH_IN * PNG_DPI
    assert 600 < image.shape[0] < 2500
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    for colour in PROCESSES[:2]:
        wanted = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        share = (image == wanted).all(axis=2).mean()
        assert share > 0.02, colour


def test_a_peak_of_one_sample_in_a_long_recording_is_seen_in_the_picture():
    seconds, spike_at = 12_000, 7_321
    plain = pixels(render([report_of(calm(seconds=seconds), chunk=3600)], "png"))
    spiky = pixels(render([report_of(calm(seconds=seconds, spike_at=spike_at), chunk=3600)], "png"))
    left, right = 0.75 / WIDTH_IN, 1 - 3.0 / WIDTH_IN
    width = plain.shape[1]
    column = round(width * (left + (right - left) * spike_at / (seconds - 1)))
    changed = np.abs(plain - spiky).max(axis=2) > 60
    assert changed[:, column - 2 : column + 3].any(axis=1).sum() > 0.2 * len(plain)
    # Between the low plateau and the limit nothing else may move.
    inside = changed[round(0.35 * len(plain)) : round(0.75 * len(plain)), : round(width * right)]
    inside[:, column - 6 : column + 7] = False
    assert not inside.any()


def test_what_was_asked_and_the_lead_of_the_warning_stand_in_the_picture(failed):
    said = texts(draw([failed]))
    assert "out of memory: 4 GiB asked" in said
    assert any(text.startswith("warned ") and text.endswith(" before") for text in said)
    assert any("the 60 s before memory ran out" in text for text in said)


def test_every_axis_has_its_unit(failed):
    axes = draw([failed]).findobj(match=lambda one: hasattr(one, "get_ylabel"))
    assert len(axes) == 2
    assert {one.get_ylabel() for one in axes} == {"memory, GiB"}
    assert all(one.get_xlabel().startswith("seconds since ") for one in axes)


@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_the_same_report_gives_the_same_bytes(failed, form):
    assert render([failed], form) == render([failed], form)


def test_svg_is_xml_without_script_and_holds_the_names_as_text():
    report = report_of(oom_story(name=HOSTILE, command=""))
    svg = render([report], "svg")
    root = ET.fromstring(svg)  # noqa: S314 - made here
    assert not [one for one in root.iter() if one.tag.endswith("script")]
    words = [one.text or "" for one in root.iter() if one.tag.endswith("text")]
    assert any("<script>" in text for text in words)


@pytest.mark.parametrize(
    "name",
    ["$\\frac{", "a_{b}^2$", "訓練", "\ud800", "x" * 500, "", "\x1b[31m", "\u202egnp", "a\nb"],
)
def test_any_name_can_be_drawn_without_a_warning(name):
    ticks = calm(names=(name,), seconds=5)
    report = report_of(ticks, source=name or "x")
    assert len(render([report], "png")) > 1000


def test_names_are_never_read_as_mathematics():
    report = report_of(calm(names=("$x$",), seconds=5))
    assert any("$x$" in text for text in texts(draw([report])))


def test_simulated_is_written_across_the_picture_and_only_then():
    ticks = calm(seconds=5)
    real = texts(draw([report_of(ticks)]))
    seen = (*ticks[0].observations, Observation(what=SIMULATED, name="steady-training"))
    ticks[0] = tick(0, ticks[0].devices, ticks[0].processes, seen)
    assert "SIMULATED" in texts(draw([report_of(ticks)]))
    assert "SIMULATED" in texts(draw([report_of(ticks)], header=False))
    assert "SIMULATED" not in real


def test_eight_gpus_have_a_panel_each_and_one_labelled_time_axis():
    figure = draw([report_of(calm(gpus=8, processes=4, seconds=30))])
    panels = figure.findobj(match=lambda one: hasattr(one, "get_ylabel"))
    assert len(panels) == 8
    assert sum(bool(one.get_xlabel()) for one in panels) == 1


def test_beyond_sixteen_gpus_the_busiest_are_drawn_and_the_rest_is_named():
    said = texts(draw([report_of(calm(gpus=18, processes=1, seconds=5))]))
    assert any(text.startswith("Not drawn: GPU 16 and 17") for text in said)


def test_many_processes_are_summed_up_as_others():
    report = report_of(calm(processes=40, seconds=5))
    stack = stacked(report.devices[0], 0, report.span_ns, most=6)
    assert [layer.what for layer in stack.layers] == ["process"] * 6 + ["others", "unattributed"]
    others = stack.layers[6]
    assert others.label == "34 others"
    assert others.peak_bytes == sum(range(1, 35)) * GIB
    assert stack.layers[-1].top.max() == report.devices[0].used.peak[1]


def test_layers_never_cross_and_the_top_is_what_is_in_use():
    report = report_of(oom_story())
    stack = stacked(report.devices[0], 0, report.span_ns, columns=20)
    edges = np.stack([layer.top for layer in stack.layers])
    assert (np.diff(edges, axis=0) >= 0).all()
    assert edges.max() == report.devices[0].used.peak[1]
    assert len(stack.elapsed_s) <= 2 * 21


def test_a_gap_is_hatched_over_its_time():
    ticks = [
        tick(seq, [gpu(30 * GIB)], [held(1, 29 * GIB)], opening() if seq == 0 else [],
             at_s=seq if seq < 30 else seq + 30)
        for seq in range(60)
    ]  # fmt: skip
    figure = draw([report_of(ticks)])
    hatched = [
        one.get_extents().width
        for one in figure.findobj(
            match=lambda one: getattr(one, "get_hatch", lambda: None)() == "xxx"
        )
    ]
    assert len(hatched) == 1
    assert hatched[0] > 100
    assert "gap" in texts(figure)


@pytest.mark.parametrize(
    "ticks",
    [
        [],
        [tick(0, [], [], opening(gpus=0))],
        [tick(0, [gpu(None)], [], opening())],
        [tick(0, [gpu(GIB)], [held(1, GIB)], opening())],
        [tick(0, [gpu(0, total=None, reserved=None, looked=0)])],
        [tick(seq, [gpu(GIB)], [], [], at_s=seq * 1000) for seq in range(3)],
    ],
)
@pytest.mark.parametrize("form", ["png", "svg", "pdf"])
def test_a_recording_with_almost_nothing_is_drawn(ticks, form):
    assert len(render([report_of(ticks)], form)) > 500


def test_several_reports_stand_one_below_the_other(failed):
    one = draw([failed]).get_size_inches()
    two = draw([failed, failed]).get_size_inches()
    assert two[0] == one[0]
    assert two[1] == pytest.approx(2 * one[1])


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_text_reads_on_its_paper(theme):
    """WCAG asks for a contrast of at least 4.5 to 1."""
    for colour in (theme.ink, theme.faint, theme.oom, theme.mark):
        light, dark = sorted((luminance(colour), luminance(theme.paper)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour


def _seen_by(colour, matrix):
    linear = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]) ** 2.2
    return np.clip(matrix @ linear, 0, 1) ** (1 / 2.2)


@pytest.mark.parametrize(
    "matrix",
    [
        # Machado, Oliveira and Fernandes (2009): full protanopia, deuteranopia, tritanopia.
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        [[0.2126, 0.7152, 0.0722]] * 3,
    ],
    ids=["protanopia", "deuteranopia", "tritanopia", "greyscale"],
)  # fmt: skip
def test_neighbours_in_a_stack_differ_for_every_eye_and_in_greyscale(matrix):
    shades = [_seen_by(colour, np.array(matrix)) for colour in PROCESSES]
    for one, two in zip(shades, [*shades[1:], shades[0]], strict=True):
        assert np.linalg.norm(one - two) > 0.35


def test_a_long_axis_shows_the_recorders_clock_with_whole_steps():
    from zoneinfo import ZoneInfo

    axis = time_axis(0, 86_400, 1_780_000_000_000_000, ZoneInfo("Asia/Kolkata"))
    assert axis.labels[0] == "03:00\n29 May"
    assert axis.labels[1:] == [
        "06:00",
        "09:00",
        "12:00",
        "15:00",
        "18:00",
        "21:00",
        "00:00\n30 May",
    ]
    assert "+05:30" in axis.title


def test_a_short_axis_counts_seconds():
    from datetime import timezone

    axis = time_axis(0, 120, 1_780_000_000_000_000, timezone.utc)
    assert axis.labels == ["0", "15", "30", "45", "60", "75", "90", "105", "120"]
    assert axis.title == "seconds since 20:26:40 on 2026-05-28, +00:00"


def test_a_day_of_eight_gpus_is_stacked_in_bounded_points():
    rng = np.random.default_rng(3)
    ticks = [
        tick(second, [gpu(20 * GIB)], [held(7, int(rng.integers(0, 20 * GIB)))])
        for second in range(9000)
    ]
    report = report_of(ticks, chunk=3000)
    assert report.device(UUID).processes[0].used.value.size <= 4000
    stack = stacked(report.devices[0], 0, 8999 * NS_PER_S, columns=500)
    assert stack.elapsed_s.size <= 2 * 502
