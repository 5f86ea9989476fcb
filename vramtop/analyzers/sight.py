"""What was looked at and what it said, where changes of level do not tell: nulls and idleness."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vramtop.blocks import NULL
from vramtop.samples import LOOKED_UTIL, SeriesKey
from vramtop.units import NS_PER_S
from vramtop.view import View

IDLE, BUSY, UNKNOWN = "idle", "busy", "unknown"


@dataclass(slots=True)
class Sight:
    """The looks at one device's utilisation, from block to block.

    Attributes:
        state: idle, busy or unknown, as of the last look.
        last_ns: When that was.
    """

    state: str = UNKNOWN
    last_ns: int = -(1 << 62)


class Utilisation:
    """Follows whether devices have anything to do.

    Args:
        idle_pct: Up to this utilisation a device is idle.
        unseen_s: After this long without a look the state is unknown in between.
    """

    def __init__(self, *, idle_pct: int, unseen_s: float) -> None:
        self._idle_pct = idle_pct
        self._unseen_ns = int(unseen_s * NS_PER_S)
        self._devices: dict[str, Sight] = {}
        # Per device the last look before the present block, and the looks in it.
        self._looks: dict[str, tuple[int, list[int]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """State between blocks; the looks of the block are no part of it."""
        return {**self.__dict__, "_looks": {}}

    def steps(self, view: View) -> list[tuple[int, SeriesKey, str, int]]:
        """(tick, device, state, last look before) at each change of state, in order of tick.

        A pause in looking gives `unknown` and the state again, both at the next look.
        """
        block, mono = view.block, view.block.mono_ns
        found: list[tuple[int, SeriesKey, str, int]] = []
        self._looks = {}
        if len(block) == 1:
            # Live, a block is one tick: NumPy would take longer to be called than to compute.
            now = int(block.mono_ns[0])
            looked_at = block.device["looked"].tolist()
            values_at = block.device["gpu_util_pct"].tolist()
            for index in range(block.n_devices):
                if looked_at[index] & LOOKED_UTIL:
                    self._one(block.keys[index], values_at[index], now, found)
            return found
        columns = block.device
        for index in range(block.n_devices):
            key = block.keys[index]
            rows = block.series_rows(index)
            looked = np.flatnonzero((columns["looked"][rows] & LOOKED_UTIL) != 0)
            if not len(looked):
                continue
            ticks = block.tick[rows][looked]
            values = columns["gpu_util_pct"][rows][looked]
            times = mono[ticks]
            sight = self._devices.setdefault(key.uuid, Sight())
            self._looks[key.uuid] = (sight.last_ns, times.tolist())
            found += self._device(sight, key, ticks, values, times)
        return sorted(found, key=lambda step: (step[0], step[1].sort_key))

    def _one(
        self, key: SeriesKey, value: int, now: int, found: list[tuple[int, SeriesKey, str, int]]
    ) -> None:
        """The same for a block of one tick."""
        sight = self._devices.setdefault(key.uuid, Sight())
        before = sight.last_ns
        if now - before > self._unseen_ns and sight.state != UNKNOWN:
            sight.state = UNKNOWN
            found.append((0, key, UNKNOWN, before))
        state = UNKNOWN if value == NULL else BUSY if value > self._idle_pct else IDLE
        if state != sight.state:
            sight.state = state
            found.append((0, key, state, before))
        sight.last_ns = now

    def _device(
        self,
        sight: Sight,
        key: SeriesKey,
        ticks: np.ndarray[tuple[int], np.dtype[np.int64]],
        values: np.ndarray[tuple[int], np.dtype[np.int64]],
        times: np.ndarray[tuple[int], np.dtype[np.int64]],
    ) -> Iterator[tuple[int, SeriesKey, str, int]]:
        states = np.where(values == NULL, 2, np.where(values > self._idle_pct, 1, 0))
        differs = np.ones(len(states), bool)
        differs[1:] = (states[1:] != states[:-1]) | (times[1:] - times[:-1] > self._unseen_ns)
        for place in np.flatnonzero(differs).tolist():
            state, now = (IDLE, BUSY, UNKNOWN)[int(states[place])], int(times[place])
            before = sight.last_ns if place == 0 else int(times[place - 1])
            if now - before > self._unseen_ns and sight.state != UNKNOWN:
                sight.state = UNKNOWN
                yield int(ticks[place]), key, UNKNOWN, before
            if state != sight.state:
                sight.state = state
                yield int(ticks[place]), key, state, before
        sight.last_ns = int(times[-1])

    def last_look_ns(self, uuid: str, now: int) -> int:
        """When the device was looked at last, up to `now`."""
        found = self._looks.get(uuid)
        if found is None:
            sight = self._devices.get(uuid)
            return -(1 << 62) if sight is None else sight.last_ns
        before, looks = found
        place = bisect_right(looks, now)
        return looks[place - 1] if place else before


def hidden_steps(view: View, hidden: set[SeriesKey]) -> list[tuple[int, SeriesKey, bool]]:
    """(tick, series, whether its bytes are hidden) at each change; updates `hidden`.

    A process that has gone is not hidden any more; that is said by its going alone.
    """
    block = view.block
    null = block.used == NULL
    if not hidden and not null.any():
        return []
    ends: dict[SeriesKey, list[int]] = {}
    for entry in view.gone:
        ends.setdefault(entry.key, []).append(entry.tick)
    found: list[tuple[int, SeriesKey, bool]] = []
    for index, key in enumerate(block.keys):
        rows = block.series_rows(index)
        here = null[rows]
        if key not in hidden and not here.any():
            continue
        ticks = block.tick[rows]
        turns = np.ones(len(here), bool)
        turns[1:] = here[1:] != here[:-1]
        gone = ends.get(key, [])
        for end in gone:
            turns[int(np.searchsorted(ticks, end)) :][:1] = True
        now = key in hidden
        for place in np.flatnonzero(turns).tolist():
            tick = int(ticks[place])
            while gone and gone[0] <= tick:
                now, gone = False, gone[1:]
            if bool(here[place]) != now:
                now = not now
                found.append((tick, key, now))
        (hidden.add if now and not gone else hidden.discard)(key)
    hidden -= ends.keys() - set(block.keys)
    return sorted(found, key=lambda step: (step[0], step[1].sort_key))
