"""What a user can do from Python, and the notebook that shows it."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from vramtop.recording.reader import open_recording
from vramtop.recording.store import write_recording
from vramtop.recording.writer import RecordingWriter
from vramtop.sources.sim import SimSource

ROOT = Path(__file__).parent.parent


def test_a_frame_holds_what_the_file_holds(tmp_path):
    path = tmp_path / "run.parquet"
    write_recording(path, SimSource("multi-gpu", seed=1, pace=None, duration_s=60.0).ticks())

    frame = open_recording(path).frame()

    order = ["kind", "seq", "gpu", "pid", "what", "name", "text", "data"]
    assert frame.sort(order).equals(pl.read_parquet(path).sort(order))
    assert frame["seq"].is_sorted()


def test_a_frame_of_a_growing_recording_has_its_tail(tmp_path):
    path = tmp_path / "run.parquet"
    writer = RecordingWriter(path, seal=False)
    for tick in SimSource("steady-training", seed=1, pace=None, duration_s=30.0).ticks():
        writer.append(tick)

    rows = open_recording(path).frame()
    writer.close()

    devices = rows.filter(pl.col("kind") == "device")
    assert devices["seq"].to_list() == list(range(len(devices)))
    assert devices["used_bytes"].max() > 0


@pytest.mark.parametrize("path", sorted(ROOT.glob("notebooks/*.ipynb")), ids=lambda path: path.name)
def test_the_notebook_runs(path, monkeypatch, tmp_path):
    """Its code cells, in order, in a directory of their own; outputs are stripped."""
    notebook = json.loads(path.read_text())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VRAMTOP_ROOT", str(ROOT))
    scope: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            exec(compile("".join(cell["source"]), path.name, "exec"), scope)  # noqa: S102
    assert any(cell["cell_type"] == "code" for cell in notebook["cells"])
