"""What a program prints when memory runs out, and what a recorder that reads along keeps of it.

PyTorch's form is that of 2.2 and later; its figures have two decimals and binary units,
unlike our own text of quantities, because readers of such messages must accept it. The
figures kept beside the text are those that can be read out of it, not the exact ones.
"""

from __future__ import annotations

from collections.abc import Sequence

from vramtop.units import GIB, KIB, MIB

_UNITS = ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB"))
_EXPANDABLE = (
    "If reserved but unallocated memory is large try setting "
    "PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation.  See "
    "documentation for Memory Management  "
    "(https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
)


def torch_size(size_bytes: int) -> str:
    """Bytes as PyTorch writes them.

    >>> torch_size(512), torch_size(20 * MIB), torch_size(85_520_809_984)
    ('512 bytes', '20.00 MiB', '79.65 GiB')
    """
    for unit_bytes, unit in _UNITS:
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.2f} {unit}"
    return f"{size_bytes} bytes"


def as_printed(size_bytes: int) -> int:
    """The bytes that a reader gets out of `torch_size`.

    >>> as_printed(20 * MIB) == 20 * MIB, as_printed(85_520_809_984) - 85_520_809_984
    (True, 2726298)
    """
    for unit_bytes, _ in _UNITS:
        if size_bytes >= unit_bytes:
            return round(float(f"{size_bytes / unit_bytes:.2f}") * unit_bytes)
    return size_bytes


def torch_oom(
    *,
    ordinal: int,
    requested_bytes: int,
    total_bytes: int,
    free_bytes: int,
    own_bytes: int,
    others: Sequence[tuple[int, int]],
    allocated_bytes: int,
    unallocated_bytes: int,
) -> tuple[str, dict[str, object]]:
    """The last line of the traceback of a failed allocation.

    Args:
        ordinal: The GPU as the process numbers it, which need not be NVML's index.
        requested_bytes: The segment asked for, not the tensor.
        total_bytes: Of the device, without what the driver keeps.
        free_bytes: Of the device.
        own_bytes: Everything this process holds, CUDA context included.
        others: (pid, bytes) of the other processes on the device.
        allocated_bytes: In use by tensors.
        unallocated_bytes: Reserved by PyTorch and not in use.

    Returns:
        The text, and the facts that can be read out of it.
    """
    neighbours = "".join(
        f"Process {pid} has {torch_size(held)} memory in use. " for pid, held in others
    )
    text = (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate "
        f"{torch_size(requested_bytes)}. GPU {ordinal} has a total capacity of "
        f"{torch_size(total_bytes)} of which {torch_size(free_bytes)} is free. {neighbours}"
        f"Including non-PyTorch memory, this process has {torch_size(own_bytes)} memory in use. "
        f"Of the allocated memory {torch_size(allocated_bytes)} is allocated by PyTorch, and "
        f"{torch_size(unallocated_bytes)} is reserved by PyTorch but unallocated. {_EXPANDABLE}"
    )
    facts: dict[str, object] = {
        "family": "torch.expandable",
        "framework": "pytorch",
        "kind": "device",
        "fatal": True,
        "requested_bytes": as_printed(requested_bytes),
        "total_bytes": as_printed(total_bytes),
        "free_bytes": as_printed(free_bytes),
        "process_bytes": as_printed(own_bytes),
        "allocated_bytes": as_printed(allocated_bytes),
        "unused_bytes": as_printed(unallocated_bytes),
        "ordinal": ordinal,
    }
    if others:
        facts["neighbours"] = [{"pid": pid, "used_bytes": as_printed(held)} for pid, held in others]
    return text, facts


def context_oom() -> tuple[str, dict[str, object]]:
    """What a process prints for which not even the CUDA context fits: text and facts."""
    return "RuntimeError: CUDA error: out of memory", {
        "family": "torch.cuda-error",
        "framework": "pytorch",
        "kind": "device",
        "fatal": True,
    }


def jax_oom(*, ordinal: int, requested_bytes: int) -> tuple[str, dict[str, object]]:
    """What a JAX program ends with."""
    text = (
        f"jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying "
        f"to allocate {requested_bytes} bytes on GPU_{ordinal}."
    )
    return text, {
        "family": "xla",
        "framework": "jax",
        "kind": "device",
        "fatal": True,
        "requested_bytes": requested_bytes,
    }


def llama_oom(*, ordinal: int, requested_bytes: int) -> tuple[str, dict[str, object]]:
    """What llama.cpp prints when a buffer is refused; it names MiB with two decimals."""
    size = f"{requested_bytes / MIB:.2f}"
    text = (
        f"ggml_backend_cuda_buffer_type_alloc_buffer: allocating {size} MiB on device "
        f"{ordinal}: cudaMalloc failed: out of memory"
    )
    return text, {
        "family": "ggml",
        "framework": "llama.cpp",
        "kind": "device",
        "fatal": True,
        "requested_bytes": round(float(size) * MIB),
        "ordinal": ordinal,
    }


def vllm_no_blocks() -> tuple[str, dict[str, object]]:
    """What vLLM ends with when its share of the GPU leaves nothing for the cache."""
    text = (
        "ValueError: No available memory for the cache blocks. Try a higher "
        "`gpu_memory_utilization` for this engine."
    )
    return text, {
        "family": "vllm.no-blocks",
        "framework": "vllm",
        "kind": "config",
        "fatal": False,
    }
