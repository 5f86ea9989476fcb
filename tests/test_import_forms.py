"""Each log form, small and by hand."""

from __future__ import annotations

import json

import pytest
from import_fixtures import read_text

from vramtop.errors import LogFormatError
from vramtop.samples import LOOKED_PCIE, LOOKED_PROCESSES, LOOKED_SLOW, LOOKED_UTIL
from vramtop.units import MIB

OLD_TABLE = """\
Tue Feb 11 10:00:00 2020
+-----------------------------------------------------------------------------+
| NVIDIA-SMI 418.67       Driver Version: 418.67       CUDA Version: 10.1     |
|-------------------------------+----------------------+----------------------+
| GPU  Name        Persistence-M| Bus-Id        Disp.A | Volatile Uncorr. ECC |
| Fan  Temp  Perf  Pwr:Usage/Cap|         Memory-Usage | GPU-Util  Compute M. |
|===============================+======================+======================|
|   0  GeForce GTX 108...  Off  | 00000000:04:00.0 Off |                  N/A |
| 23%   56C    P2    67W / 250W |   9773MiB / 11178MiB |     97%      Default |
+-------------------------------+----------------------+----------------------+
|   1  Tesla K80           Off  | 00000000:05:00.0 Off |                    0 |
| N/A   33C    P8    N/A /  N/A |      0MiB / 11441MiB |      N/A     Default |
+-------------------------------+----------------------+----------------------+

+-----------------------------------------------------------------------------+
| Processes:                                                       GPU Memory |
|  GPU       PID   Type   Process name                             Usage      |
|=============================================================================|
|    0      1234      C   python train.py                            9763MiB |
|    0      1235    C+G   /usr/lib/xorg/Xorg                              N/A |
+-----------------------------------------------------------------------------+
"""

MIG_TABLE = """\
Tue Feb 11 10:00:00 2025
+-----------------------------------------------------------------------------+
| NVIDIA-SMI 515.86.01    Driver Version: 515.86.01    CUDA Version: 11.7     |
|-------------------------------+----------------------+----------------------+
|   0  NVIDIA A100 80G...  On   | 00000001:00:00.0 Off |                   On |
| N/A   34C    P0    44W / 300W |     45MiB / 81920MiB |     N/A      Default |
|                               |                      |              Enabled |
+-------------------------------+----------------------+----------------------+
+-----------------------------------------------------------------------------+
| MIG devices:                                                                |
+------------------+----------------------+-----------+-----------------------+
| GPU  GI  CI  MIG |         Memory-Usage |        Vol|         Shared        |
|      ID  ID  Dev |           BAR1-Usage | SM     Unc| CE  ENC  DEC  OFA  JPG|
|                  |                      |        ECC|                       |
|==================+======================+===========+=======================|
|  0    7   0   0  |      6MiB /  9728MiB | 14      0 |  1   0    0    0    0 |
|                  |      0MiB / 16383MiB |           |                       |
+------------------+----------------------+-----------+-----------------------+
+-----------------------------------------------------------------------------+
| Processes:                                                                  |
|  GPU   GI   CI        PID   Type   Process name                  GPU Memory |
|        ID   ID                                                   Usage      |
|=============================================================================|
|    0    7    0      22222      C   python                             5MiB |
+-----------------------------------------------------------------------------+
"""

WINDOWS_TABLE = """\
Mon Mar  3 09:15:01 2025
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 566.03                 Driver Version: 566.03         CUDA Version: 12.7     |
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                  Driver-Model | Bus-Id          Disp.A | Volatile Uncorr. ECC |
|=========================================+========================+======================|
|   0  NVIDIA GeForce RTX 4070 Ti   WDDM  |   00000000:01:00.0  On |                  N/A |
|  0%   39C    P8              9W /  285W |    1204MiB /  12282MiB |      3%      Default |
|                                         |                        |                  N/A |
+-----------------------------------------+------------------------+----------------------+
"""

