"""What goes into a recording comes out of it, sealed or not."""

from __future__ import annotations

import tempfile
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recording_fixtures import files_of, read, regrouped, training
from recording_strategies import streams

from vramtop.blocks import Block
from vramtop.errors import LockedError, RecordingError
from vramtop.recording.reader import open_recording
from vramtop.recording.seal import seal_parts
from vramtop.recording.store import write_recording
from vramtop.recording.writer import RecordingWriter
from vramtop.samples import DeviceReading, Observation, Tick


@settings(max_examples=60, deadline=None)
@given(ticks=streams())
def test_any_stream_comes_back_from_a_sealed_recording(ticks):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.parquet")
        assert write_recording(path, ticks) == len(ticks)
        recording = open_recording(path)
        assert read(recording) == regrouped(ticks)
        assert recording.ticks == len(ticks)
        assert (recording.first.seq, recording.last.seq) == (ticks[0].seq, ticks[-1].seq)
        assert recording.last.t_us == ticks[-1].t_us
        assert [seq.tolist() for seq in recording.times()] == [
            [tick.seq for tick in ticks],
            [tick.t_us for tick in ticks],
            [tick.mono_ns for tick in ticks],
        ]


@settings(max_examples=30, deadline=None)
@given(ticks=streams(), data=st.data())
def test_any_split_between_sealed_file_and_log_reads_the_same(ticks, data):
    sealed = data.draw(st.integers(0, len(ticks)), label="ticks sealed")
    start = data.draw(st.integers(0, 20), label="start")
    stop = data.draw(st.integers(0, 30), label="stop")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.parquet")
        writer = RecordingWriter(path, seal=False)
        for tick in ticks[:sealed]:
            writer.append(tick)
        seal_parts(path)  # takes the part that is being written: what follows goes nowhere
        writer.close()
        rest = RecordingWriterAfterSeal(path, ticks[sealed:])
        recording = open_recording(path)
        assert recording.state == "interrupted"
        assert read(recording) == regrouped(ticks)
        assert recording.ticks == len(ticks)
        wanted = [tick for tick in ticks if start <= tick.seq < stop]
        assert read(recording, start, stop) == regrouped(wanted)
        assert seal_parts(path) == len(rest.ticks)
        assert open_recording(path).state == "sealed"
        assert read(open_recording(path)) == regrouped(ticks)


class RecordingWriterAfterSeal:
    """Writes a log beside a sealed file, as a rotation would have."""

    def __init__(self, path, ticks):
        self.ticks = ticks
        other = path.with_name("other.parquet")
        writer = RecordingWriter(other, seal=False)
        for tick in ticks:
            writer.append(tick)
        writer.close()
        for part in other.parent.glob("other.parquet.wal-*"):
            part.rename(part.with_name(part.name.replace("other", "run")))


def test_rows_of_a_recording_are_readable_by_plain_pyarrow_and_polars(tmp_path):
    path = tmp_path / "run.parquet"
    write_recording(path, training(100))
    table = pq.read_table(path)
    frame = pl.read_parquet(path)
    assert table.num_rows == frame.height == 100 * (2 + 4) + 8
    rows = frame.filter((pl.col("kind") == "process") & (pl.col("seq") == 12)).sort("gpu", "pid")
    assert rows.select("gpu", "uuid", "pid", "start_time", "used_bytes").rows() == [
        (0, "GPU-3", 4000, 777, 2**30 + 12 * 4096),
        (0, "GPU-3", 4001, None, 2**30 + 12 * 4096),
        (1, "GPU-0", 4000, 777, 2**30 + 12 * 4096),
        (1, "GPU-0", 4001, None, 2**30 + 12 * 4096),
    ]
    assert rows["t"].dtype == pl.Datetime("us", "UTC")
    device = frame.filter((pl.col("kind") == "device") & (pl.col("seq") == 10))
    assert device["gpu_util_pct"].to_list() == [None, None]
    assert device["power_mw"].to_list() == [300_370, 300_370]
    assert frame.filter(pl.col("what") == "host")["name"].to_list() == ["node7"]


def test_rows_are_sorted_by_kind_gpu_process_and_time(tmp_path):
    path = tmp_path / "run.parquet"
    write_recording(path, training(100))
    rows = pl.read_parquet(path).filter(pl.col("kind") != "observation")
    keys = rows.select(pl.col("kind"), pl.col("gpu"), pl.col("pid").fill_null(-1), pl.col("seq"))
    assert keys.equals(keys.sort("kind", "gpu", "pid", "seq"))


def test_a_recording_in_many_parts_is_one(tmp_path):
    path = tmp_path / "run.parquet"
    ticks = list(training(300))
    writer = RecordingWriter(path, seal=False, rotate_bytes=20_000)
    for tick in ticks[:200]:
        writer.append(tick)
    assert len(files_of(path)) > 4
    assert seal_parts(path, 1) > 0
    assert open_recording(path).state == "recording"
    assert read(open_recording(path)) == regrouped(ticks[:200])
    for tick in ticks[200:]:
        writer.append(tick)
    writer.close()
    assert read(open_recording(path)) == regrouped(ticks)
    seal_parts(path)
    assert files_of(path) == ["run.parquet"]
    assert read(open_recording(path)) == regrouped(ticks)
    assert read(open_recording(path), 90, 110) == regrouped(ticks[90:110])
    assert (
        pl.read_parquet(path)
        .select("kind", "seq", "uuid", "pid")
        .filter(pl.col("kind") != "observation")
        .is_duplicated()
        .sum()
        == 0
    )


