"""The bugs of the binding that are worked around: shown, and shown to be gone."""

from __future__ import annotations

import pytest
from fakedriver import GIB, NO_VALUE, FakeDriver

pytestmark = pytest.mark.compiler

START = "import pynvml\nfrom vramtop.sources.nvml import _compat as c\nc.start()\nh = c.handle_by_index(0)\n"


def shows(driver: FakeDriver, code: str) -> str:
    done = driver.python(START + code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def raised_by(call: str) -> str:
    return f"try: {call}\nexcept Exception as e: print(type(e).__name__)\nelse: print('no error')\n"


def test_a_process_detail_without_a_figure_is_none(fake_driver: FakeDriver):
    """When the binding is mended, its first line here changes and the work-around can go."""
    fake_driver.add_gpu()
    fake_driver.add_process(gpu=0, pid=77, used=NO_VALUE, verbatim=1)
    fake_driver.add_process(gpu=0, pid=78, used=GIB)
    bug = raised_by("pynvml.nvmlDeviceGetRunningProcessDetailList(h, 0x1000018, 0)")
    assert shows(fake_driver, bug) == "TypeError"
    assert (
        shows(fake_driver, "print(c.process_details(h, 0))") == f"[(77, None, 0), (78, {GIB}, 0)]"
    )


def test_process_details_grow_their_room(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    for pid in range(1, 101):
        fake_driver.add_process(gpu=0, pid=pid, used=pid)
    assert shows(fake_driver, "print(len(c.process_details(h, 0)))") == "100"


def test_accounting_without_a_figure_is_none(fake_driver: FakeDriver):
    board = fake_driver.add_gpu(accounting=1, n_accounted=1)
    board.accounted[0].pid, board.accounted[0].peak = 77, NO_VALUE
    assert (
        shows(fake_driver, raised_by("pynvml.nvmlDeviceGetAccountingStats(h, 77)")) == "TypeError"
    )
    assert shows(fake_driver, "print(c.accounted_peak_bytes(h, 77))") == "None"
    board.accounted[0].peak = 5 * GIB
    assert shows(fake_driver, "print(c.accounted_peak_bytes(h, 77))") == str(5 * GIB)


def test_no_process_having_run_is_an_empty_list_and_no_error(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    assert (
        shows(fake_driver, raised_by("pynvml.nvmlDeviceGetProcessUtilization(h, 0)")) == "NVMLError"
    )
    assert shows(fake_driver, "print(c.process_utilization(h, 0))") == "[]"


def test_the_recorder_process_loads_neither_numpy_nor_pyarrow(fake_driver: FakeDriver):
    fake_driver.add_gpu()
    code = (
        "import sys\n"
        "from vramtop.enrich.process_facts import read_facts\n"
        "from vramtop.sources import open_source\n"
        "s = open_source('nvml', facts=read_facts)\n"
        "t = next(iter(s.ticks()))\n"
        "heavy = {'numpy', 'pyarrow', 'polars', 'matplotlib', 'click', 'ruptures', 'scipy'}\n"
        "print(len(t.devices), sorted(heavy & set(sys.modules)))\n"
    )
    done = fake_driver.python(code)
    assert done.stdout.strip() == "1 []", done.stderr


def test_events_of_the_driver_reach_the_binding(fake_driver: FakeDriver):
    """The fake driver's event sets, for what will listen to Xids."""
    fake_driver.add_gpu()
    fake_driver.event(0, 8, 79)
    code = (
        "s = pynvml.nvmlEventSetCreate()\n"
        "pynvml.nvmlDeviceRegisterEvents(h, pynvml.nvmlDeviceGetSupportedEventTypes(h), s)\n"
        "e = pynvml.nvmlEventSetWait_v2(s, 10)\n"
        "print(e.eventType, e.eventData)\n"
        "try: pynvml.nvmlEventSetWait_v2(s, 10)\n"
        "except pynvml.NVMLError_Timeout: print('timeout')\n"
    )
    assert shows(fake_driver, code).split() == ["8", "79", "timeout"]
