"""The capture loop, and what the recorder process costs and loads."""

import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
from record_fixtures import LIMIT_S, SIMULATED, record

from vramtop.capture.evidence import told_gpu
from vramtop.capture.session import MAX_PENDING, Session
from vramtop.errors import DriverError, RecordingError
from vramtop.samples import (
    END,
    FAULT,
    INTERVAL,
    MARK,
    SELF,
    DeviceReading,
    Observation,
    Tick,
)  # fmt: skip
from vramtop.samples import (
    SIMULATED as IS_SIMULATED,
)

INTERVAL_OF_1_S = Observation(what=INTERVAL, data={"interval_ns": 1_000_000_000})


class Ticks:
    """A source of given ticks; after them it waits to be closed."""

    def __init__(self, ticks, *, endless=False, fail=None):
        self._ticks = ticks
        self._endless = endless
        self._fail = fail
        self.closed = threading.Event()

    def ticks(self):
        yield from self._ticks
        if self._fail is not None:
            raise self._fail
        if self._endless:
            self.closed.wait(LIMIT_S)

    def close(self):
        self.closed.set()


class Kept:
    """A sink that keeps ticks in a list."""

    def __init__(self, *, fail_at=None):
        self.ticks = []
        self.closed = False
        self._fail_at = fail_at

    def append(self, tick):
        if tick.seq == self._fail_at:
            raise RecordingError("the disk is gone", hint="look for it")
        self.ticks.append(tick)

    def close(self):
        self.closed = True


def ticks(count, *, step_s=1.0, simulated=True):
    first = (INTERVAL_OF_1_S, Observation(what=IS_SIMULATED)) if simulated else (INTERVAL_OF_1_S,)
    return [
        Tick(seq=seq, mono_ns=round(seq * step_s * 1e9), t_us=round(seq * step_s * 1e6),
             observations=first if seq == 0 else ())
        for seq in range(count)
    ]  # fmt: skip


def run(source, sink, **options):
    session = Session(open_source=lambda: source, open_sink=lambda: sink, **options)
    session.start()
    assert session.ended.wait(LIMIT_S)
    return session


def test_the_end_is_a_tick_of_its_own_that_says_why():
    sink = Kept()
    session = run(Ticks(ticks(3)), sink)
    assert sink.ticks[:3] == ticks(3)
    (end,) = sink.ticks[3:]
    assert (end.seq, end.mono_ns, end.t_us) == (3, 2_000_000_000, 2_000_000)
    assert [seen.what for seen in end.observations] == [SELF, END]
    assert end.observations[-1] == Observation(what=END, text="the source ended")
    assert sink.closed
    assert session.error is None


def test_the_end_of_a_live_recording_has_the_time_of_its_end():
    sink = Kept()
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    live = [replace(tick, mono_ns=now_ns + tick.seq) for tick in ticks(2, simulated=False)]
    run(Ticks(live), sink)
    assert sink.ticks[-1].mono_ns >= now_ns + 1
    assert abs(sink.ticks[-1].t_us / 1e6 - time.time()) < LIMIT_S


def test_what_happens_between_ticks_is_recorded_with_the_next():
    sink = Kept()
    source = Ticks(ticks(1), endless=True)
    session = Session(open_source=lambda: source, open_sink=lambda: sink)
    session.observe(Observation(what=MARK, text="before"))
    session.start()
    assert session.started.wait(LIMIT_S)
    session.observe(Observation(what=MARK, text="after"))
    session.stop("told to")
    assert session.ended.wait(LIMIT_S)
    assert [seen.text for seen in sink.ticks[0].observations[2:]] == ["before"]
    assert [seen.text for seen in sink.ticks[1].observations] == ["after", None, "told to"]


def test_observations_that_come_too_fast_are_counted_not_hoarded():
    sink = Kept()
    session = Session(open_source=lambda: Ticks(ticks(1)), open_sink=lambda: sink)
    for number in range(MAX_PENDING + 5):
        session.observe(Observation(what=MARK, text=str(number)))
    session.start()
    assert session.ended.wait(LIMIT_S)
    kept = [seen for seen in sink.ticks[0].observations if seen.what == MARK]
    assert (len(kept), kept[0].text) == (MAX_PENDING, "5")
    assert [seen.text for seen in sink.ticks[0].observations if seen.what == FAULT] == [
        "5 observations came faster than they could be recorded"
    ]


def test_the_duration_is_counted_in_the_time_of_the_stream():
    sink = Kept()
    session = run(Ticks(ticks(100)), sink, duration_s=4.0)
    assert [tick.seq for tick in sink.ticks] == [0, 1, 2, 3, 4, 5]
    assert session.end_reason == "duration"


def test_a_source_that_cannot_be_read_leaves_no_file():
    def open_sink():
        raise AssertionError("opened without a tick")

    session = Session(
        open_source=lambda: Ticks([], fail=DriverError("no driver", hint="install one")),
        open_sink=open_sink,
    )
    session.start()
    assert session.ended.wait(LIMIT_S)
    assert isinstance(session.error, DriverError)
    assert session.ticks == 0


def test_a_source_that_fails_later_leaves_a_recording_that_says_so():
    sink = Kept()
    session = run(
        Ticks(ticks(2), fail=DriverError("the driver was unloaded", hint="load it")), sink
    )
    assert sink.ticks[-1].observations[-1].text == "the source failed: the driver was unloaded"
    assert sink.closed
    assert isinstance(session.error, DriverError)


