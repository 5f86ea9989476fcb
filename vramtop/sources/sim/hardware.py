"""Boards, the memory of one GPU, and what one process holds of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vramtop.sources.sim.allocator import CachingAllocator, OutOfMemory
from vramtop.sources.sim.dice import Dice
from vramtop.units import GIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A MIG instance to be cut out of a board."""

    profile: str
    total_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """Constants of a GPU model.

    Attributes:
        slices: The MIG instances it is cut into; none, and it is whole.
    """

    name: str
    total_bytes: int
    reserved_bytes: int
    idle_mw: int
    limit_mw: int
    sm_clock_mhz: int
    mem_clock_mhz: int
    slices: tuple[Slice, ...] = ()

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
A100_CUT = replace(
    A100,
    slices=(
        Slice(profile="3g.40gb", total_bytes=40_448 * MIB, reserved_bytes=87 * MIB),
        Slice(profile="2g.20gb", total_bytes=19_968 * MIB, reserved_bytes=59 * MIB),
    ),
)
"""An A100 in MIG mode with two instances; the rest of it is nobody's."""
SIZES = (H100, A100_40, RTX4090)
"""One board of each size, 80, 40 and 24 GB."""
CONTEXT_BYTES = {
    H100.name: 524 * MIB,
    A100.name: 424 * MIB,
    RTX4090.name: 338 * MIB,
    A100_40.name: 412 * MIB,
}


def context_bytes(board: Board) -> int:
    """What a CUDA context takes on it."""
    return CONTEXT_BYTES[board.name.split(" MIG ")[0]]


class Device:
    """One GPU's memory, or one MIG instance's.

    Attributes:
        place: Which device of the machine it is; jobs name it by that.
        gpu, uuid, board: Which one. An instance has the index and the board of its GPU, with
            the memory that was cut out for it.
        floor_bytes: Held by no process that the driver lists.
        process_bytes: Held by processes.
        parent: For a MIG instance, its GPU.
        parts: For a GPU in MIG mode, its instances.
    """

    def __init__(
        self,
        place: int,
        gpu: int,
        uuid: str,
        board: Board,
        floor_bytes: int,
        *,
        parent: Device | None = None,
    ) -> None:
        self.place = place
        self.gpu = gpu
        self.uuid = uuid
        self.board = board
        self.floor_bytes = floor_bytes
        self.process_bytes = 0
        self.parent = parent
        self.parts: list[Device] = []
        if parent is not None:
            parent.parts.append(self)

    @property
    def used_bytes(self) -> int:
        """Without the driver's reservation, like NVML's second version."""
        inside = sum(part.used_bytes for part in self.parts)
        return self.floor_bytes + self.process_bytes + inside

    @property
    def free_bytes(self) -> int:
        """What can still be allocated."""
        return self.board.total_bytes - self.board.reserved_bytes - self.used_bytes


def cut(dice: Dice, boards: Sequence[Board]) -> list[Device]:
    """The devices of a machine: each GPU, followed by its MIG instances."""
    devices: list[Device] = []
    for gpu, board in enumerate(boards):
        root = Device(len(devices), gpu, f"GPU-{dice.uuid()}", board, dice.integer(1, 8) * MIB)
        devices.append(root)
        for piece in board.slices:
            part = replace(
                board,
                name=f"{board.name} MIG {piece.profile}",
                total_bytes=piece.total_bytes,
                reserved_bytes=piece.reserved_bytes,
                slices=(),
            )
            uuid = f"MIG-{dice.uuid()}"
            devices.append(
                Device(len(devices), gpu, uuid, part, dice.integer(8, 14) * MIB, parent=root)
            )
    return devices


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
