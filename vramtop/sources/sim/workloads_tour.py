"""A training and a server that walk through all labels, for tests and for looking at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vramtop.sources.sim.hardware import Share, mib
from vramtop.sources.sim.machine import Process, Work


@dataclass(frozen=True, slots=True)
class _Walker:
    """Moves one process's memory by the mebibyte; its times differ by the seed."""

    process: Process
    share: Share

    def _slack(self) -> float:
        return self.process.dice.between(0.8, 1.3)

    def flat(self, label: str, seconds: float, busy_pct: float) -> Iterator[float]:
        self.process.phase(label)
        self.process.busy(busy_pct, busy_pct * 0.6)
        yield seconds * self._slack()

    def ramp(self, label: str, size_mib: float, seconds: float, steps: int) -> Iterator[float]:
        """Up, or down if the size is negative, in equal steps."""
        self.process.phase(label)
        part = mib(abs(size_mib) / steps / 2) * 2
        wait = seconds * self._slack() / steps
        for _ in range(steps):
            if size_mib > 0:
                self.share.demand(part)
            else:
                self.share.give(part)
            yield wait

    def swing(
        self, label: str, size_mib: float, up_s: float, down_s: float, times: int
    ) -> Iterator[float]:
        """Up and down again, so often; a negative size goes down first."""
        self.process.phase(label)
        size = mib(abs(size_mib))
        for _ in range(times):
            if size_mib > 0:
                self.share.demand(size)
                yield up_s * self._slack()
                self.share.give(size)
                yield down_s * self._slack()
            else:
                self.share.give(size)
                yield down_s * self._slack()
                self.share.demand(size)
                yield up_s * self._slack()


def training_tour() -> Work:
    """A training on 24 GB that does, one after the other, what trainings do."""

    def work(process: Process) -> Iterator[float]:
        process.phase("initialization")
        share = process.open()
        walk = _Walker(process, share)
        yield from walk.flat("idle", 60.0, 0.0)
        yield from walk.ramp("initialization", 3072, 15.0, 15)
        yield from walk.ramp("optimizer_init", 2048, 4.0, 8)
        yield from walk.ramp("warmup", 320, 20.0, 10)
        yield from walk.flat("steady_state", 90.0, 95.0)
        yield from walk.ramp("gradient_steps", 1152, 100.0, 12)
        yield from walk.flat("steady_state", 90.0, 95.0)
        yield from walk.ramp("allocation_event", 640, 3.0, 6)
        yield from walk.flat("plateau", 7.0, 95.0)
        yield from walk.ramp("allocation_event", 512, 2.0, 4)
        yield from walk.flat("steady_state", 90.0, 95.0)
        yield from walk.ramp("gc_collection", -40, 1.0, 1)
        yield from walk.flat("steady_state", 90.0, 95.0)
        yield from walk.swing("checkpoint_save", 2048, 9.0, 1.0, 1)
        yield from walk.flat("steady_state", 90.0, 95.0)
        for _ in range(2):
            yield from walk.swing("epoch_boundary", -1024, 1.0, 7.0, 1)
            yield from walk.flat("steady_state", 90.0, 95.0)
        yield from walk.swing("batch_processing", 1800, 4.0, 4.0, 12)
        yield from walk.flat("steady_state", 90.0, 95.0)
        process.phase("fragmentation")
        for _ in range(30):
            yield from walk.swing("fragmentation", process.dice.pick((2, 4, 8)), 2.0, 1.0, 1)
        yield from walk.flat("steady_state", 90.0, 95.0)
        yield from walk.ramp("memory_growth", 1500, 60.0, 60)
        yield from walk.flat("steady_state", 900.0, 95.0)
        yield from walk.ramp("memory_leak", 2400, 600.0, 600)
        yield from walk.flat("steady_state", 90.0, 95.0)
        # From about half of the GPU to above 70 %, and on from there.
        yield from walk.ramp("allocation_event", 5600, 4.0, 8)
        yield from walk.flat("steady_state", 60.0, 95.0)
        yield from walk.ramp("memory_pressure", 3600, 80.0, 80)
        yield from walk.flat("saturation", 120.0, 95.0)
        yield from walk.ramp("releasing_memory", -160, 2.0, 2)
        yield from walk.flat("steady_state", 60.0, 95.0)
        yield from walk.ramp("cleanup", -12_000, 2.0, 4)
        yield from walk.flat("idle", 120.0, 0.0)
        yield from walk.ramp("cooldown", -44, 60.0, 11)
        yield from walk.flat("idle", 120.0, 0.0)

    return work


def server_tour() -> Work:
    """A server on 24 GB that does, one after the other, what servers do."""

    def work(process: Process) -> Iterator[float]:
        process.phase("pre_allocation")
        share = process.open()
        walk = _Walker(process, share)
        yield from walk.ramp("pre_allocation", 9000, 2.0, 6)
        yield from walk.ramp("warmup", 240, 20.0, 10)
        yield from walk.flat("active_inference", 300.0, 60.0)
        for _ in range(3):
            yield from walk.swing("request_burst", 1200, 3.0, 2.0, 4)
            yield from walk.flat("active_inference", 180.0, 60.0)
        process.phase("cache_filling")
        missing = 6000.0
        held = 0
        while missing > 150.0:
            grown = round(missing / 40.0 / 2.0) * 2
            share.demand(mib(grown))
            held += grown
            missing -= max(grown, 2)
            yield 2.0
        yield from walk.flat("active_inference", 180.0, 60.0)
        yield from walk.ramp("cache_eviction", -min(2400, held // 2), 4.0, 4)
        yield from walk.flat("active_inference", 180.0, 60.0)
        yield from walk.ramp("cooldown", -46, 90.0, 23)
        yield from walk.flat("idle", 120.0, 0.0)
        yield from walk.ramp("cleanup", -6000, 2.0, 3)

    return work
