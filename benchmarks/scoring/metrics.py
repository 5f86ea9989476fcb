"""Scores over episodes, rows and ranges. Definitions stand with each function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from scoring.outcome import Device

HORIZONS_S = (60, 300, 900)
STARTUP_S = 180.0
"""An alarm so soon after a process came counts per process start, later ones per GPU-day."""
BEFORE_S = 1800.0
"""An alarm that began earlier than this before the failure is false."""
STRATA = ("gradual", "abrupt", "startup")
DAY_S = 86_400.0

Alarms = Sequence[tuple[float, float]]


def wilson(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """95 % interval of a share. Source: Wilson (1927), J. Am. Stat. Assoc. 22, 209-212."""
    if count == 0:
        return 0.0, 1.0
    share = hits / count
    middle = share + z * z / (2 * count)
    half = z * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def alarms_of(device: Device, level: str) -> Alarms:
    """(began, ended) of the episodes of a level."""
    return [(began, ended) for name, began, ended in device.alarms if name == level]


def warned(alarms: Alarms, oom_s: float, lead_s: float) -> bool:
    """Whether an alarm began within 30 min before, in time, and still stood at the lead time."""
    return any(
        oom_s - BEFORE_S <= began <= oom_s - lead_s and ended > oom_s - lead_s
        for began, ended in alarms
    )


@dataclass(slots=True, kw_only=True)
class FalseAlarms:
    """False alarms and what they are counted against."""

    late: int
    days: float
    early: int
    starts: int

    @property
    def per_day(self) -> float:
        """Per GPU-day after start-up."""
        return self.late / self.days if self.days else 0.0

    @property
    def per_start(self) -> float:
        """Per process start."""
        return self.early / self.starts if self.starts else 0.0


def false_alarms(devices: Sequence[Device], alarms: Sequence[Alarms]) -> FalseAlarms:
    """An alarm is false unless memory runs out within 30 min of its beginning."""
    late = early = starts = 0
    seconds = 0.0
    for device, episodes in zip(devices, alarms, strict=True):
        starts += len(device.births_s)
        seconds += device.until_s - _startup_s(device)
        for began, _ in episodes:
            if any(0 <= oom - began <= BEFORE_S for oom in device.oom_s):
                continue
            if any(0 <= began - oom <= 60 for oom in device.oom_s):
                continue  # the failure itself, still being cleared away
            if any(0 <= began - birth <= STARTUP_S for birth in device.births_s):
                early += 1
            else:
                late += 1
    return FalseAlarms(late=late, days=seconds / DAY_S, early=early, starts=starts)


def _startup_s(device: Device) -> float:
    """Seconds that lie within 180 s of some process's start."""
    total, reached = 0.0, 0.0
    for birth in sorted(device.births_s):
        begin, end = max(birth, reached), min(birth + STARTUP_S, device.until_s)
        total += max(0.0, end - begin)
        reached = max(reached, end)
    return total


def happened(device: Device, horizon_s: float) -> np.ndarray:
    """Per row: 1 if memory ran out within the horizon, 0 if not, NaN if it is not known."""
    y = np.zeros(len(device.t_s))
    y[device.t_s + horizon_s > device.until_s] = np.nan
    for oom in device.oom_s:
        y[(device.t_s < oom) & (device.t_s >= oom - horizon_s)] = 1.0
    return y


def stacked(devices: Sequence[Device], horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """(probability, outcome) of all rows with a known outcome."""
    p = [device.p[:, horizon] for device in devices]
    y = [happened(device, HORIZONS_S[horizon]) for device in devices]
    if not p:
        return np.zeros(0), np.zeros(0)
    probability, truth = np.concatenate(p), np.concatenate(y)
    known = ~np.isnan(truth)
    return probability[known], truth[known]


def brier_skill(p: np.ndarray, y: np.ndarray, climate: float) -> float:
    """1 - Brier / Brier of always saying `climate`. Source: Brier (1950), Mon. Weather Rev. 78."""
    reference = float(np.mean((climate - y) ** 2))
    return 1.0 - float(np.mean((p - y) ** 2)) / reference if reference else float("nan")


def reliability(p: np.ndarray, y: np.ndarray) -> list[tuple[float, float, int]]:
    """(mean forecast, share that came true, rows) in seven bins."""
    edges = (0.0, 0.01, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0001)
    table = []
    for low, high in pairwise(edges):
        inside = (p >= low) & (p < high)
        if inside.any():
            table.append((float(p[inside].mean()), float(y[inside].mean()), int(inside.sum())))
    return table


def coverage(devices: Sequence[Device]) -> tuple[float, int, float]:
    """(share of shown ranges that the failure fell into, ranges, median high/low).

    A run that never fails counts as a miss in every row.
    """
    hits = shown = 0
    ratios = []
    for device in devices:
        rows = ~np.isnan(device.eta_s[:, 0])
        t_s, eta = device.t_s[rows], device.eta_s[rows]
        alive = np.ones(len(t_s), bool)
        for oom in device.oom_s:
            alive &= ~((t_s >= oom) & (t_s < oom + 60))  # it has just failed
        t_s, eta = t_s[alive], eta[alive]
        shown += len(t_s)
        ratios.append(eta[:, 1] / np.maximum(eta[:, 0], 1.0))
        hit = np.zeros(len(t_s), bool)
        for oom in device.oom_s:
            left = oom - t_s
            hit |= (left >= 0) & (left >= eta[:, 0]) & (left <= eta[:, 1])
        hits += int(hit.sum())
    ratio = float(np.median(np.concatenate(ratios))) if shown else float("nan")
    return (hits / shown if shown else float("nan")), shown, ratio


def verdicts(devices: Sequence[Device], horizon_s: float = 900.0) -> dict[str, tuple[int, int]]:
    """(rows, rows whose process ran out within the horizon) per verdict.

    And `quiet OK`: (rows of processes that never ran out, those of them with OK).
    """
    found: dict[str, list[int]] = {name: [0, 0] for name in ("OK", "TIGHT", "OOM", "quiet OK")}
    for device in devices:
        for t_s, said, failed_s in device.verdicts:
            for t, verdict in zip(t_s.tolist(), said, strict=True):
                fails = t < failed_s <= t + horizon_s
                if not fails and t + horizon_s > device.until_s and failed_s == np.inf:
                    continue  # not known
                found[verdict][0] += 1
                found[verdict][1] += fails
                if failed_s == np.inf:
                    found["quiet OK"][0] += 1
                    found["quiet OK"][1] += verdict == "OK"
    return {name: (rows, failed) for name, (rows, failed) in found.items()}
