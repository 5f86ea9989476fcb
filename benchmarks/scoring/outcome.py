"""One run through the engine: what was said at every instant, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from scoring.corpus import Run
from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.samples import TRUTH, SeriesKey, Tick
from vramtop.units import NS_PER_S

ROW_S = 10
"""Spacing of the instants at which forecasts and verdicts are scored, in seconds."""
LEVELS = ("none", "warning", "critical")


@dataclass(slots=True, kw_only=True)
class Device:
    """One GPU of one run.

    Attributes:
        run: Which run.
        uuid: Which GPU.
        until_s: Length of the run.
        oom_s: When it ran out of memory, ascending; `strata` says why, one each.
        strata: Of each `oom_s`.
        births_s: When processes came, ascending.
        alarms: (level, began, ended) in seconds; warning episodes include critical ones.
        t_s: Scored instants, shape (n,).
        p: Probabilities at 60, 300 and 900 s, shape (n, 3).
        eta_s: Bounds of the range, shape (n, 2), NaN where none is shown.
        used, free: Bytes at every tick, shape (ticks,).
        tick_s: Their times, shape (ticks,).
        verdicts: Of each process: (t_s, verdicts, when it ran out or infinity).
    """

    run: Run
    uuid: str
    until_s: float = 0.0
    oom_s: list[float] = field(default_factory=list)
    strata: list[str] = field(default_factory=list)
    births_s: list[float] = field(default_factory=list)
    alarms: list[tuple[str, float, float]] = field(default_factory=list)
    t_s: Any = None
    p: Any = None
    eta_s: Any = None
    used: Any = None
    free: Any = None
    tick_s: Any = None
    verdicts: list[tuple[Any, list[str], float]] = field(default_factory=list)


def blocks_of(ticks: Iterable[Tick], length: int = 3600) -> Iterator[Block]:
    """Ticks in blocks."""
    stream = iter(ticks)
    while part := list(islice(stream, length)):
        yield Block.from_ticks(part)


def outcome(run: Run, make_engine: Callable[[], Engine] = Engine) -> list[Device]:
    """What the engine said of each GPU of a run, beside what happened."""
    engine = make_engine()
    devices: dict[str, Device] = {}
    levels: dict[str, list[tuple[float, Any]]] = {}
    verdicts: dict[SeriesKey, list[tuple[float, str]]] = {}
    ends: dict[SeriesKey, float] = {}
    failed: dict[SeriesKey, float] = {}
    columns: dict[str, list[Any]] = {}
    last_s = 0.0
    start_ns: int | None = None
    for block in blocks_of(run.ticks()):
        if start_ns is None:
            start_ns = int(block.mono_ns[0])
        times = (block.mono_ns - start_ns) / NS_PER_S
        for index in range(block.n_devices):
            uuid = block.keys[index].uuid
            devices.setdefault(uuid, Device(run=run, uuid=uuid))
            rows = block.series_rows(index)
            columns.setdefault(uuid, []).append(
                (times[block.tick[rows]], block.used[rows], block.device["free_bytes"][rows])
            )
        for tick, seen in block.observations:
            if seen.what == TRUTH and seen.uuid is not None:
                device = devices.setdefault(seen.uuid, Device(run=run, uuid=seen.uuid))
                key = SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
                data = seen.data or {}
                if seen.name == "oom":
                    device.oom_s.append(float(data["t_s"]))
                    device.strata.append(str(data["stratum"]))
                    failed[key] = float(data["t_s"])
                elif seen.name == "workload":
                    device.births_s.append(float(times[tick]))
        engine.update(block)
        view = engine.view
        for signal in view.signals.get("forecast", ()):
            levels.setdefault(signal.key.uuid, []).append((float(times[signal.tick]), signal.value))
        for signal in view.signals.get("verdict", ()):
            verdicts.setdefault(signal.key, []).append((float(times[signal.tick]), signal.value))
        for entry in view.gone:
            ends.setdefault(entry.key, float(times[entry.tick]))
        last_s = float(times[-1])
    for uuid, device in devices.items():
        device.until_s = last_s
        parts = columns.get(uuid, [])
        device.tick_s = np.concatenate([part[0] for part in parts])
        device.used = np.concatenate([part[1] for part in parts]).astype(float)
        device.free = np.concatenate([part[2] for part in parts]).astype(float)
        _forecasts(device, levels.get(uuid, []))
        for key in sorted((key for key in verdicts if key.uuid == uuid), key=lambda k: k.sort_key):
            until = failed.get(key, ends.get(key, last_s))
            device.verdicts.append(_verdict_rows(verdicts[key], until, failed.get(key, np.inf)))
    return list(devices.values())


def outcomes(
    runs: list[Run], *, jobs: int = 2, make_engine: Callable[[], Engine] = Engine
) -> list[Device]:
    """`outcome` of many runs, in their order."""
    if jobs == 1:
        return [device for run in runs for device in outcome(run, make_engine)]
    with ProcessPoolExecutor(jobs) as pool:
        parts = pool.map(outcome, runs, [make_engine] * len(runs), chunksize=4)
        return [device for part in parts for device in part]


def _forecasts(device: Device, said: list[tuple[float, Any]]) -> None:
    device.t_s = np.arange(ROW_S, device.until_s, ROW_S, float)
    count = len(device.t_s)
    device.p = np.zeros((count, 3))
    device.eta_s = np.full((count, 2), np.nan)
    which = np.searchsorted([t for t, _ in said], device.t_s, side="right") - 1
    for row, place in enumerate(which.tolist()):
        if place < 0:
            continue
        _, risk = said[place]
        device.p[row] = risk.p_oom
        if risk.level != "none" and risk.eta_low_s is not None:
            device.eta_s[row] = risk.eta_low_s, risk.eta_high_s
    for floor in (1, 2):
        began: float | None = None
        for t, risk in said:
            on = LEVELS.index(risk.level) >= floor
            if on and began is None:
                began = t
            elif not on and began is not None:
                device.alarms.append((LEVELS[floor], began, t))
                began = None
        if began is not None:
            device.alarms.append((LEVELS[floor], began, np.inf))


def _verdict_rows(
    said: list[tuple[float, str]], until_s: float, failed_s: float
) -> tuple[Any, list[str], float]:
    t_s = np.arange(np.ceil(said[0][0] / ROW_S) * ROW_S, until_s, ROW_S, float)
    which = np.searchsorted([t for t, _ in said], t_s, side="right") - 1
    return t_s, [said[max(place, 0)][1] for place in which.tolist()], failed_s
