"""Several logs of one run become one stream."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest
from import_fixtures import Imported, read_logs

from vramtop.errors import LogFormatError
from vramtop.samples import LOOKED_PROCESSES
from vramtop.sources.logs import open_log

A, B = "GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000000"


def stamp(ms: int) -> str:
    return f"2026/04/30 22:{ms // 60000:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def merged(
    tmp_path: Path, header: str, identities: list[str], apps: str, **options: object
) -> Imported:
    """Ten polls a second apart of two GPUs, and process lists 300 ms later, every two seconds."""
    rows = [
        f"{stamp(1000 * n + g)}, {identities[g]}, {100 * g + n} MiB"
        for n in range(10)
        for g in range(2)
    ]
    devices = write(tmp_path / "gpu.csv", header, *rows)
    lists = []
    for n in range(0, 10, 2):
        lists.append(f"{stamp(1000 * n + 300)}, {A}, 11, python, {50 + n} MiB")
        if n >= 4:
            lists.append(f"{stamp(1000 * n + 301)}, {B}, 12, python, a, b, {5} MiB")
    processes = write(tmp_path / "apps.csv", apps, *lists)
    return read_logs(devices, processes, **options)


APPS = "timestamp, gpu_uuid, pid, process_name, used_gpu_memory [MiB]"


def test_process_lists_join_the_device_poll_beside_them(tmp_path):
    run = merged(tmp_path, "timestamp, uuid, memory.used [MiB]", [A, B], APPS)
    assert len(run.ticks) == 10
    assert run.used_mib(0) == list(range(10))
    assert run.used_mib(1) == list(range(100, 110))
    assert run.lists_mib() == [
        {11: 50}, {}, {11: 52}, {}, {11: 54, 12: 5}, {}, {11: 56, 12: 5}, {}, {11: 58, 12: 5}, {},
    ]  # fmt: skip
    looked = [bool(tick.devices[0].looked & LOOKED_PROCESSES) for tick in run.ticks]
    assert looked == [True, False] * 5
    assert [seen.name for seen in run.observed("process")] == ["python", "python, a, b"]
    assert run.observed("imported")[0].name == "query-gpu+compute-apps"
    assert (run.observed("imported")[0].data or {})["files"] == ["gpu.csv", "apps.csv"]


def test_the_order_of_the_files_does_not_matter(tmp_path):
    one = merged(tmp_path, "timestamp, uuid, memory.used [MiB]", [A, B], APPS)
    other = read_logs(tmp_path / "apps.csv", tmp_path / "gpu.csv")
    assert [(t.mono_ns, t.devices, t.processes) for t in one.ticks] == [
        (t.mono_ns, t.devices, t.processes) for t in other.ticks
    ]


def test_gpus_that_only_one_log_names_are_devices_of_their_own(tmp_path):
    """Two indices and two UUIDs: which belongs to which, no log says."""
    run = merged(tmp_path, "timestamp, index, memory.used [MiB]", ["0", "1"], APPS, recording="r")
    uuids = {seen.uuid for seen in run.observed("device")}
    assert uuids == {"import:r:gpu0", "import:r:gpu1", A, B}


def test_one_gpu_in_every_log_is_one_gpu_and_that_is_said(tmp_path):
    devices = write(
        tmp_path / "gpu.csv",
        "timestamp, memory.used [MiB]",
        *(f"{stamp(1000 * n)}, {n} MiB" for n in range(4)),
    )
    apps = write(
        tmp_path / "apps.csv",
        APPS,
        *(f"{stamp(1000 * n + 20)}, {A}, 11, python, 5 MiB" for n in range(4)),
    )
    run = read_logs(devices, apps)
    assert {device.uuid for tick in run.ticks for device in tick.devices} == {A}
    assert run.lists_mib() == [{11: 5}] * 4
    assert "taken to be the same one" in run.said


def test_the_bus_links_index_and_uuid(tmp_path):
    """One log has index and bus, the other bus and UUID."""
    one = write(
        tmp_path / "a.csv",
        "timestamp, index, pci.bus_id, memory.used [MiB]",
        *(
            f"{stamp(1000 * n + g)}, {g}, 00000000:0{g}:00.0, {n} MiB"
            for n in range(3)
            for g in range(2)
        ),
    )
    two = write(
        tmp_path / "b.csv",
        "timestamp, gpu_bus_id, gpu_uuid, pid, used_gpu_memory [MiB]",
        *(f"{stamp(1000 * n + 5)}, 00000000:01:00.0, {B}, 9, 3 MiB" for n in range(3)),
    )
    run = read_logs(one, two)
    assert {(d.gpu, d.uuid) for tick in run.ticks for d in tick.devices} == {
        (0, "import:log:gpu0"),
        (1, B),
    }


def test_a_process_that_comes_back_has_another_life(tmp_path):
    rows = [(0, 11), (0, 13), (1, 13), (2, 11), (2, 13)]
    apps = write(
        tmp_path / "apps.csv",
        APPS,
        *(f"{stamp(1000 * second)}, {A}, {pid}, python, 5 MiB" for second, pid in rows),
    )
    run = read_logs(apps)
    assert [(seen.pid, seen.life) for seen in run.observed("process")] == [
        (11, 0),
        (13, 0),
        (11, 1),
    ]
    assert [(seen.pid, seen.life) for seen in run.observed("gone")] == [(11, 0)]
    lives = [[(p.pid, p.life) for p in tick.processes] for tick in run.ticks]
    assert lives == [[(11, 0), (13, 0)], [(13, 0)], [(11, 1), (13, 0)]]


def test_slow_polls_far_apart_in_time_are_not_joined(tmp_path):
    """Two loops of a minute, half a minute apart, are two instants."""
    devices = write(
        tmp_path / "gpu.csv",
        "timestamp, uuid, memory.used [MiB]",
        *(f"{stamp(60_000 * n)}, {A}, {n} MiB" for n in range(4)),
    )
    apps = write(
        tmp_path / "apps.csv",
        APPS,
        *(f"{stamp(60_000 * n + 30_000)}, {A}, 11, python, 5 MiB" for n in range(4)),
    )
    run = read_logs(devices, apps)
    assert len(run.ticks) == 8
    assert run.used_mib() == [0, None, 1, None, 2, None, 3, None]


def test_logs_of_two_hosts_are_refused(tmp_path):
    paths = [
        write(
            tmp_path / f"{host}.json",
            f'{{"hostname": "{host}", "query_time": "2024-05-01T12:00:00", '
            '"gpus": [{"index": 0, "memory.used": 1}]}',
        )
        for host in ("one", "two")
    ]
    with pytest.raises(LogFormatError, match="several hosts: one, two"):
        read_logs(*paths)


def test_a_log_of_a_million_rows_takes_little_memory(tmp_path):
    """Streaming: what is held does not grow with the log."""
    peaks = []
    for seconds in (2_000, 20_000):
        path = tmp_path / "long.csv.gz"
        with gzip.open(path, "wt", compresslevel=1) as out:
            out.write("timestamp, index, memory.used [MiB]\n")
            for s in range(seconds):
                out.write(
                    f"2026/04/{1 + s // 86400:02d} {s // 3600 % 24:02d}:{s // 60 % 60:02d}:{s % 60:02d}.000, 0, 5 MiB\n"
                )
        source = open_log([path])
        tracemalloc.start()
        assert sum(1 for _ in source.ticks()) == seconds
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 2 + 2_000_000
