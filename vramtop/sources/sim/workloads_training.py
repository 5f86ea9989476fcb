"""Training workloads: the curves that training jobs draw, made by their allocations.

Each function returns what a `Job` needs: a function from a process to its life.
"""

from __future__ import annotations

from collections.abc import Iterator

from vramtop.sources.sim.hardware import gib, mib
from vramtop.sources.sim.machine import Process, Work
from vramtop.sources.sim.training import LARGE, MEDIUM, Network, Trainer, planned, tokens_for
from vramtop.sources.sim.truth import ABRUPT, GRADUAL, STARTUP, Risk

EVALUATION = Risk(cause="evaluation", stratum=ABRUPT)

# Lengths of texts in tokens: most are short, the tail is long.
TEXT_LENGTHS = ((0.0, 1200), (0.5, 2600), (0.9, 4600), (0.99, 7000), (0.999, 8600), (1.0, 10_000))


def steady(
    network: Network = LARGE,
    *,
    activation_gib: float = 12.0,
    load_s: float = 20.0,
    busy_pct: float = 94.0,
) -> Work:
    """Equal steps for ever: a plateau from the second step on."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        trainer = Trainer(process, network.scaled(dice.between(0.85, 1.1)))
        yield from trainer.load(load_s * dice.between(0.8, 1.3))
        tokens = tokens_for(gib(activation_gib * dice.between(0.8, 1.1)), trainer.network)
        yield from trainer.warm_up(tokens, 2.5)
        process.phase("steady_state")
        process.busy(busy_pct, 0.6 * busy_pct)
        step_s = dice.between(0.7, 1.6)
        while True:
            yield from trainer.repeat(tokens, step_s, 600.0)

    return work


def with_stray_context(work: Work) -> Work:
    """The same, with a second, useless CUDA context on another GPU, as ranks often leave on 0."""

    def strayed(process: Process) -> Iterator[float]:
        yield 2.0
        process.open(1)
        yield from work(process)

    return strayed


def variable_length(network: Network = LARGE, *, step_s: float = 1.1) -> Work:
    """Batches of texts: each record length raises the reservation, more and more rarely."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        trainer = Trainer(process, network.scaled(dice.between(0.78, 0.92)))
        yield from trainer.load(22.0)
        process.phase("warmup")
        process.busy(82.0, 50.0)
        while True:
            # The first two hundred batches meet most lengths; after that records are rare.
            if process.age_s > 260.0:
                process.phase("steady_state")
            yield from trainer.step(round(dice.curve(TEXT_LENGTHS)), step_s)

    return work


def leak(
    network: Network = LARGE,
    *,
    activation_gib: float = 9.0,
    kept_per_step_mib: tuple[float, float] = (14.5, 21.0),
    after_s: tuple[float, float] = (120.0, 400.0),
) -> Work:
    """Training that keeps something of every step, such as losses with their graph."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        trainer = Trainer(process, network.scaled(dice.between(0.8, 1.0)))
        process.risk = Risk(cause="leak", stratum=GRADUAL)
        yield from trainer.load(20.0)
        tokens = tokens_for(gib(activation_gib), trainer.network)
        yield from trainer.warm_up(tokens, 2.0)
        process.phase("steady_state")
        process.busy(91.0, 55.0)
        yield from trainer.repeat(tokens, 1.0, dice.between(*after_s))
        process.phase("memory_leak")
        kept = mib(dice.between(*kept_per_step_mib))
        # With small tensors among them memory rises at nearly every step, without in larger ones.
        small = dice.pick((0, 4))
        while True:
            yield from trainer.step(tokens, 1.0)
            for _ in range(2):
                trainer.keep(round(kept * dice.between(0.35, 0.65)))
            for _ in range(small):
                trainer.keep(kept // 40)

    return work


def leak_under_sawtooth(network: Network = LARGE) -> Work:
    """Rollouts that grow a cache, an update, `empty_cache`: a sawtooth that creeps upward."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        trainer = Trainer(process, network.scaled(dice.between(0.75, 0.9)))
        process.risk = Risk(cause="leak", stratum=GRADUAL)
        yield from trainer.load(20.0)
        tokens = tokens_for(gib(4.0), trainer.network)
        yield from trainer.warm_up(tokens, 2.0, steps=2)
        process.phase("memory_leak")
        rise_s = dice.between(6.0, 16.0)
        cycle_mib = dice.between(13.5, 18.0) * (rise_s + 3.2)
        pieces, piece = 24, mib(dice.between(220.0, 380.0))
        allocator = trainer.share.allocator
        while True:
            process.busy(78.0, 62.0)
            cache = []
            for _ in range(pieces):
                cache.append(allocator.malloc(round(piece * dice.between(0.9, 1.0))))
                yield rise_s / pieces
            for block in cache:
                allocator.free(block)
            process.busy(95.0, 60.0)
            for _ in range(2):
                yield from trainer.step(tokens, 1.2)
            for _ in range(12):
                trainer.keep(mib(cycle_mib / 12 * dice.between(0.8, 1.2)))
            allocator.empty_cache()
            yield 0.8

    return work


