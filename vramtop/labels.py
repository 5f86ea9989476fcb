"""The 25 names a segment can have, and how each is shown. Rules are in `analyzers/labels.py`."""

from __future__ import annotations

from typing import NamedTuple


class Label(NamedTuple):
    """How one kind of segment is shown.

    Attributes:
        id: As in events (`label_id`).
        name: For people.
        short: At most seven characters.
        arrow: One character: which way memory goes.
        colour: `#rrggbb`, readable on light and on dark.
        sentence: What it means.
    """

    id: str
    name: str
    short: str
    arrow: str
    colour: str
    sentence: str


UP, DOWN, FLAT, WAVY, STEP = "▲", "▼", "▬", "◆", "↑"

_ALL = (
    Label("memory_pressure", "Memory Pressure", "Press!", UP, "#d62728",
          "Grows with little of the GPU's memory left."),
    Label("pre_allocation", "Pre-allocation", "PreAll", STEP, "#6a51a3",
          "Takes a large pool at once, to hand it out itself later."),
    Label("initialization", "Initialization", "Init", UP, "#3182bd",
          "Creates its context and loads what it works with."),
    Label("warmup", "Warmup", "Warm", UP, "#6baed6",
          "The first work after loading brings memory to its working size."),
    Label("gradient_steps", "Gradient Steps", "GradSt", UP, "#31a354",
          "Grows in separate steps of similar size."),
    Label("allocation_event", "Allocation Event", "Alloc", STEP, "#e6550d",
          "Takes much more within moments."),
    Label("memory_leak", "Memory Leak", "Leak!", UP, "#e7298a",
          "Keeps growing long after its start and gives nothing back."),
    Label("cache_filling", "Cache Filling", "Cache", UP, "#74a9cf",
          "A cache fills: growth that slows down or comes to rest."),
    Label("memory_growth", "Memory Growth", "Growth", UP, "#fd8d3c",
          "Grows; not for long enough to say why."),
    Label("optimizer_init", "Optimizer Init", "OptInit", STEP, "#756bb1",
          "The first step creates the optimizer's state."),
    Label("idle", "Idle", "Idle", FLAT, "#969696",
          "Holds memory and does nothing, or holds next to none."),
    Label("plateau", "Plateau", "Flat", FLAT, "#8c9f73",
          "A level that was held only briefly."),
    Label("saturation", "Saturation", "Satur!", FLAT, "#a50f15",
          "Flat, with nearly all of the GPU's memory in use."),
    Label("active_inference", "Active Inference", "Infer", FLAT, "#1b9e77",
          "A loaded model serves; memory is constant."),
    Label("steady_state", "Steady State", "Steady", FLAT, "#41ab5d",
          "Works at a constant level."),
    Label("fragmentation", "Fragmentation", "Frag", UP, "#b15928",
          "The reservation creeps up in irregular small steps, as a splintered cache does."),
    Label("checkpoint_save", "Checkpoint Save", "Ckpt", WAVY, "#c49c00",
          "A brief rise to one height between equal levels, as when a checkpoint is gathered."),
    Label("batch_processing", "Batch Processing", "Batch", WAVY, "#d8a23a",
          "Memory comes and goes with the work."),
    Label("request_burst", "Request Burst", "Burst", WAVY, "#ef6548",
          "A server takes more for a moment and gives it back."),
    Label("epoch_boundary", "Epoch Boundary", "Epoch", WAVY, "#9e9ac8",
          "Gives memory back and takes it again, at regular distances."),
    Label("gc_collection", "GC Collection", "GC", DOWN, "#66c2a4",
          "Gives a little back at once."),
    Label("cleanup", "Cleanup", "Clean", DOWN, "#2ca25f",
          "Gives back most of what it held."),
    Label("cooldown", "Cooldown", "Cool", DOWN, "#80b1d3",
          "Comes down slowly after work."),
    Label("releasing_memory", "Releasing Memory", "Release", DOWN, "#99d8c9",
          "Gives back a part of what it held."),
    Label("cache_eviction", "Cache Eviction", "Evict", DOWN, "#7fcdbb",
          "A server gives back a part of its cache."),
)  # fmt: skip

LABELS: dict[str, Label] = {label.id: label for label in _ALL}
"""All labels by id."""
