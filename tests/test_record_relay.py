"""The stderr relay: what goes in comes out, whoever dies."""

import os
import signal
import threading
from pathlib import Path

from record_fixtures import LIMIT_S, PYTHON, eventually, recording

from vramtop.capture import relay
from vramtop.capture.stderr import StderrRelay


def test_every_word_before_the_end_is_copied_to_the_recorder(capfd):
    """The relay may end with our question to it unread; its last copies must still be read."""
    for turn in range(15):
        taken = []
        stderr = StderrRelay(taken.append)
        descriptor = stderr.start()
        assert descriptor is not None
        os.write(descriptor, b"last words %d\n" % turn)
        stderr.close_ours()
        assert stderr.drain(LIMIT_S)
        assert b"".join(taken) == b"last words %d\n" % turn
        eventually(lambda pid=stderr.pid: not Path(f"/proc/{pid}").exists())
    assert capfd.readouterr().err == "".join(f"last words {turn}\n" for turn in range(15))


def test_draining_does_not_wait_for_those_who_keep_it_open(capfd):
    taken = []
    stderr = StderrRelay(taken.append)
    descriptor = stderr.start()
    os.write(descriptor, b"so far\n")
    assert stderr.drain(LIMIT_S)
    assert b"".join(taken) == b"so far\n"
    assert capfd.readouterr().err == "so far\n"
    os.write(descriptor, b"more\n")
    stderr.close_ours()
    eventually(lambda: b"more\n" in taken)
    eventually(lambda: not Path(f"/proc/{stderr.pid}").exists())


def test_a_recorder_that_does_not_read_loses_the_oldest_copies_and_never_stops_the_program():
    """The real stderr is complete; the copies are its newest part, and what is missing is counted."""
    source, program = os.pipe()
    out_read, out_write = os.pipe()
    link, far = _link_pair()
    relaying = threading.Thread(target=relay.Relay(source, link.fileno(), out_write).run)
    relaying.start()
    received = []

    def read_all():
        while chunk := os.read(out_read, 1 << 20):
            received.append(chunk)

    reading = threading.Thread(target=read_all)
    reading.start()
    words = b"".join(b"%07d\n" % number for number in range(500_000))
    view = memoryview(words)
    while view:
        view = view[os.write(program, view) :]
    os.close(program)
    far.settimeout(LIMIT_S)
    assert far.recv(70_000) == b"r"
    copied, dropped = [], 0
    while (message := far.recv(70_000)) != b"e":
        if message[:1] == b"x":
            dropped += int(message[1:])
        else:
            copied.append(message[1:])
    relaying.join(LIMIT_S)
    os.close(out_write)
    reading.join(LIMIT_S)
    for each in (source, out_read):
        os.close(each)
    link.close()
    far.close()
    assert b"".join(received) == words
    assert dropped > 0
    assert dropped + sum(map(len, copied)) == len(words)
    assert words.endswith(copied[-1])


def _link_pair():
    import socket

    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def test_a_killed_relay_is_replaced_and_the_program_goes_on(tmp_path):
    """Nobody reading its stderr would end the program with SIGPIPE."""
    speak = (
        "import os, time\n"
        "for i in range(40):\n"
        "    os.write(2, b'line %d\\n' % i); time.sleep(0.02)\n"
    )
    with recording("-o", "r.parquet", "--", *PYTHON, speak, cwd=tmp_path) as process:
        heard = process.stderr.readline()
        while heard != b"line 5\n":
            heard = process.stderr.readline()
        (first,) = _relays_of(process.pid)
        os.kill(first, signal.SIGKILL)
        assert process.wait(LIMIT_S) == 0
        lines = process.stderr.read().splitlines()
    # What the killed one had read and not yet written is all that can be lost.
    assert lines[-2:] == [b"line 39", b"r.parquet"]
    assert len(lines) >= 33


def _relays_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    return [
        child for child in children if b"relay.py" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_a_stderr_that_nobody_reads_reaches_the_program_as_such(tmp_path):
    """`vramtop record -- cmd 2>&1 | head -1` ends as `cmd 2>&1 | head -1` does."""
    speak = "import os, time\nwhile True: os.write(2, b'x' * 99 + b'\\n'); time.sleep(0.001)"
    script = f"import signal; signal.signal(signal.SIGPIPE, signal.SIG_DFL)\n{speak}"
    with recording("-o", "r.parquet", "--", *PYTHON, script, cwd=tmp_path) as process:
        process.stderr.readline()
        process.stderr.close()
        assert process.wait(LIMIT_S) == -signal.SIGPIPE
        process.stderr = None