def test_a_sink_that_fails_ends_the_session_and_closes_the_source():
    source, sink = Ticks(ticks(5), endless=True), Kept(fail_at=2)
    session = run(source, sink)
    assert isinstance(session.error, RecordingError)
    assert source.closed.is_set()
    assert sink.closed


def test_a_source_that_opens_slowly_can_be_told_to_stop_meanwhile():
    opened = threading.Event()
    source, sink = Ticks(ticks(2), endless=True), Kept()

    def open_source():
        opened.wait(LIMIT_S)
        return source

    session = Session(open_source=open_source, open_sink=lambda: sink)
    session.start()
    session.stop("SIGINT")
    opened.set()
    assert session.ended.wait(LIMIT_S)
    assert source.closed.is_set()


def test_the_recorder_measures_itself():
    sink = Kept()
    late = ticks(20) + [
        replace(tick, seq=20 + tick.seq, mono_ns=23_500_000_000 + tick.mono_ns, observations=())
        for tick in ticks(20)
    ]
    run(Ticks(late), sink)
    reports = [seen for tick in sink.ticks for seen in tick.observations if seen.what == SELF]
    assert [report.data["ticks"] for report in reports] == [28, 12]
    data = reports[0].data
    assert data["missed_ticks"] == 3
    assert data["late_max_us"] == 3_500_000
    assert data["span_s"] == pytest.approx(30, abs=1)
    assert 1e6 < data["resident_bytes"] < 1e9
    assert data["cpu_s"] >= 0


def device(gpu, uuid, parent=None):
    return DeviceReading(gpu=gpu, uuid=uuid, parent_uuid=parent)


TWO = (device(0, "GPU-aa"), device(1, "GPU-bb"))
MIG = (device(0, "GPU-aa"), device(0, "MIG-1", "GPU-aa"), device(0, "MIG-2", "GPU-aa"))


@pytest.mark.parametrize(
    ("devices", "environ", "all_gpus", "uuid"),
    [
        (TWO[:1], {}, True, "GPU-aa"),
        (TWO[:1], {}, False, None),
        (TWO, {}, True, None),
        (TWO, {"CUDA_VISIBLE_DEVICES": "1"}, True, None),
        (TWO, {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, True, "GPU-bb"),
        (TWO, {"CUDA_VISIBLE_DEVICES": "GPU-b"}, True, "GPU-bb"),
        (TWO, {"CUDA_VISIBLE_DEVICES": "GPU-"}, True, None),
        (TWO, {"CUDA_VISIBLE_DEVICES": "GPU-aa,GPU-bb"}, True, None),
        (TWO, {"CUDA_VISIBLE_DEVICES": ""}, True, None),
        (MIG, {}, True, None),
        (MIG, {"CUDA_VISIBLE_DEVICES": "MIG-2"}, True, "MIG-2"),
    ],
)
def test_a_gpu_is_named_only_where_no_other_can_be_meant(devices, environ, all_gpus, uuid):
    found, why = told_gpu(devices, environ, all_gpus=all_gpus)
    assert (None if found is None else found.uuid) == uuid
    assert why


def test_the_recorder_loads_nothing_heavy_and_stays_small(tmp_path):
    """COMMAND looks at its parent, which is the recorder while it records."""
    look = "sleep 1; cat /proc/$PPID/maps; grep -E 'VmHWM' /proc/$PPID/status"
    done = record("-o", "r.parquet", "--", "sh", "-c", look, cwd=tmp_path)
    text = done.stdout.decode()
    loaded = {line.split("/")[-1] for line in text.splitlines() if ".so" in line}
    assert loaded
    heavy = ("numpy", "arrow", "polars", "multiarray", "_duckdb", "openblas", "matplotlib")
    assert [name for name in loaded if any(word in name for word in heavy)] == []
    resident_kb = int(text.split("VmHWM:")[1].split()[0])
    assert resident_kb < 30 * 1000


def test_importing_the_command_loads_nothing_heavy():
    script = (
        "import sys, vramtop.cli.record, vramtop.recording.writer, vramtop.recording.stream\n"
        "heavy = {'numpy','pyarrow','polars','matplotlib','ruptures','scipy','asyncio','hashlib'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, timeout=LIMIT_S
    )
    assert done.stdout.strip() == b"[]"


def test_a_simulated_source_that_ends_ends_the_recording(tmp_path):
    done = subprocess.run(
        [*SIMULATED, "--duration", "1000000s", "--pace", "max", "-o", "r.parquet",
         "--source", "sim:burst-oom"],
        cwd=tmp_path, capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, b"r.parquet\n", b"")


@pytest.mark.parametrize(
    "arguments",
    [["--interval", "0"], ["--duration", "soon"], ["--pace", "-1"], ["--source", "what"],
     ["--on-risk", "critical=signal:USR1"], ["--on-risk", "often=exec:true"],
     ["-o", "-", "--watch"], ["--source", "sim:no-such-scenario"]],
)  # fmt: skip
def test_wrong_usage_is_exit_2_with_a_hint(tmp_path, arguments):
    done = record(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    first, hint = done.stderr.decode().splitlines()
    assert first.startswith("vramtop: ")
    assert hint.startswith("hint: ")
    assert list(tmp_path.iterdir()) == []
