"""The documentation is complete and its code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from vramtop.cli import COMMANDS
from vramtop.events import EVENT_TYPES, Event
from vramtop.export.derived import SCHEMA as DERIVED
from vramtop.recording.schema import SCHEMA
from vramtop.recording.store import write_recording
from vramtop.sources.sim import SCENARIOS, SimSource

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
COMMON = {field.name for field in fields(Event)} - {"t_us", "life"} | {"t", "kind"}


@pytest.mark.parametrize("event", EVENT_TYPES, ids=lambda event: event.kind)
def test_every_event_is_described_with_its_fields(event):
    rows = (DOCS / "reference.md").read_text().splitlines()
    row = next(line for line in rows if line.startswith(f"| `{event.kind}` |"))
    for field in fields(event):
        if field.name not in {name.name for name in fields(Event)}:
            assert f"`{field.name}`" in row, field.name


def test_the_order_of_events_is_the_order_of_the_table():
    text = (DOCS / "reference.md").read_text()
    places = [text.index(f"| `{event.kind}` |") for event in EVENT_TYPES]
    assert places == sorted(places)
    assert all(f"`{name}`" in text for name in COMMON)


def test_every_command_is_in_the_readme():
    text = (ROOT / "README.md").read_text()
    for command in COMMANDS:
        assert f"vramtop {command}" in text, command


def test_every_column_of_a_recording_is_documented():
    text = (DOCS / "recording-format.md").read_text()
    for name in SCHEMA.names:
        assert f"`{name}`" in text, name


def test_every_derived_column_is_documented():
    text = (DOCS / "reference.md").read_text()
    for name in DERIVED.names:
        assert f"`{name}`" in text, name


def test_every_scenario_is_documented():
    text = (DOCS / "simulator.md").read_text()
    for name in SCENARIOS:
        assert name in text, name


def test_links_between_pages_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]:
        text = page.read_text()
        for target in re.findall(r"\]\((?!http)([^)#]+)", text):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
        for named in re.findall(r"`((?:docs|benchmarks|tests|vramtop|recordings)/[\w./-]+)`", text):
            assert "NAME" in named or (ROOT / named).exists(), f"{page.name}: {named}"


def test_the_python_example_runs(tmp_path):
    write_recording(tmp_path / "run.parquet", SimSource("startup-oom", seed=1, pace=None).ticks())
    code = re.search(r"```python\n(.*?)```", (DOCS / "reference.md").read_text(), re.DOTALL)[1]
    done = subprocess.run(
        [sys.executable, "-c", code + "\nassert any(e.kind == 'oom' for e in events)\n"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
