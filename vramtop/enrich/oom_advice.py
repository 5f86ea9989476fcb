"""What an out-of-memory message means and what to try, from its figures alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vramtop.enrich.oom_patterns import OomMessage
from vramtop.units import MIB, format_bytes

FULL_BYTES = 64 * MIB
"""A device with less free is full: CUDA does not hand out the very last of it."""

_ROUNDING_BYTES = 64 * MIB  # several figures of two decimals of a GiB each

KINDS = {
    "device": "GPU memory ran out",
    "recoverable": "GPU memory ran out for a moment; the program went on",
    "config": "refused by its configuration, before memory ran out",
    "va": "address space ran out, not GPU memory",
    "host": "memory of the machine ran out, not the GPU's",
    "bug": "an absurd request: most likely a bug, not a lack of memory",
}

_BY_FAMILY = {
    "vllm.no-blocks": "raise gpu_memory_utilization, or use a smaller model or more GPUs: after "
    "loading the model nothing was left for the KV cache",
    "vllm.cache-too-small": "lower max_model_len, or raise gpu_memory_utilization",
    "vllm.not-free": "lower gpu_memory_utilization, or free what other processes hold",
    "vllm.sampler": "lower max_num_seqs or gpu_memory_utilization",
    "sglang.static": "raise --mem-fraction-static if it fails at start, lower it if while serving",
    "torch.fraction": "raise set_per_process_memory_fraction",
    "torch.reserve": "raise the expandable-segment reserve, or turn expandable segments off",
    "torch.va": "raise `ulimit -v`, or turn expandable segments off",
    "cublas": "a workspace could not be had: often memory is full, sometimes the set-up is broken",
    "cuda.code": "not proof of full GPU memory: it may be address space or another resource",
    "rmm": "raise the maximum size of the RMM pool, or spill to the host",
    "host.killed": "give the job more memory, or load less at once: the kernel ended the process",
}
_HOST_ADVICE = "use fewer data-loader workers, memory-map, or ask for more memory for the job"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """One way in which memory ran out, however often the log says it.

    Attributes:
        lines: Where in the log, from 1, ascending.
        unexplained_bytes: In use on the device and held by nobody the message names.
        advice: What to try, the most promising first.
    """

    message: OomMessage
    lines: tuple[int, ...]
    unexplained_bytes: int | None
    advice: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The object that `explain --json` prints."""
        message = self.message
        return {
            "line": self.lines[0],
            "count": len(self.lines),
            "last_line": self.lines[-1],
            "family": message.family,
            "framework": message.framework,
            "kind": message.kind,
            "fatal": message.fatal,
            "meaning": KINDS[message.kind],
            "rank": message.rank,
            "ordinal": message.ordinal,
            "requested_bytes": message.requested_bytes,
            "total_bytes": message.total_bytes,
            "free_bytes": message.free_bytes,
            "process_bytes": message.process_bytes,
            "allocated_bytes": message.allocated_bytes,
            "unused_bytes": message.unused_bytes,
            "neighbours": [{"pid": pid, "used_bytes": held} for pid, held in message.neighbours],
            "unexplained_bytes": self.unexplained_bytes,
            "advice": list(self.advice),
            "text": message.text,
        }


def explain(found: Iterable[tuple[int, OomMessage]]) -> list[Explained]:
    """Messages of a log, those with equal figures taken together, in order of appearance."""
    lines: dict[OomMessage, list[int]] = {}
    first: dict[OomMessage, OomMessage] = {}
    for line, message in found:
        figures = replace(message, text="")
        lines.setdefault(figures, []).append(line)
        first.setdefault(figures, message)
    return [
        Explained(
            message=message,
            lines=tuple(lines[figures]),
            unexplained_bytes=unexplained_bytes(message),
            advice=tuple(advise(message)),
        )
        for figures, message in first.items()
    ]


def unexplained_bytes(message: OomMessage) -> int | None:
    """What is in use and belongs to nobody named; None if the message does not say enough."""
    if None in (message.total_bytes, message.free_bytes, message.process_bytes):
        return None
    named = sum(held for _, held in message.neighbours)
    rest = (message.total_bytes or 0) - (message.free_bytes or 0)
    rest -= (message.process_bytes or 0) + named
    return rest if rest > _ROUNDING_BYTES else 0


def advise(message: OomMessage) -> list[str]:
    """What to try, from this message alone."""
    advice = []
    if message.family in _BY_FAMILY:
        advice.append(_BY_FAMILY[message.family])
    elif message.kind == "host":
        advice.append(_HOST_ADVICE)
    if message.kind != "device":
        return advice
    asked, free, total = message.requested_bytes, message.free_bytes, message.total_bytes
    advice += _about_neighbours(message)
    if asked is not None and total is not None and asked > total:
        advice.append(
            f"one request of {format_bytes(asked)} exceeds the whole device "
            f"({format_bytes(total)}): look for a tensor with a wrong shape, or compute it in parts"
        )
    elif asked is not None and free is not None and max(asked, FULL_BYTES) <= free:
        advice.append(
            f"{format_bytes(free)} were free for a request of {format_bytes(asked)}: a memory "
            f"limit, fragmentation or address space stopped it, not the size of the device"
        )
    unused = message.unused_bytes
    if asked is not None and unused is not None and unused >= asked:
        setting = "expandable_segments:True"
        if message.family in {"torch.cached", "torch.reserved", "torch.split-hint"}:
            setting = "max_split_size_mb:128"
        advice.append(
            f"PyTorch kept {format_bytes(unused)} unused, enough for the request but in pieces: "
            f"set PYTORCH_CUDA_ALLOC_CONF={setting}"
        )
    short = asked is not None and free is not None and asked > free
    if not advice or (short and not _a_guest(message)):
        advice.append(_use_less(message))
    return advice


def _a_guest(message: OomMessage) -> bool:
    """Others fill the device; what this process could save would not help it."""
    own, total = message.process_bytes, message.total_bytes
    if not message.neighbours or own is None or total is None:
        return False
    return own * 4 < total


def _about_neighbours(message: OomMessage) -> list[str]:
    if not message.neighbours:
        return []
    pid, held = max(message.neighbours, key=lambda neighbour: neighbour[1])
    own = message.process_bytes
    if own is not None and held < own:
        return [f"process {pid} holds {format_bytes(held)} of the same GPU: choose another GPU"]
    more = f"process {pid} holds {format_bytes(held)}, more than this process"
    return [f"{more}: end it, or choose another GPU with CUDA_VISIBLE_DEVICES"]


def _use_less(message: OomMessage) -> str:
    asked, free = message.requested_bytes, message.free_bytes
    if asked is not None and free is not None and asked > free:
        start = f"at least {format_bytes(asked - free)} less must be in use at that moment: "
    else:
        start = ""
    if message.framework in {"llama.cpp", "ollama"}:
        return f"{start}put fewer layers on the GPU, shorten the context, or quantise more"
    if message.framework == "jax":
        return (
            f"{start}use a smaller batch, or rematerialise; JAX takes 75 % of the GPU beforehand, "
            f"see XLA_PYTHON_CLIENT_MEM_FRACTION"
        )
    return f"{start}use a smaller batch, gradient accumulation or activation checkpointing"
