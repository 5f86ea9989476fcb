"""Rules that everybody has tried, scored on the same rows."""

from __future__ import annotations

import numpy as np

from scoring.metrics import Alarms
from scoring.outcome import Device


def never(device: Device) -> Alarms:  # noqa: ARG001 - a rule takes a device
    """No alarm, ever."""
    return []


def nearly_full(device: Device, share: float = 0.95) -> Alarms:
    """Used memory at or above 95 %."""
    total = device.used + device.free
    return _episodes(device.tick_s, device.used >= share * total)


def regression(device: Device, window_s: float = 300.0, horizon_s: float = 300.0) -> Alarms:
    """A line through the last five minutes meets the end of memory within five minutes."""
    t, y = device.tick_s, device.used
    spacing = float(np.median(np.diff(t))) if len(t) > 1 else 1.0
    width = max(int(window_s / spacing), 2)
    if len(t) <= width:
        return []
    index = np.arange(width) - (width - 1) / 2
    slope = np.convolve(y, index[::-1], "valid") / float((index**2).sum()) / spacing
    left = device.free[width - 1 :] / np.maximum(slope, 1e-9)
    return _episodes(t[width - 1 :], (slope > 0) & (left <= horizon_s))


def _episodes(t: np.ndarray, on: np.ndarray) -> Alarms:
    edges = np.flatnonzero(np.diff(np.concatenate(([0], on.astype(np.int8), [0]))))
    return [
        (float(t[begin]), float(t[end]) if end < len(t) else np.inf)
        for begin, end in zip(edges[::2], edges[1::2], strict=True)
    ]


BASELINES = {"never": never, "used >= 95 %": nearly_full, "line over 5 min": regression}
