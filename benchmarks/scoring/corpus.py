"""Which simulated runs are scored, and which of them a model may be fitted on.

A run is a scenario and a seed. Seeds 0 and 1 of every four are for fitting, 2 for calibrating,
3 for the test. Whole kinds are held out in turn besides. The choice stands before any result.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vramtop.samples import Tick
from vramtop.sources.sim import SimSource
from vramtop.sources.sim.scenarios import SCENARIOS

FIT, CALIBRATE, TEST = "fit", "calibrate", "test"
SPLITS = (FIT, FIT, CALIBRATE, TEST)

SEEDS = 60
"""Seeds of a kind unless `FEWER` says otherwise."""
FEWER = {
    "notebooks": 24,
    "shared-server": 8,
    "multi-gpu": 12,
}
"""Many GPUs in each of these."""
LONG = ("long-serving", "long-training")
"""A day each and nothing ever wrong: no rate of false alarms means much below thirty such days."""
FITTED_LONG = 12
"""So many seeds of them are enough to fit on."""
UNSCORED = ("gaps-and-losses", "label-tour")
"""Not meant as workloads: one is about the looking, one about labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One simulated run.

    Attributes:
        kind: The scenario; kinds are held out whole.
        seed: Of the scenario.
        interval_s: At which it is sampled.
    """

    kind: str
    seed: int
    interval_s: float = 1.0

    @property
    def split(self) -> str:
        """fit, calibrate or test."""
        return SPLITS[self.seed % len(SPLITS)]

    def ticks(self) -> Iterator[Tick]:
        """The run's ticks, as fast as they come."""
        source = SimSource(self.kind, seed=self.seed, interval_s=self.interval_s, pace=None)
        return source.ticks()


def kinds() -> list[str]:
    """All kinds that are scored."""
    return [name for name in SCENARIOS if name not in UNSCORED]


def fresh() -> list[Run]:
    """Runs of seeds that no split holds: for figures that nobody has looked at before."""
    runs = [
        Run(kind=kind, seed=seed)
        for kind in kinds()
        for seed in range(SEEDS, SEEDS + max(1, FEWER.get(kind, SEEDS) // len(SPLITS)))
    ]
    return sorted(runs, key=lambda run: -_cost(run.kind))


def corpus(splits: tuple[str, ...], *, share: float = 1.0) -> list[Run]:
    """The runs of some splits, the longest first; `share` of the seeds of each kind."""
    runs = [
        Run(kind=kind, seed=seed)
        for kind in kinds()
        for seed in range(max(4, round(FEWER.get(kind, SEEDS) * share)))
    ]
    chosen = [
        run
        for run in runs
        if run.split in splits
        and (run.split == TEST or run.kind not in LONG or run.seed < FITTED_LONG)
    ]
    return sorted(chosen, key=lambda run: -_cost(run.kind))


def _cost(kind: str) -> float:
    scenario = SCENARIOS[kind]
    return scenario.duration_s * len(scenario.boards)
