"""A simulated machine as a source of ticks, paced or as fast as it goes."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vramtop import __version__
from vramtop.errors import UsageError
from vramtop.samples import Tick
from vramtop.sources.sim.dice import Dice
from vramtop.sources.sim.faults import Troubles
from vramtop.sources.sim.scenarios import scenario_named
from vramtop.sources.sim.watcher import Watcher
from vramtop.units import NS_PER_S, US_PER_S

START_T_US = 1_767_225_600 * US_PER_S
"""Wall time of the first tick of an unpaced run, 2026-01-01 00:00 UTC, so that bytes repeat."""
NAP_S = 0.05
"""Longest sleep in one piece; `close` may come from a signal handler, where locks are unsafe."""


class SimSource:
    """Ticks of a simulated machine.

    Everything but the wall clock depends on the scenario, the seed and the interval alone.
    What processes do does not even depend on the interval: it only says when they are seen.

    Args:
        scenario: One of `SCENARIOS`.
        seed: Another seed is another run of the same kind.
        interval_s: Spacing of ticks in seconds of simulated time.
        pace: Simulated seconds per second; None runs as fast as it can.
        duration_s: Simulated seconds after which the source ends; without it the scenario's
            own duration, or a little after its last job has ended, whichever is sooner.
        gpus: Indices to watch; empty means all.
        troubles: What goes wrong with the looking; without it, what the scenario says.
        start_t_us: Wall time of the first tick. Without it: now when paced, and a fixed
            moment when not, so that an unpaced run repeats to the last byte.

    Raises:
        UsageError: unknown scenario, a GPU that it has not, or a time that is not above zero.
    """

    def __init__(
        self,
        scenario: str,
        *,
        seed: int = 0,
        interval_s: float = 1.0,
        pace: float | None = 1.0,
        duration_s: float | None = None,
        start_t_us: int | None = None,
        gpus: Sequence[int] = (),
        troubles: Troubles | None = None,
    ) -> None:
        self._scenario = scenario_named(scenario)
        if troubles is not None:
            self._scenario = replace(self._scenario, troubles=troubles)
        for name, value in (("interval", interval_s), ("pace", pace), ("duration", duration_s)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(
                    f"{name} {value:g} is no finite number above zero",
                    hint=f"choose another {name}",
                )
        if gpus:
            count = len({device.gpu for device in self._scenario.build(seed).devices})
            for index in gpus:
                if not 0 <= index < count:
                    raise UsageError(
                        f"no GPU {index}: {scenario} has {count}, numbered from 0",
                        hint="leave --gpu out to have them all",
                    )
        self._changed = troubles is not None
        self._gpus = frozenset(gpus)
        self._seed = seed
        self._interval_ns = max(round(interval_s * NS_PER_S), 1)
        self._pace = pace
        self._duration_s = duration_s
        self._start_t_us = start_t_us
        self._closed = False
        self._ticks = 0

    def ticks(self) -> Iterator[Tick]:
        """Ticks in order; sleeps until each is due when paced."""
        scenario, interval_ns = self._scenario, self._interval_ns
        limit_s = scenario.duration_s if self._duration_s is None else self._duration_s
        limit_ns = round(limit_s * NS_PER_S)
        start_t_us = self._start_t_us
        if start_t_us is None:
            start_t_us = START_T_US if self._pace is None else time.time_ns() // 1000
        machine = scenario.build(self._seed)
        watcher = Watcher(machine, scenario, self._seed, interval_ns)
        troubles = scenario.troubles
        dice = Dice(f"{machine.name}/looking")
        began = time.monotonic()
        seq = 0
        now_ns = 0
        last = False
        while not (last or self._closed):
            if self._pace is not None and not self._sleep(began + now_ns / NS_PER_S / self._pace):
                return
            seen_ns = now_ns
            dropped = False
            if troubles.uneven:
                seen_ns += int(interval_ns * troubles.late_share * dice.share())
                dropped = seq > 0 and dice.chance(troubles.drop_share)
            machine.advance(seen_ns)
            last = now_ns + interval_ns >= limit_ns
            if self._duration_s is None and machine.over_ns is not None:
                last = last or now_ns >= machine.over_ns + round(scenario.tail_s * NS_PER_S)
            if not watcher.silent(now_ns) and (last or not dropped):
                yield self._chosen(
                    watcher.tick(seq, seen_ns, start_t_us, limit_s if seq == 0 else None, last=last)
                )
                seq += 1
                self._ticks = seq
            now_ns += interval_ns

    def close(self) -> None:
        """End `ticks` within a tenth of a second, from any thread or a signal handler."""
        self._closed = True

    @property
    def recording_id(self) -> str:
        """Names what an unpaced run gives: equal for equal arguments, and only for those."""
        what = (
            f"{__version__}/{self._scenario.name}/{self._scenario.version}/{self._seed}"
            f"/{self._interval_ns}/{self._duration_s}/{self._start_t_us}"
        )
        if self._changed:
            what += f"/{self._scenario.troubles}"
        return hashlib.sha256(what.encode()).hexdigest()[:32]

    def stats(self) -> dict[str, object]:
        """What it cost; a simulation has no driver to spend time in."""
        return {"ticks": self._ticks}

    def _chosen(self, tick: Tick) -> Tick:
        """What the tick has of the GPUs that are watched."""
        if not self._gpus:
            return tick
        return replace(
            tick,
            devices=tuple(row for row in tick.devices if row.gpu in self._gpus),
            processes=tuple(row for row in tick.processes if row.gpu in self._gpus),
            observations=tuple(
                seen for seen in tick.observations if seen.gpu is None or seen.gpu in self._gpus
            ),
        )

    def _sleep(self, until: float) -> bool:
        """Sleep until then on the monotonic clock; False if closed meanwhile."""
        while not self._closed:
            left = until - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(left, NAP_S))
        return False
