"""PyTorch's CUDA caching allocator at the level of blocks. Standard library only.

NVML sees what the allocator has *reserved*, not what tensors use, so the shapes of GPU memory
(steps of 2 and 20 MiB, records that never come down, a dip before an out-of-memory error)
are made here. The rules are those of the native backend as its documentation and its memory
snapshots show them: requests are rounded to 512 B; up to 1 MiB they are served from 2 MiB
segments, up to 10 MiB from 20 MiB segments, above from segments rounded to 2 MiB; best fit;
a block is split when what is left over is worth keeping; freed blocks merge with free
neighbours of their segment; when the device refuses a segment, all wholly free segments are
given back and the device is asked once more; then the request fails.

Not modelled: streams, `max_split_size_mb`, expandable segments, private pools of CUDA graphs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from vramtop.units import MIB

GRANULE_BYTES = 512
SMALL_REQUEST_BYTES = MIB
SMALL_SEGMENT_BYTES = 2 * MIB
MIDDLE_REQUEST_BYTES = 10 * MIB
MIDDLE_SEGMENT_BYTES = 20 * MIB
LARGE_GRANULE_BYTES = 2 * MIB


class Backing(Protocol):
    """Where segments come from: device memory that others use too."""

    def take(self, size_bytes: int) -> bool:
        """Take memory from the device; False if it has not enough."""
        ...

    def give(self, size_bytes: int) -> None:
        """Give memory back to the device."""
        ...


class OutOfMemory(Exception):  # noqa: N818 - the name users of PyTorch know
    """The device refused a segment, also after the cache was emptied.

    Args:
        segment_bytes: What was asked of the device (PyTorch's message names this figure).
        allocated_bytes: In use by tensors at that moment.
        reserved_bytes: Held from the device after the cache was emptied.
    """

    def __init__(self, segment_bytes: int, allocated_bytes: int, reserved_bytes: int) -> None:
        super().__init__(segment_bytes)
        self.segment_bytes = segment_bytes
        self.allocated_bytes = allocated_bytes
        self.reserved_bytes = reserved_bytes


class Block:
    """A stretch of one segment, in use or free.

    Attributes:
        address: Byte offset in a simulated address space; a segment's are consecutive.
        size_bytes: Multiple of 512.
        free: Whether it is in the cache.
        pool: The allocator's list of free blocks that it belongs to.
        before, after: Its neighbours in the segment, None at the segment's ends.
    """

    __slots__ = ("address", "after", "before", "free", "pool", "size_bytes")

    def __init__(self, address: int, size_bytes: int, pool: list[tuple[int, int, Block]]) -> None:
        self.address = address
        self.size_bytes = size_bytes
        self.free = False
        self.pool = pool
        self.before: Block | None = None
        self.after: Block | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """A copy of one segment's layout.

    Attributes:
        address, size_bytes: Where it lies.
        blocks: (address, size, free) in ascending order.
    """

    address: int
    size_bytes: int
    blocks: tuple[tuple[int, int, bool], ...]


def segment_bytes_for(size_bytes: int) -> int:
    """What is asked of the device for a request of `size_bytes` (already rounded to 512 B).

    >>> segment_bytes_for(512) // MIB, segment_bytes_for(2 * MIB) // MIB
    (2, 20)
    >>> segment_bytes_for(10 * MIB) // MIB, segment_bytes_for(33 * MIB) // MIB
    (10, 34)
    """
    if size_bytes <= SMALL_REQUEST_BYTES:
        return SMALL_SEGMENT_BYTES
    if size_bytes < MIDDLE_REQUEST_BYTES:
        return MIDDLE_SEGMENT_BYTES
    return -(-size_bytes // LARGE_GRANULE_BYTES) * LARGE_GRANULE_BYTES


class CachingAllocator:
    """One process's allocator on one device.

    Args:
        backing: The device's memory.

    Attributes:
        allocated_bytes: In use by tensors, rounding included.
        reserved_bytes: Held from the device: in use and cached.
        retries: How often the cache was emptied to satisfy a request.
    """

    def __init__(self, backing: Backing) -> None:
        self._backing = backing
        # Free blocks by (size, address), so that best fit is a bisection.
        self._small: list[tuple[int, int, Block]] = []
        self._large: list[tuple[int, int, Block]] = []
        self._heads: dict[int, Block] = {}
        self._next_address = 0
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        self.retries = 0

    def malloc(self, size_bytes: int) -> Block:
        """Memory for one tensor.

        Raises:
            OutOfMemory: neither the cache nor the device has it.
        """
        size = max(size_bytes + GRANULE_BYTES - 1, GRANULE_BYTES) // GRANULE_BYTES * GRANULE_BYTES
        small = size <= SMALL_REQUEST_BYTES
        pool = self._small if small else self._large
        index = bisect_left(pool, (size,))
        block = pool.pop(index)[2] if index < len(pool) else self._grow(size, pool)
        rest = block.size_bytes - size
        # In the large pool a remainder of 1 MiB or less stays attached: it could serve nothing.
        if rest > SMALL_REQUEST_BYTES or (small and rest > 0):
            tail = Block(block.address + size, rest, pool)
            tail.free = True
            tail.before, tail.after = block, block.after
            if block.after is not None:
                block.after.before = tail
            block.after = tail
            block.size_bytes = size
            insort(pool, (rest, tail.address, tail))
        block.free = False
        self.allocated_bytes += block.size_bytes
        return block

    def free(self, block: Block) -> None:
        """Return a tensor's memory to the cache and merge it with free neighbours.

        Raises:
            ValueError: the block is free already.
        """
        if block.free:
            raise ValueError(f"block at {block.address} is free already")
        self.allocated_bytes -= block.size_bytes
        pool = block.pool
        after = block.after
        if after is not None and after.free:
            del pool[bisect_left(pool, (after.size_bytes, after.address))]
            block.size_bytes += after.size_bytes
            block.after = after.after
            if after.after is not None:
                after.after.before = block
        before = block.before
        if before is not None and before.free:
            del pool[bisect_left(pool, (before.size_bytes, before.address))]
            before.size_bytes += block.size_bytes
            before.after = block.after
            if block.after is not None:
                block.after.before = before
            # The merged block keeps the first one's place; this one must not be freed again.
            block.free = True
            block = before
        block.free = True
        insort(pool, (block.size_bytes, block.address, block))

    def empty_cache(self) -> int:
        """Give wholly free segments back to the device; returns how many bytes that were."""
        given = 0
        for pool in (self._small, self._large):
            kept = []
            for entry in pool:
                block = entry[2]
                if block.before is None and block.after is None:
                    given += block.size_bytes
                    del self._heads[block.address]
                else:
                    kept.append(entry)
            pool[:] = kept
        if given:
            self.reserved_bytes -= given
            self._backing.give(given)
        return given

    def segments(self) -> Iterator[Segment]:
        """The layout, by address."""
        for address in sorted(self._heads):
            blocks = []
            block: Block | None = self._heads[address]
            while block is not None:
                blocks.append((block.address, block.size_bytes, block.free))
                block = block.after
            yield Segment(address, sum(size for _, size, _ in blocks), tuple(blocks))

    def layout(self) -> tuple[Segment, ...]:
        """A comparable copy of the layout.

        A step of a workload that leaves this unchanged can be repeated for ever without
        changing what the device sees, so repetitions need not be simulated.
        """
        return tuple(self.segments())

    def _grow(self, size: int, pool: list[tuple[int, int, Block]]) -> Block:
        """A new segment; the cache is emptied when the device refuses it at first."""
        wanted = segment_bytes_for(size)
        if not self._backing.take(wanted):
            self.retries += 1
            self.empty_cache()
            if not self._backing.take(wanted):
                raise OutOfMemory(wanted, self.allocated_bytes, self.reserved_bytes)
        block = Block(self._next_address, wanted, pool)
        # A gap between segments, so that blocks of two segments are never adjacent.
        self._next_address += wanted + LARGE_GRANULE_BYTES
        self._heads[block.address] = block
        self.reserved_bytes += wanted
        return block
