"""Whatever is in a file, importing it raises a LogFormatError or nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_fixtures import TRACES
from test_import_forms import DMON, MIG_TABLE, OLD_TABLE, PMON
from test_import_query import ROWS

from vramtop.errors import LogFormatError
from vramtop.samples import DEVICE_COLUMNS
from vramtop.sources.logs import FORMS, LogOptions, open_log

FUZZ = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAMES = [form.NAME for form in FORMS]
PLAIN = "t_s,gpu,pid,used_mib,total_mib,util_pct\n0,0,,1,2,3\n1,0,7,1,,\n"
OLD_CSV = (
    "wall_time,gpu_index,gpu_name,gpu_used_bytes,gpu_total_bytes,gpu_util_percent,pid,"
    "process_name,process_vram_bytes,process_type\n1.5,0,A,1,2,3,4,p,5,c\n"
)
GPUSTAT = (
    '{"hostname":"h","query_time":"2024-05-01T12:00:00","gpus":[{"index":0,"memory.used":5,'
    '"processes":[{"pid":4,"gpu_memory_usage":3}]}]}\n'
)
APPS = "timestamp, pid, process_name, used_gpu_memory [MiB]\n2026/04/30 22:19:43.1, 4, p, 5 MiB\n"
SEEDS = [ROWS, DMON, PMON, OLD_TABLE, MIG_TABLE, PLAIN, OLD_CSV, GPUSTAT, APPS]


def check(path, form):
    """Import; every tick must be one that a recording can hold."""
    try:
        ticks = list(open_log([path], LogOptions(form=form, interval_s=1.0)).ticks())
    except LogFormatError as error:
        said = error
        ticks = []
    else:
        said = None
    assert said is None or (said.hint and "\n" not in said.message)
    before = -1
    for seq, tick in enumerate(ticks):
        assert tick.seq == seq
        assert tick.mono_ns >= before
        before = tick.mono_ns
        assert 0 <= tick.t_us < 1 << 62
        for device in tick.devices:
            values = [getattr(device, name) for name in DEVICE_COLUMNS]
            assert all(value is None or 0 <= value < 1 << 63 for value in values)
        for process in tick.processes:
            assert 0 < process.pid < 1 << 32
            assert process.used_bytes is None or 0 <= process.used_bytes < 1 << 62
        uuids = [device.uuid for device in tick.devices]
        assert len(uuids) == len(set(uuids))
        assert {process.uuid for process in tick.processes} <= set(uuids)


@pytest.mark.parametrize("form", [None, *NAMES])
@FUZZ
@given(content=st.binary(max_size=300))
def test_any_bytes(tmp_path, form, content):
    path = tmp_path / "fuzz"
    path.write_bytes(content)
    check(path, form)


@pytest.mark.parametrize("form", [None, *NAMES])
@FUZZ
@given(content=st.text(max_size=200), seed=st.sampled_from(SEEDS), at=st.floats(0, 1))
def test_any_text_in_the_middle_of_a_log(tmp_path, form, content, seed, at):
    path = tmp_path / "fuzz"
    cut = round(len(seed) * at)
    path.write_text(seed[:cut] + content + seed[cut:], encoding="utf-8", errors="replace")
    check(path, form)


@pytest.mark.parametrize("seed", SEEDS, ids=lambda text: text[:12].strip())
@FUZZ
@given(data=st.data())
def test_logs_with_characters_changed(tmp_path, seed, data):
    text = list(seed * 3)
    letters = st.sampled_from("0123456789-+.,:/|[]{}\"'#%MiBNA \n\tP\x1b\0٣")
    for place, letter in data.draw(
        st.lists(st.tuples(st.integers(0, len(text) - 1), letters), min_size=1, max_size=30)
    ):
        text[place] = letter
    path = tmp_path / "fuzz"
    path.write_text("".join(text), encoding="utf-8")
    check(path, None)


@pytest.mark.parametrize("name", ["icvs-2x4090--gpu_mem_log.csv", "plato-fedlearn--gpu_log.csv"])
def test_a_real_log_with_lines_lost_and_torn(tmp_path, name):
    chance = random.Random(7)
    lines = (TRACES / name).read_text().splitlines()
    for n in range(20):
        kept = [line for line in lines if chance.random() > 0.05]
        kept[chance.randrange(1, len(kept))] = kept[3][: chance.randrange(60)]
        path = tmp_path / f"torn{n}"
        path.write_text("\n".join(kept)[: chance.randrange(500, 60_000)])
        check(path, None)
