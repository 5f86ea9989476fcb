"""Fixtures that more than one area needs."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakedriver import FakeDriver

# What a background shell or nohup ignores, its children ignore too; the programs that the tests
# start are to meet signals as in a login.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _number in (signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(_number, signal.SIG_DFL)

# Files of the fake driver are run by children, not collected.
collect_ignore = ["fakedriver"]


@pytest.fixture
def fake_driver(tmp_path: Path) -> Iterator[FakeDriver]:
    """A fake NVIDIA driver without GPUs; tests add what they need."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    with FakeDriver(tmp_path) as driver:
        yield driver
