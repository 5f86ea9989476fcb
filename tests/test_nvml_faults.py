"""What the NVML source makes of sick cards, odd drivers and impossible figures."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fakedriver import GIB, NO_VALUE, FakeDriver

from vramtop import samples
from vramtop.samples import LOOKED_PROCESSES, LOOKED_SLOW, LOOKED_UTIL

pytestmark = pytest.mark.compiler
R535_LACKS = ["nvmlDeviceGetRunningProcessDetailList"]


def two_gpus(driver: FakeDriver) -> None:
    for index in range(2):
        driver.add_gpu()
        driver.add_process(gpu=index, pid=driver.spawn().pid, used=(index + 1) * GIB)


def test_an_unsupported_sensor_costs_only_itself_and_is_asked_once(fake_driver: FakeDriver):
    two_gpus(fake_driver)
    fake_driver.fault("nvmlDeviceGetPowerUsage", 0, 3)
    with fake_driver.source(interval_s=0.1, often_s=0.1) as stream:
        stream.next(3)
    for tick in stream.seen:
        assert [row.power_mw for row in tick.devices] == [None, 250_000]
        assert [row.gpu_util_pct for row in tick.devices] == [37, 37]
        assert all(row.looked & LOOKED_UTIL for row in tick.devices)
    (fault,) = stream.observed(samples.FAULT)
    assert (fault.gpu, fault.name) == (0, "power")
    assert "Not Supported" in fault.text
    assert fake_driver.calls("nvmlDeviceGetPowerUsage", 0) == 1


def test_a_sensor_that_fails_for_a_while_is_null_meanwhile_and_one_fault(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    fake_driver.fault("nvmlDeviceGetUtilizationRates", 0, 10)
    with fake_driver.source(interval_s=0.2, often_s=0.2) as stream:
        stream.next(2)
        fake_driver.fault("nvmlDeviceGetUtilizationRates", 0, 0)
        healed = stream.next(2)
    assert [tick.devices[0].gpu_util_pct for tick in stream.seen[:2]] == [None, None]
    assert healed.devices[0].gpu_util_pct == 37
    assert [fault.name for fault in stream.observed(samples.FAULT)] == ["utilisation"]


@pytest.mark.parametrize(
    "missing", ["nvmlDeviceGetPowerUsage", "nvmlDeviceGetMPSComputeRunningProcesses_v3"]
)
def test_a_function_that_the_driver_lacks_costs_only_what_it_gave(tmp_path: Path, missing: str):
    with FakeDriver(tmp_path, missing=[missing]) as driver:
        two_gpus(driver)
        with driver.source() as stream:
            tick = stream.next()
    assert [row.gpu_util_pct for row in tick.devices] == [37, 37]
    assert [row.used_bytes for row in tick.processes] == [GIB, 2 * GIB]
    assert tick.devices[0].power_mw == (None if "Power" in missing else 250_000)


def test_throttle_reasons_come_from_the_older_call_where_there_is_no_newer(tmp_path: Path):
    with FakeDriver(tmp_path, missing=["nvmlDeviceGetCurrentClocksEventReasons"]) as driver:
        driver.add_gpu(throttle=4)
        with driver.source() as stream:
            assert stream.next().devices[0].throttle == 4


def test_a_lost_gpu_costs_no_other_and_its_handle_is_never_used_again(fake_driver: FakeDriver):
    """The fake driver aborts the process if the handle is: as was seen in nvitop#139."""
    two_gpus(fake_driver)
    board = fake_driver.state.gpus[0]
    with fake_driver.source(interval_s=0.1, often_s=0.3) as stream:
        stream.next(2)
        board.lethal = board.lost = 1
        tick, lost = stream.until_observed(samples.GPU_LOST)
        stream.next(12)
    assert (lost.gpu, lost.uuid) == (0, board.uuid.decode())
    assert "GPU is lost" in lost.text
    assert [row.gpu for row in tick.devices] == [1]
    assert all([row.gpu for row in t.devices] == [1] for t in stream.seen[-12:])
    assert any(t.processes for t in stream.seen[-12:])
    assert len(stream.observed(samples.GPU_LOST)) == 1


def test_a_lost_gpu_is_looked_for_again_and_comes_back_with_its_constants(fake_driver: FakeDriver):
    two_gpus(fake_driver)
    board = fake_driver.state.gpus[0]
    with fake_driver.source(interval_s=0.1, probe_s=0.3) as stream:
        stream.next(2)
        board.lethal = board.lost = 1
        stream.until_observed(samples.GPU_LOST)
        asked = fake_driver.calls("nvmlDeviceGetHandleByUUID", 0)
        stream.next(8)
        board.generation, board.lost = 1, 0
        tick, back = stream.until_observed(samples.GPU_BACK)
        after = stream.next()
    assert 2 <= fake_driver.calls("nvmlDeviceGetHandleByUUID", 0) - asked <= 5
    assert (back.gpu, back.uuid) == (0, board.uuid.decode())
    assert any(o.what == samples.DEVICE and o.gpu == 0 for o in tick.observations)
    assert [row.gpu for row in after.devices] == [0, 1]
    assert {row.gpu for row in after.processes} == {0}


