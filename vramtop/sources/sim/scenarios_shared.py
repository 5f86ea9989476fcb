"""Scenarios with several processes or GPUs, and the one where looking goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from vramtop.sources.sim import workloads_leaks as leaks
from vramtop.sources.sim import workloads_loads as loads
from vramtop.sources.sim import workloads_serving as serving
from vramtop.sources.sim import workloads_tour as tour
from vramtop.sources.sim import workloads_training as training
from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.faults import ClockStep, Loss, Missing, Note, Silence, Troubles
from vramtop.sources.sim.hardware import A100, A100_CUT, H100, RTX4090, SIZES
from vramtop.sources.sim.machine import Job, Machine, Work
from vramtop.sources.sim.scenario import Scenario, train
from vramtop.sources.sim.training import LARGE, MEDIUM
from vramtop.units import GIB, NS_PER_S


def _second_tenant(machine: Machine, dice: Dice) -> None:
    """One arrives: it fits, it does not, or it does until the resident evaluates again."""
    board = machine.devices[0].board
    scale = board.usable_bytes / H100.usable_bytes
    way = dice.pick(("newcomer", "fits", "resident", "fits", "resident", "newcomer"))
    at_s, leaves_gib, then_gib = dice.between(300.0, 900.0), 0.0, 0.0
    size_gib, life_s = 0.0, None
    if way == "resident":
        every_s = dice.between(150.0, 300.0)
        resident = training.evaluations(
            LARGE.scaled(scale),
            every_s=every_s,
            batch_ratio=5.0,
            activation_gib=8.0 * scale,
            risk=serving.TENANT,
        )
        # It arrives between two evaluations and takes what looks free then.
        at_s = 40.0 + every_s * (dice.integer(1, 3) + dice.between(0.35, 0.6))
        leaves_gib = dice.between(1.5, 3.0) * scale
    else:
        resident = training.steady(LARGE.scaled(scale), activation_gib=12.0 * scale)
    if way == "newcomer":
        leaves_gib, then_gib = dice.between(6.0, 18.0) * scale, 30.0 * scale
    elif way == "fits":
        size_gib = dice.between(4.0, 15.0) * scale
        then_gib = dice.between(0.5, 3.0) * scale
        life_s = dice.scale(60.0, 900.0)
    machine.start(4.0, train("tenant-resident", resident))
    newcomer = Job(
        kind="tenant-newcomer",
        command="python generate.py --model 13b --batch 8",
        work=serving.loader(
            size_gib=size_gib,
            load_s=dice.scale(8.0, 60.0),
            leaves_gib=None if size_gib else leaves_gib,
            then_gib=then_gib,
            life_s=life_s,
        ),
        user="grace",
        main=way == "newcomer",
    )
    machine.start(at_s, newcomer)
    if way == "fits" and dice.chance(0.5):
        machine.start(at_s + dice.between(60.0, 600.0), replace(newcomer, user="alan"))


def _notebooks(machine: Machine, dice: Dice) -> None:
    """Kernels of several people on one GPU; what they take together may be too much."""
    usable_gib = machine.devices[0].board.usable_bytes / GIB
    people = dice.integer(3, 6)
    # A kernel keeps some ten cells' worth; the crowd is modest or greedy.
    hunger = (
        usable_gib
        / people
        / 10.0
        * (dice.between(2.2, 4.5) if dice.chance(0.4) else dice.between(0.5, 1.4))
    )
    for number in range(people):
        machine.start(
            dice.between(0.0, 60.0) if number == 0 else dice.between(0.0, 5400.0),
            Job(
                kind="notebooks",
                command="python -m ipykernel_launcher -f kernel.json",
                work=loads.kernel(hours=dice.between(0.5, 3.5), hunger=hunger),
                user=("ada", "grace", "alan", "barbara", "edsger", "kurt")[number],
                watched=False,
            ),
        )


def _hidden_tenant(machine: Machine, dice: Dice) -> None:
    """A process that the driver lists nowhere, as from another container, takes memory too."""
    scale = machine.devices[0].board.usable_bytes / H100.usable_bytes
    resident = training.evaluations(
        LARGE.scaled(scale),
        every_s=dice.scale(90.0, 400.0),
        batch_ratio=dice.between(4.0, 5.5),
        activation_gib=8.0 * scale,
        risk=serving.TENANT,
    )
    machine.start(4.0, train("hidden-tenant", resident))
    much = dice.chance(0.6)
    machine.start(
        dice.between(200.0, 1500.0),
        Job(
            kind="hidden-tenant",
            command="hidden",
            work=serving.loader(
                size_gib=dice.between(2.0, 9.0) * scale,
                leaves_gib=dice.between(0.3, 1.5) * scale if much else None,
                load_s=dice.scale(8.0, 120.0),
                life_s=dice.scale(300.0, 3000.0),
            ),
            user="grace",
            watched=False,
            hidden=True,
            main=False,
        ),
    )


def _mig(machine: Machine, dice: Dice) -> None:
    """A training in one instance, a server in the other; each has its own limit."""
    first, second = machine.devices[1], machine.devices[2]
    scale = first.board.usable_bytes / H100.usable_bytes
    work = dice.pick((leaks.any_leak(), leaks.leak_that_stops(), training.steady(
        LARGE.scaled(scale), activation_gib=10.0 * scale)))  # fmt: skip
    machine.start(dice.between(3.0, 20.0), train("mig-training", work, gpus=(first.place,)))
    machine.start(
        dice.between(3.0, 300.0),
        Job(
            kind="mig-server",
            command="vllm serve some-org/some-model",
            work=serving.prealloc_server(utilization=dice.between(0.6, 0.92), weights_gib=5.0),
            gpus=(second.place,),
            framework="vllm",
            user="serve",
            watched=False,
            main=False,
        ),
    )


def _label_tour(machine: Machine, dice: Dice) -> None:
    machine.start(dice.between(3.0, 8.0), train("label-tour", tour.training_tour()))
    machine.start(
        dice.between(3.0, 8.0),
        Job(
            kind="label-tour",
            command="vllm serve some-org/some-model",
            work=tour.server_tour(),
            gpus=(1,),
            framework="vllm",
            user="serve",
        ),
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
    makers: tuple[Callable[[], Work], ...] = (
        lambda: training.steady(LARGE.scaled(0.62)),
        lambda: training.checkpoints(LARGE.scaled(0.62)),
        lambda: training.variable_length(LARGE.scaled(0.5), step_s=2.5),
        lambda: training.epochs(LARGE.scaled(0.6)),
    )
    for gpu in range(6):
        work = dice.pick(makers)()
        machine.start(
            dice.between(0.0, 90.0),
            train("shared-training", work, gpus=(gpu,), user=dice.pick(users), watched=False),
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


def _gaps_and_losses(machine: Machine, dice: Dice) -> None:
    """Short lives on three small GPUs; a PID that comes twice, with and without start times."""
    machine.start(2.0, train("faults", training.steady(MEDIUM, activation_gib=2.0, load_s=6.0)))
    machine.start(4.0, train("faults", training.steady(MEDIUM, activation_gib=3.0, load_s=5.0),
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


SHARED = (
    Scenario(
        name="second-tenant", sizes=SIZES, fill=_second_tenant, ends="mixed", version=2,
        text="a second process arrives on a busy GPU; it fits, or one of the two runs out",
    ),
    Scenario(
        name="notebooks", sizes=SIZES, fill=_notebooks, duration_s=14_400.0, ends="mixed",
        text="the notebooks of several people over hours; for some seeds together too much",
    ),
    Scenario(
        name="hidden-tenant", version=2, sizes=SIZES, fill=_hidden_tenant, duration_s=3600.0, ends="mixed",
        text="a process that no list shows takes memory; for some seeds the next spike fails",
    ),
    Scenario(
        name="mig-instances", boards=(A100_CUT,), fill=_mig, duration_s=7200.0, ends="mixed",
        strata=("gradual",),
        text="two MIG instances of one GPU: a training that may leak, and a server",
    ),
    Scenario(
        name="label-tour", boards=(RTX4090,) * 2, fill=_label_tour, duration_s=5400.0,
        text="a training and a server that walk through all labels",
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
        name="gaps-and-losses", boards=(RTX4090,) * 3, fill=_gaps_and_losses, duration_s=120.0,
        troubles=_TROUBLES,
        text="gaps, a lost GPU, missing readings, a reused PID, lives of seconds",
    ),
)  # fmt: skip