DMON = """\
$ nvidia-smi dmon -s pumct -o DT
#Date       Time        gpu   pwr gtemp mtemp    sm   mem   enc   dec    fb  bar1 rxpci txpci
#YYYYMMDD   HH:MM:SS    Idx     W     C     C     %     %     %     %    MB    MB  MB/s  MB/s
 20210102   19:12:31      0    37    19     -     0     0     0     0   433    30     1     2
 20210102   19:12:31      1    37    19     -     0     0     0     0     4     3     0     0
#Date       Time        gpu   pwr gtemp mtemp    sm   mem   enc   dec    fb  bar1 rxpci txpci
#YYYYMMDD   HH:MM:SS    Idx     W     C     C     %     %     %     %    MB    MB  MB/s  MB/s
 20210102   19:12:32      0    95    21     -    50     7     0     0   500    30     1     2
 20210102   19:12:32      1    37     -     -     0     0     0     0     4     3     0     0
 20210102   19:12:33      0    95    21
"""

PMON = """\
# gpu         pid   type     sm    mem    enc    dec    jpg    ofa     fb   ccpm    command
# Idx           #    C/G      %      %      %      %      %      %     MB     MB    name
    0       1312     G     24      3      -      -      -      -     97      0    my prog
    1          -     -      -      -      -      -      -      -      -      -    -
    0       1312     G     24      3      -      -      -      -     98      0    my prog
    1       1941   C+G      -      -      -      -      -      -      5      0    osd
    0          -     -      -      -      -      -      -      -      -      -
    1       1941   C+G      -      -      -      -      -      -      5      0    osd
"""


def test_the_old_table_with_its_process_table(tmp_path):
    run = read_text(tmp_path, OLD_TABLE)
    first, second = run.ticks[0].devices
    assert (first.used_bytes, first.total_bytes) == (9773 * MIB, 11178 * MIB)
    assert (first.temp_c, first.power_mw, first.gpu_util_pct) == (56, 67_000, 97)
    assert (second.used_bytes, second.power_mw, second.gpu_util_pct) == (0, None, None)
    assert run.lists_mib() == [{1234: 9763, 1235: None}]
    assert [seen.name for seen in run.observed("process")] == [
        "python train.py",
        "/usr/lib/xorg/Xorg",
    ]


def test_a_process_table_that_is_cut_off_is_no_empty_list(tmp_path):
    """A torn table must not make processes disappear."""
    torn = OLD_TABLE.replace("10:00:00", "10:00:05").split("|    0      1235")[0]
    run = read_text(tmp_path, OLD_TABLE + torn)
    assert run.ticks[1].processes == ()
    assert not any(device.looked & LOOKED_PROCESSES for device in run.ticks[1].devices)
    assert run.observed("gone") == []


def test_mig_instances_are_devices_with_their_processes(tmp_path):
    run = read_text(tmp_path, MIG_TABLE, recording="run")
    parent, instance = run.ticks[0].devices
    assert instance.parent_uuid == parent.uuid == "import:run:gpu0"
    assert (instance.uuid, instance.gpu) == ("import:run:gpu0:gi7", 0)
    assert (instance.used_bytes, instance.total_bytes) == (6 * MIB, 9728 * MIB)
    assert [(p.uuid, p.pid) for p in run.ticks[0].processes] == [(instance.uuid, 22222)]


def test_a_table_without_process_table_has_no_process_tier(tmp_path):
    run = read_text(tmp_path, WINDOWS_TABLE)
    device = run.ticks[0].devices[0]
    assert (device.used_bytes, device.looked) == (1204 * MIB, LOOKED_UTIL | LOOKED_SLOW)


