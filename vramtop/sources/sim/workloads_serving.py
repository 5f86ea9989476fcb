"""Serving and other workloads that are no training."""

from __future__ import annotations

from collections.abc import Iterator

from vramtop.sources.sim.allocator import Block
from vramtop.sources.sim.hardware import gib, mib
from vramtop.sources.sim.machine import Process, Refused, Work
from vramtop.sources.sim.truth import ABRUPT, GRADUAL, STARTUP, Risk
from vramtop.units import MIB

TENANT = Risk(cause="tenant", stratum=ABRUPT, blame_newest=True)


def prealloc_server(*, utilization: float = 0.92, weights_gib: float = 15.0) -> Work:
    """A server like vLLM: weights, a profiling run, one large KV cache, graphs; then flat.

    Args:
        utilization: Share of the GPU's memory it brings itself up to.
        weights_gib: Size of the model.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="startup", stratum=STARTUP)
        process.phase("initialization")
        yield dice.between(6.0, 10.0)
        share = process.open()
        allocator = share.allocator
        shards = 32
        for _ in range(shards):
            allocator.malloc(gib(weights_gib * dice.between(0.97, 1.0)) // shards)
            yield dice.between(0.4, 0.9)
        # The profiling run with the longest batch; its peak is given back before the cache.
        process.busy(85.0, 40.0)
        peak = [allocator.malloc(mib(dice.between(300.0, 900.0))) for _ in range(6)]
        yield dice.between(2.0, 4.0)
        for block in peak:
            allocator.free(block)
        allocator.empty_cache()
        yield 1.0
        process.phase("pre_allocation")
        process.busy(0.0, 0.0)
        board = share.device.board
        left = round(board.total_bytes * utilization) - share.device.used_bytes - gib(2.0)
        layers = 32
        for _ in range(layers):
            allocator.malloc(left // layers)
            yield 0.02
        process.phase("initialization")
        for _ in range(35):
            # Each captured graph costs the driver some memory that is no tensor's.
            share.demand(mib(dice.pick((0.0, 16.0, 24.0, 48.0))))
            yield 0.5
        process.phase("active_inference")
        while True:
            process.busy(dice.curve(((0.0, 0), (0.2, 15), (0.7, 85), (1.0, 100))), 35.0)
            yield dice.between(1.0, 12.0)

    return work


def jax_training(*, fraction: float = 0.75) -> Work:
    """A JAX program: three quarters of the GPU at once, later only the library workspaces."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="startup", stratum=STARTUP)
        process.phase("initialization")
        share = process.open()
        yield dice.between(2.0, 4.0)
        process.phase("pre_allocation")
        total = share.device.board.total_bytes - share.device.board.reserved_bytes
        share.demand(round(total * fraction) // (2 * 1024 * 1024) * 2 * 1024 * 1024)
        yield dice.between(3.0, 5.0)
        process.phase("warmup")
        process.busy(8.0, 2.0)
        for size in (64.0, 192.0, 34.0):
            yield dice.between(6.0, 14.0)
            share.demand(mib(size))
        process.phase("steady_state")
        while True:
            process.busy(dice.between(93.0, 99.0), 62.0)
            yield 30.0

    return work


def growing_chats(
    *, weights_gib: float = 14.0, token_bytes: int = 524_288, chance: tuple[float, float]
) -> Work:
    """Chats whose KV caches grow by concatenation; ever more of them are open at once.

    Args:
        weights_gib: Size of the model.
        token_bytes: Keys and values of one token in all layers.
        chance: Probability per second that a chat begins, at first and after an hour.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="kv-cache", stratum=GRADUAL)
        process.phase("initialization")
        share = process.open()
        allocator = share.allocator
        for _ in range(32):
            yield 0.5
            allocator.malloc(gib(weights_gib) // 32)
        process.phase("cache_filling")
        chats: list[_Chat] = []
        while True:
            grown = min(process.age_s / 3600.0, 1.0)
            if dice.chance(chance[0] + (chance[1] - chance[0]) * grown):
                chats.append(_Chat(length=dice.integer(100, 900), until=dice.integer(2500, 12_000)))
            process.busy(min(100.0, 25.0 + 6.0 * len(chats)), 45.0)
            for chat in chats:
                chat.length += dice.integer(8, 20)
                wanted = -(-chat.length // 1024) * 1024
                if wanted != chat.room:
                    # `torch.cat`: the new tensor exists beside the old one for a moment.
                    chat.room = wanted
                    for layer in range(8):
                        old = chat.blocks[layer]
                        chat.blocks[layer] = allocator.malloc(wanted * token_bytes // 8)
                        if old is not None:
                            allocator.free(old)
            for chat in [chat for chat in chats if chat.length >= chat.until]:
                chats.remove(chat)
                for block in chat.blocks:
                    if block is not None:
                        allocator.free(block)
            yield 1.0

    return work


class _Chat:
    """One conversation: its length in tokens, where it ends, its cache in eight parts."""

    def __init__(self, length: int, until: int) -> None:
        self.length = length
        self.until = until
        self.room = 0
        self.blocks: list[Block | None] = [None] * 8


def loader(
    *,
    size_gib: float,
    load_s: float,
    leaves_gib: float | None = None,
    then_gib: float = 0.0,
    life_s: float | None = None,
    busy_pct: float = 55.0,
    label: str = "active_inference",
    risk: Risk = TENANT,
) -> Work:
    """A process that loads a model, works some time, and ends.

    Args:
        size_gib: What it loads.
        leaves_gib: Instead, it loads all that is free at its start but this much.
        load_s: In how many seconds.
        then_gib: What its first real batch takes beyond that.
        life_s: Seconds it works; None for ever.
        busy_pct: Its load while it works.
        label: What its working phase is called.
        risk: What an end for want of memory would be due to.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = risk
        process.phase("initialization")
        share = process.open()
        yield min(load_s * 0.3, 3.0)
        size = gib(size_gib)
        if leaves_gib is not None:
            size = max(share.device.free_bytes - gib(leaves_gib), 0)
        parts = max(int(load_s), 1)
        for _ in range(parts):
            share.allocator.malloc(size // parts)
            yield load_s * 0.7 / parts
        process.phase(label)
        process.busy(busy_pct, busy_pct * 0.5)
        if then_gib:
            yield dice.between(2.0, 6.0)
            for _ in range(8):
                share.allocator.malloc(gib(then_gib) // 8)
                yield 0.5
        left = float("inf") if life_s is None else life_s
        while left > 0:
            wait = min(left, 20.0)
            process.busy(busy_pct * dice.between(0.7, 1.2), busy_pct * 0.5)
            yield wait
            left -= wait
        process.phase("cleanup")
        process.busy(0.0, 0.0)
        yield 0.5

    return work


def notebook(*, cells: tuple[float, ...] = (0.6, 1.6), pause_s: float = 40.0) -> Work:
    """A notebook kernel: a few tensors after a few cells, then nobody comes back.

    Args:
        cells: GiB that each cell leaves behind.
        pause_s: Seconds between cells.
    """

    def work(process: Process) -> Iterator[float]:
        process.phase("initialization")
        share = process.open()
        for size in cells:
            share.allocator.malloc(gib(size))
            process.busy(30.0, 15.0)
            yield 2.0
            process.busy(0.0, 0.0)
            yield max(pause_s - 2.0, 0.001)
        process.phase("idle")
        while True:
            yield 3600.0

    return work


def jax_growing() -> Work:
    """A JAX program without preallocation: regions that double, and a new shape now and then.

    Regions are never given back. A new shape is compiled and needs more at once; for some
    seeds more than there is.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="new-shape", stratum=ABRUPT)
        process.phase("initialization")
        process.busy(3.0, 1.0)
        share = process.open()
        yield dice.between(2.0, 6.0)
        usable = process.board.usable_bytes
        # What the shapes need, the last the most.
        shapes = dice.integer(2, 5)
        last = dice.between(1.05, 1.5) if dice.chance(0.5) else dice.between(0.45, 0.85)
        first = dice.between(0.2, 0.4)
        region, held = gib(0.25), 0
        for number in range(shapes):
            needed = usable * (first + (last - first) * number / (shapes - 1))
            if number:
                process.phase("allocation_event")
            process.busy(5.0, 2.0)
            while held < needed:
                if region > share.device.free_bytes and needed - held < share.device.free_bytes:
                    # What no doubled region has room for is asked for as it is.
                    region = round(needed - held)
                share.demand(region)
                held += region
                region *= 2
                yield dice.between(0.2, 2.5)
            region = max(region // 4, gib(0.25))
            process.phase("steady_state")
            left_s = dice.scale(240.0, 1500.0)
            while left_s > 0:
                process.busy(dice.between(90.0, 99.0), 62.0)
                yield min(left_s, 30.0)
                left_s -= 30.0

    return work


def llama_server() -> Work:
    """llama.cpp: the weights in one buffer, the cache in another, a third for computing."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="startup", stratum=STARTUP)
        process.phase("initialization")
        process.busy(1.0, 1.0)
        usable = process.board.usable_bytes
        weights = usable * dice.between(0.3, 0.75)
        room = usable - weights
        fits = dice.chance(0.45)
        cache = room * (dice.between(0.2, 0.85) if fits else dice.between(1.0, 1.6))
        yield dice.between(1.0, 3.0)
        share = process.open()
        yield dice.between(0.5, 2.0)
        share.demand(round(weights) // MIB * MIB)
        # The buffer is there at once; the file is read into it.
        yield dice.scale(4.0, 120.0)
        share.demand(round(cache) // MIB * MIB)
        yield dice.between(0.3, 2.0)
        share.demand(round(room * 0.05) // MIB * MIB)
        yield dice.between(0.3, 2.0)
        process.phase("active_inference")
        left_s = dice.scale(300.0, 1500.0)
        while left_s > 0:
            process.busy(dice.between(0.0, 98.0), 60.0)
            yield min(left_s, 8.0)
            left_s -= 8.0

    return work


def refusing_server() -> Work:
    """VLLM with too small a share: it loads, profiles, finds nothing left, and ends."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        usable = process.board.usable_bytes
        weights = usable * dice.between(0.3, 0.7)
        utilization = weights / usable + dice.between(-0.2, 0.15)
        process.phase("initialization")
        process.busy(3.0, 2.0)
        yield dice.between(6.0, 12.0)
        share = process.open()
        for _ in range(16):
            share.allocator.malloc(round(weights / 16))
            yield dice.between(0.4, 1.5)
        # The profiling run.
        peak = share.allocator.malloc(mib(dice.between(300.0, 900.0)))
        yield dice.between(2.0, 4.0)
        share.allocator.free(peak)
        share.allocator.empty_cache()
        left = usable * utilization - share.held_bytes - mib(1000.0)
        if left <= 0:
            raise Refused("cache-blocks")
        process.phase("pre_allocation")
        for _ in range(16):
            share.allocator.malloc(round(left / 16))
            yield 0.05
        process.phase("active_inference")
        left_s = dice.scale(300.0, 1500.0)
        while left_s > 0:
            process.busy(dice.between(20.0, 98.0), 50.0)
            yield min(left_s, 8.0)
            left_s -= 8.0

    return work
