"""What really happens in a simulated run, for scoring. Analyzers never see it.

Truth is told in `TRUTH` observations. `name` says which kind of statement it is and `data`
holds it; times are seconds from the first tick of the source, and so exact at any interval.

    workload   at a process's start: kind, framework
    phase      when it ends: label, trend, start_s, end_s
    oom        when it happens: t_s, cause, stratum, victim_pid, culprit_pid, requested_bytes
    refused    a program gives up by its own plan: t_s, cause; memory did not run out

Labels of phases, in time and bytes. "Early" is the first quarter of an hour of a process at
most, "short" is under 10 s, "large" is over 50 MiB. The cause goes before the height: a leak
stays a leak above 70 % of the GPU, and a cache stays a cache.

    pre_allocation    at the start, a pool of over 200 MiB within seconds
    initialization    at the start, context and weights come, over 200 MiB
    warmup            early, first steps or first requests make the reservation grow
    optimizer_init    early, the second rise, when states are made at the first update
    gradient_steps    growth in jumps with flat stretches between, over accumulation steps
    allocation_event  one short large rise, not at the start
    memory_growth     growth that goes on, without a known cause or bound
    cache_filling     growth that slows down towards a level, or of a cache on a server
    memory_leak       growth without end from a working state, however slow
    memory_pressure   growth that goes on above 70 % of the GPU
    fragmentation     what is in use is constant, what is reserved splinters and creeps
    steady_state      flat, at work
    active_inference  flat but for small changes, a server at work
    idle              flat, nothing computes
    plateau           flat for under 10 s between two changes
    saturation        flat above 85 % of the GPU, at work, and no pool taken by plan
    batch_processing  up and down by large amounts, again and again
    request_burst     up and down for under a minute on a server that was flat
    checkpoint_save   up for seconds and back to the same level, while nothing computes
    epoch_boundary    the short fall and rise between two equal stretches of training
    gc_collection     a short fall by under 50 MiB or so
    cache_eviction    a server or a full cache gives back a part and goes on
    releasing_memory  a fall by 50 to 200 MiB, or one of many steps that goes on
    cooldown          a slow long fall after work
    cleanup           a fast fall by over 200 MiB at the end of some work
    dying             after the failure, until the process is gone; not scored
"""

from __future__ import annotations

from dataclasses import dataclass

GRADUAL, ABRUPT, STARTUP, NONE = "gradual", "abrupt", "startup", "none"

TRENDS = {
    "pre_allocation": "growing",
    "initialization": "growing",
    "warmup": "growing",
    "optimizer_init": "growing",
    "gradient_steps": "growing",
    "allocation_event": "growing",
    "memory_growth": "growing",
    "cache_filling": "growing",
    "memory_leak": "growing",
    "memory_pressure": "growing",
    "fragmentation": "growing",
    "steady_state": "stable",
    "active_inference": "stable",
    "idle": "stable",
    "plateau": "stable",
    "saturation": "stable",
    "batch_processing": "volatile",
    "request_burst": "volatile",
    "checkpoint_save": "volatile",
    "epoch_boundary": "volatile",
    "gc_collection": "shrinking",
    "cache_eviction": "shrinking",
    "releasing_memory": "shrinking",
    "cooldown": "shrinking",
    "cleanup": "shrinking",
    "dying": "shrinking",
}
"""Phase labels a workload may declare, and which way memory goes in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """What a running out of memory would be due to, as the workload's author meant it.

    Attributes:
        cause: One word: leak, kv-cache, fragmentation, tenant, evaluation, burst, startup...
        stratum: gradual, abrupt or startup; scoring keeps them apart.
        blame_newest: The culprit is the process that came to the GPU last, not the victim.
    """

    cause: str
    stratum: str
    blame_newest: bool = False
