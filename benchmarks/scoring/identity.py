"""Live equals replay on the corpus: tick by tick against blocks of an hour."""

from __future__ import annotations

from itertools import islice

from scoring.corpus import Run
from scoring.outcome import blocks_of
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.events import EventDigest
from vramtop.samples import Tick

LONGEST = 4000
"""Ticks of a run that are compared; one at a time they cost a hundred times as much."""


def same(run: Run) -> bool:
    """Whether a run's events are the same to the last bit either way."""
    ticks = list(islice(run.ticks(), LONGEST))
    return _digest(ticks, 1) == _digest(ticks, 3600)


def _digest(ticks: list[Tick], length: int) -> str:
    engine, digest = Engine(), EventDigest()
    blocks = (Block.from_ticks([tick]) for tick in ticks) if length == 1 else blocks_of(ticks)
    for block in blocks:
        digest.add(engine.update(block))
    digest.add(engine.finish())
    return digest.hexdigest()
