"""What a scenario is: GPUs, jobs on them, what goes wrong, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.faults import Troubles
from vramtop.sources.sim.hardware import H100, Board
from vramtop.sources.sim.machine import Job, Machine, Work
from vramtop.sources.sim.truth import ABRUPT

Fill = Callable[[Machine, Dice], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One kind of run.

    Attributes:
        name: As given on the command line.
        text: One line for people.
        boards: The GPUs.
        sizes: If given, the GPU is one of these instead, as the seed decides.
        fill: Starts the jobs; the dice decide what differs between seeds.
        duration_s: How long a run is unless somebody says otherwise.
        tail_s: How long it goes on after the last main job has ended.
        ends: How it ends, as ground truth for a whole run: a stratum, `none`, or `mixed`
            where the seed decides.
        strata: Where it is mixed, the strata that may occur.
        troubles: What goes wrong with the looking.
        version: Raised when what a seed gives has changed.
    """

    name: str
    text: str
    fill: Fill
    boards: Sequence[Board] = (H100,)
    sizes: Sequence[Board] = ()
    duration_s: float = 1800.0
    tail_s: float = 20.0
    ends: str = "none"
    strata: tuple[str, ...] = (ABRUPT,)
    troubles: Troubles = field(default_factory=Troubles)
    version: int = 1

    def build(self, seed: int) -> Machine:
        """A machine at time zero with all jobs scheduled."""
        name = f"{self.name}/{seed}"
        boards = (Dice(f"{name}/board").pick(self.sizes),) if self.sizes else self.boards
        machine = Machine(boards, name=name)
        self.fill(machine, Dice(f"{name}/script"))
        return machine


def train(kind: str, work: Work, **more: object) -> Job:
    """A training job of that kind; `more` as for `Job`."""
    command = f"python train.py --config configs/{kind}.yaml"
    return Job(kind=kind, command=command, work=work, **more)  # type: ignore[arg-type]


def alone(kind: str, make: Callable[[], Work], **more: object) -> Fill:
    """One training job that comes to an idle GPU after some seconds."""

    def fill(machine: Machine, dice: Dice) -> None:
        machine.start(dice.between(3.0, 8.0), train(kind, make(), **more))

    return fill
