"""One thread that makes NVML calls, and the watchdog that replaces it.

An NVML call on a sick card can block for a minute and cannot be cancelled. So calls are made
on a thread of their own while the thread that keeps time waits for it. When a call does not
return, that thread is left behind with its job and a fresh one goes on with the next job.
(One thread per GPU would do too, at three times the cost per sample.)
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

Job = Callable[[], None]

_SLICE_S = 0.05


class _Worker:
    """A thread that runs the jobs it is handed, one after the other."""

    def __init__(self, returned: list[Job]) -> None:
        self.go = threading.Lock()
        self.done = threading.Lock()
        self.go.acquire()
        self.done.acquire()
        self.claim = threading.Lock()
        self.jobs: Sequence[Job] = ()
        self.position = 0
        self.abandoned = False
        self.failure: BaseException | None = None
        self._returned = returned
        # A daemon: a call that never returns must not keep the interpreter from ending.
        threading.Thread(target=self._run, name="vramtop-nvml", daemon=True).start()

    def _run(self) -> None:
        go, done, claim = self.go, self.done, self.claim
        while True:
            go.acquire()
            jobs = self.jobs
            if not jobs:
                return
            try:
                for position, job in enumerate(jobs, 1):
                    job()
                    # Under a lock, or a thread left behind in the instant its call returns
                    # would run the next job beside its successor.
                    with claim:
                        if self.abandoned:
                            self._returned.append(job)
                            return
                        self.position = position
            except BaseException as error:  # noqa: BLE001 - handed to the thread that waits; it raises it
                self.failure = error
            done.release()


class Sampler:
    """Runs jobs on a thread that is replaced when a job does not return.

    Args:
        give_up: Asked while waiting; True ends the wait early (the source is being closed).
    """

    def __init__(self, give_up: Callable[[], bool]) -> None:
        self._returned: list[Job] = []
        self._worker: _Worker | None = None
        self._give_up = give_up
        self.left_behind = 0

    def run(self, jobs: Sequence[Job], limit_s: float) -> list[Job]:
        """Run `jobs` in order; returns those that are still running after `limit_s` each.

        Raises:
            Whatever a job raised.
        """
        stalled: list[Job] = []
        rest = jobs
        while rest:
            worker = self._worker
            if worker is None:
                worker = self._worker = _Worker(self._returned)
            worker.jobs = rest
            worker.position = 0
            worker.go.release()
            if not worker.done.acquire(timeout=min(limit_s, _SLICE_S)):
                at = self._watch(worker, limit_s)
                if at is not None:
                    self._worker = None
                    self.left_behind += 1
                    if at < 0:
                        return stalled
                    stalled.append(rest[at])
                    rest = rest[at + 1 :]
                    continue
            if worker.failure is not None:
                self._worker = None
                raise worker.failure
            return stalled
        return stalled

    def _watch(self, worker: _Worker, limit_s: float) -> int | None:
        """Wait on; the position of a job that does not return, -1 when told to give up."""
        position, waited_s = 0, 0.0
        step_s = min(_SLICE_S, limit_s)
        while True:
            with worker.claim:
                if worker.position != position or position == len(worker.jobs):
                    position, waited_s = worker.position, 0.0
                elif waited_s >= limit_s:
                    worker.abandoned = True
                    return position
                elif self._give_up():
                    worker.abandoned = True
                    return -1
            if worker.done.acquire(timeout=step_s):
                return None
            waited_s += step_s

    def returned(self) -> list[Job]:
        """Jobs left behind earlier that have come back since the last call."""
        if not self._returned:
            return []
        jobs = self._returned[:]
        del self._returned[: len(jobs)]
        return jobs

    def close(self) -> None:
        """Let the thread end."""
        if self._worker is not None:
            self._worker.jobs = ()
            self._worker.go.release()
            self._worker = None
