"""The page in a real browser: no error, no request, sentences there, tables sort."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time

import pytest
from report_fixtures import HOSTILE, HOSTILE_IMAGE, about, oom_story, report_of, tick

from vramtop.report.html import page
from vramtop.samples import PROCESS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.browser,
    # CI installs it, so there a missing browser is a failure.
    pytest.mark.skipif(
        CHROMIUM is None and not os.environ.get("CI"),
        reason="needs Debian's chromium (apt-get install chromium)",
    ),
]


class Browser:
    """Headless Chromium, spoken to over its debugging pipe."""

    def __init__(self, profile):
        assert CHROMIUM is not None, "chromium is not installed"
        to_read, self._to = os.pipe()
        self._from, from_write = os.pipe()

        def in_child():
            # The pipe is on descriptors 3 and 4, whatever numbers it was made with.
            one, two = os.dup(to_read), os.dup(from_write)
            os.dup2(one, 3)
            os.dup2(two, 4)

        self._process = subprocess.Popen(
            [
                CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update",
                f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank",
            ],
            preexec_fn=in_child,  # noqa: PLW1509 - only dup2
            close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(to_read)
        os.close(from_write)
        self._buffer = b""
        self._number = 0
        self._session = None
        self.seen = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.seen.append(answer)

    def _read(self):
        while b"\0" not in self._buffer:
            piece = os.read(self._from, 1 << 16)
            assert piece, "the browser is gone"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def open(self, path, *, media="screen", scheme="light"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.seen.clear()
        self.call("Page.navigate", url=f"file://{path}")
        deadline = time.monotonic() + 20
        while self.value("document.readyState") != "complete":
            assert time.monotonic() < deadline, "the page does not load"

    def value(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def complaints(self):
        """Console messages, exceptions and requests to anywhere but the file and its data."""
        found = []
        for message in self.seen:
            method, params = message.get("method"), message.get("params", {})
            if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                found.append(params)
            elif method == "Network.requestWillBeSent":
                url = params["request"]["url"]
                if not url.startswith(("file://", "data:")):
                    found.append(url)
        return found

    def close(self):
        with contextlib.suppress(AssertionError, OSError):
            self._session = None
            self.call("Browser.close")
        self._process.wait(timeout=20)
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    one = Browser(tmp_path_factory.mktemp("profile"))
    yield one
    one.close()


@pytest.fixture(scope="module")
def report():
    ticks = oom_story(name=HOSTILE, command="")
    facts = [about(PROCESS, 200, name=HOSTILE_IMAGE, data={"user": HOSTILE})]
    ticks[5] = tick(5, ticks[5].devices, ticks[5].processes, facts)
    return report_of(ticks)


@pytest.fixture(scope="module")
def path(report, tmp_path_factory):
    place = tmp_path_factory.mktemp("page") / "oom.html"
    place.write_text(page([report]), encoding="utf-8")
    return place


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_console_message_no_request_and_every_sentence(browser, path, report, scheme):
    browser.open(path, scheme=scheme)
    shown = " ".join(browser.value("document.body.innerText").split())
    for section in (report.outcome, report.asked, report.history, report.quality):
        for sentence in section.sentences:
            assert " ".join(sentence.removeprefix("Evidence: ").split()) in shown
    assert browser.complaints() == []


def test_hostile_names_are_text_and_run_nothing(browser, path):
    browser.open(path)
    assert HOSTILE in browser.value("document.body.innerText")
    assert browser.value("document.scripts.length") == 1
    assert browser.value("document.querySelectorAll('[onerror]').length") == 0
    assert browser.value("document.images.length") == 1
    assert browser.complaints() == []


def test_the_policy_stops_a_script_that_would_slip_through(browser, path, tmp_path):
    """Proof that the guard works, and that this test would see a script that runs."""
    html = path.read_text(encoding="utf-8")
    spoiled = tmp_path / "spoiled.html"
    spoiled.write_text(
        html.replace("</body>", "<script>window.broken = 1; console.log('ran')</script></body>"),
        encoding="utf-8",
    )
    browser.open(spoiled)
    assert browser.value("typeof window.broken") == "undefined"
    assert any("Content Security Policy" in str(one) for one in browser.complaints())


def test_dark_and_print_show_their_own_picture_and_paper(browser, path):
    def look(**how):
        browser.open(path, **how)
        return (
            browser.value("getComputedStyle(document.body).backgroundColor"),
            browser.value("document.images[0].currentSrc"),
            browser.value("document.images[0].naturalWidth"),
        )

    light, dark = look(), look(scheme="dark")
    on_paper = look(media="print", scheme="dark")
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[0] == "rgb(20, 24, 29)"
    assert on_paper == light
    assert light[1] != dark[1]
    assert light[2] > 800


def test_a_click_on_a_heading_sorts_by_the_number_and_again_the_other_way(browser, path):
    browser.open(path)
    table = (
        "[...document.querySelectorAll('table')].find(t => t.caption.textContent === 'Processes')"
    )
    column = f"[...{table}.tBodies[0].rows].map(row => Number(row.cells[4].dataset.order))"
    click = f"{table}.tHead.rows[0].cells[4].querySelector('button').click()"
    browser.value(click)
    down = browser.value(column)
    browser.value(click)
    up = browser.value(column)
    assert len(down) == 2
    assert down == sorted(down, reverse=True)
    assert up == sorted(down)
    state = browser.value(f"{table}.tHead.rows[0].cells[4].getAttribute('aria-sort')")
    assert state == "ascending"


def test_nothing_overflows_the_page_sideways(browser, path):
    browser.open(path)
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
