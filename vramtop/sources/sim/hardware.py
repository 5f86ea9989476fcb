"""Boards, the memory of one GPU, and what one process holds of it."""

from __future__ import annotations

from dataclasses import dataclass

from vramtop.sources.sim.allocator import CachingAllocator, OutOfMemory
from vramtop.units import GIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Constants of a GPU model."""

    name: str
    total_bytes: int
    reserved_bytes: int
    idle_mw: int
    limit_mw: int
    sm_clock_mhz: int
    mem_clock_mhz: int

    @property
    def usable_bytes(self) -> int:
        """What processes can have of it."""
        return self.total_bytes - self.reserved_bytes


H100 = Board(name="NVIDIA H100 80GB HBM3", total_bytes=81_559 * MIB, reserved_bytes=551 * MIB,
             idle_mw=71_000, limit_mw=700_000, sm_clock_mhz=1980, mem_clock_mhz=2619)  # fmt: skip
A100 = Board(name="NVIDIA A100-SXM4-80GB", total_bytes=81_920 * MIB, reserved_bytes=634 * MIB,
             idle_mw=62_000, limit_mw=400_000, sm_clock_mhz=1410, mem_clock_mhz=1593)  # fmt: skip
RTX4090 = Board(name="NVIDIA GeForce RTX 4090", total_bytes=24_564 * MIB,
                reserved_bytes=397 * MIB, idle_mw=21_000, limit_mw=450_000,
                sm_clock_mhz=2520, mem_clock_mhz=10_501)  # fmt: skip
A100_40 = Board(name="NVIDIA A100-PCIE-40GB", total_bytes=40_960 * MIB,
                reserved_bytes=497 * MIB, idle_mw=35_000, limit_mw=250_000,
                sm_clock_mhz=1410, mem_clock_mhz=1215)  # fmt: skip
SIZES = (H100, A100_40, RTX4090)
"""One board of each size, 80, 40 and 24 GB."""
CONTEXT_BYTES = {
    H100.name: 524 * MIB,
    A100.name: 424 * MIB,
    RTX4090.name: 338 * MIB,
    A100_40.name: 412 * MIB,
}


class Device:
    """One GPU's memory.

    Attributes:
        gpu, uuid, board: Which one.
        floor_bytes: Held by no process that the driver lists.
        process_bytes: Held by processes.
    """

    def __init__(self, gpu: int, uuid: str, board: Board, floor_bytes: int) -> None:
        self.gpu = gpu
        self.uuid = uuid
        self.board = board
        self.floor_bytes = floor_bytes
        self.process_bytes = 0

    @property
    def used_bytes(self) -> int:
        """Without the driver's reservation, like NVML's second version."""
        return self.floor_bytes + self.process_bytes

    @property
    def free_bytes(self) -> int:
        """What can still be allocated."""
        return self.board.total_bytes - self.board.reserved_bytes - self.used_bytes


class Share:
    """What one process holds on one GPU: CUDA context, allocator, direct allocations.

    Attributes:
        device: Where.
        held_bytes: Everything, as NVML reports it for the process.
        allocator: PyTorch's, for processes that use it.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.held_bytes = 0
        self.allocator = CachingAllocator(self)

    def take(self, size_bytes: int) -> bool:
        """Take memory from the device; False if it has not enough."""
        if size_bytes > self.device.free_bytes:
            return False
        self.device.process_bytes += size_bytes
        self.held_bytes += size_bytes
        return True

    def give(self, size_bytes: int) -> None:
        """Give memory back."""
        self.device.process_bytes -= size_bytes
        self.held_bytes -= size_bytes

    def demand(self, size_bytes: int) -> None:
        """Take memory past any allocator (context, pool, library workspace).

        Raises:
            OutOfMemory: the device has not enough.
        """
        if not self.take(size_bytes):
            allocator = self.allocator
            raise OutOfMemory(size_bytes, allocator.allocated_bytes, allocator.reserved_bytes)


def gib(count: float) -> int:
    """GiB in bytes, as a whole number."""
    return round(count * GIB)


def mib(count: float) -> int:
    """MiB in bytes, as a whole number."""
    return round(count * MIB)
