"""What really happens in a simulated run, for scoring. Analyzers never see it.

Truth is told in `TRUTH` observations. `name` says which kind of statement it is and `data`
holds it; times are seconds from the first tick of the source, and so exact at any interval.

    workload   at a process's start: kind, framework
    phase      when it ends: label, trend, start_s, end_s
    oom        when it happens: t_s, cause, stratum, victim_pid, culprit_pid, requested_bytes
"""

from __future__ import annotations

from dataclasses import dataclass

GRADUAL, ABRUPT, STARTUP, NONE = "gradual", "abrupt", "startup", "none"

TRENDS = {
    "initialization": "growing",
    "pre_allocation": "growing",
    "warmup": "growing",
    "optimizer_init": "growing",
    "steady_state": "stable",
    "active_inference": "stable",
    "idle": "stable",
    "memory_growth": "growing",
    "memory_leak": "growing",
    "cache_filling": "growing",
    "fragmentation": "growing",
    "allocation_event": "growing",
    "batch_processing": "volatile",
    "request_burst": "volatile",
    "checkpoint_save": "volatile",
    "epoch_boundary": "volatile",
    "cache_eviction": "shrinking",
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
