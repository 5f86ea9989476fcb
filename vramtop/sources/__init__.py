"""Where ticks come from. Everything past this package is deterministic.

`open_source` is the only way in; each kind is imported when it is asked for, because the
recorder process loads none of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from vramtop.errors import UsageError

if TYPE_CHECKING:
    from vramtop.protocols import Source


def open_source(
    spec: str,
    *,
    interval_s: float = 1.0,
    gpus: Sequence[int] = (),
    seed: int = 0,
    pace: float | None = 1.0,
    pcie: bool = False,
    facts: Callable[[int, int | None], Mapping[str, object]] | None = None,
) -> Source:
    """The live source that `spec` names.

    Args:
        spec: `nvml`, or `sim:SCENARIO`.
        interval_s: Spacing of ticks in seconds.
        gpus: NVML indices to watch; empty means all.
        seed: For a simulated source.
        pace: Simulated seconds per second; None runs as fast as it can. Simulated sources only.
        pcie: Also read PCIe throughput, which blocks 20 ms per direction and GPU.
        facts: (pid, start time) to the facts of a process, as `enrich.process_facts.read_facts`;
            without it only its name is known.

    Raises:
        UsageError: `spec` names no source.
        DriverError: there is no driver.
    """
    if spec == "nvml":
        from vramtop.sources.nvml import NvmlSource

        return NvmlSource(interval_s=interval_s, gpus=gpus, pcie=pcie, facts=facts)
    kind, _, scenario = spec.partition(":")
    if kind == "sim" and scenario:
        from vramtop.sources.sim import SimSource

        return SimSource(scenario, seed=seed, interval_s=interval_s, pace=pace, gpus=gpus)
    raise UsageError(
        f"unknown source {spec!r}", hint="use nvml or sim:SCENARIO (vramtop simulate --list)"
    )
