"""Fixtures that more than one area needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakedriver import FakeDriver

# Files of the fake driver are run by children, not collected.
collect_ignore = ["fakedriver"]


@pytest.fixture
def fake_driver(tmp_path: Path) -> Iterator[FakeDriver]:
    """A fake NVIDIA driver without GPUs; tests add what they need."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    with FakeDriver(tmp_path) as driver:
        yield driver
