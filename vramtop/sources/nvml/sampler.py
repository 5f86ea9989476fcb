"""One thread that makes NVML calls, and the watchdog that replaces it.

An NVML call on a sick card can block for a minute and cannot be cancelled. So calls are made
on a thread of their own, and the thread that wants the results watches it. When a call does
not return, its thread is left behind with it and a fresh one goes on with the next job.
(One thread per GPU would do too, at three times the cost per sample.)

The thread keeps time itself, too. At one tick a second, waking a thread costs about as much
as all it then does, so nobody tells it to begin; it wakes, works, and wakes the other once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

Job = Callable[[], None]
Refill = Callable[[], list[Job]]

_SLICE_S = 0.05
_RESTING = -1


class _Worker:
    """A thread that runs jobs from `position` on, then those of the next round, and so on."""

    def __init__(self, sampler: Sampler, jobs: list[Job], position: int) -> None:
        self.claim = threading.Lock()
        self.jobs = jobs
        self.position = position
        self.abandoned = False
        self.ended = False
        self.failure: BaseException | None = None
        self._sampler = sampler
        # A daemon: a call that never returns must not keep the interpreter from ending.
        threading.Thread(target=self._run, name="vramtop-nvml", daemon=True).start()

    def _run(self) -> None:
        try:
            while self._run_round() and self._refill():
                pass
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits; it raises it
            self.failure = error
        self.ended = True
        if not self.abandoned:
            self._sampler.signal()

    def _run_round(self) -> bool:
        """Run the jobs, and those they append; returns False if left behind meanwhile."""
        jobs, position, claim = self.jobs, self.position, self.claim
        while position < len(jobs):
            job = jobs[position]
            job()
            position += 1
            # Under a lock, or a thread left behind in the instant its call returns would run
            # the next job beside its successor.
            with claim:
                if self.abandoned:
                    self._sampler.came_back(job)
                    return False
                self.position = position
        return True

    def _refill(self) -> bool:
        """Get the jobs of the next round; returns False if there is none."""
        refill = self._sampler.refill
        if refill is None:
            return False
        self.position = _RESTING
        jobs = refill()
        self._sampler.stalled = []
        with self.claim:
            self.jobs, self.position = jobs, 0
        return bool(jobs)


class Sampler:
    """Runs jobs on a thread that is replaced when a job does not return.

    Args:
        give_up: Asked while waiting; True ends a wait early (the source is being closed).

    Attributes:
        stalled: Jobs of the current round that did not return; later jobs may look here.
        refill: Gives the jobs of the next round, and sleeps until it is time for it; None or
            an empty list ends the thread.
    """

    def __init__(self, give_up: Callable[[], bool]) -> None:
        self.stalled: list[Job] = []
        self.refill: Refill | None = None
        self._patient: Collection[Job] = ()
        self._limit_s = 0.0
        self._returned: list[Job] = []
        self._worker: _Worker | None = None
        self._give_up = give_up
        self._ready = threading.Lock()
        self._ready.acquire()

    def run(self, jobs: list[Job], limit_s: float) -> list[Job]:
        """Run `jobs` once; returns those that are still running after `limit_s` each.

        Raises:
            Whatever a job raised.
        """
        self.start(None, jobs, limit_s=limit_s)
        while self.wait(0.0):
            pass
        return self.stalled

    def start(
        self, refill: Refill | None, jobs: list[Job], *, limit_s: float,
        patient: Collection[Job] = (),
    ) -> None:  # fmt: skip
        """Begin with `jobs`, then round after round of what `refill` gives.

        Args:
            refill: See the class.
            jobs: The first round.
            limit_s: When a job counts as stalled.
            patient: Jobs that make no call that can stall; they are waited for.
        """
        self.refill, self._limit_s, self._patient = refill, limit_s, patient
        self.stalled = []
        # What an earlier thread signalled is not for this one.
        self._ready.acquire(blocking=False)
        self._worker = _Worker(self, jobs, 0)

    def signal(self) -> None:
        """From a job: there is something for the thread that waits."""
        # Only this thread releases and only the waiting one acquires, so what looks locked
        # stays locked, and a signal that is still pending serves for both.
        if self._ready.locked():
            self._ready.release()

    def wait(self, sleep_s: float) -> bool:
        """Wait for a signal, and replace the thread if a job stalls meanwhile.

        Args:
            sleep_s: How long the thread will be asleep first.

        Returns:
            False when the thread has ended, or was left behind to give up.

        Raises:
            Whatever a job raised.
        """
        worker = self._worker
        if worker is None:
            return False
        if not worker.ended:
            wait_s = sleep_s + min(_SLICE_S, self._limit_s)
            if not self._ready.acquire(timeout=wait_s) and not worker.ended:
                self._watch(worker)
                worker = self._worker
        if worker is None:
            return False
        if worker.failure is not None:
            self._worker = None
            raise worker.failure
        return not worker.ended

    def _watch(self, worker: _Worker) -> None:
        """Wait for a signal, looking whether the thread gets on."""
        step_s = min(_SLICE_S, self._limit_s)
        jobs, position, waited_s = worker.jobs, worker.position, 0.0
        while not self._ready.acquire(timeout=step_s):
            waited_s += step_s
            with worker.claim:
                at = worker.position
                if worker.jobs is not jobs or at != position:
                    jobs, position, waited_s = worker.jobs, at, 0.0
                if not 0 <= at < len(jobs) or jobs[at] in self._patient:
                    waited_s = 0.0
                    continue
                if waited_s < self._limit_s and not self._give_up():
                    continue
                worker.abandoned = True
            self.stalled.append(jobs[at])
            if self._give_up():
                self._worker = None
                return
            worker = self._worker = _Worker(self, jobs, at + 1)
            position, waited_s = at + 1, 0.0

    def came_back(self, job: Job) -> None:
        """From a thread that was left behind: its job is done."""
        self._returned.append(job)

    def returned(self) -> list[Job]:
        """Jobs left behind earlier that have come back since the last call."""
        if not self._returned:
            return []
        jobs = self._returned[:]
        del self._returned[: len(jobs)]
        return jobs

    def finish(self) -> bool:
        """Wait for the thread to end, or leave it behind; returns whether it has ended.

        `refill` must give nothing any more, and the sampler must be told to give up.
        """
        while self.wait(0.0):
            pass
        ended = self._worker is not None
        self._worker = None
        return ended
