"""The page and the Markdown: complete, self-contained, and safe with text from outside."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from report_fixtures import (
    HOSTILE,
    HOSTILE_IMAGE,
    about,
    gpu,
    held,
    oom_story,
    opening,
    report_of,
    tick,
)

from vramtop.report.html import page
from vramtop.report.markdown import markdown
from vramtop.report.page import SCRIPT
from vramtop.report.tables import MOST_EVENTS, MOST_PROCESSES
from vramtop.samples import MARK, PROCESS, SIMULATED, Observation
from vramtop.units import GIB, MIB

VOID = {"meta", "link", "img", "source", "br"}


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on tags that do not match."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.text, self.cells = [], [], [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)
            if self.open[-1] == "td":
                self.cells.append(data)


@pytest.fixture(scope="module")
def failed():
    return report_of(oom_story())


@pytest.fixture(scope="module")
def failed_page(failed):
    return page([failed])


def test_sections_stand_in_the_order_in_which_they_are_asked(failed_page):
    assert re.findall(r"<h2>(.*?)</h2>", failed_page) == [
        "Did it run out?",
        "How much was asked, how much was free?",
        "Who held what at that moment?",
        "How did it come to that?",
        "When did vramtop warn?",
        "What to try",
        "How good is the evidence?",
        "GPUs and processes",
        "Events",
    ]


def test_every_sentence_of_the_report_is_on_the_page_and_in_the_markdown(failed, failed_page):
    seen = " ".join(Page(failed_page).text)
    written = markdown([failed]).replace("\\", "").replace("\u200b", "")
    for section in (failed.outcome, failed.asked, failed.history, failed.warned, failed.quality):
        for sentence in section.sentences:
            assert sentence.removeprefix("Evidence: ") in seen
            assert sentence in written


def test_the_table_names_reserved_unattributed_and_free(failed_page):
    cells = Page(failed_page).cells
    for words in ("unattributed", "reserved by the driver", "free", "307.2 MiB", "+9.5 GiB"):
        assert words in cells, words


def test_nothing_is_loaded_from_anywhere(failed_page):
    for tag, attributes in Page(failed_page).elements:
        for name in ("src", "srcset", "href", "action", "data", "poster"):
            if name in attributes and not (tag == "source" and name == "data"):
                assert attributes[name].startswith(("data:", "#")), (tag, name)
        assert tag not in {"iframe", "object", "embed", "form", "base"}
    assert "@import" not in failed_page
    assert "url(" not in failed_page


def test_the_policy_allows_the_one_script_and_nothing_else(failed_page):
    parsed = Page(failed_page)
    policy = next(
        attributes["content"]
        for tag, attributes in parsed.elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    assert not any(
        name.startswith("on") for _, attributes in parsed.elements for name in attributes
    )


@pytest.mark.parametrize(
    "hostile", [HOSTILE, HOSTILE_IMAGE, "</title><script>x()</script>", "'\" onx=1"]
)
def test_hostile_text_is_text_wherever_it_comes_from(hostile):
    ticks = oom_story(name=hostile, command=hostile)
    extra = (*ticks[5].observations, Observation(what=MARK, text=hostile))
    ticks[5] = tick(5, ticks[5].devices, ticks[5].processes, extra)
    facts = [about(PROCESS, 100, name=hostile, data={"command": hostile, "user": hostile})]
    ticks[6] = tick(6, ticks[6].devices, ticks[6].processes, facts)
    ticks[300] = tick(
        300, ticks[300].devices, ticks[300].processes,
        [about("oom_evidence", 100, text=f"CUDA out of memory. {hostile}")],
    )  # fmt: skip
    report = report_of(ticks, source=hostile)
    parsed = Page(page([report]))
    assert [tag for tag, _ in parsed.elements].count("script") == 1
    assert [tag for tag, _ in parsed.elements].count("img") == 1
    assert not any(
        name.startswith("on") for _, attributes in parsed.elements for name in attributes
    )
    assert hostile in " ".join(parsed.text)
    written = markdown([report])
    assert not re.search(r"(?<!\\)<(script|img|/title)", written)


def test_a_lone_surrogate_and_control_characters_do_not_break_the_file():
    report = report_of(oom_story(name="\udcff\x00\x1b[2J\u202e", command=""))
    html = page([report])
    assert html.encode("utf-8")
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_simulated_is_said_first_and_only_when_it_is(failed_page):
    ticks = oom_story(seconds=30)
    seen = (*ticks[0].observations, Observation(what=SIMULATED, name="training-oom"))
    ticks[0] = tick(0, ticks[0].devices, ticks[0].processes, seen)
    html = page([report_of(ticks)])
    assert html.index("SIMULATED: no GPU was involved (scenario training-oom)") < html.index("<h1")
    assert "**SIMULATED**" in markdown([report_of(ticks)])
    assert "SIMULATED" not in failed_page


def test_too_many_events_and_processes_are_cut_with_the_count_said():
    ticks = []
    for second in range(400):
        rows = [held(1000 + second, GIB)]
        observations = opening() if second == 0 else [about("gone", 999 + second)]
        ticks.append(tick(second, [gpu(2 * GIB)], rows, observations))
    report = report_of(ticks)
    html = page([report])
    total = sum(report.events_seen.values())
    assert f"{MOST_EVENTS} of {total} events" in html
    assert f"The {MOST_PROCESSES} with the highest peaks of 400." in html
    assert len(re.findall(r"<tr", html)) < MOST_EVENTS + MOST_PROCESSES + 30


def test_figures_carry_the_number_they_are_sorted_by(failed_page):
    peaks = [
        attributes["data-order"]
        for tag, attributes in Page(failed_page).elements
        if tag == "td" and "data-order" in attributes
    ]
    assert str(20 * GIB) in peaks
    assert all(re.fullmatch(r"-?\d+(\.\d+)?([eE][-+]?\d+)?", order) for order in peaks)


def test_unknown_is_written_as_unknown():
    ticks = [
        tick(second, [gpu(None)], [held(1, None)], opening() if second == 0 else [])
        for second in range(5)
    ]
    cells = Page(page([report_of(ticks)])).cells
    assert "unknown" in cells
    assert "0 B" not in cells


def test_light_and_dark_pictures_are_embedded_and_the_page_stays_small(failed_page):
    pictures = re.findall(r'(?:src|srcset)="(data:image/[^"]+)"', failed_page)
    assert len(pictures) == 2
    assert pictures[0] != pictures[1]
    assert len(failed_page) < MIB


@pytest.mark.parametrize(
    "ticks",
    [
        [],
        [tick(0, [], [], opening(gpus=0))],
        [tick(0, [gpu(GIB)], [], opening())],
        [tick(seq, [gpu(GIB)], [], [], at_s=seq * 1000) for seq in range(3)],
    ],
)
def test_a_recording_with_almost_nothing_gives_a_whole_page(ticks):
    report = report_of(ticks)
    assert report.headline in " ".join(Page(page([report])).text)
    assert markdown([report]).startswith("# ")


def test_several_recordings_stand_side_by_side_and_are_not_merged(failed):
    other = report_of(oom_story(seconds=50), source="rank1.parquet")
    html = page([failed, other])
    assert html.count("<article") == 2
    assert "they are not merged" in html
    assert '<a href="#r2">rank1.parquet</a>' in html
    assert markdown([failed, other]).count("\n---\n") == 1


def test_markdown_tables_have_as_many_cells_as_headings(failed):
    rows = re.findall(r"^\|.*\|$", markdown([failed]), re.MULTILINE)
    assert len(rows) > 10
    block = None
    for row in rows:
        cells = len(re.findall(r"(?<!\\)\|", row))
        if set(row) <= set("|-:"):
            assert cells == block
        block = cells
