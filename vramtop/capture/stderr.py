"""The recorder's end of the stderr relay: start it, read the copies, replace it if it dies."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable

from vramtop.capture import relay

READY_S = 3.0
"""How long a relay may take to start before COMMAND keeps our stderr instead."""
_MESSAGE_BYTES = relay.CHUNK_BYTES + 64
# Looking at the copies may use at most this share of a core: a program that floods its
# stderr is not slowed by the recorder reading along, it only loses copies (the oldest).
_SHARE_OF_CORE = 0.2


class StderrRelay:
    """COMMAND's stderr, on its way to ours, with a copy for `take`.

    Args:
        take: Called with each copied chunk, and with b"" when the stream was silent for a
            second or has ended; in a thread of its own.
        dropped: Called with the number of bytes whose copy was dropped.
    """

    def __init__(
        self, take: Callable[[bytes], None], dropped: Callable[[int], None] = lambda _count: None
    ) -> None:
        self.pid: int | None = None
        self._take = take
        self._dropped = dropped
        self._read_end = -1
        self._write_end: int | None = None
        self._link: socket.socket | None = None
        self._all_copied = threading.Event()
        self._draining = False

    def start(self) -> int | None:
        """Start the relay; returns the descriptor for COMMAND's stderr.

        None where there is no stderr or no relay can be had: COMMAND then writes to ours.
        """
        try:
            self._read_end, write_end = _pair_like(2)
        except OSError:
            return None
        self._write_end = write_end
        if not self._spawn() or not self._start_listening():
            self.close_ours()
            os.close(self._read_end)
            return None
        return write_end

    def _start_listening(self) -> bool:
        thread = threading.Thread(target=self._listen, name="vramtop-stderr", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread to be had: a limit on processes or on memory
            self._end_relay()
            return False
        return True

    def close_ours(self) -> None:
        """Close COMMAND's end in this process; without that the stream never ends."""
        if self._write_end is not None:
            os.close(self._write_end)
            self._write_end = None

    def resize(self) -> None:
        """The terminal's window has changed its size."""
        self._tell(b"w")

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that was written so far is where it belongs; False if it takes longer."""
        if self.pid is None:
            return True
        self._draining = True
        self._tell(b"e")
        return self._all_copied.wait(timeout_s)

    def _tell(self, message: bytes) -> None:
        link = self._link
        if link is None:
            return
        try:
            link.send(message, socket.MSG_DONTWAIT)
        except OSError:
            return  # it is busy or gone; the listener deals with the latter

    def _spawn(self) -> bool:
        """Start a relay on the read end; False if it does not come up."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:
            return False
        actions = [
            (os.POSIX_SPAWN_DUP2, self._read_end, 0),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 1),
        ]
        try:
            # Everything blocked: it must outlast what ends the program, to bring its last words.
            self.pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", str(relay.__file__)],
                os.environ,
                file_actions=actions,
                setsid=True,
                setsigmask=sorted(signal.valid_signals()),
            )
        except (OSError, NotImplementedError):
            ours.close()
            return False
        finally:
            theirs.close()
        ours.settimeout(READY_S)
        try:
            came_up = ours.recv(_MESSAGE_BYTES) == b"r"
        except OSError:
            came_up = False
        self._link = ours
        if not came_up:
            self._end_relay()
            return False
        ours.settimeout(None)
        return True

    def _end_relay(self) -> None:
        """Take back a relay that cannot be used."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self.pid is not None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = None

    def _listen(self) -> None:
        """Hand on the copies; start another relay if this one dies before its time."""
        while self._link is not None:
            finished = self._receive(self._link)
            self._take(b"")
            self._link.close()
            self._link = None
            if self.pid is not None:
                _, status = os.waitpid(self.pid, 0)
                finished |= os.waitstatus_to_exitcode(status) in {0, relay.NOBODY_READS}
            if finished:
                break
            if not self._spawn():
                self._relay_ourselves()
                break
        os.close(self._read_end)
        self._all_copied.set()

    def _receive(self, link: socket.socket) -> bool:
        """Copies until the link closes; True if the stream has ended in order."""
        waiting = select.poll()
        waiting.register(link, select.POLLIN)
        finished = False
        while True:
            if not waiting.poll(1000):
                self._take(b"")
                waiting.poll()
            try:
                message = link.recv(_MESSAGE_BYTES)
            except ConnectionResetError:
                # It ended without having read our last word to it. The kernel says so once,
                # before what is still in the queue.
                continue
            except OSError:
                return finished
            if not message:
                return finished
            kind, rest = message[:1], message[1:]
            finished = kind == b"e"
            if finished:
                self._take(b"")
                self._all_copied.set()
            elif kind == b"x":
                self._dropped(int(rest))
            elif kind == b"d":
                before_s = time.thread_time()
                self._take(rest)
                busy_s = time.thread_time() - before_s
                if not self._draining:
                    time.sleep(min(0.25, busy_s * (1 / _SHARE_OF_CORE - 1)))

    def _relay_ourselves(self) -> None:
        """The last resort: nobody else reads, and the program must not be stopped by that."""
        try:
            relay.Relay(self._read_end, None, 2).run()
        except relay.NobodyReadsError:
            return


def _pair_like(descriptor: int) -> tuple[int, int]:
    """(read end, write end) of a pipe, or of a pty if `descriptor` is a terminal.

    The pty changes no byte (the real terminal will), has the real one's size, and is
    nobody's controlling terminal, so keys and job control stay with the real one.

    Raises:
        OSError: neither can be had, or `descriptor` is closed.
    """
    os.fstat(descriptor)
    if not os.isatty(descriptor):
        return os.pipe()
    master, slave = os.openpty()
    attributes = termios.tcgetattr(slave)
    attributes[1] &= ~termios.OPOST
    attributes[3] &= ~(termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
    termios.tcsetattr(slave, termios.TCSANOW, attributes)
    size = fcntl.ioctl(descriptor, termios.TIOCGWINSZ, b"\0" * 8)
    fcntl.ioctl(slave, termios.TIOCSWINSZ, size)
    return master, slave
