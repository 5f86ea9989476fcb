"""Leaks that end in a failure, leaks that do not, and a sawtooth that is none."""

from __future__ import annotations

from collections.abc import Generator, Iterator

from vramtop.sources.sim.allocator import Block
from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.hardware import mib
from vramtop.sources.sim.machine import Process, Work
from vramtop.sources.sim.training import Trainer, planned
from vramtop.sources.sim.truth import GRADUAL, Risk
from vramtop.units import GIB, MIB

LEAK = Risk(cause="leak", stratum=GRADUAL)
PAGE_BYTES = 2 * MIB
"""What the driver hands out at a time."""
SLOWEST_MIB_PER_S, FASTEST_MIB_PER_S = 0.3, 40.0


class Leak:
    """A leak whose rate and length differ widely from seed to seed.

    Args:
        dice: Of the process.
        usable_bytes: Of the board; three fifths of it at most are left for the leak.
        longest_s: How long it takes to fill its room at most.

    Attributes:
        rate_mib_per_s: What it keeps, on the mean.
        room_bytes: What should be free when it begins.
        step_s: Length of a training step; long ones for long runs.
        outside_bytes: Of what was kept, what no allocator knows of.
    """

    def __init__(self, dice: Dice, usable_bytes: int, *, longest_s: float = 9000.0) -> None:
        self.rate_mib_per_s = dice.scale(SLOWEST_MIB_PER_S, FASTEST_MIB_PER_S)
        lasts_s = dice.scale(500.0, longest_s)
        room = self.rate_mib_per_s * lasts_s * MIB
        most = usable_bytes * dice.between(0.4, 0.6)
        self.room_bytes = round(min(max(room, 1.2 * GIB), most))
        self.step_s = min(max(lasts_s / 2500.0, 0.6), 4.0)
        self._dice = dice
        # Every step, every few steps, or with small tensors among the large.
        self._every = dice.pick((1, 1, 1, 5, 16))
        self._small = dice.pick((0, 0, 3))
        self._spread = dice.pick((0.05, 0.3, 0.6))
        # Some leaks lie outside the framework: handles, workspaces, an extension's buffers.
        self._outside = dice.chance(0.4)
        self._owed = 0
        self.outside_bytes = 0
        self._steps = 0

    def keep(self, trainer: Trainer) -> None:
        """Hold on to what a step leaves behind."""
        self._steps += 1
        if self._steps % self._every:
            return
        kept = self.rate_mib_per_s * self.step_s * self._every
        kept *= self._dice.between(1.0 - self._spread, 1.0 + self._spread)
        if self._outside:
            self._owed += mib(kept)
            pages = self._owed // PAGE_BYTES * PAGE_BYTES
            self._owed -= pages
            trainer.share.demand(pages)
            self.outside_bytes += pages
            return
        trainer.keep(mib(kept * 0.94))
        for _ in range(self._small):
            trainer.keep(mib(kept * 0.02))


def any_leak() -> Work:
    """Training that keeps something of its steps: 0.3-40 MiB/s, ten minutes to hours."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = LEAK
        leak = Leak(dice, process.board.usable_bytes)
        if dice.chance(0.35):
            yield from _leaking_service(process, leak)
        trainer, tokens = yield from _brought_up(process, leak.room_bytes)
        yield from trainer.repeat(tokens, leak.step_s, dice.scale(40.0, 900.0))
        process.phase("memory_leak")
        while True:
            yield from trainer.step(tokens, leak.step_s)
            leak.keep(trainer)

    return work


def _leaking_service(process: Process, leak: Leak) -> Iterator[float]:
    """A service whose requests leave something behind: no cache hides what it loses."""
    dice = process.dice
    process.phase("initialization")
    share = process.open()
    weights = share.device.free_bytes - leak.room_bytes
    load_s = dice.scale(8.0, 90.0)
    for _ in range(32):
        share.allocator.malloc(weights // 32)
        yield load_s / 32
    process.phase("active_inference")
    process.busy(dice.between(20.0, 90.0), 30.0)
    yield dice.scale(40.0, 900.0)
    process.phase("memory_leak")
    owed = 0
    while True:
        owed += mib(leak.rate_mib_per_s * dice.between(0.2, 1.8))
        share.demand(owed // PAGE_BYTES * PAGE_BYTES)
        owed %= PAGE_BYTES
        yield 1.0


def leak_that_stops() -> Work:
    """The same, but what leaks ends, is dropped, or the job is done before memory is."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = LEAK
        leak = Leak(dice, process.board.usable_bytes, longest_s=7200.0)
        trainer, tokens = yield from _brought_up(process, leak.room_bytes)
        ending = dice.pick(("done", "flat", "dropped"))
        yield from trainer.repeat(tokens, leak.step_s, dice.scale(40.0, 900.0))
        allocator = trainer.share.allocator
        for _ in range(1 if ending != "dropped" else dice.integer(2, 4)):
            free = trainer.share.device.free_bytes
            limit = round(free * (1.0 - dice.between(0.25, 0.9)))
            process.phase("memory_leak")
            process.busy(91.0, 55.0)
            while trainer.share.device.free_bytes > limit:
                yield from trainer.step(tokens, leak.step_s)
                leak.keep(trainer)
            if ending == "dropped":
                process.phase("cleanup")
                process.busy(20.0, 5.0)
                while trainer.kept:
                    allocator.free(trainer.kept.pop())
                yield 0.4
                allocator.empty_cache()
                trainer.share.give(leak.outside_bytes)
                leak.outside_bytes = 0
                yield 0.6
                process.phase("steady_state")
                process.busy(91.0, 55.0)
                yield from trainer.repeat(tokens, leak.step_s, dice.scale(60.0, 600.0))
        if ending != "done":
            process.phase("steady_state")
            yield from trainer.repeat(tokens, leak.step_s, dice.scale(600.0, 5400.0))

    return work