def test_a_part_ends_after_an_hour_of_stream_time(tmp_path):
    path = tmp_path / "run.parquet"
    with_gaps = [
        Tick(seq=seq, mono_ns=seq * 1200 * 10**9, t_us=0, devices=(DeviceReading(gpu=0, uuid="u"),))
        for seq in range(7)
    ]
    writer = RecordingWriter(path, seal=False)
    for tick in with_gaps:
        writer.append(tick)
    writer.close()
    assert [len(part.rows) for part in open_recording(path).parts] == [3, 3, 1]


def test_closing_seals_and_leaves_one_private_file(tmp_path):
    path = tmp_path / "run.parquet"
    ticks = list(training(120))
    writer = RecordingWriter(path, rotate_bytes=20_000)
    for tick in ticks:
        writer.append(tick)
    modes = {entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()}
    writer.close()
    writer.close()
    assert writer.faults == []
    assert modes == {0o600}
    assert files_of(path) == ["run.parquet"]
    assert path.stat().st_mode & 0o777 == 0o600
    recording = open_recording(path)
    assert (recording.state, recording.host, str(recording.zone)) == (
        "sealed", "node7", "Europe/Berlin"
    )  # fmt: skip
    assert read(recording) == regrouped(ticks)


def test_a_recording_without_a_tick_is_a_recording(tmp_path):
    path = tmp_path / "run.parquet"
    RecordingWriter(path).close()
    recording = open_recording(path)
    assert (recording.state, recording.ticks, recording.first, recording.last) == (
        "sealed", 0, None, None
    )  # fmt: skip
    assert list(recording.blocks()) == []
    assert recording.host is None


def test_a_second_writer_is_refused_and_the_first_goes_on(tmp_path):
    path = tmp_path / "run.parquet"
    first = RecordingWriter(path)
    with pytest.raises(LockedError, match="is being written by process"):
        RecordingWriter(path)
    with pytest.raises(LockedError):
        write_recording(path, training(3), overwrite=True)
    for tick in training(3):
        first.append(tick)
    first.close()
    assert open_recording(path).ticks == 3


def test_an_existing_file_is_never_overwritten_unasked(tmp_path):
    path = tmp_path / "run.parquet"
    write_recording(path, training(3))
    for attempt in (RecordingWriter, lambda p: write_recording(p, training(5))):
        with pytest.raises(RecordingError, match="exists already") as caught:
            attempt(path)
        assert caught.value.hint
    assert open_recording(path).ticks == 3
    assert write_recording(path, training(5), overwrite=True) == 5
    assert files_of(path) == ["run.parquet"]


def test_an_interrupted_recording_is_not_written_over(tmp_path):
    path = tmp_path / "run.parquet"
    writer = RecordingWriter(path, seal=False)
    writer.append(next(training(1)))
    writer.close()
    for attempt in (RecordingWriter, lambda p: write_recording(p, training(5), overwrite=True)):
        with pytest.raises(RecordingError, match="interrupted"):
            attempt(path)
    assert open_recording(path).ticks == 1


def test_what_a_source_must_not_yield_is_refused(tmp_path):
    writer = RecordingWriter(tmp_path / "run.parquet", seal=False)
    tick = next(training(1))
    writer.append(tick)
    with pytest.raises(ValueError, match="tick 0 after tick 0"):
        writer.append(tick)
    writer.close()


def test_impossible_values_and_undecodable_names_do_not_cost_the_tick(tmp_path):
    path = tmp_path / "run.parquet"
    odd = Tick(
        seq=0,
        mono_ns=0,
        t_us=0,
        devices=(DeviceReading(gpu=0, uuid="u", used_bytes=2**64 - 1, temp_c=-40, looked=4),),
        observations=(Observation(what="mark", text="caf\udce9", data={"path": Path("/x")}),),
    )
    writer = RecordingWriter(path)
    writer.append(odd)
    before = read(open_recording(path))
    writer.close()
    assert writer.faults == []
    assert read(open_recording(path)) == before
    (tick,) = before
    assert tick.devices[0].used_bytes is None
    assert tick.observations[0].text == "caf\\udce9"
    assert tick.observations[0].data == {"path": "/x"}


def test_a_gpu_that_comes_back_under_another_index_is_one_series(tmp_path):
    path = tmp_path / "run.parquet"
    ticks = [
        Tick(seq=seq, mono_ns=seq, t_us=seq,
             devices=(DeviceReading(gpu=0 if seq in (0, 3) else 5, uuid="u", used_bytes=seq),))
        for seq in range(5)
    ]  # fmt: skip
    write_recording(path, ticks)
    (block,) = open_recording(path).blocks()
    assert len(block.keys) == 1
    assert block.used.tolist() == [0, 1, 2, 3, 4]


def test_a_recording_sorted_otherwise_by_another_tool_reads_the_same(tmp_path):
    path, other = tmp_path / "run.parquet", tmp_path / "other.parquet"
    ticks = list(training(80))
    write_recording(path, ticks)
    pl.read_parquet(path).sort(
        "used_bytes", "kind", descending=True, maintain_order=True
    ).write_parquet(other)
    assert read(open_recording(other)) == regrouped(ticks)


def test_blocks_of_a_recording_equal_the_blocks_of_its_ticks(tmp_path):
    path = tmp_path / "run.parquet"
    ticks = list(training(60))
    write_recording(path, ticks)
    (block,) = open_recording(path).blocks()
    direct = Block.from_ticks(ticks)
    assert (block.keys, block.gpus, block.parents) == (direct.keys, direct.gpus, direct.parents)
    for name in ("seq", "t_us", "mono_ns", "offsets", "tick", "used"):
        assert getattr(block, name).tolist() == getattr(direct, name).tolist()
        assert getattr(block, name).dtype == getattr(direct, name).dtype
    assert {name: column.tolist() for name, column in block.device.items()} == {
        name: column.tolist() for name, column in direct.device.items()
    }
