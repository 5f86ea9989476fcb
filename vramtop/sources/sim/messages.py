"""The message PyTorch prints when memory runs out, composed from the simulated state.

The form is that of PyTorch 2.2 and later; its figures have two decimals and binary units,
unlike our own text of quantities, because readers of such messages must accept it.
"""

from __future__ import annotations

from collections.abc import Sequence

from vramtop.units import GIB, KIB, MIB

MESSAGE_KIND = "torch.oom.v22"
CONTEXT_MESSAGE = "RuntimeError: CUDA error: out of memory"
CONTEXT_MESSAGE_KIND = "torch.cudaerr"


def torch_size(size_bytes: int) -> str:
    """Bytes as PyTorch writes them.

    >>> torch_size(512), torch_size(20 * MIB), torch_size(85_520_809_984)
    ('512 bytes', '20.00 MiB', '79.65 GiB')
    """
    if size_bytes < KIB:
        return f"{size_bytes} bytes"
    for unit_bytes, unit in ((GIB, "GiB"), (MIB, "MiB")):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.2f} {unit}"
    return f"{size_bytes / KIB:.2f} KiB"


def torch_oom_message(
    *,
    ordinal: int,
    requested_bytes: int,
    total_bytes: int,
    free_bytes: int,
    own_bytes: int,
    others: Sequence[tuple[int, int]],
    allocated_bytes: int,
    unallocated_bytes: int,
) -> str:
    """The last line of the traceback.

    Args:
        ordinal: The GPU as the process numbers it, which need not be NVML's index.
        requested_bytes: The segment asked for, not the tensor.
        total_bytes: Of the device, without what the driver keeps.
        free_bytes: Of the device.
        own_bytes: Everything this process holds, CUDA context included.
        others: (pid, bytes) of the other processes on the device.
        allocated_bytes: In use by tensors.
        unallocated_bytes: Reserved by PyTorch and not in use.
    """
    neighbours = "".join(
        f"Process {pid} has {torch_size(held)} memory in use. " for pid, held in others
    )
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate "
        f"{torch_size(requested_bytes)}. GPU {ordinal} has a total capacity of "
        f"{torch_size(total_bytes)} of which {torch_size(free_bytes)} is free. {neighbours}"
        f"Including non-PyTorch memory, this process has {torch_size(own_bytes)} memory in use. "
        f"Of the allocated memory {torch_size(allocated_bytes)} is allocated by PyTorch, and "
        f"{torch_size(unallocated_bytes)} is reserved by PyTorch but unallocated. If reserved "
        f"but unallocated memory is large try setting "
        f"PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See "
        f"documentation for Memory Management  "
        f"(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )
