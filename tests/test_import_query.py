"""`nvidia-smi --query-gpu` csv: headers, units, order of columns, logs without header."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_fixtures import TRACES, read_logs, read_text

from vramtop.errors import LogFormatError
from vramtop.samples import LOOKED_SLOW, LOOKED_UTIL
from vramtop.units import MIB

ROWS = """\
timestamp, index, uuid, name, memory.total [MiB], memory.reserved [MiB], memory.used [MiB], \
memory.free [MiB], utilization.gpu [%], utilization.memory [%], power.draw [W], temperature.gpu, \
clocks.current.sm [MHz], clocks.current.memory [MHz], clocks_event_reasons.active
2026/04/30 22:19:43.100, 0, GPU-aaaa, Board, X, 1000 MiB, 24 MiB, 76 MiB, 900 MiB, 5 %, 1 %, \
22.19 W, 40, 210 MHz, 405 MHz, 0x0000000000000001
2026/04/30 22:19:43.104, 1, GPU-bbbb, Board, X, 1000 MiB, [N/A], [Not Supported], [N/A], [N/A], \
[N/A], [Unknown Error], ERR!, [N/A], [N/A], [N/A]
2026/04/30 22:19:44.100, 0, GPU-aaaa, Board, X, 1000 MiB, 24 MiB, 96 MiB, 880 MiB, 7 %, 1 %, \
22.20 W, 41, 210 MHz, 405 MHz, 0x0000000000000000
2026/04/30 22:19:44.104, 1, GPU-bbbb, Board, X, 1000 MiB, 24 MiB, 2 MiB, 974 MiB, 0 %, 0 %, \
9 W, 30, 210 MHz, 405 MHz, 0x0000000000000001
"""


def test_every_reading_keeps_its_place_and_unit(tmp_path):
    run = read_text(tmp_path, ROWS)
    first, second = run.ticks[0].devices
    assert (first.gpu, first.uuid) == (0, "GPU-aaaa")
    assert (first.total_bytes, first.reserved_bytes, first.used_bytes, first.free_bytes) == (
        1000 * MIB,
        24 * MIB,
        76 * MIB,
        900 * MIB,
    )
    assert (first.gpu_util_pct, first.mem_util_pct, first.power_mw) == (5, 1, 22_190)
    assert (first.temp_c, first.sm_clock_mhz, first.mem_clock_mhz, first.throttle) == (
        40,
        210,
        405,
        1,
    )
    assert first.looked == LOOKED_UTIL | LOOKED_SLOW
    assert (second.used_bytes, second.gpu_util_pct, second.power_mw, second.temp_c) == (
        None,
        None,
        None,
        None,
    )
    assert run.observed("device")[0].name == "Board, X"
    assert [tick.mono_ns for tick in run.ticks] == [0, 1_000_000_000]


def test_units_and_header_units_may_be_missing(tmp_path):
    bare = ROWS
    for text in (" MiB", " %", " W", " MHz", " [MiB]", " [%]", " [W]", " [MHz]"):
        bare = bare.replace(text + ",", ",").replace(text + "\n", "\n")
    assert "MiB" not in bare
    assert read_text(tmp_path, bare).ticks[0].devices == read_text(tmp_path, ROWS).ticks[0].devices


def test_columns_without_spaces_and_in_any_order(tmp_path):
    run = read_text(
        tmp_path,
        "memory.used [MiB],index,timestamp\n5 MiB,0,2026/04/30 22:19:43.100\n7 MiB,0,2026/04/30 22:19:44.100\n",
    )
    assert run.used_mib() == [5, 7]


def test_what_cannot_be_becomes_missing_and_is_said(tmp_path):
    text = """timestamp, index, memory.total [MiB], memory.used [MiB], utilization.gpu [%], temperature.gpu
2026/04/30 22:19:43.100, 0, 1000 MiB, 4000 MiB, 250 %, 6000
2026/04/30 22:19:44.100, 0, 1000 MiB, -1 MiB, 50 %, 60
"""
    run = read_text(tmp_path, text)
    first, second = (tick.devices[0] for tick in run.ticks)
    assert (first.used_bytes, first.gpu_util_pct, first.temp_c) == (None, None, None)
    assert (second.used_bytes, second.gpu_util_pct, second.temp_c) == (None, 50, 60)
    assert "impossible values of used_bytes taken as missing: 2" in run.said


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"], ids=lambda name: name
)
def test_windows_encodings_and_line_ends(tmp_path, encoding):
    path = tmp_path / "log.csv"
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((mark + ROWS.replace("\n", "\r\n")).encode(encoding))
    assert read_logs(path).ticks[0].devices == read_text(tmp_path, ROWS).ticks[0].devices


def test_a_compressed_log_and_one_whose_end_is_missing(tmp_path):
    plain = (TRACES / "mend-b--gpu_profile.csv").read_bytes()
    whole, torn = tmp_path / "log.csv.gz", tmp_path / "torn.csv.gz"
    whole.write_bytes(gzip.compress(plain))
    torn.write_bytes(gzip.compress(plain)[:4000])
    assert len(read_logs(whole).ticks) == 1120
    run = read_logs(torn)
    assert 100 < len(run.ticks) < 1120
    assert "ends early" in run.said


def test_noise_is_left_out_and_counted(tmp_path):
    noisy = ROWS.replace(
        "2026/04/30 22:19:44.100, 0",
        "user@host:~$ tail log\n\n\0\0\0\n\x1b[32m2026/04/30 22:19:44.100\x1b[0m, 0",
    )
    run = read_text(tmp_path, "nohup: ignoring input\n" + noisy + "2026/04/30 22:19:45.1")
    assert run.used_mib(0) == [76, 96]
    assert "left out 2 lines: no row of this log" in run.said
    assert "'user@host:~$ tail log'" in run.said


def test_a_header_in_front_of_every_poll(tmp_path):
    """A shell loop around nvidia-smi prints the header each time; without times or names."""
    loop = "memory.used [MiB]\n5 MiB\n6 MiB\n"
    run = read_text(tmp_path, loop * 4, interval_s=10.0)
    assert run.used_mib(0) == [5] * 4
    assert run.used_mib(1) == [6] * 4
    assert [tick.mono_ns for tick in run.ticks] == [0, 10**10, 2 * 10**10, 3 * 10**10]


def test_a_loop_that_prints_the_date_before_every_poll(tmp_path):
    loop = "".join(
        f"Sun Jan 25 17:24:{second} UTC 2026\nindex, memory.used [MiB]\n0, {second} MiB\n1, 7 MiB\n"
        for second in (38, 43, 48)
    )
    run = read_text(tmp_path, loop)
    assert run.used_mib(0) == [38, 43, 48]
    assert run.used_mib(1) == [7, 7, 7]
    assert [tick.mono_ns for tick in run.ticks] == [0, 5 * 10**9, 10**10]
    assert run.said == (
        "no log says how much memory a GPU has, so no risk can be judged (--total 24GiB)"
    )


def test_a_gpu_that_is_lost_and_back_is_said(tmp_path):
    text = """timestamp, index, memory.used [MiB]
2026/04/30 22:19:43.100, 0, 5 MiB
2026/04/30 22:19:43.101, 1, 6 MiB
2026/04/30 22:19:44.100, 0, [GPU is lost]
2026/04/30 22:19:44.101, 1, 6 MiB
2026/04/30 22:19:45.101, 1, 6 MiB
2026/04/30 22:19:46.100, 0, 5 MiB
2026/04/30 22:19:46.101, 1, 6 MiB
"""
    run = read_text(tmp_path, text)
    assert [[d.gpu for d in tick.devices] for tick in run.ticks] == [[0, 1], [1], [1], [0, 1]]
    assert [seen.text for seen in run.observed("gpu_lost")] == ["[GPU is lost]"]
    assert [seen.gpu for seen in run.observed("gpu_back")] == [0]


def test_a_poll_with_a_row_missing_is_left_out_where_rows_have_no_names(tmp_path):
    """Nobody can say which GPU's row it was, so none is guessed."""
    lines = ["timestamp, memory.used [MiB]"]
    for second in range(30):
        rows = [f"2026/04/30 22:19:{second:02d}.10{gpu}, {gpu * 100} MiB" for gpu in range(3)]
        lines += rows if second != 17 else rows[:1] + rows[2:]
    run = read_text(tmp_path, "\n".join(lines) + "\n")
    assert len(run.ticks) == 29
    for gpu in range(3):
        assert set(run.used_mib(gpu)) == {gpu * 100}
    assert "rows missing" in run.said


def test_a_slow_gpu_within_a_poll_does_not_shift_the_others(tmp_path):
    lines = ["timestamp, memory.used [MiB]"]
    for second in range(0, 58, 2):
        late = 1 if second == 20 else 0
        lines += [
            f"2026/04/30 22:19:{second:02d}.100, 0 MiB",
            f"2026/04/30 22:19:{second + late:02d}.201, 1 MiB",
            f"2026/04/30 22:19:{second + late:02d}.202, 2 MiB",
        ]
    run = read_text(tmp_path, "\n".join(lines) + "\n")
    assert [set(run.used_mib(gpu)) for gpu in range(3)] == [{0}, {1}, {2}]
    assert len(run.ticks) == 29


def test_columns_named_by_the_user(tmp_path):
    rows = "2026/04/30 22:19:43.100, 55, 0, 855, 10155, x\n2026/04/30 22:19:44.100, 55, 0, 856, 10154, x\n"
    names = ("timestamp", "temperature.gpu", "index", "memory.used", "memory.free", "-")
    run = read_text(tmp_path, rows, columns=names)
    assert run.used_mib() == [855, 856]
    assert run.ticks[0].devices[0].free_bytes == 10155 * MIB
    assert run.ticks[0].devices[0].temp_c == 55
    with pytest.raises(LogFormatError, match="has 6 columns, --columns names 2"):
        read_text(tmp_path, rows, columns=("timestamp", "memory.used"))


def test_a_total_given_by_the_user_fills_what_the_log_lacks(tmp_path):
    run = read_text(
        tmp_path,
        "timestamp, memory.used [MiB]\n2026/04/30 22:19:43.1, 5 MiB\n",
        total_bytes=24 << 30,
    )
    assert run.ticks[0].devices[0].total_bytes == 24 << 30
    assert "24 GiB" in run.said


HEADERLESS = {
    "used and total": ("{used} MiB, 24564 MiB", None),
    "total and used": ("24564 MiB, {used} MiB", None),
    "used and free under load": ("{util} %, {used} MiB, {free} MiB", None),
    "free and used under load": ("{util} %, {free} MiB, {used} MiB", None),
    "index, name and units": ("0, NVIDIA A10, {used} MiB, 24564 MiB, {util} %, {watt} W", None),
    "one column of memory": ("{used} MiB", "more than one way"),
    "used and free without load": ("{used} MiB, {free} MiB", "does not show"),
    "no units": ("{util}, {used}, 24564", "no cells with MiB"),
    "total and free under load": ("{util} %, 24564 MiB, {free} MiB", "memory.used or memory.free"),
}


@pytest.mark.parametrize(("cells", "refused"), HEADERLESS.values(), ids=HEADERLESS)
def test_a_log_without_header_is_read_or_refused_never_guessed(tmp_path, cells, refused):
    used = [15, 15, 15, 15, 3000, 9000, 12000, 12050, 11900, 12000, 15, 15]
    lines = [
        f"2026/04/30 22:19:{second:02d}.100, "
        + cells.format(used=u, free=24000 - u, util=0 if u == 15 else 90 + second, watt=20 + second)
        for second, u in enumerate(used)
    ]
    text = "\n".join(lines) + "\n"
    if refused is not None:
        with pytest.raises(LogFormatError, match=refused) as caught:
            read_text(tmp_path, text)
        assert "--columns" in (caught.value.hint or "")
        return
    run = read_text(tmp_path, text)
    assert run.used_mib() == used
    assert "has no header; its columns are timestamp" in run.said


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_generated_query_log_comes_back_as_it_was(tmp_path, data):
    """Any number of GPUs, any order of columns, with and without units and identities."""
    gpus = data.draw(st.integers(1, 5), label="gpus")
    polls = data.draw(st.integers(4, 12), label="polls")
    step_ms = data.draw(st.sampled_from([100, 500, 1000, 5000, 60_000]), label="step")
    units = data.draw(st.booleans(), label="units")
    identity = data.draw(st.sampled_from(["index", "uuid", "pci.bus_id", None]), label="identity")
    columns = ["timestamp", "memory.used", "memory.total", "utilization.gpu"]
    columns = data.draw(
        st.permutations(columns + ([identity] if identity else [])), label="columns"
    )
    used = data.draw(
        st.lists(
            st.lists(st.none() | st.integers(0, 80_000), min_size=gpus, max_size=gpus),
            min_size=polls,
            max_size=polls,
        ),
        label="used",
    )
    unit = {"memory.used": "MiB", "memory.total": "MiB", "utilization.gpu": "%"}
    lines = [", ".join(f"{c} [{unit[c]}]" if units and c in unit else c for c in columns)]
    for poll in range(polls):
        for gpu in range(gpus):
            ms = poll * step_ms + gpu
            stamp = f"2026/04/30 {10 + ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}.{ms % 1000:03d}"
            value = used[poll][gpu]
            cell = {
                "timestamp": stamp,
                "memory.used": "[N/A]"
                if value is None
                else f"{value} MiB"
                if units
                else f"{value}",
                "memory.total": "81920 MiB" if units else "81920",
                "utilization.gpu": "3 %" if units else "3",
                "index": str(gpu),
                "uuid": f"GPU-{gpu}",
                "pci.bus_id": f"00000000:0{gpu}:00.0",
            }
            lines.append(", ".join(cell[column] for column in columns))
    run = read_text(tmp_path, "\n".join(lines) + "\n")
    assert [run.used_mib(gpu) for gpu in range(gpus)] == [
        [poll[gpu] for poll in used] for gpu in range(gpus)
    ]
    assert [tick.mono_ns for tick in run.ticks] == [p * step_ms * 10**6 for p in range(polls)]
