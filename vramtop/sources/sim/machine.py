"""A machine with GPUs, and processes on them that live in simulated time.

A workload is a generator: it allocates, frees, and yields the seconds until it goes on. The
machine runs all of them on one time line in integer nanoseconds, so what happens does not
depend on when somebody looks.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from vramtop.samples import OOM_EVIDENCE, TRUTH, Observation
from vramtop.sources.sim.allocator import OutOfMemory
from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.hardware import Board, Device, Share, context_bytes, cut
from vramtop.sources.sim.messages import context_oom, jax_oom, llama_oom, torch_oom, vllm_no_blocks
from vramtop.sources.sim.truth import TRENDS, Risk
from vramtop.units import NS_PER_S

UPTIME_S = 518_400
"""The simulated machine has been up six days when a run begins."""
CLOCK_TICKS_PER_S = 100


Work = Callable[["Process"], Iterator[float]]
"""A workload: from a process to its life."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A process to be.

    Attributes:
        kind: Workload kind, for scoring: kinds are held out one at a time.
        command: Command line.
        work: Makes the workload of a process.
        gpus: Places of the devices it uses, which without MIG are the GPUs' indices; the first
            is its main one.
        user, framework: Process facts.
        watched: It was started by `vramtop record -- ...`: its stderr and exit code are seen.
        hidden: The driver lists it nowhere: only its device shows what it holds.
        main: The run is over when all jobs of this sort have ended.
        pid: A given process id, to make one come twice.
        start_known: Whether its start time can be read.
    """

    kind: str
    command: str
    work: Work
    gpus: tuple[int, ...] = (0,)
    user: str = "ada"
    framework: str | None = "pytorch"
    watched: bool = True
    hidden: bool = False
    main: bool = True
    pid: int | None = None
    start_known: bool = True


class Refused(Exception):  # noqa: N818 - a plan that does not fit is no error of the simulator
    """A program sees beforehand that its plan does not fit, says so and ends."""


@dataclass(slots=True)
class _Phase:
    label: str
    start_ns: int


class Process:
    """A running process; this is what a workload works with.

    Attributes:
        job, pid, start_time, life: Identity. `start_time` in clock ticks since boot.
        shares: What it holds, by the device's place, in the order in which it came to the GPUs.
        dice: Its own stream of draws.
        gpu_busy_pct, mem_busy_pct: What it makes of its GPUs' time.
        risk: What a running out of memory would be due to.
        exit_code: Known once it has ended.
    """

    def __init__(self, machine: Machine, job: Job, pid: int, life: int, dice: Dice) -> None:
        self.machine = machine
        self.job = job
        self.pid = pid
        self.life = life
        self.start_ns = machine.now_ns
        self.start_time: int | None = None
        if job.start_known:
            self.start_time = UPTIME_S * CLOCK_TICKS_PER_S + machine.now_ns // 10_000_000
            self.life = 0
        self.dice = dice
        self.shares: dict[int, Share] = {}
        self.gpu_busy_pct = 0.0
        self.mem_busy_pct = 0.0
        self.risk: Risk | None = None
        self.exit_code: int | None = None
        self.phase_now: _Phase | None = None

    def open(self, ordinal: int = 0, *, size_bytes: int | None = None) -> Share:
        """Create the CUDA context on one of the job's GPUs; the process is listed from now on.

        Raises:
            OutOfMemory: not even the context fits.
        """
        device = self.machine.devices[self.job.gpus[ordinal]]
        share = Share(device)
        size = context_bytes(device.board) if size_bytes is None else size_bytes
        share.demand(size)
        self.shares[device.place] = share
        return share

    def busy(self, gpu_pct: float, mem_pct: float) -> None:
        """Set the load from now on."""
        self.gpu_busy_pct, self.mem_busy_pct = gpu_pct, mem_pct

    def phase(self, label: str) -> None:
        """A new phase begins now (ground truth); the same label goes on."""
        if label not in TRENDS:
            raise ValueError(f"no phase is called {label!r}")
        if self.phase_now is not None and self.phase_now.label == label:
            return
        self.machine.end_phase(self)
        self.phase_now = _Phase(label, self.machine.now_ns)

    @property
    def board(self) -> Board:
        """That of its main GPU."""
        return self.machine.devices[self.job.gpus[0]].board

    @property
    def age_s(self) -> float:
        """Seconds since its start."""
        return (self.machine.now_ns - self.start_ns) / NS_PER_S


@dataclass(order=True, slots=True)
class _Due:
    at_ns: int
    order: int
    run: Callable[[], None] = field(compare=False)


class Machine:
    """Devices, processes and the time line.

    Args:
        boards: One per GPU.
        name: Seeds all draws.

    Attributes:
        now_ns: Time since the start.
        news: Observations that have come up since somebody took them.
        processes: The living ones, in order of birth.
        over_ns: When the last main job ended; None while one lives or is still to come.
    """

    def __init__(self, boards: Sequence[Board], *, name: str) -> None:
        identity = Dice(f"{name}/identity")
        self.name = name
        self.boot_id = identity.uuid()
        self.devices = cut(identity, boards)
        self.now_ns = 0
        self.news: list[Observation] = []
        self.processes: list[Process] = []
        self.over_ns: int | None = None
        self._next_pid = identity.integer(9_000, 30_000)
        self._pids = identity
        self._lives: dict[int, int] = {}
        self._due: list[_Due] = []
        self._order = 0
        self._main_left = 0

    def advance(self, to_ns: int) -> None:
        """Let everything happen that is due until then, that instant included."""
        while self._due and self._due[0].at_ns <= to_ns:
            due = heapq.heappop(self._due)
            self.now_ns = due.at_ns
            due.run()
        self.now_ns = to_ns

    def at(self, seconds: float, run: Callable[[], None]) -> None:
        """Call `run` at a time, in seconds from the start of the run."""
        self._at_ns(max(round(seconds * NS_PER_S), self.now_ns), run)

    def start(self, seconds: float, job: Job) -> None:
        """Start a job at a time, in seconds from the start of the run."""
        self._main_left += job.main
        self.at(seconds, lambda: self._spawn(job))

    def drive(self, script: Iterator[float]) -> None:
        """Run a script that is no process (arrivals of jobs); it yields seconds to wait."""
        wait = next(script, None)
        if wait is not None:
            self._at_ns(self.now_ns + round(wait * NS_PER_S), lambda: self.drive(script))

    def end_phase(self, process: Process) -> None:
        """Tell the truth about the phase that ends now, if one is open."""
        phase = process.phase_now
        process.phase_now = None
        if phase is None or phase.start_ns == self.now_ns:
            return
        self._tell(
            process,
            "phase",
            {
                "label": phase.label,
                "trend": TRENDS[phase.label],
                "start_s": phase.start_ns / NS_PER_S,
                "end_s": self.now_ns / NS_PER_S,
            },
        )

    def _at_ns(self, at_ns: int, run: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, _Due(at_ns, self._order, run))

    def _spawn(self, job: Job) -> None:
        if job.pid is None:
            self._next_pid += self._pids.integer(1, 40)
            pid = self._next_pid
        else:
            pid = job.pid
        life = self._lives.get(pid, -1) + 1
        self._lives[pid] = life
        process = Process(self, job, pid, life, Dice(f"{self.name}/{pid}/{life}"))
        self.processes.append(process)
        self._tell(process, "workload", {"kind": job.kind, "framework": job.framework})
        self._step(process, job.work(process))

    def _step(self, process: Process, work: Iterator[float]) -> None:
        try:
            wait = next(work, None)
        except OutOfMemory as failure:
            self._fail(process, failure)
            return
        except Refused as refusal:
            self._refuse(process, refusal)
            return
        if wait is None:
            process.exit_code = 0
            self._end(process)
        else:
            self._at_ns(
                self.now_ns + max(round(wait * NS_PER_S), 1), lambda: self._step(process, work)
            )

    def _fail(self, process: Process, failure: OutOfMemory) -> None:
        """The allocator gave up: message now, exit a little later with all it still holds."""
        gpu = process.job.gpus[0]
        share = next(reversed(process.shares.values()), None)
        device = self.devices[gpu] if share is None else share.device
        if process.job.watched:
            self._testify(process, device, share, failure)
        risk = process.risk or Risk(cause="unforeseen", stratum="abrupt")
        there = [other for other in self.processes if device.place in other.shares]
        culprit = there[-1] if risk.blame_newest and there else process
        self._tell(
            process,
            "oom",
            {
                "t_s": self.now_ns / NS_PER_S,
                "cause": risk.cause,
                "stratum": risk.stratum,
                "victim_pid": process.pid,
                "culprit_pid": culprit.pid,
                "requested_bytes": failure.segment_bytes,
                "free_bytes": device.free_bytes,
            },
        )
        self._die(process)

    def _refuse(self, process: Process, refusal: Refused) -> None:
        """It ends by its own plan: there is a message, but memory never ran out."""
        device = self.devices[process.job.gpus[0]]
        if process.job.watched:
            self._say(process, device, *vllm_no_blocks())
        self._tell(process, "refused", {"t_s": self.now_ns / NS_PER_S, "cause": str(refusal)})
        self._die(process)

    def _die(self, process: Process) -> None:
        process.exit_code = 1
        process.phase("dying")
        process.busy(0.0, 0.0)
        # A traceback is printed, the interpreter shuts down, the driver tears the context down.
        teardown_ns = round(process.dice.between(1.1, 1.8) * NS_PER_S)
        self._at_ns(self.now_ns + teardown_ns, lambda: self._end(process))

    def _testify(
        self, process: Process, device: Device, share: Share | None, failure: OutOfMemory
    ) -> None:
        ordinal = process.job.gpus.index(device.place)
        framework = process.job.framework
        if share is None:
            text, facts = context_oom()
        elif framework == "jax":
            text, facts = jax_oom(ordinal=ordinal, requested_bytes=failure.segment_bytes)
        elif framework == "llamacpp":
            text, facts = llama_oom(ordinal=ordinal, requested_bytes=failure.segment_bytes)
        else:
            text, facts = torch_oom(
                ordinal=ordinal,
                requested_bytes=failure.segment_bytes,
                total_bytes=device.board.usable_bytes,
                free_bytes=device.free_bytes,
                own_bytes=share.held_bytes,
                others=[
                    (other.pid, other.shares[device.place].held_bytes)
                    for other in self.processes
                    if other is not process
                    and device.place in other.shares
                    and not other.job.hidden
                ],
                allocated_bytes=failure.allocated_bytes,
                unallocated_bytes=failure.reserved_bytes - failure.allocated_bytes,
            )
        self._say(process, device, text, facts)

    def _say(self, process: Process, device: Device, text: str, facts: dict[str, object]) -> None:
        self.news.append(
            Observation(
                what=OOM_EVIDENCE,
                gpu=device.gpu,
                uuid=device.uuid,
                pid=process.pid,
                start_time=process.start_time,
                life=process.life,
                name=str(facts["family"]),
                text=text,
                data=facts,
            )
        )

    def _end(self, process: Process) -> None:
        self.end_phase(process)
        for share in process.shares.values():
            share.give(share.held_bytes)
        process.shares.clear()
        self.processes.remove(process)
        if process.job.main:
            self._main_left -= 1
            if self._main_left == 0:
                self.over_ns = self.now_ns

    def _tell(self, process: Process, name: str, data: dict[str, object]) -> None:
        main = self.devices[process.job.gpus[0]]
        self.news.append(
            Observation(
                what=TRUTH,
                gpu=main.gpu,
                uuid=main.uuid,
                pid=process.pid,
                start_time=process.start_time,
                life=process.life,
                name=name,
                data=data,
            )
        )
