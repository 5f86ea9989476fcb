"""The relay when its recorder is killed at the worst moment."""

import os
import socket
import threading
import time

from record_fixtures import LIMIT_S

from vramtop.capture import relay


def test_a_recorder_killed_while_it_lags_behind_does_not_take_the_relay_along():
    """The relay has copies to send and is told at once that it can write and that nobody reads.

    The recorder's end was found out by sending, and the link was then read all the same: the
    relay died of it, and the program of its next word to stderr.
    """
    source, program = os.pipe()
    out_read, out_write = os.pipe()
    link, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    failed = []

    def run():
        try:
            relay.Relay(source, link.fileno(), out_write).run()
        except TypeError as error:
            failed.append(error)
        os.close(out_write)

    relaying = threading.Thread(target=run)
    relaying.start()
    chunk = b"x" * 4096
    received = b""
    for _ in range(200):  # far more than the socket takes
        os.write(program, chunk)
        while len(received) % len(chunk) or not received.endswith(chunk):
            received += os.read(out_read, len(chunk))
        received = b""
    time.sleep(0.1)  # it waits for either end now
    far.close()
    os.write(program, b"last words")
    os.close(program)
    relaying.join(LIMIT_S)
    last = b""
    while piece := os.read(out_read, 4096):
        last += piece
    os.close(source)
    os.close(out_read)
    link.close()
    assert failed == []
    assert last == b"last words"
