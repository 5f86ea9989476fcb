"""Growth that may or may not end in a failure: curricula, rare batches, checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from vramtop.sources.sim.machine import Process, Work
from vramtop.sources.sim.training import planned, tokens_for
from vramtop.sources.sim.truth import ABRUPT, GRADUAL, Risk

CURRICULUM = Risk(cause="curriculum", stratum=GRADUAL)
RECORD_BATCH = Risk(cause="record-batch", stratum=ABRUPT)
CHECKPOINT = Risk(cause="checkpoint", stratum=ABRUPT)


def curriculum() -> Work:
    """Texts become longer, in stages or steadily; for half the seeds, too long."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = CURRICULUM
        usable = process.board.usable_bytes
        # Static memory and the first activations take so much; what comes on top decides.
        static = dice.between(0.25, 0.5)
        final = dice.between(1.35, 1.9) if dice.chance(0.7) else dice.between(0.62, 0.92)
        trainer, tokens = planned(process, static, activation=0.2, layers=dice.pick((8, 14)))
        yield from trainer.load(dice.scale(8.0, 90.0))
        yield from trainer.warm_up(tokens, dice.between(1.5, 5.0))
        stages = dice.pick((4, 6, 9, 14))
        stage_s = dice.scale(90.0, 900.0)
        smooth, tidy = dice.chance(0.4), dice.chance(0.5)
        if smooth:
            # Steadily: as many small stages as make the rise look smooth.
            stages, stage_s = stages * 10, stage_s / 10.0
            process.phase("memory_growth")
        step_s = dice.between(0.7, 2.0)
        longest = tokens + tokens_for(round((final - static) * usable), trainer.network)
        for stage in range(stages + 1):
            length = tokens + (longest - tokens) * stage // stages
            process.busy(dice.between(85.0, 97.0), 58.0)
            if smooth:
                if tidy:
                    trainer.share.allocator.empty_cache()
            elif stage:
                process.phase("allocation_event")
                yield from trainer.step(length, step_s)
                trainer.share.allocator.empty_cache()
                yield from trainer.step(length, step_s)
            if not smooth:
                process.phase("steady_state")
            yield from trainer.repeat(length, step_s, stage_s * dice.between(0.8, 1.2))
        process.phase("steady_state")
        yield from trainer.repeat(longest, step_s, dice.scale(300.0, 3600.0))

    return work


def rare_batches() -> Work:
    """Batches of all lengths; once in many hundreds a far longer one, which may not fit."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = RECORD_BATCH
        usable = process.board.usable_bytes
        static = dice.between(0.3, 0.5)
        trainer, small = planned(process, static, activation=0.1, layers=dice.pick((6, 10)))
        usual = tokens_for(round(usable * dice.between(0.08, 0.16)), trainer.network)
        # A rare batch needs three to eight times as much as a usual one, and most fit.
        room = tokens_for(round(usable * (1.0 - static)), trainer.network)
        fits = dice.chance(0.5)
        record = round(room * (dice.between(0.35, 0.62) if fits else dice.between(1.1, 1.8)))
        often = dice.scale(0.0008, 0.004)
        lengths = ((0.0, usual * 0.3), (0.5, usual * 0.6), (0.95, usual * 0.9), (1.0, usual))
        step_s = dice.between(0.8, 2.0)
        yield from trainer.load(dice.scale(8.0, 90.0))
        yield from trainer.warm_up(small, dice.between(1.5, 4.0))
        process.busy(85.0, 52.0)
        settled_s = process.age_s + 240.0
        while True:
            process.phase("warmup" if process.age_s < settled_s else "steady_state")
            length = dice.curve(lengths)
            if process.age_s > settled_s and dice.chance(often):
                process.phase("allocation_event")
                length = record * dice.between(0.8, 1.0)
            yield from trainer.step(round(length), step_s)
            if trainer.share.device.free_bytes < usable // 8:
                # Splinters of many lengths; a careful script drops them when it gets narrow.
                trainer.share.allocator.empty_cache()

    return work


def growing_checkpoints() -> Work:
    """Checkpoints and evaluations whose spikes become higher; some day one may not fit."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = CHECKPOINT
        plateau = dice.between(0.45, 0.72)
        trainer, tokens = planned(process, plateau, layers=dice.pick((10, 16)))
        yield from trainer.load(dice.scale(8.0, 90.0))
        yield from trainer.warm_up(tokens, dice.between(1.5, 4.0))
        every_s = dice.scale(60.0, 600.0)
        rounds = dice.integer(6, 16)
        # What is free, and what the allocator would give back first.
        allocator = trainer.share.allocator
        room = trainer.share.device.free_bytes
        room += allocator.reserved_bytes - allocator.allocated_bytes
        last = dice.between(1.08, 1.4) if dice.chance(0.45) else dice.between(0.45, 0.85)
        first = last * dice.between(0.35, 0.8)
        weights = trainer.network.layers * trainer.network.layer_bytes
        step_s = dice.between(0.7, 1.6)
        for done in range(rounds):
            process.phase("steady_state")
            process.busy(93.0, 58.0)
            yield from trainer.repeat(tokens, step_s, every_s * dice.between(0.9, 1.1))
            # What is saved grows with the history that is saved along with it.
            height = room * (first + (last - first) * done / (rounds - 1))
            process.phase("checkpoint_save")
            process.busy(12.0, 6.0)
            yield from trainer.save(dice.between(8.0, 16.0), copy_ratio=height / weights)
            if dice.chance(0.4):
                process.phase("batch_processing")
                process.busy(70.0, 40.0)
                part = room * dice.between(0.2, 0.4)
                yield from trainer.evaluate(
                    tokens_for(round(part), trainer.network) * 2, dice.between(8.0, 20.0)
                )
                allocator.empty_cache()
        process.phase("steady_state")
        yield from trainer.repeat(tokens, step_s, dice.scale(120.0, 1200.0))

    return work
