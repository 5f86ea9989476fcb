"""Every later version reads what an earlier one wrote (`golden/README.md`)."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
from recording_fixtures import read

from vramtop.recording.reader import open_recording
from vramtop.recording.recover import recover
from vramtop.recording.schema import SCHEMA

GOLDEN = Path(__file__).with_name("golden")


def expected():
    lines = (GOLDEN / "format1.json").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def as_json(recording):
    return [json.loads(json.dumps(asdict(tick))) for tick in read(recording)]


@pytest.mark.parametrize(
    ("name", "state"), [("format1", "interrupted"), ("format1-sealed", "sealed")]
)
def test_format_1_is_read_as_it_was_meant(name, state):
    recording = open_recording(GOLDEN / f"{name}.parquet")
    assert as_json(recording) == expected()
    assert (recording.state, recording.id, recording.host) == (state, "golden", "golden")
    assert str(recording.zone) == "Asia/Kolkata"


def test_a_log_of_format_1_is_recovered(tmp_path):
    for part in GOLDEN.glob("format1.parquet.wal-*"):
        shutil.copy(part, tmp_path)
    recovery = recover(tmp_path / "format1.parquet")
    assert recovery.ticks == len(expected())
    assert len(recovery.lost) == 1
    assert as_json(open_recording(tmp_path / "format1.parquet")) == expected()


def test_columns_of_format_1_are_what_others_rely_on():
    frame = pl.read_parquet(GOLDEN / "format1-sealed.parquet")
    assert frame.columns == SCHEMA.names
    assert {name: str(frame.schema[name]) for name in ("kind", "seq", "t", "mono_ns", "gpu")} == {
        "kind": "String",
        "seq": "Int64",
        "t": "Datetime(time_unit='us', time_zone='UTC')",
        "mono_ns": "Int64",
        "gpu": "Int64",
    }
