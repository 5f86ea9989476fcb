"""What a part says of the time before it."""

from __future__ import annotations

from recording_fixtures import read, regrouped, training

from vramtop.recording.reader import open_recording
from vramtop.recording.snapshot import Snapshot
from vramtop.recording.wal import list_parts
from vramtop.recording.writer import RecordingWriter
from vramtop.samples import DEVICE, GONE, HOST, INTERVAL, MARK, PROCESS, Observation


def test_a_snapshot_holds_the_latest_word_on_what_is_still_there():
    gone = Observation(what=PROCESS, uuid="u", pid=1, start_time=5, name="gone")
    stays = Observation(what=PROCESS, uuid="u", pid=1, start_time=6, name="stays")
    slow = Observation(what=INTERVAL, data={"interval_ns": 10})
    fast = Observation(what=INTERVAL, data={"interval_ns": 1})
    board = Observation(what=DEVICE, uuid="u", name="H100")
    snapshot = Snapshot()
    snapshot.update([slow, board, gone, Observation(what=MARK, text="x")])
    snapshot.update([stays, fast, Observation(what=GONE, uuid="u", pid=1, start_time=5)])
    assert set(map(id, snapshot.observations())) == set(map(id, (fast, board, stays)))
    assert snapshot.missing_from([slow, stays]) == (board,)


def test_a_part_without_its_predecessors_is_a_recording_of_its_own(tmp_path):
    path = tmp_path / "run.parquet"
    ticks = list(training(90))
    writer = RecordingWriter(path, seal=False, rotate_bytes=10_000)
    for tick in ticks:
        writer.append(tick)
    writer.close()
    whole = open_recording(path)
    assert read(whole) == regrouped(ticks), "said once, not once per part"
    list_parts(path)[0].unlink()
    rest = open_recording(path)
    assert rest.first.seq == len(whole.parts[0].rows)
    assert (rest.host, str(rest.zone)) == ("node7", "Europe/Berlin")
    assert {seen.what for _, seen in rest.observations()} == {HOST, INTERVAL, DEVICE, PROCESS}
