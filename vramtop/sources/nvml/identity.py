"""Who a PID is: start times, held by pidfds so that nothing in /proc is read per tick.

A PID alone is no identity; the kernel uses it again. (PID, start time) is one. A pidfd stays
bound to one process: while it says that the process lives, the PID still means the same, and
one epoll call answers that for all processes at once. Without pidfds (old kernel, sandbox,
too many processes) the start time is read again for every list.
"""

from __future__ import annotations

import os
import select
from pathlib import Path

_HELD_LIMIT = 256
"""Pidfds held at once; beyond that, and for processes that cannot be held, stat is read."""

_INIT_PID_NAMESPACE = 0xEFFFFFFC
"""Inode of the initial PID namespace, a constant of the kernel."""


class Identity:
    """One process, as long as some GPU lists it.

    Attributes:
        pid: As the driver reports it.
        start_time: Field 22 of /proc/PID/stat; None if the process is not visible here.
        comm: Its name in the same file.
        life: Counts the lives of a PID without start time.
        exited: It has ended, though the driver may still list it.
        uuids: Devices that list it.
    """

    __slots__ = ("comm", "exited", "fd", "life", "pid", "start_time", "uuids")

    def __init__(self, pid: int, start_time: int | None, comm: str | None, life: int) -> None:
        self.pid = pid
        self.start_time = start_time
        self.comm = comm
        self.life = life
        self.fd: int | None = None
        self.exited = False
        self.uuids: set[str] = set()


class Identities:
    """The processes on all GPUs.

    Args:
        visible: Whether the driver's PIDs mean processes of this PID namespace.
        proc: Where /proc is.
        hold: Whether pidfds may be used.

    Attributes:
        epoch: Changes whenever some PID may mean another process than before.
    """

    def __init__(
        self, *, visible: bool = True, proc: Path = Path("/proc"), hold: bool = True
    ) -> None:
        self._visible = visible
        self._proc = str(proc)
        self._hold = hold and hasattr(os, "pidfd_open")
        self._known: dict[int, Identity] = {}
        self._by_fd: dict[int, Identity] = {}
        self._unheld: set[int] = set()
        self._lives: dict[int, int] = {}
        self._epoll = select.epoll()
        self.epoch = 0

    def refresh(self) -> None:
        """Find out which processes have ended, or been replaced, since the last call.

        Call it after the lists were read: a process that lives now is the one that was listed.
        """
        for fd, _ in self._epoll.poll(0):
            identity = self._by_fd.pop(fd)
            self._release(identity)
            identity.exited = True
            self._unheld.add(identity.pid)
            self.epoch += 1
        for pid in tuple(self._unheld):
            self._check(self._known[pid])

    def _check(self, identity: Identity) -> None:
        """Compare an identity that no pidfd holds with what /proc says now."""
        start_time, _ = self._stat(identity.pid)
        if start_time is None:
            # Ended, and perhaps still listed while the driver frees its memory. A process
            # that never was visible may have been replaced unnoticed; lists tell no more.
            return
        if start_time != identity.start_time:
            self._forget(identity)
            self.epoch += 1

    def get(self, pid: int) -> Identity:
        """The process that `pid` means now."""
        identity = self._known.get(pid)
        if identity is None:
            identity = self._meet(pid)
        return identity

    def _meet(self, pid: int) -> Identity:
        fd = self._open(pid)
        start_time, comm = self._stat(pid)
        life = 0
        if start_time is None:
            life = self._lives.get(pid, -1) + 1
            self._lives[pid] = life
        identity = Identity(pid, start_time, comm, life)
        if fd is None:
            self._unheld.add(pid)
        else:
            # Opened before stat was read and still alive after it: the start time is its own.
            identity.fd = fd
            self._by_fd[fd] = identity
            self._epoll.register(fd, select.EPOLLIN)
        self._known[pid] = identity
        self.epoch += 1
        return identity

    def leave(self, identity: Identity, uuid: str) -> None:
        """A device lists this process no longer."""
        identity.uuids.discard(uuid)
        if not identity.uuids and self._known.get(identity.pid) is identity:
            self._forget(identity)

    def _forget(self, identity: Identity) -> None:
        del self._known[identity.pid]
        self._unheld.discard(identity.pid)
        if identity.fd is not None:
            del self._by_fd[identity.fd]
            self._release(identity)

    def _release(self, identity: Identity) -> None:
        if identity.fd is not None:
            self._epoll.unregister(identity.fd)
            os.close(identity.fd)
            identity.fd = None

    def _open(self, pid: int) -> int | None:
        if not self._visible or not self._hold or len(self._by_fd) >= _HELD_LIMIT:
            return None
        try:
            return os.pidfd_open(pid)
        except OSError:
            return None

    def _stat(self, pid: int) -> tuple[int | None, str | None]:
        """Start time and name from /proc/PID/stat."""
        if not self._visible:
            return None, None
        try:
            fd = os.open(f"{self._proc}/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None, None
        try:
            line = os.read(fd, 1024)
        except OSError:
            return None, None
        finally:
            os.close(fd)
        # The name stands in parentheses and may contain any, so look from the end.
        head, _, tail = line.rpartition(b")")
        fields = tail.split()
        if len(fields) < 20 or not fields[19].isdigit():
            return None, None
        comm = head.partition(b"(")[2].decode("utf-8", "replace")
        return int(fields[19]), "".join(c for c in comm if c.isprintable()) or None

    def close(self) -> None:
        """Let go of every pidfd."""
        for identity in list(self._known.values()):
            self._forget(identity)
        self._epoll.close()


def pids_are_local(driver: str | None, namespace_inode: int | None) -> bool:
    """Whether the driver's PIDs are those of our PID namespace.

    Before 535.113 drivers reported the host's PIDs inside containers too. Taken for PIDs of
    the container they would name strangers.

    >>> pids_are_local("535.104.05", 4026532201), pids_are_local("580.95.05", 4026532201)
    (False, True)
    >>> pids_are_local("470.82.01", 0xEFFFFFFC), pids_are_local(None, 0xEFFFFFFC)
    (True, True)
    """
    if namespace_inode == _INIT_PID_NAMESPACE:
        return True
    if driver is None or namespace_inode is None:
        return False
    parts = [int(part) if part.isdigit() else 0 for part in driver.split(".")]
    return parts >= [535, 113]


def pid_namespace() -> int | None:
    """Inode of our PID namespace; None where /proc does not say."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None
