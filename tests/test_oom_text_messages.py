"""What is recognised in a program's output, and what is not."""

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vramtop.enrich.oom_patterns import FAMILIES, classify
from vramtop.enrich.oom_text import MAX_LINE_BYTES, OomScanner, as_observation, scan
from vramtop.samples import OOM_EVIDENCE

GIB = 1024**3
MIB = 1024**2
MESSAGES = {
    entry["id"]: entry
    for entry in map(
        json.loads,
        (Path(__file__).parent / "data/oom_messages.jsonl").read_text("utf-8").splitlines(),
    )
}

# id: (family, kind, fatal, requested, total, free, CUDA ordinal)
EXPECTED = {
    1: ("torch.cached", "device", True, 8.13 * GIB, 10.76 * GIB, 8.20 * GIB, 0),
    3: ("torch.cached", "device", True, 12.5 * MIB, 10.92 * GIB, 9.28 * GIB, 0),
    5: ("torch.cached", "device", True, 9.80 * GIB, 14.76 * GIB, 3.89 * GIB, 0),
    7: ("torch.reserved", "device", True, 2.87 * GIB, 14.76 * GIB, 19.75 * MIB, 0),
    9: ("torch.reserved", "device", True, 130 * MIB, 7.80 * GIB, 33.56 * MIB, 1),
    11: ("torch.split-hint", "device", True, 64 * MIB, 4 * GIB, 0, 0),
    13: ("torch.split-hint", "device", True, 1.69 * GIB, 14.56 * GIB, 1.31 * GIB, 0),
    15: ("torch.split-hint", "device", True, 258 * MIB, 23.54 * GIB, 572.5 * MIB, 0),
    17: ("torch.sentence", "device", True, 55.57 * GIB, 12 * GIB, 9.02 * GIB, 0),
    19: ("torch.sentence", "device", True, 3 * GIB, 23.65 * GIB, 1.66 * GIB, 0),
    21: ("torch.sentence", "device", True, 12 * GIB, 23.69 * GIB, 3.05 * GIB, 0),
    23: ("torch.expandable", "device", True, 22.78 * GIB, 31.47 * GIB, 12.73 * GIB, 0),
    25: ("torch.expandable", "device", True, 20 * MIB, 4 * GIB, 2.35 * GIB, 0),
    27: ("xla", "device", True, 7406166528, None, None, None),
    29: ("xla", "device", True, 20029400304, None, None, None),
    31: ("xla", "device", True, 5520758552, None, None, None),
    33: ("tensorflow", "device", True, 128 * 128 * 109 * 109 * 4, None, None, 1),
    35: ("tensorflow", "device", True, None, None, None, None),
    37: ("ggml", "device", True, 144817.04 * MIB, None, None, 0),
    39: ("ggml", "device", True, 9866 * MIB, None, None, 1),
    41: ("cupy", "device", True, 25600000, None, None, None),
    43: ("paddle", "device", True, 98.000244 * MIB, None, 0, 0),
    45: ("rmm", "device", True, None, None, None, None),
    47: ("tensorrt", "device", True, None, None, None, None),
    49: ("nccl", "device", True, None, None, None, None),
    51: ("vllm.no-blocks", "config", False, None, None, None, None),
    53: ("torch.expandable", "device", True, 2 * MIB, 79.15 * GIB, 6.31 * MIB, 0),
    55: ("torch.expandable", "device", True, 742 * MIB, 79.15 * GIB, 188.31 * MIB, 0),
    57: ("torch.expandable", "device", True, 742 * MIB, 79.15 * GIB, 188.31 * MIB, 0),
    59: ("torch.expandable", "device", True, 260 * MIB, 23.58 * GIB, 86 * MIB, 0),
    61: ("torch.expandable", "device", True, 64 * MIB, 44.35 * GIB, 1.19 * MIB, 0),
    63: ("torch.expandable", "device", True, 64 * MIB, 47.54 * GIB, 37.44 * MIB, 0),
    65: ("torch.expandable", "device", True, 130 * MIB, 23.64 * GIB, 17.06 * MIB, 0),
}

