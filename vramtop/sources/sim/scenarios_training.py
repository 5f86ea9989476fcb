"""Scenarios of training on one GPU."""

from __future__ import annotations

from vramtop.sources.sim import workloads_growth as growth
from vramtop.sources.sim import workloads_leaks as leaks
from vramtop.sources.sim import workloads_serving as serving
from vramtop.sources.sim import workloads_training as training
from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.hardware import H100, RTX4090, SIZES
from vramtop.sources.sim.machine import Job, Machine
from vramtop.sources.sim.scenario import Scenario, alone, train
from vramtop.sources.sim.training import LARGE


def _variable_length(machine: Machine, dice: Dice) -> None:
    machine.start(dice.between(3.0, 8.0), train("variable-length", training.variable_length()))


def _evaluation(machine: Machine, dice: Dice) -> None:
    scale = machine.devices[0].board.usable_bytes / H100.usable_bytes
    work = training.evaluations(
        LARGE.scaled(scale),
        every_s=dice.scale(90.0, 480.0),
        batch_ratio=dice.between(1.5, 5.0),
        activation_gib=8.0 * scale,
        fatal_from=dice.integer(1, 5) if dice.chance(0.5) else None,
    )
    machine.start(dice.between(3.0, 8.0), train("evaluation-spike", work))


def _long_training(machine: Machine, dice: Dice) -> None:
    """Whatever trains for a day without trouble."""
    scale = machine.devices[0].board.usable_bytes / H100.usable_bytes
    network, activation_gib = LARGE.scaled(scale), 9.0 * scale
    works = (
        training.steady(network, activation_gib=activation_gib * dice.between(0.8, 2.2)),
        training.checkpoints(
            network, every_s=dice.scale(300.0, 3600.0), activation_gib=activation_gib
        ),
        training.epochs(network, epoch_s=dice.scale(120.0, 2400.0), activation_gib=activation_gib),
        training.evaluations(
            network, every_s=dice.scale(200.0, 2400.0), activation_gib=activation_gib
        ),
    )
    machine.start(dice.between(3.0, 60.0), train("long-training", dice.pick(works)))


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
    machine.start(dice.between(7.0, 9.0), train("training-oom", training.demo()))


TRAINING = (
    Scenario(
        name="steady-training", boards=(H100,), fill=alone("steady-training", training.steady),
        text="one training, a plateau from its second step on",
    ),
    Scenario(
        name="variable-length", boards=(H100,), fill=_variable_length, duration_s=3600.0,
        text="training on texts: each record length raises the reservation",
    ),
    Scenario(
        name="slow-leak", boards=(H100,), fill=alone("slow-leak", training.leak),
        duration_s=3600.0, ends="gradual",
        text="training that keeps something of every step, until it runs out",
    ),
    Scenario(
        name="leak-under-sawtooth", boards=(H100,), duration_s=3600.0, ends="gradual",
        fill=alone("leak-under-sawtooth", training.leak_under_sawtooth),
        text="rollouts and emptied caches draw a sawtooth that creeps upward",
    ),
    Scenario(
        name="any-leak", sizes=SIZES, fill=alone("any-leak", leaks.any_leak),
        duration_s=10_800.0, ends="mixed", strata=("gradual",),
        text="leaks of 0.3 to 40 MiB/s that take minutes to hours to the end",
    ),
    Scenario(
        name="leak-stops", sizes=SIZES, fill=alone("leak-stops", leaks.leak_that_stops),
        duration_s=10_800.0,
        text="leaks that end, are dropped, or outlive no job: memory never runs out",
    ),
    Scenario(
        name="segmented-leak", sizes=SIZES, fill=alone("segmented-leak", leaks.segments),
        duration_s=10_800.0, ends="mixed", strata=("gradual",),
        text="a segment of some 64 MiB every half minute, until it runs out",
    ),
    Scenario(
        name="sawtooth", sizes=SIZES, fill=alone("sawtooth", leaks.sawtooth), duration_s=3600.0,
        text="caches filled and emptied every 3 to 120 s, high and without any trend",
    ),
    Scenario(
        name="curriculum", sizes=SIZES, fill=alone("curriculum", growth.curriculum),
        duration_s=10_800.0, ends="mixed", strata=("gradual",),
        text="longer and longer texts, in stages or steadily; for half the seeds too long",
    ),
    Scenario(
        name="variable-length-tail", sizes=SIZES, duration_s=5400.0, ends="mixed",
        fill=alone("variable-length-tail", growth.rare_batches),
        text="rare batches of record length; for half the seeds they do not fit",
    ),
    Scenario(
        name="fine-tune-checkpoints", sizes=SIZES, duration_s=10_800.0, ends="mixed",
        fill=alone("fine-tune-checkpoints", growth.growing_checkpoints),
        text="spikes of checkpoints and evaluations that grow; for some seeds one is too high",
    ),
    Scenario(
        name="fragmentation", boards=(RTX4090,), fill=alone("fragmentation", training.fragmenting),
        duration_s=3600.0, ends="gradual",
        text="tensors in use stay constant, the splintered cache grows until it runs out",
    ),
    Scenario(
        name="evaluation-spike", sizes=SIZES, fill=_evaluation, ends="mixed", version=2, duration_s=3600.0,
        text="evaluations need more for some seconds; for some seeds too much",
    ),
    Scenario(
        name="checkpoint-saves", boards=(H100,),
        fill=alone("checkpoint-saves", training.checkpoints),
        text="every five minutes the state is gathered on the GPU and written",
    ),
    Scenario(
        name="epochs", boards=(H100,), fill=alone("epochs", training.epochs),
        text="epochs with validation and an emptied cache between them",
    ),
    Scenario(
        name="startup-oom", sizes=SIZES, fill=alone("startup-oom", training.startup),
        duration_s=1800.0, ends="mixed", strata=("startup",), version=2,
        text="the weights fit; for most seeds the first steps do not",
    ),
    Scenario(
        name="burst-oom", sizes=SIZES, fill=alone("burst-oom", training.burst),
        duration_s=2400.0, ends="mixed", version=2,
        text="a plateau, then much or all of the memory is taken within seconds",
    ),
    Scenario(
        name="long-training", sizes=SIZES, fill=_long_training, duration_s=86_400.0,
        text="a day of steps, epochs, evaluations or checkpoints, and no trouble",
    ),
    Scenario(
        name="training-oom", boards=(RTX4090,), fill=_training_oom, duration_s=900.0,
        ends="gradual",
        text="warm-up, plateau, evaluation, slow growth, out of memory after some minutes",
    ),
)  # fmt: skip