def evaluations(
    network: Network = LARGE,
    *,
    every_s: float = 240.0,
    batch_ratio: float = 2.4,
    activation_gib: float = 8.0,
    fatal_from: int | None = None,
    risk: Risk = EVALUATION,
) -> Work:
    """Training with an evaluation now and then, whose logits need much for some seconds.

    Args:
        network: What is trained.
        every_s: Seconds of training between evaluations.
        batch_ratio: Size of an evaluation's batch in batches of training.
        activation_gib: What a batch of training needs.
        fatal_from: From this evaluation on (from 0) batches are far longer; None for never.
        risk: What a failure would be due to.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        trainer = Trainer(process, network.scaled(dice.between(0.85, 1.0)))
        process.risk = risk
        yield from trainer.load(20.0)
        tokens = tokens_for(gib(activation_gib), trainer.network)
        yield from trainer.warm_up(tokens, 2.0)
        done = 0
        while True:
            process.phase("steady_state")
            process.busy(93.0, 58.0)
            yield from trainer.repeat(tokens, 1.0, every_s)
            process.phase("batch_processing")
            process.busy(70.0, 40.0)
            growth = dice.between(1.0, 1.25)
            if fatal_from is not None and done >= fatal_from:
                growth = dice.between(6.0, 7.0)
            yield from trainer.evaluate(
                round(tokens * batch_ratio * growth), dice.between(12.0, 20.0)
            )
            trainer.share.allocator.empty_cache()
            done += 1

    return work


def checkpoints(
    network: Network = LARGE, *, every_s: float = 300.0, activation_gib: float = 9.0
) -> Work:
    """Training that gathers its state on the GPU for each checkpoint."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        trainer = Trainer(process, network.scaled(dice.between(0.85, 1.0)))
        yield from trainer.load(20.0)
        tokens = tokens_for(gib(activation_gib), trainer.network)
        yield from trainer.warm_up(tokens, 2.0)
        while True:
            process.phase("steady_state")
            process.busy(93.0, 58.0)
            yield from trainer.repeat(tokens, 1.0, every_s)
            process.phase("checkpoint_save")
            process.busy(12.0, 6.0)
            yield from trainer.save(dice.between(9.0, 14.0))

    return work


def epochs(
    network: Network = LARGE, *, epoch_s: float = 200.0, activation_gib: float = 12.0
) -> Work:
    """Epochs with a validation and a fresh start of the data loader between them."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        trainer = Trainer(process, network.scaled(dice.between(0.85, 1.0)))
        yield from trainer.load(20.0)
        tokens = tokens_for(gib(activation_gib), trainer.network)
        yield from trainer.warm_up(tokens, 2.0)
        while True:
            process.phase("steady_state")
            process.busy(93.0, 58.0)
            yield from trainer.repeat(tokens, 0.9, epoch_s * dice.between(0.95, 1.05))
            process.phase("epoch_boundary")
            trainer.share.allocator.empty_cache()
            process.busy(0.0, 0.0)
            yield dice.between(4.0, 7.0)
            process.busy(75.0, 40.0)
            yield from trainer.evaluate(round(tokens * 0.8), dice.between(14.0, 20.0))
            trainer.share.allocator.empty_cache()
            process.busy(0.0, 0.0)
            yield dice.between(6.0, 10.0)

    return work


def startup() -> Work:
    """Weights fit; the first steps or the first update do not, in three seeds of five.

    It is the commonest way to run out. The others come close and live.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="startup", stratum=STARTUP)
        fails = dice.chance(0.6)
        share = dice.between(1.15, 1.6) if fails else dice.between(0.55, 0.9)
        # Either the activations are too many, or the optimizer's states at the first update.
        activation = dice.pick((0.15, 0.7))
        trainer, tokens = planned(process, share, activation=activation, layers=12)
        yield from trainer.load(dice.scale(8.0, 90.0))
        yield from trainer.warm_up(tokens, dice.between(1.5, 9.0), steps=6)
        process.phase("steady_state")
        process.busy(90.0, 55.0)
        yield from trainer.repeat(tokens, 1.5, dice.scale(300.0, 1500.0))

    return work


