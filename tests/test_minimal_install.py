"""Recorder with only click and nvidia-ml-py; a full installation elsewhere seals and reads."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import vramtop


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder like the one that `pip install --no-deps vramtop click nvidia-ml-py` fills."""
    folder = tmp_path_factory.mktemp("bare")
    shutil.copytree(
        Path(vramtop.__file__).parent,
        folder / "vramtop",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    for name in ("click", "nvidia-ml-py"):
        for file in importlib.metadata.distribution(name).files or ():
            target = folder / file
            if ".." not in file.parts and file.suffix == ".py":
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file.locate(), target)
    return folder


def run(bare, *args, cwd):
    """-S leaves out site-packages: nothing but the folder and the standard library."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "vramtop", *args],
        env={"PYTHONPATH": str(bare), "PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=cwd, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_bare_installation_lacks_the_rest(bare, tmp_path):
    """Otherwise the tests below would prove nothing."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", "import click, pynvml, vramtop\ntry:\n    import numpy\nexcept ImportError:\n    print('bare')"],
        env={"PYTHONPATH": str(bare)}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "bare\n"


def test_it_records_and_a_full_installation_seals_and_reads(bare, tmp_path):
    done = run(
        bare, "record", "--source", "sim:training-oom", "--pace", "max", "-o", "run.parquet", cwd=tmp_path
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = sorted(path.name for path in tmp_path.iterdir())
    assert "run.parquet" not in left
    assert any(name.startswith("run.parquet.wal-") for name in left)

    full = [sys.executable, "-m", "vramtop"]
    before = subprocess.run(
        [*full, "replay", "run.parquet", "--events"], cwd=tmp_path, capture_output=True, text=True, check=True
    )  # fmt: skip
    subprocess.run([*full, "recover", "run.parquet"], cwd=tmp_path, capture_output=True, check=True)
    info = subprocess.run(
        [*full, "info", "run.parquet", "--json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )  # fmt: skip
    after = subprocess.run(
        [*full, "replay", "run.parquet", "--events"], cwd=tmp_path, capture_output=True, text=True, check=True
    )  # fmt: skip

    assert json.loads(info.stdout)["state"] == "sealed"
    assert after.stdout == before.stdout
    assert "oom" in after.stdout


def test_it_runs_a_command_and_keeps_its_exit_code(bare, tmp_path):
    done = run(
        bare, "record", "--source", "sim:steady-training", "--pace", "50", "-o", "run.parquet", "--",
        "sh", "-c", "echo out; echo err >&2; sleep 0.3; exit 5", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 5
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr
    assert list(tmp_path.glob("run.parquet.wal-*"))


@pytest.mark.parametrize(
    "command",
    [
        ["replay", "run.parquet"],
        ["verify", "run.parquet"],
        ["report", "run.parquet", "-o", "x.html"],
    ],
)
def test_what_needs_the_rest_says_so(bare, tmp_path, command):
    done = run(bare, *command, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "hint: pip install vramtop" in done.stderr
