"""The scenarios: which GPUs there are, which jobs run on them, what goes wrong.

To add one: write or choose a workload, add a function that fills a machine, and list it in
`SCENARIOS`. A change that alters what a seed gives raises the scenario's `version`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from vramtop.errors import UsageError
from vramtop.sources.sim import workloads_serving as serving
from vramtop.sources.sim import workloads_training as training
from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.faults import ClockStep, Loss, Missing, Note, Silence, Troubles
from vramtop.sources.sim.hardware import A100, H100, RTX4090, Board
from vramtop.sources.sim.machine import Job, Machine
from vramtop.sources.sim.training import LARGE, MEDIUM
from vramtop.units import NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of run.

    Attributes:
        name: As given on the command line.
        text: One line for people.
        boards: The GPUs.
        fill: Starts the jobs; the dice decide what differs between seeds.
        duration_s: How long a run is unless somebody says otherwise.
        tail_s: How long it goes on after the last main job has ended.
        ends: How it ends, as ground truth for a whole run: a stratum, `none`, or `mixed`
            where the seed decides.
        troubles: What goes wrong with the looking.
        version: Raised when what a seed gives has changed.
    """

    name: str
    text: str
    boards: Sequence[Board]
    fill: Callable[[Machine, Dice], None]
    duration_s: float = 1800.0
    tail_s: float = 20.0
    ends: str = "none"
    troubles: Troubles = field(default_factory=Troubles)
    version: int = 1

    def build(self, seed: int) -> Machine:
        """A machine at time zero with all jobs scheduled."""
        name = f"{self.name}/{seed}"
        machine = Machine(self.boards, name=name)
        self.fill(machine, Dice(f"{name}/script"))
        return machine


def _train(kind: str, work: training.Work, **more: object) -> Job:
    command = f"python train.py --config configs/{kind}.yaml"
    return Job(kind=kind, command=command, work=work, **more)  # type: ignore[arg-type]


def _alone(kind: str, make: Callable[[], training.Work]) -> Callable[[Machine, Dice], None]:
    """One training job that comes to an idle GPU after some seconds."""

    def fill(machine: Machine, dice: Dice) -> None:
        machine.start(dice.between(3.0, 8.0), _train(kind, make()))

    return fill


def _variable_length(machine: Machine, dice: Dice) -> None:
    machine.start(dice.between(3.0, 8.0), _train("variable-length", training.variable_length()))


def _kv_cache(machine: Machine, dice: Dice) -> None:
    work = serving.growing_chats(chance=(0.02, dice.between(0.13, 0.18)))
    machine.start(
        dice.between(3.0, 8.0),
        Job(kind="kv-cache-growth", command="python serve_chat.py --model 7b", work=work),
    )


def _prealloc(machine: Machine, dice: Dice) -> None:
    work = serving.prealloc_server(weights_gib=dice.pick((7.5, 15.0, 27.0, 61.0)))
    machine.start(
        dice.between(2.0, 5.0),
        Job(
            kind="prealloc-server",
            command="vllm serve some-org/some-model --gpu-memory-utilization 0.92",
            work=work,
            framework="vllm",
            user="serve",
        ),
    )


def _jax(machine: Machine, dice: Dice) -> None:
    machine.start(
        dice.between(2.0, 5.0),
        Job(
            kind="jax-prealloc",
            command="python -m trainer.main --backend=gpu",
            work=serving.jax_training(),
            framework="jax",
        ),
    )


def _second_tenant(machine: Machine, dice: Dice) -> None:
    """The one who arrives does not fit, or fits until the other one evaluates again."""
    resident_fails = dice.chance(0.5)
    if resident_fails:
        resident = training.evaluations(LARGE, every_s=210.0, batch_ratio=5.0, risk=serving.TENANT)
        # It arrives between two evaluations and takes what looks free then.
        at_s, leaves_gib, then_gib = dice.between(520.0, 620.0), dice.between(1.5, 3.0), 0.0
    else:
        resident = training.steady(LARGE)
        at_s, leaves_gib, then_gib = dice.between(500.0, 700.0), dice.between(6.0, 18.0), 30.0
    machine.start(4.0, _train("tenant-resident", resident))
    newcomer = Job(
        kind="tenant-newcomer",
        command="python generate.py --model 13b --batch 8",
        work=serving.loader(
            size_gib=0.0,
            load_s=dice.between(15.0, 30.0),
            leaves_gib=leaves_gib,
            then_gib=then_gib,
        ),
        user="grace",
        main=not resident_fails,
    )
    machine.start(at_s, newcomer)


def _evaluation(machine: Machine, dice: Dice) -> None:
    fatal = dice.integer(3, 5) if dice.chance(0.4) else None
    machine.start(
        dice.between(3.0, 8.0),
        _train("evaluation-spike", training.evaluations(fatal_from=fatal)),
    )


