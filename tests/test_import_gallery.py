"""The imported recordings in `recordings/` are what their logs say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from import_fixtures import TRACES, read_logs

from vramtop.recording.reader import open_recording
from vramtop.samples import HOST, Tick

GALLERY = Path(__file__).parent.parent / "recordings"
ROWS = re.findall(
    r"^\| (\S+)\.parquet \| (\S+) \| (\S+/\S+ @ [0-9a-f]{12} : \S+) \| (MIT|Apache-2.0) \|",
    (GALLERY / "README.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def without_version(tick: Tick) -> Tick:
    """The version that imported differs from the one that reads."""
    seen = tuple(o for o in tick.observations if o.what != HOST)
    return dataclasses.replace(tick, observations=seen)


@pytest.mark.parametrize(("name", "log", "source", "licence"), ROWS, ids=[row[0] for row in ROWS])
def test_a_recording_of_the_gallery_equals_its_log(name, log, source, licence):
    path = GALLERY / f"{name}.parquet"
    assert path.stat().st_size < 300_000
    recorded = [tick for block in open_recording(path).blocks() for tick in block.ticks()]
    imported = read_logs(TRACES / log, recording=name).ticks
    assert [without_version(tick) for tick in recorded] == [
        without_version(tick) for tick in imported
    ]
    provenance = (TRACES / "README.md").read_text(encoding="utf-8")
    assert f"| {log} | {source} | {licence} |" in provenance


def test_every_imported_recording_has_a_row_with_its_source():
    imported = {
        path.stem
        for path in GALLERY.glob("*.parquet")
        if any(
            seen.what == "imported" for _, seen in next(open_recording(path).blocks()).observations
        )
    }
    assert imported == {row[0] for row in ROWS}
    assert len(imported) >= 8