def burst() -> Work:
    """A plateau, then a data-dependent operation that takes much within seconds, or all."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="burst", stratum=ABRUPT)
        trainer, tokens = planned(process, dice.between(0.3, 0.85), layers=12)
        yield from trainer.load(dice.scale(8.0, 60.0))
        yield from trainer.warm_up(tokens, dice.between(1.5, 4.0))
        process.busy(93.0, 58.0)
        allocator = trainer.share.allocator
        # Smaller ones come before: they fit, and tell nothing of the last.
        small = dice.integer(0, 3)
        fails = dice.chance(0.65)
        for number in range(small + 1):
            process.phase("steady_state")
            yield from trainer.repeat(tokens, 1.0, dice.scale(120.0, 500.0))
            process.phase("allocation_event")
            cached = allocator.reserved_bytes - allocator.allocated_bytes
            room = trainer.share.device.free_bytes + cached
            height = dice.between(0.1, 0.5)
            if number == small and fails:
                height = 1.1
            pieces, lasts_s = 28, dice.scale(1.0, 12.0)
            blocks = []
            for _ in range(pieces):
                blocks.append(allocator.malloc(round(room * height / pieces)))
                yield lasts_s / pieces
            for block in blocks:
                allocator.free(block)
            process.phase("cleanup")
            yield 0.2
            allocator.empty_cache()
        process.phase("steady_state")
        yield from trainer.repeat(tokens, 1.0, dice.scale(200.0, 900.0))

    return work


def fragmenting(network: Network = MEDIUM) -> Work:
    """Crops of all sizes, and results of all sizes kept for a while: the cache splinters.

    Tensors in use stay about constant. Segments that hold one kept result each can neither
    serve a large request nor be given back, so the reservation grows until it ends.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        trainer = Trainer(process, network.scaled(dice.between(0.9, 1.1)))
        process.risk = Risk(cause="fragmentation", stratum=GRADUAL)
        yield from trainer.load(12.0)
        yield from trainer.warm_up(tokens_for(gib(3.0), trainer.network), 1.5, steps=2)
        process.phase("fragmentation")
        process.busy(66.0, 45.0)
        allocator = trainer.share.allocator
        results: list[object] = []
        size = 300.0
        while True:
            # Crops grow slowly with the curriculum, so free pieces are always a little too small.
            size += dice.between(0.0, 0.9)
            crops = [allocator.malloc(mib(size * dice.between(0.85, 1.15))) for _ in range(4)]
            yield 0.4
            for crop in crops:
                allocator.free(crop)
                block = allocator.malloc(mib(dice.between(10.0, 24.0)))
                results.append(block)
                trainer.kept.append(block)
            while len(trainer.kept) > 160:
                allocator.free(trainer.kept.pop(dice.integer(0, 120)))
            yield 0.6

    return work


def demo() -> Work:
    """Load, warm-up, a plateau, an evaluation, then predictions kept on the GPU until the end."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        trainer = Trainer(process, MEDIUM.scaled(dice.between(0.95, 1.05)))
        process.risk = Risk(cause="leak", stratum=GRADUAL)
        yield from trainer.load(12.0)
        process.phase("warmup")
        process.busy(60.0, 30.0)
        for tokens in (1500, 1800, 2100, 2200):
            yield from trainer.step(tokens, 4.0)
        process.phase("steady_state")
        process.busy(94.0, 61.0)
        yield from trainer.repeat(2200, 0.8, dice.between(85.0, 105.0))
        process.phase("batch_processing")
        process.busy(72.0, 40.0)
        yield from trainer.evaluate(6500, 16.0, batches=5)
        trainer.share.allocator.empty_cache()
        process.phase("memory_leak")
        process.busy(94.0, 61.0)
        while True:
            yield from trainer.step(2200, 0.8)
            trainer.keep(mib(dice.between(17.0, 31.0)))
            trainer.keep(mib(dice.between(0.2, 0.6)))

    return work
