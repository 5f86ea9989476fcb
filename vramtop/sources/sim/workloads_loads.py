"""Models that load for minutes, caches that fill to a level, and kernels of notebooks."""

from __future__ import annotations

from collections.abc import Iterator

from vramtop.sources.sim.allocator import Block
from vramtop.sources.sim.hardware import gib, mib
from vramtop.sources.sim.machine import Process, Work
from vramtop.sources.sim.truth import ABRUPT, GRADUAL, STARTUP, Risk
from vramtop.units import MIB

PAGE_BYTES = 2 * MIB
KERNEL = Risk(cause="tenant", stratum=ABRUPT)


def cache_fills() -> Work:
    """A server whose cache fills ever more slowly, up to a level that the board bears."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="cache", stratum=GRADUAL)
        usable = process.board.usable_bytes
        weights = round(usable * dice.between(0.1, 0.4))
        level = dice.between(0.9, 0.97) if dice.chance(0.3) else dice.between(0.5, 0.9)
        process.phase("initialization")
        share = process.open()
        allocator = share.allocator
        load_s = dice.scale(8.0, 120.0)
        for _ in range(24):
            allocator.malloc(weights // 24)
            yield load_s / 24
        process.phase("active_inference")
        process.busy(dice.between(15.0, 70.0), 30.0)
        yield dice.scale(5.0, 300.0)
        cache = usable * level - share.held_bytes
        # Each second the same share of what is still missing: hits become commoner.
        missing, fill_s = cache, dice.scale(60.0, 2400.0)
        piece = mib(dice.pick((4.0, 24.0, 64.0)))
        blocks: list[Block] = []
        evicts = dice.chance(0.35)
        while True:
            if missing > 0.03 * cache:
                process.phase("cache_filling")
            while missing > 0.03 * cache:
                missing -= missing / fill_s * dice.between(0.4, 1.6)
                while (len(blocks) + 1) * piece < cache - missing:
                    blocks.append(allocator.malloc(piece))
                yield 1.0
            process.phase("active_inference")
            yield dice.scale(300.0, 2400.0)
            if not evicts:
                continue
            process.phase("cache_eviction")
            for _ in range(max(round(len(blocks) * dice.between(0.1, 0.6)), 1)):
                allocator.free(blocks.pop())
            yield 0.5
            allocator.empty_cache()
            missing = cache - len(blocks) * piece
            yield dice.between(2.0, 6.0)

    return work


def bounded_chats() -> Work:
    """Chats that come and go; a server that admits no more than its memory bears."""

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="kv-cache", stratum=GRADUAL)
        usable = process.board.usable_bytes
        weights = round(usable * dice.between(0.15, 0.4))
        budget = round((usable - weights) * dice.between(0.6, 0.97))
        # Caches in pages: a chat takes one after the other and gives all back at its end.
        seats, longest = dice.integer(4, 24), dice.integer(8, 40)
        page = max(round(budget / (0.6 * seats * longest)) // PAGE_BYTES, 1) * PAGE_BYTES
        process.phase("initialization")
        share = process.open()
        allocator = share.allocator
        load_s = dice.scale(8.0, 120.0)
        for _ in range(32):
            allocator.malloc(weights // 32)
            yield load_s / 32
        process.phase("cache_filling")
        page_s = dice.scale(1.0, 12.0)
        # Chats per second, against what the seats bear.
        chance = min(dice.between(0.6, 1.6) * seats / (0.55 * longest * page_s), 1.0)
        trims_s = dice.scale(20.0, 600.0) if dice.chance(0.5) else None
        trimmed_s = process.age_s
        began_s = process.age_s
        chats: list[tuple[int, list[Block]]] = []
        while True:
            promised = sum(length for length, _ in chats) * page
            if dice.chance(chance):
                length = dice.integer(2, longest)
                if promised + length * page <= budget:
                    chats.append((length, []))
            for length, blocks in chats:
                if len(blocks) < length and dice.chance(1.0 / page_s):
                    blocks.append(allocator.malloc(page))
            for chat in [chat for chat in chats if len(chat[1]) == chat[0]]:
                chats.remove(chat)
                for block in chat[1]:
                    allocator.free(block)
            if trims_s is not None and process.age_s - trimmed_s > trims_s:
                allocator.empty_cache()
                trimmed_s = process.age_s
            # By then as many chats end as begin.
            if process.age_s - began_s > 2.0 * longest * page_s:
                process.phase("active_inference")
            process.busy(min(100.0, 20.0 + 4.0 * len(chats)), 45.0)
            yield 1.0

    return work


def slow_load(*, switches: bool = False) -> Work:
    """A model comes from a slow disk, shard by shard, to half the board and more; then flat.

    Args:
        switches: The process drops it after a while and loads another one, as model
            switchers do.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="startup", stratum=STARTUP)
        process.phase("initialization")
        process.busy(2.0, 2.0)
        yield dice.between(1.0, 8.0)
        share = process.open()
        while True:
            size = share.device.board.usable_bytes * dice.between(0.5, 0.95)
            size -= share.device.used_bytes
            load_s = dice.scale(40.0, 600.0)
            shards = dice.integer(6, 60)
            # Some read a shard and copy it at once, some stream it in small pieces.
            pieces = dice.pick((1, 1, 8, 40))
            loaded = 0
            for _ in range(shards):
                shard_s = load_s / shards * dice.between(0.5, 1.5)
                for _ in range(pieces):
                    part = round(size / shards / pieces) // PAGE_BYTES * PAGE_BYTES
                    share.demand(part)
                    loaded += part
                    yield shard_s * 0.4 / pieces
                yield shard_s * 0.6
            if dice.chance(0.6):
                process.phase("warmup")
                process.busy(40.0, 20.0)
                for _ in range(dice.integer(2, 8)):
                    part = min(mib(dice.between(2.0, 60.0)), share.device.free_bytes // 4)
                    share.demand(part)
                    loaded += part
                    yield dice.between(0.5, 3.0)
            process.phase("active_inference")
            left_s = dice.scale(300.0, 2400.0) if switches else float("inf")
            while left_s > 0:
                process.busy(dice.between(0.0, 95.0), 40.0)
                yield min(left_s, 15.0)
                left_s -= 15.0
            process.phase("releasing_memory")
            process.busy(0.0, 0.0)
            share.give(loaded)
            yield dice.between(3.0, 30.0)
            process.phase("memory_growth")

    return work


def long_server(*, life_s: float) -> Work:
    """A server that takes its pool and serves for a day; now and then a workspace comes.

    Args:
        life_s: When it is stopped, as for a new version.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = Risk(cause="startup", stratum=STARTUP)
        process.phase("initialization")
        process.busy(3.0, 2.0)
        yield dice.between(4.0, 20.0)
        share = process.open()
        room = share.device.free_bytes
        weights = room * dice.between(0.15, 0.6)
        load_s = dice.scale(10.0, 180.0)
        for _ in range(32):
            share.allocator.malloc(round(weights / 32))
            yield load_s / 32
        if dice.chance(0.6):
            process.phase("pre_allocation")
            pool = room * dice.between(0.75, 0.96) - share.held_bytes
            for _ in range(24):
                share.demand(max(round(pool / 24), 0))
                yield 0.04
        process.phase("warmup")
        for _ in range(dice.integer(0, 30)):
            # Captured graphs; each costs the driver a little.
            share.demand(min(mib(dice.pick((2.0, 16.0, 24.0))), share.device.free_bytes // 20))
            yield 0.5
        process.phase("active_inference")
        every_s = dice.scale(600.0, 14_400.0)
        bump_s = process.age_s + every_s * dice.between(0.1, 1.0)
        while process.age_s < life_s:
            process.busy(dice.curve(((0.0, 0), (0.2, 15), (0.7, 85), (1.0, 100))), 35.0)
            yield dice.between(10.0, 40.0)
            if process.age_s > bump_s:
                # A new batch size, an adapter, a library's workspace: kept for good.
                bump_s = process.age_s + every_s * dice.between(0.5, 1.5)
                size = min(mib(dice.scale(2.0, 800.0)), share.device.free_bytes // 8)
                if size > mib(50.0):
                    process.phase("allocation_event")
                share.demand(size // PAGE_BYTES * PAGE_BYTES)
                yield 2.0
                process.phase("active_inference")
        process.phase("cleanup")
        process.busy(0.0, 0.0)
        yield dice.between(0.5, 5.0)

    return work


def kernel(*, hours: float, hunger: float) -> Work:
    """A notebook's kernel for an afternoon: cells that take memory and cells that drop it.

    Args:
        hours: How long somebody works in it.
        hunger: GiB that a cell takes on the mean.
    """

    def work(process: Process) -> Iterator[float]:
        dice = process.dice
        process.risk = KERNEL
        process.phase("initialization")
        yield dice.between(1.0, 60.0)
        share = process.open()
        allocator = share.allocator
        cells: list[Block] = []
        while process.age_s < hours * 3600.0:
            process.phase("allocation_event")
            process.busy(dice.between(20.0, 90.0), 30.0)
            size = gib(hunger * dice.scale(0.2, 3.0))
            if cells and dice.chance(0.45):
                # `del model`, or the same cell again: the old result is dropped.
                allocator.free(cells.pop(dice.integer(0, len(cells) - 1)))
                if dice.chance(0.6):
                    allocator.empty_cache()
            for _ in range(4):
                cells.append(allocator.malloc(size // 4))
                yield dice.between(0.2, 1.5)
            if len(cells) > 24:
                process.phase("cleanup")
                while len(cells) > 6:
                    allocator.free(cells.pop())
                allocator.empty_cache()
                yield 1.0
            process.phase("idle")
            process.busy(0.0, 0.0)
            yield dice.scale(20.0, 1500.0)

    return work
