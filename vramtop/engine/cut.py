"""The same stream, ended early or cut differently."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import numpy as np

from vramtop.blocks import Block


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