def test_a_gpu_that_is_sick_at_the_start_does_not_keep_the_others(fake_driver: FakeDriver):
    two_gpus(fake_driver)
    fake_driver.state.gpus[0].lost = 1
    with fake_driver.source() as stream:
        tick = stream.next()
    assert [row.gpu for row in tick.devices] == [1]
    (lost,) = stream.observed(samples.GPU_LOST)
    assert (lost.gpu, lost.uuid) == (0, None)


@pytest.mark.parametrize(
    "function", ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3"]
)
def test_a_stalled_call_delays_neither_the_other_gpus_nor_the_clock(
    fake_driver: FakeDriver, function: str
):
    two_gpus(fake_driver)
    with fake_driver.source(interval_s=0.25, often_s=0.25) as stream:
        stream.next(2)
        fake_driver.stall(function, 0)
        tick, fault = stream.until_observed(samples.FAULT)
        assert (fault.gpu, fault.name) == (0, "stall")
        assert [row.gpu for row in tick.devices] == [1]
        began = time.monotonic()
        later = stream.next(4)
        assert 0.6 < time.monotonic() - began < 1.6
        assert all([row.gpu for row in t.devices] == [1] for t in stream.seen[-4:])
        fake_driver.release()
        tick, gap = stream.until_observed(samples.GAP)
        stats = stream.finish()
    assert (gap.gpu, "stalled for" in gap.text) == (0, True)
    assert [row.gpu for row in tick.devices] == [0, 1]
    assert 0 in {row.gpu for row in tick.processes}
    assert later.mono_ns < tick.mono_ns
    assert stats["missed"] <= 1


def test_two_gpus_that_stall_at_once_still_leave_the_third(fake_driver: FakeDriver):
    two_gpus(fake_driver)
    fake_driver.add_gpu()
    with fake_driver.source(interval_s=0.1) as stream:
        stream.next(2)
        fake_driver.stall("nvmlDeviceGetMemoryInfo_v2", 0)
        fake_driver.stall("nvmlDeviceGetMemoryInfo_v2", 1)
        tick = stream.until(lambda tick: [row.gpu for row in tick.devices] == [2])
        closing = stream.finish()
    assert tick.devices[0].used_bytes == 0
    assert closing["close_s"] < 0.3


