"""One writer per recording. Standard library only.

`flock` on `run.parquet.lock` holds as long as the process lives, however it dies. Where a
filesystem has no `flock` (some NFS mounts), the process named in the lock file decides.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from pathlib import Path

from vramtop.errors import LockedError, RecordingError

_NO_FLOCK = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
_TRIES = 5
_PAUSE_S = 0.02


def lock_path(path: Path) -> Path:
    """The lock file of the recording `path`."""
    return path.with_name(path.name + ".lock")


class WriterLock:
    """Held while a recording is written or recovered.

    Args:
        path: The recording.

    Raises:
        LockedError: another process holds it.
        RecordingError: the directory is missing or cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self._path = lock_path(path)
        self._fd = self._acquire()
        # Whose it is matters to people, and where there is no flock; a full disk does not stop us.
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps({"pid": os.getpid()}).encode("ascii"), 0)

    def _acquire(self) -> int:
        tries = _TRIES
        while True:
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise unwritable(self._path.parent, error) from error
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                os.close(fd)
                if error.errno in _NO_FLOCK:
                    return self._acquire_exclusively()
                # A reader that asks whether somebody writes holds it for an instant.
                tries -= 1
                if not tries:
                    raise self._locked() from error
                time.sleep(_PAUSE_S)
                continue
            # The former holder may have removed the file between our open and our lock.
            try:
                current = self._path.stat().st_ino
            except FileNotFoundError:
                current = 0
            if current == os.fstat(fd).st_ino:
                return fd
            os.close(fd)

    def _acquire_exclusively(self) -> int:
        holder = _holder(self._path)
        if holder is not None and not Path(f"/proc/{holder}").exists():
            self._path.unlink(missing_ok=True)
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise self._locked() from error

    def _locked(self) -> LockedError:
        holder = _holder(self._path)
        who = "another process" if holder is None else f"process {holder}"
        return LockedError(
            f"{self._path.with_suffix('').name} is being written by {who}",
            hint="wait until it ends, or choose another file with -o",
        )

    def release(self) -> None:
        """Remove the lock file; safe to call twice."""
        if self._fd < 0:
            return
        # A directory that lets nobody write keeps the file; without the lock it means nothing.
        with contextlib.suppress(OSError):
            self._path.unlink()
        os.close(self._fd)
        self._fd = -1


def is_locked(path: Path) -> bool:
    """Whether a live process is writing the recording `path`. Changes nothing."""
    try:
        fd = os.open(lock_path(path), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _NO_FLOCK:
            return True
        holder = _holder(lock_path(path))
        return holder is not None and Path(f"/proc/{holder}").exists()
    finally:
        os.close(fd)
    return False


def unwritable(directory: Path, error: OSError) -> RecordingError:
    """What to tell the user when a file cannot be made in `directory`."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return RecordingError(
            f"{directory} is no directory", hint="make it first, or choose another with -o"
        )
    return RecordingError(
        f"cannot write in {directory}: {error.strerror}",
        hint="choose another place with -o",
    )


def _holder(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_bytes())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
