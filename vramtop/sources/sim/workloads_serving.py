"""Serving and other workloads that are no training."""

from __future__ import annotations

from collections.abc import Iterator

from vramtop.sources.sim.allocator import Block
from vramtop.sources.sim.hardware import gib, mib
from vramtop.sources.sim.machine import Process, Work
from vramtop.sources.sim.truth import ABRUPT, GRADUAL, STARTUP, Risk

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
