"""`vramtop report` as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from report_fixtures import oom_story, opening, tick

from vramtop.cli import main
from vramtop.recording.store import write_recording


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "run.parquet"
    write_recording(path, oom_story())
    return path


def run(*args):
    with pytest.raises(SystemExit) as ended:
        main([str(arg) for arg in args])
    return ended.value.code


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [(".html", b"<!DOCTYPE html>"), (".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"),
     (".md", b"# python train"), (".PNG", b"\x89PNG")],
)  # fmt: skip
def test_the_suffix_says_the_form_and_the_path_is_printed(
    recording, tmp_path, capsys, suffix, begins
):
    out = tmp_path / f"oom{suffix}"
    assert run("report", recording, "-o", out) == 0
    assert out.read_bytes().startswith(begins)
    assert capsys.readouterr().out == f"{out}\n"


def test_the_page_tells_what_the_recording_holds(recording, tmp_path):
    out = tmp_path / "oom.html"
    assert run("report", recording, "-o", out) == 0
    html = out.read_text(encoding="utf-8")
    assert "python train.py (pid 100) ran out of memory on GPU 0" in html
    assert "4 GiB was asked for." in html


def test_a_report_that_is_there_is_replaced_in_one_step(recording, tmp_path):
    out = tmp_path / "oom.md"
    out.write_text("old")
    assert run("report", recording, "-o", out) == 0
    assert out.read_text(encoding="utf-8").startswith("# ")
    assert [path.name for path in tmp_path.iterdir()] == ["oom.md"]


@pytest.mark.parametrize("name", ["oom.docx", "oom", "oom.html.gz"])
def test_an_unknown_suffix_is_wrong_usage_with_a_hint(recording, tmp_path, capsys, name):
    assert run("report", recording, "-o", tmp_path / name) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert said[1] == "hint: use one of .html .png .svg .pdf .md"
    assert not (tmp_path / name).exists()


def test_a_missing_directory_cannot_be_written_to(recording, tmp_path, capsys):
    assert run("report", recording, "-o", tmp_path / "no" / "oom.html") == 1
    assert "is not a directory" in capsys.readouterr().err


def test_a_directory_as_output_is_refused(recording, tmp_path, capsys):
    (tmp_path / "dir.html").mkdir()
    assert run("report", recording, "-o", tmp_path / "dir.html") == 1
    assert "is a directory" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission_is_refused(recording, tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert run("report", recording, "-o", tmp_path / "oom.html") == 1
    tmp_path.chmod(0o700)
    assert "no permission" in capsys.readouterr().err


def test_a_file_that_cannot_be_finished_leaves_the_old_report_whole(recording, tmp_path):
    """The limit on file size stands for a full disk: the write fails half way."""
    out = tmp_path / "oom.md"
    out.write_text("old")
    script = (
        "import resource, signal\n"
        "from vramtop.cli import main\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        f"main(['report', {str(recording)!r}, '-o', {str(out)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"cannot write {out}: File too large" in done.stderr
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["oom.md"]


@pytest.mark.parametrize(
    "content", [None, b"", b"PAR1", b"a,b\n1,2\n", os.urandom(4096)],
    ids=["missing", "empty", "truncated", "csv", "random"],
)  # fmt: skip
def test_what_is_no_recording_gives_one_line_and_a_hint(tmp_path, capsys, content):
    path = tmp_path / "run.parquet"
    if content is not None:
        path.write_bytes(content)
    assert run("report", path, "-o", tmp_path / "oom.html") == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("vramtop: ")
    assert not any("Traceback" in line for line in said)
    assert not (tmp_path / "oom.html").exists()


def test_a_recording_without_gpus_gives_an_honest_small_report(tmp_path):
    path = tmp_path / "none.parquet"
    write_recording(
        path, [tick(second, [], [], opening(gpus=0) if second == 0 else []) for second in range(3)]
    )
    for suffix in (".html", ".png", ".md"):
        assert run("report", path, "-o", tmp_path / f"out{suffix}") == 0
    assert "The recording holds no GPU" in (tmp_path / "out.md").read_text(encoding="utf-8")


def test_several_files_make_one_report(recording, tmp_path):
    out = tmp_path / "both.svg"
    assert run("report", recording, recording, "-o", out) == 0
    one, two = tmp_path / "one.svg", out
    assert run("report", recording, "-o", one) == 0
    heights = [float(re.search(r'height="([\d.]+)pt"', path.read_text())[1]) for path in (one, two)]
    assert heights[1] == pytest.approx(2 * heights[0])


def test_the_output_must_be_named(recording, capsys):
    assert run("report", recording) == 2
    assert "-o" in capsys.readouterr().err


def test_help_has_an_example_and_loads_nothing_heavy():
    script = (
        "import sys\n"
        "from vramtop.cli import main\n"
        "try: main(['report', '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'matplotlib', 'numpy', 'pyarrow', 'polars'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Example: vramtop report run.parquet -o oom.html" in done.stdout


def test_markdown_needs_no_matplotlib(recording, tmp_path):
    script = (
        "import sys\n"
        "from vramtop.cli import main\n"
        f"try: main(['report', {str(recording)!r}, '-o', {str(tmp_path / 'x.md')!r}])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert 'matplotlib' not in sys.modules\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