NEGATIVES = (
    "RuntimeWarning: reduce the batch size to avoid CUDA out of memory errors",
    "    raise RuntimeError('CUDA out of memory. Tried to allocate 2.00 GiB')",
    "except torch.cuda.OutOfMemoryError:",
    "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 180224",
    "OSError: [Errno 28] No space left on device: '/dev/shm/torch_1'",
    "[W] nvmlInit_v2 failed; omitting per-process memory info from CUDA out-of-memory messages",
    "epoch 3 loss 0.2 max memory allocated 12.3 GiB, free memory 3 GiB",
    "If you see 'CUDA out of memory', lower --batch-size.",
    "Process 12 has 3.00 GiB memory in use.",
    "INFO oom_score_adj set to 0",
)

SOFT = {
    "Allocator (GPU_0_bfc) ran out of memory trying to allocate 3.37GiB with freed_by_count=0. "
    "The caller indicates that this is not a failure, but this may mean that there could be "
    "performance gains if more memory were available.": "recoverable",
    "[cudaMallocAsync] recovered from an allocation failure by trimming the pool and retrying.":
    "recoverable",
    "CUDA out of memory. Tried to allocate more than 1EB memory.": "bug",
    "Failed to reserve 8 TiB. This is virtual-address-space (VSZ) exhaustion from expandable "
    "segments, not physical GPU OOM.": "va",
    "CUDA out of memory. Allocation was preemptively rejected because it would exceed "
    "per_process_memory_fraction limit. Requested size: 2.00 GiB": "config",
    "ValueError: Free memory on device (11.06/79.25 GiB) on startup is less than desired GPU "
    "memory utilization (0.9, 71.33 GiB). Decrease GPU memory utilization or reduce GPU memory "
    "used by other processes.": "config",
    "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static.": "config",
    "[enforce fail at alloc_cpu.cpp:114] . DefaultCPUAllocator: can't allocate memory: you tried "
    "to allocate 1073741824 bytes.": "host",
    "numpy.core._exceptions.MemoryError: Unable to allocate 3.2 GiB for an array": "host",
    "slurmstepd: error: Detected 1 oom_kill event in StepId=1.0.": "host",
    "[1.2] Out of memory: Killed process 4242 (python) total-vm:1kB": "host",
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate": "device",
    "CUDA_ERROR_OUT_OF_MEMORY": "device",
}  # fmt: skip

# Wordings from the frameworks' sources that the collection has no example of.
COMPOSED = {
    "torch.short": "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "torch.raised": "torch.cuda.OutOfMemoryError: HIP out of memory",
    "torch.async": "Allocation on device 0 would exceed allowed memory. (out of memory)",
    "torch.cuda-error": "torch.AcceleratorError: CUDA error: out of memory",
    "torch.retry": "expandable_segments: memory mapping failed with OOM on device 0",
    "torch.reserve": "CUDA out of memory. This allocation exceeds the expandable-segment reserve of 9",
    "vllm.cache-too-small": "To serve at least one request with the models's max seq len (32768), (4.00 "
    "GiB KV cache is needed, which is larger than the available KV cache memory (1.25 GiB).",
    "vllm.sampler": "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy",
    "xla.request": "RESOURCE_EXHAUSTED: Failed to allocate request for 6.27GiB (6727663616B) on device "
    "ordinal 0",
    "bfc": "Allocator (GPU_0_bfc) ran out of memory trying to allocate 3.37GiB (rounded to 3617587200)",
    "ggml.buffer": "alloc_tensor_range: failed to allocate ROCm0 buffer of size 1024",
    "ggml.load": "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
    "ggml.retry": "compute buffer allocation failed, retrying without pipeline parallelism",
    "cuda.error": "CUDA error: out of memory",
    "cuda.code": "ggml: cudaMalloc failed: out of memory",
    "cupy": "cupy.cuda.memory.OutOfMemoryError: out of memory to allocate 1024 bytes (total 5 bytes)",
    "onnxruntime": "BFCArena::AllocateRawInternal(size_t) Failed to allocate memory for requested "
    "buffer of size 8388608000",
    "tensorrt": "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (Requested "
    "size was 2048 bytes.)",
    "tensorrt.tactic": "[W] Device memory is insufficient to use tactic.",
    "nccl": "host:1:1 [0] NCCL WARN Failed to CUDA calloc 4194304 bytes",
    "ucx": "UCX  ERROR   cuMemAlloc_v2((CUdeviceptr*)&addr, len) failed: out of memory",
    "rmm": "terminate called: std::bad_alloc: out_of_memory: CUDA error at: /rmm/x.hpp",
    "host.python": "MemoryError",
    "host.ollama": "Error: model requires more system memory (9.1 GiB) than is available (4.2 GiB)",
}  # fmt: skip


