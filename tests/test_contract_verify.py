"""`vramtop verify` and the order of events, from outside."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vramtop.engine import Engine
from vramtop.events import KINDS
from vramtop.recording.reader import open_recording
from vramtop.recording.store import write_recording
from vramtop.sources.sim import SimSource


def vramtop(*args: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    return subprocess.run(
        [sys.executable, "-m", "vramtop", *map(str, args)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes of a busy server, and no last tick without readings."""
    path = tmp_path_factory.mktemp("verify") / "run.parquet"
    write_recording(path, SimSource("shared-server", pace=None, duration_s=120.0).ticks())
    return path


def test_events_are_in_order_to_the_last(recording: Path) -> None:
    """What is said at the end of the stream belongs to its last tick, in that tick's order."""
    lines = vramtop("replay", recording, "--events", "--json").stdout.splitlines()
    places = [
        (
            one["seq"],
            one["uuid"] or "",
            -1 if one["pid"] is None else one["pid"],
            -1 if one["start_time"] is None else one["start_time"],
            KINDS.index(one["kind"]),
        )
        for one in map(json.loads, lines)
    ]
    assert len(places) > 100
    assert places == sorted(places)
    engine = Engine()
    found = [
        event for block in open_recording(recording).blocks() for event in engine.update(block)
    ]
    assert len(found + engine.finish()) == len(places)


def test_damage_in_a_column_that_no_analyzer_reads_fails(recording: Path, tmp_path: Path) -> None:
    """A replay may not touch it, a proof has to."""
    metadata = pq.ParquetFile(recording).metadata
    (column,) = (
        metadata.row_group(0).column(index)
        for index in range(metadata.num_columns)
        if metadata.row_group(0).column(index).path_in_schema == "sm_clock_mhz"
    )
    start = column.dictionary_page_offset or column.data_page_offset
    whole = recording.read_bytes()
    draw = random.Random(1)
    for _ in range(5):
        damaged = bytearray(whole)
        # The pages' content, behind the header: every bit of it is under the checksum.
        damaged[start + draw.randrange(40, column.total_compressed_size)] ^= 1 << draw.randrange(8)
        (tmp_path / "run.parquet").write_bytes(damaged)
        run = vramtop("verify", tmp_path / "run.parquet")
        assert run.returncode == 1
        assert "damaged" in run.stderr
        assert "Traceback" not in run.stderr


def test_a_changed_reading_is_found_by_the_live_digest(tmp_path: Path) -> None:
    """Rewritten by another tool with one stretch altered: no checksum tells, the digest does."""
    path, forged = tmp_path / "run.parquet", tmp_path / "forged.parquet"
    live = vramtop(
        "live", "--source", "sim:training-oom", "--pace", "100000", "--duration", "120",
        "--record", path, "--json",
    )  # fmt: skip
    assert live.returncode == 0
    assert live.stdout == vramtop("replay", path, "--events", "--json").stdout
    assert vramtop("verify", path).returncode == 0
    table = pq.read_table(path)
    rows = zip(table["used_bytes"].to_pylist(), table["seq"].to_pylist(), strict=True)
    used = [u if u is None or not 40 <= seq < 60 else u + (1 << 31) for u, seq in rows]
    index = table.column_names.index("used_bytes")
    pq.write_table(table, forged)
    assert vramtop("verify", forged).returncode == 0
    pq.write_table(table.set_column(index, table.schema.field(index), pa.array(used)), forged)
    run = vramtop("verify", forged)
    assert (run.returncode, run.stdout.splitlines()[-1]) == (1, "DIFFERENT")
