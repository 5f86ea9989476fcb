"""`vramtop explain`: what a training log alone tells."""

import json
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner

from vramtop.cli.explain import command
from vramtop.enrich.oom_advice import explain
from vramtop.enrich.oom_text import scan

MESSAGES = [
    json.loads(line)["text"]
    for line in (Path(__file__).parent / "data/oom_messages.jsonl").read_text("utf-8").splitlines()
]


def of(text):
    (finding,) = explain(scan([text.encode() + b"\n"]))
    return finding


def holding(words):
    (text,) = [message for message in MESSAGES if words in message]
    return of(text)


def test_a_log_is_explained_with_who_asked_who_held_and_what_to_try(tmp_path):
    log = tmp_path / "train.log"
    (text,) = [message for message in MESSAGES if "Training failed" in message]
    log.write_text("step 1\n" + text + "\n" + "bye\n" * 3 + text + "\n", "utf-8")
    done = CliRunner().invoke(command, [str(log)])
    assert done.exit_code == 0
    assert done.stdout.splitlines()[:5] == [
        "line 2 (2 times, last in line 6): pytorch, rank 0, CUDA device 0: GPU memory ran out",
        "  asked for  742 MiB",
        "  free       188.3 MiB of 79.2 GiB",
        "  held       414 MiB by this process (0 B allocated, 0 B kept unused)",
        "             78.5 GiB by process 3295240",
    ]
    assert done.stdout.splitlines()[6] == (
        "  try        process 3295240 holds 78.5 GiB, more than this process: end it, or choose "
        "another GPU with CUDA_VISIBLE_DEVICES"
    )


def test_the_json_has_one_object_per_finding(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("\n".join(MESSAGES) + "\n", "utf-8")
    done = CliRunner().invoke(command, ["--json", str(log)])
    objects = [json.loads(line) for line in done.stdout.splitlines()]
    # One of them stands twice in the collection, with equal figures.
    assert len(objects) == len(MESSAGES) - 1
    assert sum(found["fatal"] for found in objects) == len(MESSAGES) - 2
    assert all(found["advice"] for found in objects)


def test_a_log_without_any_says_so_and_is_no_failure(tmp_path):
    log = tmp_path / "train.log"
    log.write_text("step 1\nstep 2\n")
    done = CliRunner().invoke(command, [str(log)])
    assert (done.exit_code, done.stdout) == (0, f"no out-of-memory message in {log} (2 lines)\n")
    as_json = CliRunner().invoke(command, ["--json", str(log)])
    assert (as_json.exit_code, as_json.stdout) == (0, "")


def test_what_cannot_be_read_is_one_line_and_a_hint(tmp_path):
    (tmp_path / "r.parquet").write_bytes(b"PAR1 and so on")
    for name in ("missing.log", ".", "r.parquet"):
        done = subprocess.run(
            [sys.executable, "-m", "vramtop", "explain", str(tmp_path / name)],
            capture_output=True, timeout=20, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, b"")
        first, hint = done.stderr.decode().splitlines()
        assert first.startswith("vramtop: ")
        assert hint.startswith("hint: ")


def test_a_request_larger_than_the_device_is_not_answered_with_a_smaller_batch():
    advice = holding("Tried to allocate 55.57 GiB").advice
    assert advice[0].startswith("one request of 55.6 GiB exceeds the whole device (12 GiB)")


def test_room_that_was_free_points_to_limits_and_fragmentation():
    advice = holding("4.00 GiB of which 2.35 GiB is free").advice
    assert advice[0].startswith("2.3 GiB were free for a request of 20 MiB")


def test_memory_kept_in_pieces_is_answered_with_the_setting_of_that_version():
    (old,) = (text for text in holding("8.77 GiB already allocated").advice if "pieces" in text)
    assert "max_split_size_mb" in old
    new = holding("17.06 MiB is free").advice
    assert not any("pieces" in text for text in new)
    (kept,) = (text for text in holding("78.54 GiB memory in use. Including non-PyTorch memory, "
               "this process has 596.00 MiB").advice if "pieces" in text)  # fmt: skip
    assert "expandable_segments:True" in kept


def test_memory_of_nobody_named_is_counted():
    finding = holding("Process 1332169 has 27.17 GiB")
    assert finding.unexplained_bytes == 0
    text = (
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
        "capacity of 80.00 GiB of which 1.00 GiB is free. Including non-PyTorch memory, this "
        "process has 9.00 GiB memory in use."
    )
    assert of(text).unexplained_bytes == 70 * 1024**3