def about(size: float | None) -> object:
    return None if size is None else pytest.approx(size, abs=1)


@pytest.mark.parametrize("number", sorted(MESSAGES))
def test_a_message_as_people_met_it_is_read_as_what_it_is(number):
    (found,) = {line_and_message[1] for line_and_message in scan([_text(number)])}
    family, kind, fatal, requested, total, free, ordinal = EXPECTED[number]
    assert (found.family, found.kind, found.fatal, found.ordinal) == (family, kind, fatal, ordinal)
    assert found.requested_bytes == about(requested)
    assert found.total_bytes == about(total)
    assert found.free_bytes == about(free)


def _text(number: int) -> bytes:
    return MESSAGES[number]["text"].encode() + b"\n"


@pytest.mark.parametrize("family", sorted(COMPOSED))
def test_a_wording_known_from_a_source_is_read(family):
    """Found by the scanner too, whose cheap first look must pass it on."""
    ((_, found),) = scan([COMPOSED[family].encode() + b"\n"])
    assert found.family == family
    assert scan([b"noise\n", COMPOSED[family].encode(), b"\nnoise\n"])


def test_every_pattern_has_an_example():
    seen = {found.family for line in SOFT for _, found in scan([line.encode() + b"\n"])}
    seen |= set(COMPOSED) | {family for family, *_ in EXPECTED.values()}
    assert {family.name for family in FAMILIES} - {"torch"} <= seen


def test_every_message_of_the_collection_is_expected():
    assert set(EXPECTED) == set(MESSAGES)
    assert len(MESSAGES) == 33


def test_those_who_hold_the_memory_are_named():
    ((_, found),) = scan([_text(61)])
    assert found.neighbours == (
        (1332169, round(27.17 * GIB)),
        (1430394, round(2.07 * GIB)),
    )
    assert found.process_bytes == about(15.09 * GIB)
    assert found.allocated_bytes == about(14.74 * GIB)
    assert found.unused_bytes == about(31.19 * MIB)
    ((_, ranked),) = scan([_text(53)])
    assert ranked.rank == 0
    assert ranked.neighbours == ((3295240, round(78.54 * GIB)),)


@pytest.mark.parametrize("line", NEGATIVES)
def test_what_only_sounds_like_it_is_not_counted(line):
    assert scan([line.encode() + b"\n"]) == []


@pytest.mark.parametrize("line", sorted(SOFT))
def test_what_is_no_full_gpu_is_no_proof(line):
    ((_, found),) = scan([line.encode() + b"\n"])
    assert (found.kind, found.fatal) == (SOFT[line], False)


@pytest.mark.parametrize("seed", range(5))
def test_the_cutting_of_the_output_into_pieces_changes_nothing(seed):
    """A message may arrive a byte at a time, or a thousand lines at once."""
    log = b"".join(b"step 1 loss 0.5\n" * 3 + _text(number) for number in sorted(MESSAGES))
    whole = scan([log])
    dice = random.Random(seed)
    pieces, position = [], 0
    while position < len(log):
        size = dice.choice([1, 7, 80, 3000])
        pieces.append(log[position : position + size])
        position += size
    assert scan(pieces) == whole
    assert len(whole) >= 33


@pytest.mark.parametrize("number", [n for n in sorted(MESSAGES) if n not in {31, 37, 39, 43}])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_line_torn_in_two_is_read_as_one(number, share):
    """Terminals wrap at a column, inside of words; launchers write half lines."""
    text = _text(number)
    cut = int(len(text) * share)
    while text[cut] & 0xC0 == 0x80:
        cut += 1
    whole = [replace(found, text="") for _, found in scan([text])]
    torn = [replace(found, text="") for _, found in scan([text[:cut] + b"\n" + text[cut:]])]
    assert [(f.kind, f.fatal, f.ordinal, f.requested_bytes) for f in torn] == [
        (f.kind, f.fatal, f.ordinal, f.requested_bytes) for f in whole
    ]
    assert [f.free_bytes for f in torn] == [f.free_bytes for f in whole]


