"""What recording costs: the recorder measures itself and stores that too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vramtop.samples import INTERVAL, SELF, Observation
from vramtop.units import NS_PER_S

if TYPE_CHECKING:
    from vramtop.samples import Tick

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int | None:
    """Resident memory of this process; None where `/proc` does not say."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return None


class SelfMeasurement:
    """Lateness of ticks, missed ticks, CPU time and memory, summed up every so often.

    A tick is late by what its spacing exceeds the declared interval; every whole interval
    beyond the first is a missed tick.

    Args:
        every_s: Stream time between two reports, in seconds.

    Attributes:
        source_stats: What the source says it has cost since the last call; `nvml_ns` and
            `nvml_calls` are taken over, and `missed`, which it knows better than we.
    """

    def __init__(self, *, every_s: float = 30.0) -> None:
        self.source_stats: Callable[[], Mapping[str, object]] | None = None
        self._every_ns = round(every_s * NS_PER_S)
        self._interval_ns: int | None = None
        self._since_ns: int | None = None
        self._previous_ns: int | None = None
        self._ticks = 0
        self._late_ns = 0
        self._latest_ns = 0
        self._missed = 0
        self._work_ns = 0
        self._cpu_s = time.process_time()

    def add(self, tick: Tick, *, work_ns: int) -> Observation | None:
        """Take in a tick and the time its write took; returns a report when one is due."""
        for observation in tick.observations:
            if observation.what == INTERVAL and observation.data is not None:
                declared = observation.data.get("interval_ns")
                self._interval_ns = declared if isinstance(declared, int) else None
        if self._previous_ns is not None and self._interval_ns:
            late_ns = max(0, tick.mono_ns - self._previous_ns - self._interval_ns)
            self._late_ns += late_ns
            self._latest_ns = max(self._latest_ns, late_ns)
            self._missed += late_ns // self._interval_ns
        self._previous_ns = tick.mono_ns
        self._ticks += 1
        self._work_ns += work_ns
        if self._since_ns is None:
            self._since_ns = tick.mono_ns
        if tick.mono_ns - self._since_ns < self._every_ns:
            return None
        return self._report(tick.mono_ns)

    def last(self) -> Observation | None:
        """The report on what came since the last one, for the end of the recording."""
        if not self._ticks or self._previous_ns is None:
            return None
        return self._report(self._previous_ns)

    def _report(self, now_ns: int) -> Observation:
        cpu_s = time.process_time()
        since_ns = now_ns if self._since_ns is None else self._since_ns
        stats = {} if self.source_stats is None else self.source_stats()
        nvml_ns = stats.get("nvml_ns")
        report = Observation(
            what=SELF,
            pid=os.getpid(),
            data={
                "ticks": self._ticks,
                "span_s": (now_ns - since_ns) / NS_PER_S,
                "late_mean_us": self._late_ns // self._ticks // 1000,
                "late_max_us": self._latest_ns // 1000,
                "missed_ticks": stats.get("missed", self._missed),
                "nvml_us": nvml_ns // 1000 if isinstance(nvml_ns, int) else None,
                "nvml_calls": stats.get("nvml_calls"),
                "write_us": self._work_ns // 1000,
                "cpu_s": round(cpu_s - self._cpu_s, 6),
                "resident_bytes": resident_bytes(),
            },
        )
        self._since_ns = now_ns
        self._ticks = self._late_ns = self._latest_ns = self._missed = self._work_ns = 0
        self._cpu_s = cpu_s
        return report