def _multi_gpu(machine: Machine, dice: Dice) -> None:
    """Four ranks; every rank leaves a stray context on GPU 0; two other tenants."""
    began = dice.between(3.0, 6.0)
    for rank in range(4):
        gpus = (rank,) if rank == 0 else (rank, 0)
        work = training.steady(LARGE.scaled(0.9), activation_gib=10.0)
        job = Job(
            kind="data-parallel",
            command=f"python train.py --local-rank {rank}",
            work=work if rank == 0 else training.with_stray_context(work),
            gpus=gpus,
        )
        machine.start(began + 0.3 * rank, job)
    for gpu in (2, 3):
        machine.start(
            0.0,
            Job(
                kind="small-server",
                command="llama-server -m model-7b-q4.gguf -ngl 99",
                work=serving.loader(size_gib=5.1, load_s=6.0, busy_pct=9.0),
                gpus=(gpu,),
                user="grace",
                framework="llamacpp",
                watched=False,
            ),
        )


def _shared_server(machine: Machine, dice: Dice) -> None:
    """Eight GPUs of a laboratory: long trainings, idle notebooks, servers, short jobs."""
    users = ("ada", "grace", "alan", "barbara", "edsger")
    makers: tuple[Callable[[], training.Work], ...] = (
        lambda: training.steady(LARGE.scaled(0.62)),
        lambda: training.checkpoints(LARGE.scaled(0.62)),
        lambda: training.variable_length(LARGE.scaled(0.5), step_s=2.5),
        lambda: training.epochs(LARGE.scaled(0.6)),
    )
    for gpu in range(6):
        work = dice.pick(makers)()
        machine.start(
            dice.between(0.0, 90.0),
            _train("shared-training", work, gpus=(gpu,), user=dice.pick(users), watched=False),
        )
    server = serving.prealloc_server(utilization=0.6)
    machine.start(
        0.0,
        Job(kind="shared-server", command="vllm serve some-org/some-model", work=server, gpus=(6,),
            framework="vllm", user="serve", watched=False),
    )  # fmt: skip
    for number in range(24):
        cells = tuple(dice.between(0.2, 1.4) for _ in range(dice.integer(1, 3)))
        machine.start(
            dice.between(0.0, 240.0),
            Job(
                kind="notebook",
                command="python -m ipykernel_launcher -f kernel.json",
                work=serving.notebook(cells=cells, pause_s=dice.between(20.0, 200.0)),
                gpus=(number % 8,),
                user=dice.pick(users),
                watched=False,
                main=False,
            ),
        )

    def arrivals() -> Iterator[float]:
        while True:
            yield dice.curve(((0.0, 1.0), (0.5, 14.0), (0.9, 50.0), (1.0, 120.0)))
            job = serving.loader(
                size_gib=dice.between(1.0, 9.0),
                load_s=dice.between(2.0, 12.0),
                then_gib=dice.between(0.5, 3.0),
                life_s=dice.between(10.0, 240.0),
            )
            machine.start(
                machine.now_ns / NS_PER_S,
                Job(
                    kind="short-job",
                    command="python evaluate.py --split test",
                    work=job,
                    gpus=(dice.integer(0, 7),),
                    user=dice.pick(users),
                    watched=False,
                    main=False,
                ),
            )

    machine.drive(arrivals())


def _training_oom(machine: Machine, dice: Dice) -> None:
    machine.start(
        0.0,
        Job(
            kind="notebook",
            command="python -m ipykernel_launcher -f kernel.json",
            work=serving.notebook(cells=(1.3,), pause_s=2.0),
            user="grace",
            watched=False,
            main=False,
        ),
    )
    machine.start(dice.between(7.0, 9.0), _train("training-oom", training.demo()))


def _gaps_and_losses(machine: Machine, dice: Dice) -> None:
    """Short lives on three small GPUs; a PID that comes twice, with and without start times."""
    machine.start(2.0, _train("faults", training.steady(MEDIUM, activation_gib=2.0, load_s=6.0)))
    machine.start(4.0, _train("faults", training.steady(MEDIUM, activation_gib=3.0, load_s=5.0),
                              gpus=(1,)))  # fmt: skip
    for at_s, known, pid in (
        (10.0, True, 4_100), (31.0, True, 4_100), (12.0, False, 4_200), (36.0, False, 4_200),
    ):  # fmt: skip
        machine.start(at_s, _brief(2, dice, life_s=9.0, pid=pid, known=known))
    for at_s in range(15, 110, 4):
        machine.start(at_s + dice.share(), _brief(2, dice, life_s=dice.between(0.2, 3.0)))


def _brief(
    gpu: int, dice: Dice, *, life_s: float, pid: int | None = None, known: bool = True
) -> Job:
    return Job(
        kind="short-job",
        command="python probe.py",
        work=serving.loader(size_gib=dice.between(0.3, 1.5), load_s=0.8, life_s=life_s),
        gpus=(gpu,),
        pid=pid,
        start_known=known,
        watched=False,
        main=False,
    )


