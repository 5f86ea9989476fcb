r"""What frameworks print when memory runs out, as patterns: one line in, one message out.

Ordered: what must not count comes first, then the narrow forms, then the broad ones. Facts
about the wordings are from the frameworks' sources and from messages as people met them
(`tests/data/oom_messages.jsonl`).

Kinds: `device` GPU memory ran out; `recoverable` it did, and the program went on by itself;
`config` a limit or a plan that does not fit, refused before memory ran out; `va` address
space; `host` memory of the machine; `bug` an absurd request.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

# All these frameworks count binary, also those that print MB.
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}
_SIZE = r"\d[\d.,]{0,24}\s?(?:[Bb]ytes|[KMGTPE]i?B|B)(?![A-Za-z])"
_ITEM_BYTES = {
    "float": 4, "half": 2, "bfloat16": 2, "double": 8, "int32": 4, "int64": 8, "bool": 1,
    "int8": 1, "uint8": 1,
}  # fmt: skip
_SIZE_PARTS = re.compile(r"(\d[\d.,]*)\s?(?:bytes|([KMGTPE]?)i?B)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class OomMessage:
    """One message, as far as it says something.

    Attributes:
        family: Which wording it is, such as `torch.expandable`.
        framework: Who printed it.
        kind: See the module.
        fatal: A request for device memory failed: this is proof. Otherwise it is a hint.
        text: The message.
        requested_bytes: What was asked for (PyTorch: rounded to its segment size).
        total_bytes, free_bytes: Of the device, at that moment.
        process_bytes: What the asking process held on the device, its context included.
        allocated_bytes, unused_bytes: Of that, handed out by the framework's allocator, and
            kept by it unused.
        ordinal: CUDA's number of the device in that process, not NVML's index.
        neighbours: (pid, bytes) of the other processes that the message names.
        rank: From a prefix such as `[rank3]:`.
    """

    family: str
    framework: str
    kind: str
    fatal: bool
    text: str
    requested_bytes: int | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    process_bytes: int | None = None
    allocated_bytes: int | None = None
    unused_bytes: int | None = None
    ordinal: int | None = None
    neighbours: tuple[tuple[int, int], ...] = ()
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """A wording.

    Attributes:
        opens: It begins an incident; the others only add to the one before them.
        closes: Nothing that follows can change what it means.
    """

    name: str
    framework: str
    kind: str
    pattern: re.Pattern[str]
    fatal: bool = False
    opens: bool = True
    closes: bool = True


def size_in_bytes(text: str) -> int | None:
    """A size as frameworks print it, in bytes; None if it is none or absurd.

    >>> size_in_bytes("8.13 GiB"), size_in_bytes("25,600,000 bytes"), size_in_bytes("98.5MB")
    (8729521029, 25600000, 103284736)
    """
    match = _SIZE_PARTS.match(text.strip())
    if match is None:
        return None
    try:
        number = float(match[1].replace(",", "").rstrip("."))
    except ValueError:
        return None
    size = round(number * 2 ** _UNITS[(match[2] or "").upper()])
    return size if size < 1 << 60 else None


def _family(
    name: str, framework: str, kind: str, pattern: str, *, flags: int = 0, **traits: bool
) -> Family:
    compiled = re.compile(pattern.replace("SIZE", _SIZE), flags)
    return Family(name, framework, kind, compiled, **traits)


# Things that sound like it and are not: shared memory of a kernel, a full disk, source code,
# advice, and PyTorch's note that it cannot name the neighbours.
VETO = re.compile(
    r"out of resource: shared memory|OutOfResources|No space left on device|/dev/shm"
    r"|omitting per-process memory info|^\s*(?:except|raise|#|//)\s|\bavoid(?:s|ing)? (?:CUDA )?out of"
)

FAMILIES: tuple[Family, ...] = (
    # Not the end.
    _family("torch.retry", "pytorch", "recoverable",
            r"expandable_segments: memory mapping failed with OOM on device"
            r"|\[cudaMallocAsync\] recovered from an allocation failure"),
    _family("bfc.soft", "tensorflow", "recoverable",
            r"Allocator \(GPU_(?P<ordinal>\d+)_bfc\) ran out of memory trying to allocate "
            r"(?P<request>SIZE).{0,600}?not a failure"),
    _family("ggml.retry", "llama.cpp", "recoverable",
            r"buffer allocation failed, retrying without pipeline parallelism", opens=False),
    _family("tensorrt.tactic", "tensorrt", "recoverable",
            r"[Mm]emory is insufficient to use tactic|Skipping tactic .{0,200}(?:out of|insufficient) memory"),
    # Not the device's memory.
    _family("torch.va", "pytorch", "va", r"virtual-address-space \(VSZ\) exhaustion"),
    _family("torch.absurd", "pytorch", "bug", r"Tried to allocate more than 1EB memory"),
    # Refused by a plan or a limit.
    _family("torch.fraction", "pytorch", "config",
            r"would exceed per_process_memory_fraction limit\.(?: Requested size: ?(?P<request>SIZE))?"),
    _family("torch.reserve", "pytorch", "config",
            r"allocation exceeds the expandable-segment reserve"),
    _family("vllm.no-blocks", "vllm", "config", r"No available memory for the cache blocks"),
    _family("vllm.cache-too-small", "vllm", "config",
            r"\((?P<request>[\d.]+ GiB) KV cache is needed, which is larger than the available "
            r"KV cache memory \((?P<free>[\d.]+ GiB)\)"),
    _family("vllm.not-free", "vllm", "config",
            r"Free memory on device (?:cuda:(?P<ordinal>\d+) )?\((?P<free>[\d.]+)/(?P<total>[\d.]+) GiB\)"
            r" on startup is less than desired GPU memory utilization "
            r"\([\d.]+, (?P<request>[\d.]+ GiB)\)"),
    _family("sglang.static", "sglang", "config",
            r"Not enough memory\. Please try to (?:in|de)crease --mem-fraction-static"),
    # The device's memory ran out.
    _family("vllm.sampler", "vllm", "device",
            r"CUDA out of memory occurred when warming up sampler", fatal=True),
    _family("torch", "pytorch", "device",
            r"(?:CUDA|HIP|XPU) out of memory\. Tried to allocate (?P<request>SIZE)", fatal=True),
    _family("torch.async", "pytorch", "device",
            r"Allocation on device (?P<ordinal>\d+) would exceed allowed memory\. \(out of memory\)",
            fatal=True),
    _family("torch.raised", "pytorch", "device",
            r"(?:Error|Exception): (?:CUDA|HIP|XPU) out of memory", fatal=True, closes=False),
    _family("torch.cuda-error", "pytorch", "device",
            r"(?:RuntimeError|AcceleratorError): CUDA (?:driver )?error: out of memory", fatal=True),
    _family("xla.request", "jax", "device",
            r"Failed to allocate request for [\d.]+\s?[KMGT]?i?B \((?P<request>\d+B)\)"
            r" on device ordinal (?P<ordinal>\d+)", fatal=True),
    _family("xla", "jax", "device",
            r"Resource[ _]exhausted: .{0,200}?Out\s+of memory\s+(?:while trying to allocate|allocating)"
            r" (?P<request>SIZE)", flags=re.IGNORECASE, fatal=True),
    _family("tensorflow", "tensorflow", "device",
            r"OOM when allocating tensor (?:with|of) shape ?\[(?P<shape>[\d, ]*)\]"
            r"(?: and type (?P<dtype>\w+))?(?:.{0,200}?/device:GPU:(?P<ordinal>\d+))?", fatal=True),
    _family("bfc", "tensorflow", "device",
            r"Allocator \(GPU_(?P<ordinal>\d+)_bfc\) ran out of memory trying to allocate "
            r"(?P<request>SIZE)", fatal=True, closes=False),
    _family("ggml", "llama.cpp", "device",
            r"allocating (?P<request>[\d.]+ MiB) on device (?P<ordinal>\d+): "
            r"(?:cuda|hip)Malloc failed: out of memory", fatal=True, closes=False),
    _family("ggml.buffer", "llama.cpp", "device",
            r"failed to allocate (?:CUDA|ROCm|Vulkan)(?P<ordinal>\d+) buffer of size (?P<request>\d+)",
            fatal=True, opens=False, closes=False),
    _family("ggml.load", "llama.cpp", "device",
            r"unable to allocate (?:(?:CUDA|ROCm)(?P<ordinal>\d+)|backend) buffer",
            fatal=True, opens=False, closes=False),
    _family("cuda.error", "cuda", "device", r"CUDA error: out of memory\s*$", fatal=True),
    _family("paddle", "paddlepaddle", "device",
            r"Out of memory error on GPU (?P<ordinal>\d+)\. Cannot allocate (?P<request>SIZE)"
            r"(?:.{0,120}?available memory is only (?P<free>SIZE))?", fatal=True),
    _family("cupy", "cupy", "device",
            r"Out of memory allocating (?P<request>[\d,]+ bytes) "
            r"\(allocated so far: (?P<allocated>[\d,]+ bytes)"
            r"|cupy\S*Error: out of memory to allocate \d+ bytes", fatal=True),
    _family("onnxruntime", "onnxruntime", "device",
            r"Failed to allocate memory for requested buffer of size (?P<request>\d+)", fatal=True),
    _family("tensorrt", "tensorrt", "device",
            r"Cuda Error in \w*allocate\w*: 2 \(out of memory\)"
            r"|Error Code 1: Cuda Runtime \(out of memory\)"
            r"|Error Code 2: OutOfMemory \(Requested size was (?P<request>\d+ bytes)", fatal=True),
    _family("nccl", "nccl", "device",
            r"NCCL WARN (?:Cuda failure (?:\d+ )?'out of memory'"
            r"|Failed to CUDA calloc (?P<request>\d+ bytes))", fatal=True),
    _family("ucx", "ucx", "device", r"cuMemAlloc\w*\(.{0,200}?\) failed: out of memory", fatal=True),
    _family("rmm", "rapids", "device",
            r"RMM failure at:.{0,400}?(?:Maximum pool size exceeded|out_of_memory)"
            r"|std::bad_alloc: out_of_memory|RMM_ERROR_OUT_OF_MEMORY", fatal=True),
    # May be memory, may be another resource.
    _family("cublas", "cublas", "device", r"CU(?:BLAS|DNN)_STATUS_ALLOC_FAILED"),
    _family("cuda.code", "cuda", "device",
            r"CUDA_ERROR_OUT_OF_MEMORY|cudaErrorMemoryAllocation|cudaMalloc failed: out of memory"),
    # The machine's memory.
    _family("host.torch", "pytorch", "host",
            r"DefaultCPUAllocator: (?:can't allocate|not enough) memory"
            r"(?:.{0,80}?tried to allocate (?P<request>\d+ bytes))?"),
    _family("host.ollama", "ollama", "host",
            r"model requires more system memory \((?P<request>SIZE)\) than is available \((?P<free>SIZE)\)"),
    _family("host.numpy", "numpy", "host", r"Unable to allocate (?P<request>SIZE) for an array"),
    _family("host.killed", "kernel", "host",
            r"Out of memory: Killed process \d+|[Dd]etected \d+ oom[-_]kill|\boom-kill:"),
    _family("host.python", "python", "host", r"(?:^|[\s:])MemoryError\b(?!:? ?std::bad_alloc)"),
)  # fmt: skip

TRIGGERS: tuple[bytes, ...] = (
    b"out of memory", b"outofmemory", b"out of device memory", b"out_of_memory",
    b"failed with oom", b"an allocation failure", b"retrying without pipeline",
    b"insufficient to use tactic", b"skipping tactic", b"vsz) exhaustion", b"more than 1eb",
    b"memory_fraction limit", b"segment reserve", b"for the cache blocks", b"cache is needed",
    b"free memory on device", b"mem-fraction-static", b"exceed allowed memory",
    b"failed to allocate", b"oom when allocating", b"unable to allocate", b"cuda calloc",
    b"pool size exceeded", b"status_alloc_failed", b"cudaerrormemoryallocation",
    b"can't allocate memory", b"not enough memory", b"more system memory", b"oom_kill",
    b"oom-kill", b"memoryerror",
)  # fmt: skip
"""Every message of every family contains one of these, in lower case; a test sees to it."""

_TORCH_FIELDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern.replace("SIZE", f"({_SIZE})")))
    for name, pattern in (
        ("total_bytes", "SIZE total capacity"),
        ("total_bytes", "total capaci?ty of SIZE"),
        ("free_bytes", "SIZE free;"),
        ("free_bytes", "of which SIZE is free"),
        ("process_bytes", "this process has SIZE memory in use"),
        ("allocated_bytes", "SIZE already allocated"),
        ("allocated_bytes", "SIZE is allocated by PyTorch"),
        ("unused_bytes", "SIZE is reserved by PyTorch but unallocated"),
    )
)
_TORCH_ORDINAL = re.compile(r"GPU (\d{1,3})(?:;| has a total)")
_TORCH_NEIGHBOUR = re.compile(rf"\bProcess (\d{{1,10}}) has ({_SIZE}) memory in use")
_TORCH_RESERVED = re.compile(rf"({_SIZE}) (?:reserved in total by PyTorch|cached\))")
_TORCH_BOUND = 4096
_NEXT_TORCH = re.compile(r"(?:CUDA|HIP|XPU) out of memory\.")
_RANK = re.compile(r"\[?\brank[ :=]{0,2}0*(\d{1,6})\b", re.IGNORECASE)


def classify(line: str) -> tuple[Family, OomMessage, int] | None:
    """What `line` says about memory that ran out; None if nothing.

    Args:
        line: Text without colour codes.

    Returns:
        The wording, the message, and where in `line` what was recognised ends.
    """
    if VETO.search(line) is not None:
        return None
    for family in FAMILIES:
        match = family.pattern.search(line)
        if match is not None:
            if family.name == "torch":
                return _torch(family, line, match)
            return family, _plain(family, line, match), match.end()
    return None


def _plain(family: Family, line: str, match: re.Match[str]) -> OomMessage:
    groups = match.groupdict()

    def size(name: str) -> int | None:
        text = groups.get(name)
        if text is None:
            return None
        if family.name == "vllm.not-free" and not text.endswith("GiB"):
            text += " GiB"  # one unit for two numbers
        return size_in_bytes(text if text[-1:].isalpha() else text + " bytes")

    ordinal = groups.get("ordinal")
    requested_bytes = size("request")
    if groups.get("shape") and groups.get("dtype") in _ITEM_BYTES:
        dimensions = [int(number) for number in re.findall(r"\d+", groups["shape"])]
        requested_bytes = math.prod(dimensions) * _ITEM_BYTES[groups["dtype"]]
    return OomMessage(
        family=family.name,
        framework=family.framework,
        kind=family.kind,
        fatal=family.fatal,
        text=line,
        requested_bytes=requested_bytes,
        total_bytes=size("total"),
        free_bytes=size("free"),
        allocated_bytes=size("allocated"),
        ordinal=None if ordinal is None else int(ordinal),
        rank=rank_of(line),
    )


def _torch(family: Family, line: str, match: re.Match[str]) -> tuple[Family, OomMessage, int]:
    """PyTorch's message in any of its forms since 1.0: fields are looked for one by one."""
    following = _NEXT_TORCH.search(line, match.end())
    stop = min(match.end() + _TORCH_BOUND, len(line) if following is None else following.start())
    details = line[match.start() : stop]
    sizes: dict[str, int | None] = {}
    end = match.end()
    for name, pattern in _TORCH_FIELDS:
        found = pattern.search(details)
        if found is not None:
            sizes[name] = size_in_bytes(found[1])
            end = max(end, match.start() + found.end())
    reserved = _TORCH_RESERVED.search(details)
    allocated_bytes = sizes.get("allocated_bytes")
    if reserved is not None:
        end = max(end, match.start() + reserved.end())
        reserved_bytes = size_in_bytes(reserved[1])
        # Before 1.5 "cached" was what is kept beyond the allocated; later the total.
        if "cached)" in reserved[0]:
            sizes["unused_bytes"] = reserved_bytes
        elif reserved_bytes is not None and allocated_bytes is not None:
            sizes["unused_bytes"] = max(0, reserved_bytes - allocated_bytes)
    ordinal = _TORCH_ORDINAL.search(details)
    neighbours = tuple(
        (int(pid), size)
        for pid, text in _TORCH_NEIGHBOUR.findall(details)
        if (size := size_in_bytes(text)) is not None
    )
    message = OomMessage(
        family=_torch_form(details),
        framework=family.framework,
        kind=family.kind,
        fatal=family.fatal,
        text=line,
        requested_bytes=size_in_bytes(match["request"]),
        ordinal=None if ordinal is None else int(ordinal[1]),
        neighbours=neighbours,
        rank=rank_of(line),
        **sizes,
    )
    return family, message, end


def _torch_form(details: str) -> str:
    """Which of PyTorch's forms it is: they tell the version and what advice applies."""
    if "expandable_segments" in details:
        return "torch.expandable"
    if "cached)" in details:
        return "torch.cached"
    if "reserved in total" in details:
        return "torch.split-hint" if "max_split_size_mb" in details else "torch.reserved"
    return "torch.sentence" if "of which" in details else "torch.short"


def rank_of(line: str) -> int | None:
    """The rank that a launcher put before the line.

    >>> rank_of("[rank3]: boom"), rank_of("[RANK 00] boom"), rank_of("boom")
    (3, 0, None)
    """
    match = _RANK.search(line[:200])
    return None if match is None else int(match[1])
