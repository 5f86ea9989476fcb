"""The relay: a process of its own that copies the program's stderr to where it belongs.

    program --(pipe or pty, fd 0)--> relay --> the real stderr (fd 2)
                                       `-----> a copy to the recorder (fd 1), never waited for

The program must never write into a pipe that ends in the recorder: when the recorder is
killed, such a pipe kills the program with it. So this small process stands between, in a
session of its own, deaf to the terminal's signals, and ends only when the program and its
children have closed their stderr. It imports nothing of vramtop and is run by path.

The link to the recorder is a SOCK_SEQPACKET socket, one message per read or write:

    to the recorder     r ready | d BYTES a copy | x N bytes of copy were dropped | e all copied
    from the recorder   e say when everything written so far is copied | w window size changed

When the recorder does not keep up, the oldest copies are dropped: the last words matter.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import sys
from collections import deque

CHUNK_BYTES = 65536
BACKLOG_BYTES = 1 << 20
NOBODY_READS = 3
"""Exit code: the real stderr is gone, so the program should learn it from its next write."""

_SETTLE_MS = 20  # a pty hands data over from a kernel thread: silence shorter than this is none
_LAST_COPIES_MS = 1000
_GET_SIZE, _SET_SIZE = 0x5413, 0x5414  # TIOCGWINSZ, TIOCSWINSZ on Linux


class NobodyReadsError(Exception):
    """The real stderr cannot be written any more."""


class Relay:
    """Copies one stream; knows nothing of what is in it.

    Args:
        source: File descriptor to read: a pipe, or the master of a pty.
        link: Socket to the recorder; None without one.
        target: The real stderr.
    """

    def __init__(self, source: int, link: int | None, target: int) -> None:
        self._source = source
        self._link = link
        self._target = target
        self._target_is_terminal = os.isatty(target)
        self._source_is_terminal = os.isatty(source)
        self._backlog: deque[bytes] = deque()
        self._backlog_bytes = 0
        self._dropped_bytes = 0
        self._poll = select.poll()
        self._poll.register(source, select.POLLIN)
        if link is not None:
            os.set_blocking(link, False)
            self._poll.register(link, select.POLLIN)

    def run(self) -> None:
        """Copy until every writer has closed the source.

        Raises:
            NobodyReadsError: the target is gone.
        """
        self._say(b"r")
        while True:
            ready = dict(self._poll.poll())
            if self._link is not None and self._link in ready:
                self._hear(ready[self._link])
            if self._source in ready and not self._copy():
                break
        self._say(b"e")
        self._flush_backlog()

    def _copy(self) -> bool:
        """Copy one chunk; False at the end of the stream."""
        try:
            chunk = os.read(self._source, CHUNK_BYTES)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno == errno.EIO:  # how a pty says that its last writer has closed
                return False
            raise
        if not chunk:
            return False
        self._match_size()
        self._write(chunk)
        self._say(b"d" + chunk)
        return True

    def _write(self, chunk: bytes) -> None:
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(self._target, view) :]
            except BlockingIOError:  # noqa: PERF203 - another user of it made it non-blocking
                waiting = select.poll()
                waiting.register(self._target, select.POLLOUT)
                waiting.poll()
            except OSError as error:
                if error.errno in {errno.EPIPE, errno.EBADF} or (
                    error.errno == errno.EIO and self._target_is_terminal
                ):
                    raise NobodyReadsError from error
                return  # a full disk: as without us, this much is lost and the next may pass

    def _match_size(self) -> None:
        """Give the program's terminal the size of the real one."""
        if not (self._source_is_terminal and self._target_is_terminal):
            return
        size = fcntl.ioctl(self._target, _GET_SIZE, b"\0" * 8)
        if size != fcntl.ioctl(self._source, _GET_SIZE, b"\0" * 8):
            fcntl.ioctl(self._source, _SET_SIZE, size)

    def _hear(self, happened: int) -> None:
        if happened & select.POLLOUT:
            self._send_backlog()
        if happened & ~select.POLLOUT:
            self._take_message()

    def _take_message(self) -> None:
        if self._link is None:  # sending has found out that the recorder is gone
            return
        try:
            message = os.read(self._link, 64)
        except BlockingIOError:
            return
        except OSError:
            message = b""
        if message == b"w":
            self._match_size()
        elif message == b"e":
            settled = select.poll()
            settled.register(self._source, select.POLLIN)
            while settled.poll(_SETTLE_MS):
                if not self._copy():
                    break
            self._say(b"e")
        elif not message:
            self._forget_recorder()

    def _forget_recorder(self) -> None:
        if self._link is not None:
            self._poll.unregister(self._link)
            self._link = None
        self._backlog.clear()

    def _say(self, message: bytes) -> None:
        """Queue a message for the recorder; the oldest copies give way when it lags."""
        if self._link is None:
            return
        self._backlog.append(message)
        self._backlog_bytes += len(message)
        while self._backlog_bytes > BACKLOG_BYTES and len(self._backlog) > 1:
            oldest = self._backlog.popleft()
            self._backlog_bytes -= len(oldest)
            if oldest[:1] == b"d":
                self._dropped_bytes += len(oldest) - 1
        self._send_backlog()

    def _send_backlog(self) -> None:
        if self._link is None:
            return
        try:
            while self._backlog:
                if self._dropped_bytes:
                    os.write(self._link, b"x%d" % self._dropped_bytes)
                    self._dropped_bytes = 0
                os.write(self._link, self._backlog[0])
                self._backlog_bytes -= len(self._backlog.popleft())
        except BlockingIOError:
            self._poll.modify(self._link, select.POLLIN | select.POLLOUT)
            return
        except OSError:
            self._forget_recorder()
            return
        self._poll.modify(self._link, select.POLLIN)

    def _flush_backlog(self) -> None:
        """The stream is over: give the recorder a moment for what it has not taken yet."""
        writable = select.poll()
        while self._backlog and self._link is not None:
            writable.register(self._link, select.POLLOUT)
            if not writable.poll(_LAST_COPIES_MS):
                return
            self._send_backlog()


def main() -> int:
    """Relay fd 0 to fd 2 with the recorder on fd 1; returns the exit code."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # locks and pipes of the caller's are not ours
    try:
        Relay(0, 1, 2).run()
    except NobodyReadsError:
        return NOBODY_READS
    return 0


if __name__ == "__main__":
    sys.exit(main())