_TROUBLES = Troubles(
    silences=(
        Silence(start_s=40.0, stop_s=49.5, reason="the recorder was stopped (SIGSTOP)"),
        Silence(start_s=95.0, stop_s=98.2, reason="NVML did not answer for 3 s"),
    ),
    losses=(Loss(start_s=60.0, stop_s=80.0, gpu=1, reason="GPU is lost"),),
    missing=(
        Missing(start_s=22.0, stop_s=30.0, gpu=0, columns=("gpu_util_pct", "mem_util_pct"),
                reason="NVML: Unknown Error"),
        Missing(start_s=52.0, stop_s=57.0, gpu=0, columns=("used_bytes", "free_bytes"),
                reason="NVML: Unknown Error"),
        Missing(start_s=70.0, stop_s=76.0, gpu=2, columns=("processes",),
                reason="the driver hides what processes hold"),
    ),
    clock_steps=(ClockStep(at_s=85.0, step_ns=-1_500_000_000),),
    notes=(Note(at_s=20.0, text="the probes begin"),),
)  # fmt: skip

_ALL = (
    Scenario(
        name="steady-training", boards=(H100,), fill=_alone("steady-training", training.steady),
        text="one training, a plateau from its second step on",
    ),
    Scenario(
        name="variable-length", boards=(H100,), fill=_variable_length, duration_s=3600.0,
        text="training on texts: each record length raises the reservation",
    ),
    Scenario(
        name="slow-leak", boards=(H100,), fill=_alone("slow-leak", training.leak),
        duration_s=3600.0, ends="gradual",
        text="training that keeps something of every step, until it runs out",
    ),
    Scenario(
        name="leak-under-sawtooth", boards=(H100,), duration_s=3600.0, ends="gradual",
        fill=_alone("leak-under-sawtooth", training.leak_under_sawtooth),
        text="rollouts and emptied caches draw a sawtooth that creeps upward",
    ),
    Scenario(
        name="kv-cache-growth", boards=(H100,), fill=_kv_cache, duration_s=3600.0, ends="gradual",
        text="chats whose caches grow, ever more of them at once, until it runs out",
    ),
    Scenario(
        name="prealloc-server", boards=(H100,), fill=_prealloc,
        text="a server like vLLM brings itself to 92 % and stays there",
    ),
    Scenario(
        name="jax-prealloc", boards=(H100,), fill=_jax,
        text="a JAX program takes three quarters at once and stays there",
    ),
    Scenario(
        name="fragmentation", boards=(RTX4090,), fill=_alone("fragmentation", training.fragmenting),
        duration_s=3600.0, ends="gradual",
        text="tensors in use stay constant, the splintered cache grows until it runs out",
    ),
    Scenario(
        name="second-tenant", boards=(H100,), fill=_second_tenant, ends="abrupt",
        text="a second process arrives on a busy GPU, and one of the two runs out",
    ),
    Scenario(
        name="evaluation-spike", boards=(H100,), fill=_evaluation, ends="mixed",
        text="evaluations need more for some seconds; for some seeds too much",
    ),
    Scenario(
        name="checkpoint-saves", boards=(H100,),
        fill=_alone("checkpoint-saves", training.checkpoints),
        text="every five minutes the state is gathered on the GPU and written",
    ),
    Scenario(
        name="epochs", boards=(H100,), fill=_alone("epochs", training.epochs),
        text="epochs with validation and an emptied cache between them",
    ),
    Scenario(
        name="startup-oom", boards=(H100,), fill=_alone("startup-oom", training.startup_failure),
        duration_s=300.0, ends="startup",
        text="the weights fit, the first steps do not",
    ),
    Scenario(
        name="burst-oom", boards=(H100,), fill=_alone("burst-oom", training.burst),
        duration_s=900.0, ends="abrupt",
        text="a plateau, then all memory is taken within 3 s",
    ),
    Scenario(
        name="multi-gpu", boards=(H100,) * 4, fill=_multi_gpu,
        text="four ranks of one training on four GPUs, with other tenants",
    ),
    Scenario(
        name="shared-server", boards=(A100,) * 8, fill=_shared_server, ends="mixed",
        text="eight GPUs and over thirty processes that come and go",
    ),
    Scenario(
        name="training-oom", boards=(RTX4090,), fill=_training_oom, duration_s=900.0,
        ends="gradual",
        text="warm-up, plateau, evaluation, slow growth, out of memory after some minutes",
    ),
    Scenario(
        name="gaps-and-losses", boards=(RTX4090,) * 3, fill=_gaps_and_losses, duration_s=120.0,
        troubles=_TROUBLES,
        text="gaps, a lost GPU, missing readings, a reused PID, lives of seconds",
    ),
)  # fmt: skip

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
"""All scenarios by name, in the order in which they are listed."""


def scenario_named(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UsageError: there is none; the hint names the nearest one.
    """
    found = SCENARIOS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, SCENARIOS, n=1, cutoff=0.3)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"there is no scenario {name!r}", hint=f"{meant}vramtop simulate --list names them all"
        )
    return found