def test_dmon_with_dates_and_repeated_headers(tmp_path):
    run = read_text(tmp_path, DMON)
    assert run.used_mib(0) == [433, 500]
    assert run.used_mib(1) == [4, 4]
    device = run.ticks[1].devices[0]
    assert (device.power_mw, device.temp_c) == (95_000, 21)
    assert (device.gpu_util_pct, device.mem_util_pct) == (50, 7)
    assert (device.pcie_rx_bytes_per_s, device.pcie_tx_bytes_per_s) == (1_000_000, 2_000_000)
    assert device.looked == LOOKED_UTIL | LOOKED_SLOW | LOOKED_PCIE
    assert run.ticks[1].devices[1].temp_c is None
    assert [tick.mono_ns for tick in run.ticks] == [0, 1_000_000_000]
    assert "columns not kept: mtemp, enc, dec, bar1" in run.said


def test_dmon_without_times_needs_an_interval(tmp_path):
    text = "# gpu   pwr    fb\n# Idx     W    MB\n    0    43   100\n    0    44   101\n"
    with pytest.raises(LogFormatError, match="has no times") as caught:
        read_text(tmp_path, text)
    assert "--interval" in (caught.value.hint or "")
    run = read_text(tmp_path, text, interval_s=2.0, start="2024-05-01 12:00:00")
    assert run.used_mib() == [100, 101]
    assert [tick.t_us for tick in run.ticks] == [1714564800000000, 1714564802000000]


def test_dmon_with_times_of_day_passes_midnight(tmp_path):
    rows = "#Time        gpu    fb\n#HH:MM:SS    Idx    MB\n 23:59:59      0   1\n 00:00:00      0   2\n"
    run = read_text(tmp_path, rows, start="2024-05-01 00:00:00")
    assert [tick.mono_ns for tick in run.ticks] == [0, 1_000_000_000]
    assert run.observed("clock_step") == []


def test_pmon_lists_processes_and_empty_lists(tmp_path):
    run = read_text(tmp_path, PMON, interval_s=1.0)
    assert run.lists_mib() == [{1312: 97}, {1312: 98, 1941: 5}, {1941: 5}]
    assert [seen.pid for seen in run.observed("gone")] == [1312]
    assert [seen.name for seen in run.observed("process")] == ["my prog", "osd"]
    assert {d.looked for tick in run.ticks for d in tick.devices} == {LOOKED_PROCESSES}
    assert {d.used_bytes for tick in run.ticks for d in tick.devices} == {None}


def gpustat(second: int, processes: object, used: object = 4096) -> dict[str, object]:
    return {
        "hostname": "node7",
        "driver_version": "550.54.14",
        "query_time": f"2024-05-01T12:00:{second:02d}.250000",
        "gpus": [
            {
                "index": 0,
                "uuid": "GPU-11111111-2222-3333-4444-555555555555",
                "name": "NVIDIA A10",
                "temperature.gpu": 41,
                "fan.speed": None,
                "utilization.gpu": 12,
                "power.draw": 55,
                "memory.used": used,
                "memory.total": 23028,
                "processes": processes,
            }
        ],
    }


PROCESS = {
    "username": "ann",
    "command": "python",
    "full_command": ["python", "{train}.py", "--token", 'a"}{b'],
    "gpu_memory_usage": 4000,
    "pid": 77,
}


@pytest.mark.parametrize("indent", [None, 4])
def test_gpustat_objects_on_one_line_or_pretty_printed(tmp_path, indent):
    polls = [gpustat(0, [PROCESS]), gpustat(1, None), gpustat(2, [], used=12)]
    text = "\n".join(json.dumps(poll, indent=indent) for poll in polls) + '\n{"host'
    run = read_text(tmp_path, text)
    assert run.used_mib() == [4096, 4096, 12]
    assert run.lists_mib() == [{77: 4000}, {}, {}]
    assert [bool(tick.devices[0].looked & LOOKED_PROCESSES) for tick in run.ticks] == [
        True,
        False,
        True,
    ]
    device = run.ticks[0].devices[0]
    assert device.uuid == "GPU-11111111-2222-3333-4444-555555555555"
    assert (device.power_mw, device.temp_c, device.gpu_util_pct) == (55_000, 41, 12)
    assert run.observed("host")[0].name == "node7"
    assert run.observed("process")[0].data == {"user": "ann"}
    assert [seen.pid for seen in run.observed("gone")] == [77]
    assert "processes.full_command" in run.said
    assert "no complete JSON object" in run.said


