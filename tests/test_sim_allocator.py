"""The model of PyTorch's caching allocator keeps its books and follows its rules."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vramtop.sources.sim.allocator import (
    GRANULE_BYTES,
    LARGE_GRANULE_BYTES,
    Block,
    CachingAllocator,
    OutOfMemory,
    segment_bytes_for,
)
from vramtop.units import GIB, KIB, MIB


class Capacity:
    """A device with so much memory."""

    def __init__(self, free_bytes: int) -> None:
        self.free_bytes = free_bytes

    def take(self, size_bytes: int) -> bool:
        if size_bytes > self.free_bytes:
            return False
        self.free_bytes -= size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        self.free_bytes += size_bytes


SIZES = st.one_of(
    st.integers(1, 4 * KIB),
    st.integers(4 * KIB, 3 * MIB),
    st.integers(MIB, 64 * MIB),
    st.sampled_from([512, MIB, MIB + 1, 10 * MIB - 512, 10 * MIB, 20 * MIB]),
)
# A size to allocate, or a share of one that says which of the living tensors to free.
OPERATIONS = st.lists(st.one_of(SIZES, st.floats(0, 0.999), st.none()), max_size=120)


def run(operations, capacity_bytes):
    """Allocate sizes, free by position, empty the cache for None; give all that matters."""
    device = Capacity(capacity_bytes)
    allocator = CachingAllocator(device)
    living: list[Block] = []
    failures = 0
    for operation in operations:
        if operation is None:
            allocator.empty_cache()
        elif isinstance(operation, float):
            if living:
                allocator.free(living.pop(int(operation * len(living))))
        else:
            try:
                living.append(allocator.malloc(operation))
            except OutOfMemory:
                failures += 1
        check(allocator, living, device, capacity_bytes)
    return allocator, living, device, failures


def check(allocator, living, device, capacity_bytes):
    segments = list(allocator.segments())
    in_use = {(block.address, block.size_bytes) for block in living}
    end = -1
    for segment in segments:
        assert segment.size_bytes % LARGE_GRANULE_BYTES == 0
        assert segment.address > end
        address, before_free = segment.address, False
        for start, size, free in segment.blocks:
            assert start == address
            assert size > 0
            assert size % GRANULE_BYTES == 0
            assert ((start, size) in in_use) is not free
            assert not (free and before_free), "two free neighbours were not merged"
            address, before_free = start + size, free
        end = address
    assert len(in_use) == len(living)
    assert allocator.allocated_bytes == sum(size for _, size in in_use)
    assert allocator.reserved_bytes == sum(segment.size_bytes for segment in segments)
    assert device.free_bytes + allocator.reserved_bytes == capacity_bytes
    assert allocator.allocated_bytes <= allocator.reserved_bytes <= capacity_bytes


@settings(max_examples=120, deadline=None)
@given(OPERATIONS, st.sampled_from([30 * MIB, 200 * MIB, 8 * GIB]))
def test_blocks_tile_their_segments_and_the_books_balance(operations, capacity_bytes):
    run(operations, capacity_bytes)


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_freeing_everything_leaves_whole_segments_that_can_all_be_given_back(operations):
    allocator, living, device, _ = run(operations, 8 * GIB)
    for block in living:
        allocator.free(block)
    assert all(len(segment.blocks) == 1 for segment in allocator.segments())
    assert allocator.allocated_bytes == 0
    allocator.empty_cache()
    assert allocator.reserved_bytes == 0
    assert device.free_bytes == 8 * GIB


@settings(max_examples=40, deadline=None)
@given(OPERATIONS)
def test_the_same_requests_give_the_same_layout(operations):
    first, *_ = run(operations, 200 * MIB)
    second, *_ = run(operations, 200 * MIB)
    assert first.layout() == second.layout()


@pytest.mark.parametrize(
    ("request_bytes", "segment_bytes"),
    [
        (1, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 1, 20 * MIB),
        (10 * MIB - 1, 10 * MIB),  # rounded to 512 B first
        (9 * MIB, 20 * MIB),
        (11 * MIB, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_the_first_request_reserves_the_segment_of_its_size_class(request_bytes, segment_bytes):
    allocator = CachingAllocator(Capacity(GIB))
    block = allocator.malloc(request_bytes)
    assert (
        allocator.reserved_bytes
        == segment_bytes
        == segment_bytes_for(-(-request_bytes // 512) * 512)
    )
    assert block.size_bytes >= request_bytes


def test_a_request_is_rounded_to_512_bytes():
    allocator = CachingAllocator(Capacity(GIB))
    assert allocator.malloc(513).size_bytes == 1024


def test_the_best_fit_is_taken_not_the_first():
    allocator = CachingAllocator(Capacity(GIB))
    wide, tight = allocator.malloc(100 * MIB), allocator.malloc(60 * MIB)
    allocator.free(wide)
    allocator.free(tight)
    assert allocator.malloc(50 * MIB) is tight


def test_a_remainder_of_a_mebibyte_stays_with_its_block_and_a_larger_one_is_split_off():
    allocator = CachingAllocator(Capacity(GIB))
    block = allocator.malloc(40 * MIB)
    allocator.free(block)
    assert allocator.malloc(39 * MIB).size_bytes == 40 * MIB
    other = CachingAllocator(Capacity(GIB))
    other.free(other.malloc(40 * MIB))
    assert other.malloc(38 * MIB).size_bytes == 38 * MIB


def test_a_refused_segment_empties_the_cache_and_tries_again():
    device = Capacity(100 * MIB)
    allocator = CachingAllocator(device)
    allocator.free(allocator.malloc(60 * MIB))
    allocator.malloc(80 * MIB)
    assert (allocator.retries, allocator.reserved_bytes) == (1, 80 * MIB)


def test_a_failure_frees_the_cache_first_and_names_the_segment():
    """What NVML sees of an out-of-memory error is a drop."""
    device = Capacity(100 * MIB)
    allocator = CachingAllocator(device)
    allocator.malloc(30 * MIB)
    allocator.free(allocator.malloc(60 * MIB))
    assert allocator.reserved_bytes == 90 * MIB
    with pytest.raises(OutOfMemory) as failure:
        allocator.malloc(71 * MIB)
    error = failure.value
    assert (error.segment_bytes, error.allocated_bytes, error.reserved_bytes) == (
        72 * MIB,
        30 * MIB,
        30 * MIB,
    )


def test_a_segment_with_one_tensor_left_cannot_be_given_back():
    allocator = CachingAllocator(Capacity(GIB))
    blocks = [allocator.malloc(2 * MIB) for _ in range(10)]
    for block in blocks[1:]:
        allocator.free(block)
    assert allocator.empty_cache() == 0
    assert allocator.reserved_bytes == 20 * MIB


def test_freeing_twice_is_refused():
    allocator = CachingAllocator(Capacity(GIB))
    block = allocator.malloc(MIB)
    allocator.free(block)
    with pytest.raises(ValueError, match="free already"):
        allocator.free(block)
