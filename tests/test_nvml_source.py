"""The NVML source through the real binding, against the fake driver, in a child process."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from fakedriver import GIB, NO_VALUE, FakeDriver

from vramtop import samples
from vramtop.errors import DriverError, UsageError
from vramtop.samples import LOOKED_PCIE, LOOKED_PROCESSES, LOOKED_SLOW, LOOKED_UTIL

pytestmark = pytest.mark.compiler
MIB = 2**20


def boot_start_time(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_the_first_tick_carries_the_whole_snapshot(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    child = fake_driver.spawn("sleep", "299")
    fake_driver.add_process(gpu=0, pid=child.pid, used=5 * GIB)
    with fake_driver.source(interval_s=0.1) as stream:
        tick = stream.next()
    (host,) = stream.observed(samples.HOST)
    assert host.name == os.uname().nodename
    assert set(host.data) == {"boot_id", "zone", "utc_offset_s", "driver", "nvml", "vramtop"}
    assert host.data["driver"] == "580.95.05"
    (interval,) = stream.observed(samples.INTERVAL)
    assert interval.data == {"interval_ns": 100_000_000}
    (board,) = stream.observed(samples.DEVICE)
    assert (board.gpu, board.name) == (0, "NVIDIA Fake H200")
    assert board.data["bus_id"] == "00000000:01:00.0"
    assert board.data["memory_call"] == "v2"
    (process,) = stream.observed(samples.PROCESS)
    assert (process.pid, process.start_time) == (child.pid, boot_start_time(child.pid))
    assert process.name == "sleep"
    assert process.data["cmdline"] == "sleep 299"
    assert process.data["type"] == "C"
    assert tick.seq == 0
    assert abs(tick.t_us / 1e6 - time.time()) < 30


def test_all_four_memory_figures_come_raw_from_the_device(fake_driver: FakeDriver):
    """The processes are not summed: 3 GiB here are nobody's."""
    fake_driver.add_gpu(total=80 * GIB, reserved=GIB // 2, base_used=3 * GIB)
    fake_driver.add_process(gpu=0, pid=fake_driver.spawn().pid, used=4 * GIB)
    with fake_driver.source() as stream:
        (row,) = stream.next().devices
    assert row.total_bytes == 80 * GIB
    assert row.reserved_bytes == GIB // 2
    assert row.used_bytes == 7 * GIB
    assert row.free_bytes == 80 * GIB - GIB // 2 - 7 * GIB


def test_without_the_v2_call_memory_comes_from_v1_and_reserved_is_unknown(tmp_path: Path):
    with FakeDriver(tmp_path, missing=["nvmlDeviceGetMemoryInfo_v2"]) as driver:
        driver.add_gpu(total=80 * GIB, reserved=GIB // 2, base_used=3 * GIB)
        with driver.source() as stream:
            (row,) = stream.next().devices
    assert (row.reserved_bytes, row.used_bytes) == (None, 3 * GIB + GIB // 2)
    assert stream.observed(samples.DEVICE)[0].data["memory_call"] == "v1"


def test_every_sensor_is_read_in_its_tier_and_only_there(fake_driver: FakeDriver):
    """Utilisation and lists once a second, slow counters every 15 s, memory always."""
    fake_driver.add_gpu(throttle=0x24)
    with fake_driver.source(interval_s=0.1) as stream:
        stream.next(12)
    looked = [tick.devices[0].looked for tick in stream.seen]
    fast = LOOKED_UTIL | LOOKED_PROCESSES
    assert looked == [fast | LOOKED_SLOW] + [0] * 9 + [fast, 0]
    first, second = stream.seen[0].devices[0], stream.seen[1].devices[0]
    assert (first.gpu_util_pct, first.mem_util_pct, first.power_mw) == (37, 12, 250_000)
    assert (first.temp_c, first.sm_clock_mhz, first.mem_clock_mhz) == (45, 1980, 2619)
    assert first.throttle == 0x24
    assert (second.gpu_util_pct, second.power_mw, second.temp_c, second.throttle) == (None,) * 4
    assert second.used_bytes is not None
    assert first.pcie_tx_bytes_per_s is None
    assert fake_driver.calls("nvmlDeviceGetPcieThroughput") == 0


def test_pcie_is_read_when_asked_for(fake_driver: FakeDriver):
    fake_driver.add_gpu(pcie_kib=1000)
    with fake_driver.source(pcie=True) as stream:
        (row,) = stream.next().devices
    assert row.looked & LOOKED_PCIE
    assert (row.pcie_tx_bytes_per_s, row.pcie_rx_bytes_per_s) == (1000 * 1024, 1001 * 1024)


def test_at_most_seven_calls_per_gpu_and_second_with_all_tiers(fake_driver: FakeDriver):
    """Memory, utilisation, power and the compute list; the two empty lists every fifth look.

    Slow counters come every 15 s: 4 to 5 more calls.
    """
    for index in range(2):
        fake_driver.add_gpu()
        fake_driver.add_process(gpu=index, pid=fake_driver.spawn().pid, used=GIB)
    with fake_driver.source(interval_s=1.0) as stream:
        stream.next(1)
        before = fake_driver.calls()
        stream.next(5)
        per_gpu_and_s = (fake_driver.calls() - before) / 2 / 5
    assert per_gpu_and_s == (4 * 5 + 2) / 5
    assert per_gpu_and_s + 5 / 15 <= 7


def test_a_graphics_process_is_seen_though_its_list_was_empty(fake_driver: FakeDriver):
    """At once if memory moved, else within five looks; a list that holds any is always read."""
    fake_driver.add_gpu(total=40 * GIB)
    small, large = fake_driver.spawn().pid, fake_driver.spawn().pid
    with fake_driver.source(interval_s=1.0) as stream:
        stream.next(2)
        fake_driver.add_process(gpu=0, pid=large, used=2 * GIB, kinds=2)
        at_once = stream.next(1)
        fake_driver.add_process(gpu=0, pid=small, used=8 * 2**20, kinds=2)
        next_look = stream.next(1)
    assert [row.pid for row in at_once.processes] == [large]
    assert {row.pid for row in next_look.processes} == {small, large}


def test_a_jump_of_device_memory_brings_the_process_list_at_once(fake_driver: FakeDriver):
    fake_driver.add_gpu(total=40 * GIB)
    process = fake_driver.add_process(gpu=0, pid=fake_driver.spawn().pid, used=GIB)
    with fake_driver.source(interval_s=0.3) as stream:
        stream.next(2)
        assert stream.seen[1].devices[0].looked == 0
        process.bytes = GIB + 150 * MIB  # less than 0.5 % of 40 GiB
        small = stream.next(1)
        process.bytes = GIB + 400 * MIB
        large = stream.until(lambda tick: tick.devices[0].used_bytes == GIB + 400 * MIB)
    assert small.devices[0].looked == 0
    assert large.devices[0].looked & LOOKED_PROCESSES
    assert large.processes[0].used_bytes == GIB + 400 * MIB


def test_jumps_bring_at_most_four_lists_a_second(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    process = fake_driver.add_process(gpu=0, pid=fake_driver.spawn().pid, used=GIB)
    process.rate = 40.0 * GIB / 2  # moves by more than 0.5 % in 20 ms
    with fake_driver.source(interval_s=0.02) as stream:
        stream.next(51)
    lists = sum(bool(tick.devices[0].looked & LOOKED_PROCESSES) for tick in stream.seen)
    assert 4 <= lists <= 5


def test_a_process_on_two_gpus_is_two_series_of_one_identity(fake_driver: FakeDriver):
    child = fake_driver.spawn()
    for index in range(2):
        fake_driver.add_gpu()
        fake_driver.add_process(gpu=index, pid=child.pid, used=(index + 1) * GIB)
    with fake_driver.source() as stream:
        tick = stream.next()
    assert [(row.gpu, row.pid, row.used_bytes) for row in tick.processes] == [
        (0, child.pid, GIB),
        (1, child.pid, 2 * GIB),
    ]
    assert len({row.key for row in tick.processes}) == 2
    assert len({row.start_time for row in tick.processes}) == 1
    assert [(o.gpu, o.name) for o in stream.observed(samples.PROCESS)] == [
        (0, "sleep"),
        (1, "sleep"),
    ]


def test_a_process_in_several_lists_counts_once_with_the_larger_figure(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    child = fake_driver.spawn()
    fake_driver.add_process(gpu=0, pid=child.pid, used=2 * GIB, kinds=1)
    fake_driver.add_process(gpu=0, pid=child.pid, used=3 * GIB, kinds=2)
    fake_driver.add_process(gpu=0, pid=child.pid, used=NO_VALUE, kinds=4, verbatim=1)
    with fake_driver.source() as stream:
        tick = stream.next()
    assert [(row.pid, row.used_bytes) for row in tick.processes] == [(child.pid, 3 * GIB)]
    assert stream.observed(samples.PROCESS)[0].data["type"] == "C+G+M"


def test_births_and_deaths_are_observed_at_the_tick_whose_list_shows_them(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    first, second = fake_driver.spawn(), fake_driver.spawn("sleep", "298")
    old = fake_driver.add_process(gpu=0, pid=first.pid, used=GIB)
    with fake_driver.source(interval_s=0.15, often_s=0.15) as stream:
        stream.next()
        fake_driver.add_process(gpu=0, pid=second.pid, used=2 * GIB)
        tick, born = stream.until_observed(samples.PROCESS)
        assert born.pid == second.pid
        assert born.data["cmdline"] == "sleep 298"
        assert {row.pid for row in tick.processes} == {first.pid, second.pid}
        old.kinds = 0
        tick, gone = stream.until_observed(samples.GONE)
    assert (gone.gpu, gone.pid) == (0, first.pid)
    assert gone.start_time == born.start_time or gone.start_time <= born.start_time
    assert [row.pid for row in tick.processes] == [second.pid]


def test_a_process_that_ended_stays_listed_under_its_identity_until_the_driver_drops_it(
    fake_driver: FakeDriver,
):
    """A driver goes on listing a dead process while its memory is being freed."""
    fake_driver.add_gpu()
    child = fake_driver.spawn()
    start_time = boot_start_time(child.pid)
    fake_driver.add_process(gpu=0, pid=child.pid, used=GIB)
    with fake_driver.source(interval_s=0.15, often_s=0.15) as stream:
        stream.next()
        child.kill()
        child.wait()
        tick = stream.until(lambda tick: tick.seq > 1 and tick.processes)
    assert [(row.pid, row.start_time) for row in tick.processes] == [(child.pid, start_time)]
    assert not stream.observed(samples.GONE)


def test_accounting_mode_gives_the_true_peak_of_a_process_that_left(fake_driver: FakeDriver):
    board = fake_driver.add_gpu(accounting=1, n_accounted=1)
    child = fake_driver.spawn()
    process = fake_driver.add_process(gpu=0, pid=child.pid, used=GIB)
    board.accounted[0].pid, board.accounted[0].peak = child.pid, 9 * GIB
    with fake_driver.source(interval_s=0.15, often_s=0.15) as stream:
        stream.next()
        process.kinds = 0
        _, gone = stream.until_observed(samples.GONE)
    assert gone.data == {"peak_bytes": 9 * GIB}


def test_an_invisible_pid_has_no_start_time_no_name_and_counts_its_lives(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    process = fake_driver.add_process(gpu=0, pid=4_194_303, used=GIB)
    with fake_driver.source(interval_s=0.15, often_s=0.15) as stream:
        tick = stream.next()
        assert [(r.start_time, r.life) for r in tick.processes] == [(None, 0)]
        process.kinds = 0
        stream.until_observed(samples.GONE)
        process.kinds = 1
        tick = stream.until(lambda tick: tick.processes)
    assert [(r.start_time, r.life) for r in tick.processes] == [(None, 1)]
    assert {o.name for o in stream.observed(samples.PROCESS)} == {None}
    assert [o.life for o in stream.observed(samples.PROCESS)] == [0, 1]


def test_only_the_gpus_asked_for_are_read(fake_driver: FakeDriver):
    for _ in range(3):
        fake_driver.add_gpu()
    with fake_driver.source(gpus=[1]) as stream:
        assert [row.gpu for row in stream.next().devices] == [1]
    assert fake_driver.calls("nvmlDeviceGetMemoryInfo_v2", 0) == 0


def test_a_gpu_that_is_not_there_is_wrong_usage(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    with fake_driver.source(gpus=[3]) as stream, pytest.raises(UsageError, match="no GPU 3"):
        stream.next()


def test_a_closed_source_ends_at_once_though_the_next_tick_is_far(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    with fake_driver.source(interval_s=30.0) as stream:
        stream.next()
        assert stream.finish()["close_s"] < 0.1


def test_a_signal_handler_may_close_the_source(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    code = (
        "import signal, os\n"
        "from vramtop.sources.nvml import NvmlSource\n"
        "s = NvmlSource(interval_s=0.01)\n"
        "signal.signal(signal.SIGALRM, lambda *_: (s.close(), s.close()))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
        "print(sum(1 for _ in s.ticks()) > 3)\n"
    )
    done = fake_driver.python(code)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr


def test_stats_tell_what_reading_cost(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    with fake_driver.source(interval_s=0.05) as stream:
        stream.next(5)
        stats = stream.finish()
    assert set(stats) >= {"ticks", "missed", "lateness_max_ns", "nvml_ns", "nvml_calls"}
    assert stats["ticks"] >= 5
    assert stats["nvml_calls"] >= 5
    assert 0 < stats["nvml_ns"] < 1e9


def test_ticks_keep_the_schedule_when_the_process_is_stopped_and_the_gap_is_told(
    fake_driver: FakeDriver,
):
    fake_driver.add_gpu()
    with fake_driver.source(interval_s=0.1) as stream:
        first = stream.next()
        os.kill(stream.child.pid, signal.SIGSTOP)
        time.sleep(2.2)
        os.kill(stream.child.pid, signal.SIGCONT)
        tick, gap = stream.until_observed(samples.GAP)
        stats = stream.finish()
    assert gap.uuid is None
    assert "held up" in gap.text
    assert stats["missed"] >= 20
    # On the grid of the first tick still.
    assert (tick.mono_ns - first.mono_ns) / 1e8 % 1 < 0.5
    assert [t.seq for t in stream.seen] == list(range(len(stream.seen)))


def test_reading_goes_on_while_the_consumer_is_busy_and_what_is_skipped_is_counted(
    fake_driver: FakeDriver,
):
    fake_driver.add_gpu()
    code = (
        "import time\n"
        "from vramtop.sources.nvml import NvmlSource\n"
        "s = NvmlSource(interval_s=0.02)\n"
        "got = []\n"
        "for t in s.ticks():\n"
        "    got.append(t)\n"
        "    if t.seq == 3: time.sleep(0.2); short = s.stats()['missed']\n"
        "    if t.seq == 15: time.sleep(0.8); long = s.stats()['missed']\n"
        "    if t.seq == 40: break\n"
        "gaps = [(b.mono_ns - a.mono_ns) / 2e7 for a, b in zip(got[:15], got[1:16])]\n"
        "print([t.seq for t in got] == list(range(41)), max(gaps) < 3, short < 8, long > 10)\n"
    )
    done = fake_driver.python(code)
    assert done.stdout == "True True True True\n", done.stdout + done.stderr


@pytest.mark.parametrize("interval_s", [0.0, -1.0, 1e9])
def test_an_impossible_interval_is_wrong_usage(fake_driver: FakeDriver, interval_s: float):
    fake_driver.add_gpu()
    with fake_driver.source(interval_s=interval_s) as stream, pytest.raises(UsageError):
        stream.next()


def start_failure(driver: FakeDriver) -> DriverError:
    with driver.source() as stream, pytest.raises(DriverError) as caught:
        stream.next()
    return caught.value


def test_a_missing_library_is_named_with_a_way_to_try_vramtop(fake_driver: FakeDriver):
    code = (
        "from vramtop.sources import open_source\n"
        "from vramtop.errors import DriverError\n"
        "try: open_source('nvml')\n"
        "except DriverError as error: print(error.message, '|', error.hint)\n"
    )
    done = fake_driver.python(code, LD_LIBRARY_PATH="/nonexistent")
    message, _, hint = done.stdout.partition(" | ")
    assert message.startswith("libnvidia-ml.so.1 not found")
    assert "--source sim:" in hint


@pytest.mark.parametrize(
    ("code", "words", "hint"),
    [
        (9, "kernel module is not loaded", "modprobe"),
        (18, "different versions", "jobs that hold GPUs go on"),
        (4, "no permission", "/dev/nvidia"),
        (999, "does not start", "daemon-reload"),
    ],
)
def test_why_the_driver_does_not_start_is_explained(
    fake_driver: FakeDriver, code: int, words: str, hint: str
):
    fake_driver.fault("nvmlInitWithFlags", 0, code)
    error = start_failure(fake_driver)
    assert words in error.message
    assert hint in (error.hint or "")


def test_a_driver_without_gpus_is_an_error(fake_driver: FakeDriver):
    assert "no GPU" in start_failure(fake_driver).message


def test_gpus_that_may_not_be_opened_are_an_error_about_permission(fake_driver: FakeDriver):
    for index in range(2):
        fake_driver.add_gpu()
        fake_driver.fault("nvmlDeviceGetHandleByIndex_v2", index, 4)
    assert "no permission to read any GPU" in start_failure(fake_driver).message