def test_a_gpustat_log_of_two_hosts_is_refused(tmp_path):
    other = gpustat(1, []) | {"hostname": "node8"}
    with pytest.raises(LogFormatError, match="node7 and node8"):
        read_text(tmp_path, json.dumps(gpustat(0, [])) + "\n" + json.dumps(other))


def test_the_csv_of_vramtop_0_1_0(tmp_path):
    header = (
        "wall_time,gpu_index,gpu_name,gpu_used_bytes,gpu_total_bytes,gpu_util_percent,"
        "pid,process_name,process_vram_bytes,process_type"
    )
    text = f"""{header}\r
1700000000.25,0,NVIDIA A10,1000,5000,7,11,"python, really",600,compute\r
1700000000.25,0,NVIDIA A10,1000,5000,7,12,Xorg,,graphics\r
1700000000.25,1,NVIDIA A10,0,5000,0,,,,\r
{header}\r
1700000001.25,0,NVIDIA A10,400,5000,7,,,,\r
1700000001.25,1,NVIDIA A10,0,5000,0,,,,\r
"""
    run = read_text(tmp_path, text)
    assert [tick.t_us for tick in run.ticks] == [1700000000250000, 1700000001250000]
    assert [(d.gpu, d.used_bytes, d.total_bytes) for d in run.ticks[0].devices] == [
        (0, 1000, 5000),
        (1, 0, 5000),
    ]
    assert [(p.pid, p.used_bytes) for p in run.ticks[0].processes] == [(11, 600), (12, None)]
    assert [seen.name for seen in run.observed("process")] == ["python, really", "Xorg"]
    assert {seen.pid for seen in run.observed("gone")} == {11, 12}


def test_the_plain_csv_with_every_column(tmp_path):
    text = """t_s,gpu,pid,used_mib,total_mib,util_pct
0,0,,100,1000,5
0,0,7,80,,
0,1,,50,1000,0
0.5,0,,20,1000,0
0.5,1,,50,1000,0
"""
    run = read_text(tmp_path, text)
    assert [tick.mono_ns for tick in run.ticks] == [0, 500_000_000]
    assert run.used_mib(0) == [100, 20]
    assert run.lists_mib() == [{7: 80}, {}]
    assert run.ticks[0].devices[0].gpu_util_pct == 5
    assert run.ticks[0].devices[0].total_bytes == 1000 * MIB
    assert [seen.pid for seen in run.observed("gone")] == [7]
    assert "--start" in run.said


def test_the_plain_csv_with_memory_alone(tmp_path):
    run = read_text(tmp_path, "t_s,used_mib\n1700000000,10\n1700000001,20.5\n1700000002,\n")
    assert run.ticks[0].t_us == 1_700_000_000_000_000
    assert [tick.devices[0].used_bytes for tick in run.ticks] == [
        10 * MIB,
        20 * MIB + MIB // 2,
        None,
    ]
    assert run.ticks[0].devices[0].looked == 0


def test_a_plain_csv_column_nobody_knows_is_named(tmp_path):
    run = read_text(tmp_path, "t_s,gpu,used_mib,loss\n0,0,10,0.5\n1,0,20,0.4\n")
    assert "columns not kept: loss" in run.said


@pytest.mark.parametrize(
    "text", ["hello\nworld\n", "step,loss\n1,2\n", "\x1b[31mred\x1b[0m\n", "{}\n", "[1, 2]\n"]
)
def test_a_text_of_no_known_form_is_refused_with_the_list_of_forms(tmp_path, text):
    with pytest.raises(LogFormatError, match="no form that can be imported") as caught:
        read_text(tmp_path, text)
    for word in ("--query-gpu", "dmon", "gpustat", "t_s,gpu"):
        assert word in (caught.value.hint or "")
