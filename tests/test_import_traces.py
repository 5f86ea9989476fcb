"""Real logs from public repositories, as `vramtop import` reads them."""

from __future__ import annotations

import re

import pytest
from import_fixtures import TRACES, read_logs

from vramtop.samples import LOOKED_PROCESSES, LOOKED_SLOW, LOOKED_UTIL
from vramtop.units import MIB

# File, ticks, GPUs, peak MiB of GPU 0: counted in the logs with awk, not with this importer.
COUNTED = [
    ("aucurr-a40-c--gpu_monitor.log", 134, 1, 1839),
    ("icvs-2x4090--gpu_mem_log.csv", 438, 2, 19143),
    ("lso-2080ti--gpu_mem.csv", 254, 1, 1021),
    ("mend-a--gpu_profile.csv", 222, 8, 15948),
    ("mend-b--gpu_profile.csv", 1120, 1, 11729),
    ("mend-c--gpu_profile.csv", 140, 4, 13609),
    ("plato-fedlearn--gpu_log.csv", 1923, 1, 20137),
    ("qwen3asr-a--gpu_log.csv", 652, 1, 19691),
]


@pytest.mark.parametrize(("name", "ticks", "gpus", "peak_mib"), COUNTED)
def test_every_poll_of_a_real_log_is_a_tick(name, ticks, gpus, peak_mib):
    run = read_logs(TRACES / name)
    assert len(run.ticks) == ticks
    assert {len(tick.devices) for tick in run.ticks} == {gpus}
    assert max(value for value in run.used_mib() if value is not None) == peak_mib
    assert [tick.seq for tick in run.ticks] == list(range(ticks))
    times = [tick.mono_ns for tick in run.ticks]
    assert times == sorted(times)
    assert times[0] == 0


def test_a_log_without_header_is_read_when_one_reading_is_left():
    run = read_logs(TRACES / "plato-fedlearn--gpu_log.csv")
    rows = [
        [float(re.sub(r"[^0-9.]", "", cell)) for cell in line.split(",")[1:]]
        for line in (TRACES / "plato-fedlearn--gpu_log.csv").read_text().splitlines()
    ]
    devices = [tick.devices[0] for tick in run.ticks]
    assert [d.gpu_util_pct for d in devices] == [row[0] for row in rows]
    assert [d.mem_util_pct for d in devices] == [row[1] for row in rows]
    assert [d.used_bytes for d in devices] == [row[2] * MIB for row in rows]
    assert [d.free_bytes for d in devices] == [row[3] * MIB for row in rows]
    assert [d.temp_c for d in devices] == [row[4] for row in rows]
    assert [d.power_mw for d in devices] == [round(row[5] * 1000) for row in rows]
    assert {d.total_bytes for d in devices} == {None}, "used + free leaves the reservation out"
    assert "add up to a constant" in run.said
    assert "memory.used" in (run.observed("imported")[0].text or "")


def test_gpus_without_index_are_told_apart_by_their_order_within_a_poll():
    """One of eight GPUs loads a model; the other seven stay as they were."""
    run = read_logs(TRACES / "mend-a--gpu_profile.csv")
    lines = (TRACES / "mend-a--gpu_profile.csv").read_text().splitlines()[1:]
    values = [int(line.split(", ")[1].removesuffix(" MiB")) for line in lines]
    for gpu in range(8):
        assert run.used_mib(gpu) == values[gpu::8]
    assert "8 GPUs are told apart by their order" in run.said


def test_a_table_log_gives_processes_with_their_births_and_ends():
    run = read_logs(TRACES / "aucurr-a40-c--gpu_monitor.log")
    text = (TRACES / "aucurr-a40-c--gpu_monitor.log").read_text()
    pids = {int(pid) for pid in re.findall(r"N/A  N/A +(\d+) +C ", text)}
    assert {seen.pid for seen in run.observed("process")} == pids
    last = {p.pid for p in run.ticks[-1].processes}
    assert {seen.pid for seen in run.observed("gone")} == pids - last
    looked = LOOKED_UTIL | LOOKED_PROCESSES | LOOKED_SLOW
    assert {d.looked for tick in run.ticks for d in tick.devices} == {looked}
    assert run.ticks[0].devices[0].total_bytes == 46068 * MIB
    assert run.observed("device")[0].name == "NVIDIA A40"
    assert (run.observed("host")[0].data or {})["driver"] == "580.95.05"


def test_what_a_log_does_not_have_stays_missing():
    run = read_logs(TRACES / "mend-b--gpu_profile.csv")
    device = run.ticks[5].devices[0]
    assert (device.total_bytes, device.free_bytes, device.gpu_util_pct) == (None, None, None)
    assert device.looked == 0
    assert run.observed("interval") == []


def test_noise_and_columns_left_out_are_said():
    run = read_logs(TRACES / "icvs-2x4090--gpu_mem_log.csv")
    assert "left out 1 line" in run.said
    assert "nohup" in run.said
    run = read_logs(TRACES / "lso-2080ti--gpu_mem.csv")
    assert "columns not kept: pstate, pcie.link.gen.max, pcie.link.gen.current" in run.said
    assert (run.observed("host")[0].data or {})["driver"] == "525.60.13"