def segments() -> Work:
    """One segment of some 64 MiB every half minute: a staircase, flat nearly always."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = LEAK
        every_s = dice.scale(15.0, 60.0)
        size = dice.between(44.0, 96.0)
        lasts_s = dice.scale(900.0, 9000.0)
        room = round(max(lasts_s / every_s * size * MIB, GIB))
        room = min(room, round(process.board.usable_bytes * 0.6))
        trainer, tokens = yield from _brought_up(process, room)
        step_s = dice.between(0.8, 1.6)
        yield from trainer.repeat(tokens, step_s, dice.scale(40.0, 600.0))
        process.phase("memory_leak")
        jitter = dice.pick((0.0, 0.1, 0.35))
        while True:
            # An episode, an image, a result: in buffers of its own, so that no cache hides it.
            yield from trainer.repeat(
                tokens, step_s, every_s * dice.between(1 - jitter, 1 + jitter)
            )
            pages = mib(size * dice.between(1 - jitter, 1 + jitter)) // PAGE_BYTES
            trainer.share.demand(pages * PAGE_BYTES)

    return work


def sawtooth() -> Work:
    """Caches that are filled and emptied for ever, with no trend at all."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        usable = process.board.usable_bytes
        base = round(usable * dice.between(0.12, 0.45))
        top = round(usable * dice.between(0.62, 0.93))
        period_s = dice.scale(3.0, 120.0)
        up_s = period_s * dice.between(0.5, 0.9)
        # Few and large, or many and small; in some the height differs from tooth to tooth.
        pieces = dice.pick((5, 12, 30)) if period_s < 20.0 else dice.pick((12, 30, 80))
        spread = dice.pick((0.0, 0.02, 0.25))
        process.phase("initialization")
        share = process.open()
        allocator = share.allocator
        for _ in range(16):
            allocator.malloc(base // 16)
            yield 1.0
        process.phase("batch_processing")
        while True:
            process.busy(dice.between(70.0, 90.0), 50.0)
            height = round((top - base) * dice.between(1.0 - spread, 1.0))
            cache: list[Block] = []
            for _ in range(pieces):
                cache.append(allocator.malloc(height // pieces))
                yield up_s / pieces
            for block in cache:
                allocator.free(block)
            allocator.empty_cache()
            yield period_s - up_s

    return work


def _brought_up(process: Process, room_bytes: int) -> Generator[float, None, tuple[Trainer, int]]:
    """Load and warm up a training that leaves about so much free."""
    usable = process.board.usable_bytes
    trainer, tokens = planned(
        process, 1.0 - room_bytes / usable, layers=process.dice.pick((12, 18, 26))
    )
    yield from trainer.load(process.dice.scale(8.0, 90.0))
    yield from trainer.warm_up(tokens, process.dice.between(1.5, 5.0))
    process.phase("steady_state")
    process.busy(process.dice.between(80.0, 97.0), 55.0)
    return trainer, tokens
