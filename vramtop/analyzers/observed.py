"""What the recorder itself said, as events: births, deaths, losses, marks, faults."""

from __future__ import annotations

import numpy as np

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import Block
from vramtop.events import Fault, GpuBack, GpuLost, Mark, ProcessExit, ProcessStart
from vramtop.samples import (
    EXIT,
    FAULT,
    GONE,
    GPU_BACK,
    GPU_LOST,
    LOOKED_PROCESSES,
    MARK,
    Observation,
    SeriesKey,
)
from vramtop.units import NS_PER_S
from vramtop.view import View

EXITS_KEPT = 64
"""Exit codes that wait for their process to leave the list; normally there is one."""


class ObservedAnalyzer(SweepAnalyzer):
    """Turns observations and first sights into events.

    A process starts at its first row and exits when the recorder says that it is gone. It was
    `already_running` if it stood in the first process list that was read of its GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: set[SeriesKey] = set()
        self._first_look: dict[str, int] = {}
        self._exit_codes: dict[int, int] = {}
        self._lost_ns: dict[str, int] = {}

    def on_block(self, view: View) -> None:
        """Find births and deaths, then read the observations."""
        self._look(view.block)
        exits = self._observations(view)
        self._births(view, exits)

    def _look(self, block: Block) -> None:
        for index, key in enumerate(block.keys):
            if key.uuid in self._first_look:
                continue
            span = block.series_rows(index)
            ticks = block.tick[span]
            if key.pid is None:
                ticks = ticks[(block.device["looked"][span] & LOOKED_PROCESSES) != 0]
            if not len(ticks):
                continue
            self._first_look[key.uuid] = int(block.seq[ticks[0]])

    def _observations(self, view: View) -> dict[tuple[SeriesKey, int], int | None]:
        """Say what was observed; returns the exit code known at each death."""
        codes: dict[tuple[SeriesKey, int], int | None] = {}
        deaths: dict[int, list[SeriesKey]] = {}
        for entry in view.gone:
            deaths.setdefault(entry.tick, []).append(entry.key)
        for tick, seen in view.block.observations:
            key = SeriesKey(seen.uuid) if seen.uuid is not None else None
            if seen.what == MARK:
                self.emit(Mark, tick, _about(seen), text=seen.text)
            elif seen.what == FAULT:
                self.emit(Fault, tick, _about(seen), name=seen.name, text=seen.text)
            elif seen.what == GPU_LOST and key is not None:
                self._lost_ns.setdefault(key.uuid, self.now_ns(tick))
                self.emit(GpuLost, tick, key, text=seen.text)
            elif seen.what == GPU_BACK and key is not None:
                since = self._lost_ns.pop(key.uuid, None)
                away = None if since is None else (self.now_ns(tick) - since) / NS_PER_S
                self.emit(GpuBack, tick, key, text=seen.text, duration_s=away)
            elif seen.what == EXIT and seen.pid is not None:
                code = (seen.data or {}).get("exit_code")
                if isinstance(code, int):
                    self._exit_codes.pop(seen.pid, None)
                    self._exit_codes[seen.pid] = code
                    if len(self._exit_codes) > EXITS_KEPT:
                        del self._exit_codes[next(iter(self._exit_codes))]
            elif seen.what == GONE:
                for dead in deaths.get(tick, []):
                    if dead.pid == seen.pid and dead.uuid == seen.uuid:
                        code = (seen.data or {}).get(
                            "exit_code", self._exit_codes.get(dead.pid or 0)
                        )
                        codes[dead, tick] = code if isinstance(code, int) else None
        return codes

    def _births(self, view: View, codes: dict[tuple[SeriesKey, int], int | None]) -> None:
        block = view.block
        deaths: dict[SeriesKey, list[int]] = {}
        for entry in view.gone:
            deaths.setdefault(entry.key, []).append(entry.tick)
        rows = {
            key: block.tick[block.series_rows(index)]
            for index, key in enumerate(block.keys)
            if key.pid is not None and (key not in self._alive or key in deaths)
        }
        for key in rows.keys() | deaths.keys():
            ticks = rows.get(key, np.empty(0, np.int64))
            position = 0
            for death in [*deaths.get(key, []), None]:
                stop = len(ticks) if death is None else int(np.searchsorted(ticks, death))
                if key not in self._alive and position < stop:
                    self._start(view, int(ticks[position]), key)
                position = stop
                if death is not None and key in self._alive:
                    self._alive.discard(key)
                    self.emit(
                        ProcessExit,
                        death,
                        key,
                        name=self.name_of(death, key),
                        exit_code=codes.get((key, death)),
                    )

    def _start(self, view: View, tick: int, key: SeriesKey) -> None:
        self._alive.add(key)
        already = self._first_look.get(key.uuid) == int(view.block.seq[tick])
        self.emit(ProcessStart, tick, key, name=self.name_of(tick, key), already_running=already)
        self.publish("start", tick, key, already)


def _about(seen: Observation) -> SeriesKey | None:
    if seen.uuid is None:
        return None
    return SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