def test_a_line_without_end_is_searched_within_bounds():
    scanner = OomScanner()
    filler = b"x" * (3 * MAX_LINE_BYTES)
    found = scanner.feed(filler + MESSAGES[23]["text"].encode() + filler)
    found += scanner.flush()
    assert [message.family for message in found] == ["torch.expandable"]
    assert len(found[0].text) <= 2000
    for _ in range(50):
        assert scanner.feed(b"y" * 100_000) == []
    assert len(scanner._partial) <= MAX_LINE_BYTES


def test_a_message_across_the_bound_of_a_line_is_found():
    text = MESSAGES[25]["text"].encode()
    for before in range(MAX_LINE_BYTES - 200, MAX_LINE_BYTES, 40):
        found = [message for _, message in scan([b"z" * before + text + b"\n"])]
        assert [message.requested_bytes for message in found] == [20 * MIB]


def test_progress_bars_count_as_lines_of_their_own():
    bar = b"\r 10%|#         | 1/10\r 20%|##        | 2/10\r"
    assert [found.family for _, found in scan([bar + MESSAGES[23]["text"].encode() + b"\r"])] == [
        "torch.expandable"
    ]


def test_llama_that_tries_again_has_not_failed():
    """The lines before the retry are those of a real failure."""
    lines = (
        b"ggml_backend_cuda_buffer_type_alloc_buffer: allocating 560.00 MiB on device 0: "
        b"cudaMalloc failed: out of memory\n"
        b"ggml_gallocr_reserve_n: failed to allocate CUDA0 buffer of size 587202560\n"
    )
    retry = b"llama_init: compute buffer allocation failed, retrying without pipeline parallelism\n"
    ((_, failed),) = scan([lines])
    assert (failed.kind, failed.fatal) == ("device", True)
    ((_, retried),) = scan([lines + retry])
    assert (retried.kind, retried.fatal, retried.requested_bytes) == (
        "recoverable", False, 560 * MIB,
    )  # fmt: skip


def test_what_two_loggers_say_counts_once_while_recording():
    both = _text(55) + b"some traceback\n" * 20 + _text(57)
    scanner = OomScanner()
    assert len(scanner.feed(both) + scanner.flush()) == 1
    assert len(scan([both])) == 2


def test_ranks_that_fail_together_are_told_apart():
    text = MESSAGES[23]["text"].encode()
    found = scan([b"[rank0]: " + text + b"\n[rank1]: " + text + b"\n"])
    assert [(line, message.rank) for line, message in found] == [(1, 0), (2, 1)]


def test_nothing_printed_can_break_the_scanner():
    dice = random.Random(7)
    words = [b"CUDA out of memory", b"Tried to allocate", b"9" * 400, b" GiB", b"\x1b[", b"\n",
             b"\xff\xfe", b"&gt;", b"(GPU ", b"bytes", b"\r\n", b"Process 1 has ", b"\0"]  # fmt: skip
    scanner = OomScanner()
    for _ in range(300):
        scanner.feed(b"".join(dice.choice(words) for _ in range(dice.randrange(40))))
    scanner.flush()
    assert scanner.line > 100


def test_a_message_becomes_evidence_with_its_figures():
    ((_, found),) = scan([_text(21)])
    seen = as_observation(found, pid=7, start_time=8)
    assert (seen.what, seen.pid, seen.start_time, seen.name) == (
        OOM_EVIDENCE,
        7,
        8,
        "torch.sentence",
    )
    assert seen.data is not None
    assert seen.data["fatal"] is True
    assert seen.data["neighbours"] == [{"pid": 11488, "used_bytes": round(4.28 * GIB)}]
    json.dumps(seen.data)


def test_output_about_memory_that_is_no_message_costs_little():
    """A program may print its memory in every step; the recorder reads along all day."""
    log = b"step 12 loss 0.5 max memory allocated 12.3 GiB, reserved memory 30 GiB\n" * 20_000
    scanner = OomScanner()
    began_s = time.process_time()
    for start in range(0, len(log), 10_000):
        assert scanner.feed(log[start : start + 10_000]) == []
    # 1.4 MB; at a hundred MB/s it takes 15 ms. Running the patterns on each line took a second.
    assert time.process_time() - began_s < 0.3
    assert scanner.line == 20_000


def test_classification_takes_bounded_time():
    """Text from outside must not be able to make a pattern run away."""
    for line in ("RESOURCE_EXHAUSTED: " * 800, "9" * 16000, "Allocator (GPU_0_bfc) " * 700):
        assert classify(line) is None