def test_a_source_with_a_stalled_call_still_closes_at_once(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    with fake_driver.source(interval_s=1.0) as stream:
        stream.next()
        fake_driver.stall("nvmlDeviceGetMemoryInfo_v2", 0)
        time.sleep(1.05)  # the call is stuck, and not yet counted as stalled
        assert stream.finish()["close_s"] < 0.3


def test_nvml_failing_as_a_whole_is_started_again_and_the_gap_is_told(fake_driver: FakeDriver):
    """As in a container after `systemctl daemon-reload` on the host (nvidia-docker#1730)."""
    two_gpus(fake_driver)
    with fake_driver.source(interval_s=0.1) as stream:
        stream.next(2)
        fake_driver.state.heal_on_init = 1
        fake_driver.state.down = 999
        tick, back = stream.until_observed(samples.GPU_BACK)
        after = stream.next()
    assert "Unknown Error" in next(
        o.text for o in stream.observed(samples.FAULT) if o.name == "NVML"
    )
    assert len(stream.observed(samples.GPU_LOST)) == 2
    (gap,) = [o for o in tick.observations if o.what == samples.GAP]
    assert gap.uuid is None
    assert "NVML as a whole failed" in gap.text
    assert [row.gpu for row in after.devices] == [0, 1]
    assert back.text.startswith("after ")


def test_one_failed_memory_reading_is_null_and_a_fault_and_not_a_lost_gpu(fake_driver: FakeDriver):
    two_gpus(fake_driver)
    with fake_driver.source(interval_s=0.2) as stream:
        stream.next()
        fake_driver.fault("nvmlDeviceGetMemoryInfo_v2", 0, 10)
        tick, fault = stream.until_observed(samples.FAULT)
        fake_driver.fault("nvmlDeviceGetMemoryInfo_v2", 0, 0)
        healed = stream.next(2)
    assert (fault.gpu, fault.name) == (0, "memory")
    assert tick.devices[0].used_bytes is None
    assert tick.devices[1].used_bytes == 2 * GIB
    assert healed.devices[0].used_bytes == GIB
    assert not stream.observed(samples.GPU_LOST)


def test_unified_memory_without_a_memory_call_leaves_processes_and_sensors(fake_driver: FakeDriver):
    """GB10: device memory is not supported, per-process memory is."""
    two_gpus(fake_driver)
    for function in ("nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"):
        fake_driver.fault(function, 0, 3)
    with fake_driver.source() as stream:
        tick = stream.next()
    assert tick.devices[0].used_bytes is None
    assert tick.devices[0].total_bytes is None
    assert tick.devices[0].temp_c == 45
    assert tick.processes[0].used_bytes == GIB


def test_impossible_figures_are_null(fake_driver: FakeDriver):
    fake_driver.add_gpu(
        override=1, raw_total=80 * GIB, raw_reserved=GIB, raw_free=NO_VALUE, raw_used=81 * GIB,
        util=37100, mem_util=12, power_mw=2**32 - 1, temp_c=2**32 - 5, throttle=NO_VALUE,
    )  # fmt: skip
    child = fake_driver.spawn()
    fake_driver.add_process(gpu=0, pid=child.pid, used=NO_VALUE, verbatim=1)
    with fake_driver.source() as stream:
        tick = stream.next()
    (row,) = tick.devices
    assert (row.total_bytes, row.reserved_bytes) == (80 * GIB, GIB)
    assert (row.used_bytes, row.free_bytes) == (None, None)
    assert (row.gpu_util_pct, row.mem_util_pct) == (None, 12)
    assert (row.power_mw, row.temp_c, row.throttle) == (None, None, None)
    assert row.looked == LOOKED_UTIL | LOOKED_PROCESSES | LOOKED_SLOW
    assert [(p.pid, p.used_bytes) for p in tick.processes] == [(child.pid, None)]


def test_a_process_with_more_than_the_device_has_is_null(fake_driver: FakeDriver):
    fake_driver.add_gpu(total=8 * GIB)
    fake_driver.add_process(gpu=0, pid=fake_driver.spawn().pid, used=9 * GIB, verbatim=1)
    with fake_driver.source() as stream:
        assert [row.used_bytes for row in stream.next().processes] == [None]


def test_impossible_pids_are_left_out_and_told(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    child = fake_driver.spawn()
    for pid in (0, child.pid, 2**32 - 1):
        fake_driver.add_process(gpu=0, pid=pid, used=GIB, verbatim=1)
    with fake_driver.source() as stream:
        tick = stream.next()
    assert [row.pid for row in tick.processes] == [child.pid]
    assert [o.name for o in stream.observed(samples.FAULT)] == ["process list"]


def test_a_name_that_is_not_utf8_is_no_reason_to_fail(fake_driver: FakeDriver):
    fake_driver.add_gpu(name=b"NVIDIA \xff\x1b[31m A100")
    with fake_driver.source() as stream:
        stream.next()
    assert stream.observed(samples.DEVICE)[0].name == "NVIDIA \ufffd[31m A100"


def listed(driver: FakeDriver) -> list[tuple[int, int | None]]:
    driver.add_gpu()
    pids = [driver.spawn().pid for _ in range(3)]
    for number, pid in enumerate(pids, 1):
        driver.add_process(gpu=0, pid=pid, used=number * GIB)
    with driver.source() as stream:
        rows = stream.next().processes
    assert [row.pid for row in rows] == pids
    return [(row.pid, row.used_bytes) for row in rows]


def test_r535_lists_with_32_bytes_per_process_are_read_rightly(tmp_path: Path):
    with FakeDriver(tmp_path, missing=R535_LACKS, driver="535.43.02") as driver:
        driver.state.stride = 32
        assert [used for _, used in listed(driver)] == [GIB, 2 * GIB, 3 * GIB]


@pytest.mark.parametrize("stride", [16, 32])
def test_a_list_laid_out_otherwise_than_its_name_promises_is_noticed(
    fake_driver: FakeDriver, stride: int
):
    """16 bytes from `_v3` were seen with 550.127.08 inside a container (nvitop#226)."""
    fake_driver.state.stride = stride
    assert [used for _, used in listed(fake_driver)] == [GIB, 2 * GIB, 3 * GIB]


@pytest.mark.parametrize("newest", ["_v2", ""])
def test_older_list_calls_are_used_where_there_is_no_newer(tmp_path: Path, newest: str):
    versions = ["_v3"] if newest == "_v2" else ["_v3", "_v2"]
    missing = [
        f"nvmlDeviceGet{kind}RunningProcesses{version}"
        for kind in ("Compute", "Graphics", "MPSCompute")
        for version in versions
    ]
    with FakeDriver(tmp_path, missing=missing, driver="470.82.01") as driver:
        assert [used for _, used in listed(driver)] == [GIB, 2 * GIB, 3 * GIB]
        assert driver.calls(f"nvmlDeviceGetComputeRunningProcesses{newest}") > 0


def test_a_list_longer_than_the_buffer_is_read_whole(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    for number in range(300):
        fake_driver.add_process(gpu=0, pid=4_000_000 + number, used=2**20 * number)
    with fake_driver.source(interval_s=0.3, often_s=0.3) as stream:
        first = stream.next()
        before = fake_driver.calls("nvmlDeviceGetComputeRunningProcesses_v3")
        stream.next()
        again = fake_driver.calls("nvmlDeviceGetComputeRunningProcesses_v3") - before
    assert [row.pid for row in first.processes] == [4_000_000 + n for n in range(300)]
    assert again == 1


def test_mig_instances_have_rows_of_their_own_and_hold_the_processes(fake_driver: FakeDriver):
    fake_driver.add_gpu(total=80 * GIB)
    children = [fake_driver.spawn() for _ in range(2)]
    for number, child in enumerate(children):
        mig = fake_driver.add_mig(0, gi=number + 1)
        fake_driver.add_process(gpu=0, pid=child.pid, used=(number + 1) * GIB, mig=mig)
    with fake_driver.source() as stream:
        tick = stream.next()
    parent, *instances = tick.devices
    assert (parent.parent_uuid, parent.used_bytes, parent.gpu_util_pct) == (None, 3 * GIB, None)
    assert parent.power_mw == 250_000
    assert [row.used_bytes for row in instances] == [GIB, 2 * GIB]
    assert {row.parent_uuid for row in instances} == {parent.uuid}
    assert all(row.gpu == 0 and row.uuid.startswith("MIG-") for row in instances)
    assert [(row.uuid, row.pid) for row in tick.processes] == [
        (instance.uuid, child.pid) for instance, child in zip(instances, children, strict=True)
    ]


def test_two_compute_instances_of_one_gpu_instance_are_one_row(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    children = [fake_driver.spawn() for _ in range(2)]
    for number, child in enumerate(children):
        mig = fake_driver.add_mig(0, gi=5, ci=number)
        fake_driver.add_process(gpu=0, pid=child.pid, used=GIB, mig=mig)
    with fake_driver.source() as stream:
        tick = stream.next()
    assert len(tick.devices) == 2
    assert {row.pid for row in tick.processes} == {child.pid for child in children}
    assert {row.uuid for row in tick.processes} == {tick.devices[1].uuid}


def test_a_mig_instance_that_is_taken_away_costs_nothing_else(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    child = fake_driver.spawn()
    gone = fake_driver.add_mig(0, gi=1)
    fake_driver.add_mig(0, gi=2)
    fake_driver.add_process(gpu=0, pid=child.pid, used=GIB, mig=gone)
    with fake_driver.source(interval_s=0.2) as stream:
        first = stream.next()
        fake_driver.state.gpus[0].mig[gone].present = 0
        tick, lost = stream.until_observed(samples.GPU_LOST)
        after = stream.next()
    assert lost.uuid == first.devices[1].uuid
    assert [o.pid for o in tick.observations if o.what == samples.GONE] == [child.pid]
    assert [row.uuid for row in after.devices] == [first.devices[0].uuid, first.devices[2].uuid]


def test_a_mig_parent_that_may_not_be_read_leaves_its_instances(fake_driver: FakeDriver):
    """What an ordinary user gets: the parent's memory is not for him."""
    fake_driver.add_gpu()
    fake_driver.add_mig(0, gi=1)
    code = 4
    for function in ("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperature"):
        fake_driver.fault(function, 0, code)
    with fake_driver.source() as stream:
        tick = stream.next()
    assert [row.temp_c for row in tick.devices] == [None, None]
    assert all(row.used_bytes is not None for row in tick.devices)


def test_reading_that_gets_expensive_is_done_less_often_and_told(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    fake_driver.latency("nvmlDeviceGetComputeRunningProcesses_v3", 0, 0.06)
    with fake_driver.source(interval_s=0.2, often_s=0.2) as stream:
        stream.next(4)
    fault = next(o for o in stream.observed(samples.FAULT) if o.name == "process lists")
    assert fault.data == {"period_ns": 400_000_000}
    looked = [bool(tick.devices[0].looked & LOOKED_PROCESSES) for tick in stream.seen]
    assert looked == [True, True, True, False]


def test_memory_that_gets_expensive_lengthens_the_interval_and_says_so(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    fake_driver.latency("nvmlDeviceGetMemoryInfo_v2", 0, 0.03)
    with fake_driver.source(interval_s=0.1) as stream:
        stream.next(3)
        stream.until(lambda _: len(stream.observed(samples.INTERVAL)) == 2, limit=5)
    assert stream.observed(samples.INTERVAL)[1].data == {"interval_ns": 200_000_000}
