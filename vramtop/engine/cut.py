"""The same stream, ended early or cut differently."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import numpy as np

from vramtop.blocks import Block
from vramtop.engine.engine import Engine
from vramtop.events import Event, ordered


def until(blocks: Iterable[Block], last_us: int) -> Iterator[Block]:
    """The stream up to the last tick at or before `last_us` of wall clock, in stream order.

    The wall clock may step back; the stream ends before the first tick that is later.
    """
    for block in blocks:
        later = np.flatnonzero(block.t_us > last_us)
        if len(later):
            if later[0] > 0:
                yield block.part(0, int(later[0]))
            return
        yield block


def rechunked(blocks: Iterable[Block], draw: random.Random, longest: int) -> Iterator[Block]:
    """The same ticks in blocks of 1 to `longest`, at random."""
    for block in blocks:
        start = 0
        while start < len(block):
            stop = min(len(block), start + draw.randint(1, longest))
            yield block.part(start, stop)
            start = stop


def steps(engine: Engine, blocks: Iterable[Block]) -> Iterator[tuple[Block | None, list[Event]]]:
    """Blocks and what became true in them, all events in stream order.

    `finish` has more to say about the last tick, so the events of a block's last tick wait for
    the next block.

    Yields:
        (block, events); at last None with the events of the last tick.
    """
    held: list[Event] = []
    for block in blocks:
        events = held + engine.update(block)
        last = int(block.seq[-1]) if len(block) else -1
        held = [event for event in events if event.seq >= last]
        yield block, events[: len(events) - len(held)]
    yield None, ordered(held + engine.finish())


def replay(engine: Engine, blocks: Iterable[Block]) -> Iterator[Event]:
    """All events of a stream, in stream order to the end."""
    for _, events in steps(engine, blocks):
        yield from events
