"""`record -- COMMAND`: the program is as it would be without vramtop."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from record_fixtures import (
    LIMIT_S,
    PYTHON,
    RECORD,
    SIMULATED,
    alive,
    eventually,
    observed,
    record,
    recording,
)  # fmt: skip

from vramtop.recording.reader import open_recording
from vramtop.recording.stream import read_stream
from vramtop.samples import END, EXIT, FAULT, MARK, OOM_EVIDENCE, SELF

OOM = (
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 64.00 MiB. GPU 0 has a total "
    "capacity of 44.35 GiB of which 1.19 MiB is free."
)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_that_of_the_command(tmp_path, code):
    done = record("-o", "r.parquet", "--", "sh", "-c", f"exit {code}", cwd=tmp_path)
    assert done.returncode == code
    (seen,) = observed(tmp_path / "r.parquet", EXIT)
    assert (seen.name, seen.data) == ("sh", {"exit_code": code})
    (end,) = observed(tmp_path / "r.parquet", END)
    assert end.text == "COMMAND ended"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_death_by_signal_is_seen_as_one(tmp_path, number):
    """Whoever waits for vramtop sees what it would see waiting for the program."""
    done = record("-o", "r.parquet", "--", "sh", "-c", f"kill -{number} $$", cwd=tmp_path)
    assert done.returncode == -number
    (seen,) = observed(tmp_path / "r.parquet", EXIT)
    assert seen.data == {"signal": number}
    assert list(tmp_path.glob("core*")) == []


def test_stdin_stdout_and_stderr_pass_unchanged(tmp_path):
    """Bytes, not text: nothing is decoded, buffered up or reordered within a stream."""
    payload = bytes(range(256)) * 3000
    copy = "import sys,shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
    done = subprocess.run(
        [*SIMULATED, "-o", "r.parquet", "--", *PYTHON, copy],
        cwd=tmp_path, input=payload, capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.stdout == payload
    assert done.stderr == b"r.parquet\n"
    speak = "import os\nfor i in range(60): os.write(2, bytes(range(256)) * 128)"
    done = record("-o", "s.parquet", "--", *PYTHON, speak, cwd=tmp_path)
    assert done.stdout == b""
    assert done.stderr == bytes(range(256)) * 128 * 60 + b"s.parquet\n"


def test_stdin_is_the_same_open_file(tmp_path):
    source = tmp_path / "in.txt"
    source.write_text("one\ntwo\n")
    with source.open("rb") as stdin:
        done = subprocess.run(
            [*SIMULATED, "-o", "r.parquet", "--", "sh", "-c", "read x; echo $x; readlink /proc/self/fd/0"],
            cwd=tmp_path, stdin=stdin, capture_output=True, timeout=LIMIT_S, check=False,
        )  # fmt: skip
    assert done.stdout == f"one\n{source}\n".encode()


def test_the_command_inherits_no_descriptor_mask_or_ignored_signal_of_ours(tmp_path):
    shell = "ls /proc/self/fd | tr '\\n' ' '; grep -E 'Sig(Blk|Ign)' /proc/self/status"
    with_us = record("-o", "r.parquet", "--", "sh", "-c", shell, cwd=tmp_path).stdout.split()
    without = subprocess.run(
        ["sh", "-c", shell], capture_output=True, check=True, stdin=subprocess.DEVNULL
    ).stdout.split()
    # glibc's posix_spawn leaves its own two signals, 32 and 33, ignored; so do make and others.
    for signals in (with_us, without):
        signals[-1] = b"%016x" % (int(signals[-1], 16) & ~(3 << 31))
    assert with_us == without


def test_what_was_ignored_before_stays_ignored(tmp_path):
    """`nohup vramtop record -- …` must protect the program from hang-ups too."""
    done = subprocess.run(
        ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *SIMULATED, "-o", "r.parquet", "--",
         "grep", "SigIgn", "/proc/self/status"],
        cwd=tmp_path, capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert int(done.stdout.split()[1], 16) & 1 << (signal.SIGHUP - 1)


def test_without_a_driver_the_command_runs_all_the_same(tmp_path):
    """vramtop becomes the program: not even a process is left of it."""
    done = subprocess.run(
        [*RECORD, "--", "sh", "-c", "echo out; echo err >&2; exit 5"],
        cwd=tmp_path, capture_output=True, timeout=LIMIT_S, check=False,
        env={**os.environ, "LD_LIBRARY_PATH": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (5, b"out\n")
    first, second = done.stderr.decode().splitlines()
    assert first.startswith("vramtop: not recording: ")
    assert second == "err"
    assert list(tmp_path.iterdir()) == []


def test_strict_does_not_start_the_command_without_a_recording(tmp_path):
    done = subprocess.run(
        [*RECORD, "--strict", "--", "touch", "started"],
        cwd=tmp_path, capture_output=True, timeout=LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("vramtop: ")
    assert lines[1].startswith("hint: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", ["missing/r.parquet", "/proc/r.parquet", "a-file/r.parquet"])
def test_where_nothing_can_be_written_the_command_runs_all_the_same(tmp_path, output):
    (tmp_path / "a-file").touch()
    done = record("-o", output, "--", "sh", "-c", "echo out; exit 4", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (4, b"out\n")
    assert len(done.stderr.splitlines()) == 1
    assert b"not recording" in done.stderr
    strict = record("--strict", "-o", output, "--", "echo", "out", cwd=tmp_path)
    assert (strict.returncode, strict.stdout) == (1, b"")


def test_a_second_recorder_of_the_same_file_leaves_the_first_alone(tmp_path):
    with recording("-o", "r.parquet", cwd=tmp_path) as first:
        eventually(lambda: list(tmp_path.glob("r.parquet.wal-*")))
        beside = record("-o", "r.parquet", "--", "sh", "-c", "exit 6", cwd=tmp_path)
        assert beside.returncode == 6
        assert b"not recording" in beside.stderr
        alone = record("-o", "r.parquet", cwd=tmp_path)
        assert alone.returncode == 1
        assert b"Traceback" not in alone.stderr
        first.send_signal(signal.SIGINT)
        assert first.wait(LIMIT_S) == 0
    assert open_recording(tmp_path / "r.parquet").state == "sealed"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_a_full_disk_does_not_stop_the_command(tmp_path):
    """The tick clock goes on, it is said once, and what was written stays readable."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(disk)],
        check=False, capture_output=True,
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        done = record("--interval", "0.01", "-o", f"{disk}/r.parquet", "--",
                      "sh", "-c", f"sleep 0.3; head -c 70000 /dev/zero > {disk}/fill; sleep 0.5; "
                      f"rm {disk}/fill; echo out; exit 4", cwd=tmp_path)  # fmt: skip
        assert (done.returncode, done.stdout) == (4, b"out\n")
        assert b"Traceback" not in done.stderr
        assert 1 <= done.stderr.count(b"No space left") <= 2
        assert open_recording(disk / "r.parquet").ticks > 10
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize(
    ("program", "code"), [("no-such-program", 127), ("./not-executable", 126), ("./", 126)]
)
def test_what_cannot_be_run_gives_the_code_of_a_shell(tmp_path, program, code):
    (tmp_path / "not-executable").write_text("text")
    done = record("--", program, cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr.decode().startswith(f"vramtop: {program}: ")
    assert list(tmp_path.glob("*.parquet*")) == []


def test_a_script_without_interpreter_line_runs_as_in_a_shell(tmp_path):
    script = tmp_path / "script"
    script.write_text("echo $1; exit 9\n")
    script.chmod(0o755)
    done = record("-o", "r.parquet", "--", "./script", "word", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (9, b"word\n")


def test_kill_9_of_the_recorder_leaves_the_program_and_its_output_whole(tmp_path):
    """Its stderr must not end in a dead pipe, or the program dies of its next word."""
    speak = (
        "import os, sys, time\n"
        "open('pid', 'w').write(str(os.getpid()))\n"
        "for i in range(40):\n"
        "    os.write(2, b'line %d\\n' % i); time.sleep(0.02)\n"
        "open('done', 'w').write('yes')\n"
    )
    with (tmp_path / "err.txt").open("wb") as err:
        process = subprocess.Popen(
            [*SIMULATED, "-o", "r.parquet", "--", *PYTHON, speak], cwd=tmp_path, stderr=err
        )
        eventually(lambda: b"line 5\n" in (tmp_path / "err.txt").read_bytes())
        process.kill()
        assert process.wait(LIMIT_S) == -signal.SIGKILL
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    eventually((tmp_path / "done").exists)
    eventually(lambda: not alive(pid))
    expected = b"".join(b"line %d\n" % i for i in range(40))
    eventually(lambda: (tmp_path / "err.txt").read_bytes() == expected)
    recording = open_recording(tmp_path / "r.parquet")
    assert recording.state == "interrupted"
    assert recording.ticks > 0


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_recorder_reaches_the_command_once(tmp_path, number):
    listen = (
        "import signal, time\n"
        "count = 0\n"
        "def heard(*_):\n"
        "    global count; count += 1\n"
        f"signal.signal({int(number)}, heard)\n"
        "print('ready', flush=True)\n"
        "end = time.monotonic() + 10\n"
        "while not count and time.monotonic() < end: time.sleep(0.02)\n"
        "time.sleep(0.2)\n"
        "print(count, flush=True)\n"
    )
    with recording("-o", "r.parquet", "--", *PYTHON, listen, cwd=tmp_path) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"1\n"
        assert process.wait(LIMIT_S) == 0
    assert open_recording(tmp_path / "r.parquet").state == "sealed"


def test_a_command_that_dies_of_a_forwarded_signal_is_reported_as_such(tmp_path):
    with recording("-o", "r.parquet", "--", "sleep", "20", cwd=tmp_path) as process:
        eventually(lambda: list(tmp_path.glob("r.parquet.wal-*")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == -signal.SIGTERM
    (seen,) = observed(tmp_path / "r.parquet", EXIT)
    assert seen.data == {"signal": signal.SIGTERM}


def test_last_words_about_memory_become_evidence(tmp_path):
    speak = f"import sys, os; print({OOM!r}, file=sys.stderr); sys.exit(1)"
    done = record("-o", "r.parquet", "--", *PYTHON, speak, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.decode() == f"{OOM}\nr.parquet\n"
    (seen,) = observed(tmp_path / "r.parquet", OOM_EVIDENCE)
    (ended,) = observed(tmp_path / "r.parquet", EXIT)
    assert (seen.text, seen.pid, seen.start_time) == (OOM, ended.pid, ended.start_time)
    assert seen.data is not None
    assert seen.data["fatal"] is True
    assert seen.data["requested_bytes"] == 64 * 1024**2
    assert seen.gpu == 0
    assert seen.data["gpu_why"] == "the only GPU"


def test_the_end_does_not_wait_for_what_the_command_left_running(tmp_path):
    """A background child keeps the stderr open; the shell's prompt must come all the same."""
    script = f"{sys.executable} -S -c 'import time,os; time.sleep(4)' & exit 2"
    with (tmp_path / "err.txt").open("wb") as err, recording(
        "-o", "r.parquet", "--", "sh", "-c", script, cwd=tmp_path, stderr=err
    ) as process:  # fmt: skip
        assert process.wait(3.5) == 2
    assert open_recording(tmp_path / "r.parquet").state == "sealed"


def test_the_recording_may_end_before_the_command(tmp_path):
    done = record("-o", "r.parquet", "--duration", "0.2", "--mark", "first", "--",
                  "sh", "-c", "sleep 0.6; exit 8", cwd=tmp_path)  # fmt: skip
    assert done.returncode == 8
    (end,) = observed(tmp_path / "r.parquet", END)
    assert end.text == "duration"
    assert [seen.text for seen in observed(tmp_path / "r.parquet", MARK)] == ["first"]


def test_a_stream_takes_stdout_and_the_command_keeps_stderr(tmp_path):
    done = record("-o", "-", "--", "sh", "-c", "echo out; echo err >&2; exit 3", cwd=tmp_path)
    assert done.returncode == 3
    assert sorted(done.stderr.splitlines()) == [b"err", b"out"]
    stream = tmp_path / "stream"
    stream.write_bytes(done.stdout)
    with stream.open("rb") as file:
        kinds = [seen.what for block in read_stream(file) for _, seen in block.observations]
    assert kinds[-3:] == [EXIT, SELF, END]
    assert [path.name for path in tmp_path.iterdir()] == ["stream"]


def test_a_reader_of_the_stream_that_goes_away_ends_it_politely(tmp_path):
    with recording(
        "-o", "-", "--", "sh", "-c", "sleep 0.7; echo done >&2; exit 3", cwd=tmp_path
    ) as process:
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait(LIMIT_S) == 3
        assert process.stderr.read() == b"done\n"
        process.stdout = None


def test_flooding_stderr_loses_no_output_and_ends_in_time(tmp_path):
    """Copies for the recorder may be dropped, the output itself never; a fault says so."""
    flood = (
        "import os\nfor i in range(160): os.write(2, b'memory error out of it %03d\\n' % i * 2000)"
    )
    done = record("-o", "r.parquet", "--", *PYTHON, flood, cwd=tmp_path)
    expected = b"".join(b"memory error out of it %03d\n" % i * 2000 for i in range(160))
    assert done.stderr == expected + b"r.parquet\n"
    assert {seen.name for seen in observed(tmp_path / "r.parquet", FAULT)} <= {"stderr"}


def test_the_default_name_tells_job_host_time_and_process(tmp_path):
    done = record("--duration", "0.1", cwd=tmp_path, env={**os.environ, "SLURM_JOB_ID": "77/x"})
    name = done.stdout.decode().strip()
    assert done.returncode == 0
    assert Path(tmp_path / name).exists()
    parts = name.removesuffix(".parquet").split("-")
    assert parts[:2] == ["vramtop", "77_x"]
    assert parts[-3].isdigit()
    assert len(parts[-2]) == 6
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600
