"""The recordings that come with the repository are what their README says."""

from __future__ import annotations

from pathlib import Path

import pytest

from vramtop.engine import Engine
from vramtop.engine.verify import verify
from vramtop.recording.reader import open_recording
from vramtop.samples import IMPORTED, SIMULATED

GALLERY = Path(__file__).parent.parent / "recordings"
FILES = sorted(GALLERY.glob("*.parquet"))
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@each
def test_it_is_listed_and_labelled_as_what_it_is(path):
    kinds = {seen.what for _, seen in open_recording(path).observations()}
    section = IMPORTED if not path.stem.startswith("sim-") else SIMULATED

    assert section in kinds
    assert {IMPORTED, SIMULATED} & kinds == {section}
    assert f"| {path.name} |" in (GALLERY / "README.md").read_text()
    assert path.stat().st_size < 2_000_000


@each
def test_it_replays_identically(path):
    recording = open_recording(path)

    assert verify(recording.blocks, seed=1, rounds=2).holds


@each
def test_a_run_that_lived_raises_no_critical_alarm(path):
    """Real logs are a check, not something to tune on: none of them ends in an OOM."""
    engine = Engine()
    events = [e for block in open_recording(path).blocks() for e in engine.update(block)]
    found = {
        e.kind if e.kind == "oom" else e.level for e in events if e.kind in {"oom", "oom_risk"}
    }
    died = path.stem in {"sim-training-oom", "sim-slow-leak", "sim-second-tenant"}

    assert ("oom" in found) == died
    assert died or "critical" not in found
