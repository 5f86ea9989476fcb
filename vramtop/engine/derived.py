"""What the analyzers held true at every tick, as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vramtop.blocks import Block
from vramtop.samples import SeriesKey
from vramtop.view import View

DERIVED_COLUMNS = (
    "seq", "gpu", "uuid", "pid", "start_time", "phase", "rate_bytes_per_s", "p_oom_60s",
    "p_oom_300s", "p_oom_900s", "eta_low_s", "eta_high_s", "verdict",
)  # fmt: skip


class Derived:
    """Holds each signal from one change to the next and lays it out per row.

    Phase and rate belong to devices and processes, probabilities and range to devices (and are
    null on process rows), the verdict to processes. A value is null until it is first known.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[str, SeriesKey], object] = {}

    def columns(self, view: View) -> dict[str, list[Any]]:
        """One entry per row of the block, in the block's row order.

        Returns:
            `DERIVED_COLUMNS`, each a list of length `block.rows`.
        """
        block = view.block
        steps: dict[tuple[str, SeriesKey], list[tuple[int, object]]] = {}
        for name, signals in view.signals.items():
            for signal in signals:
                steps.setdefault((name, signal.key), []).append((signal.tick, signal.value))
        out: dict[str, list[Any]] = {name: [] for name in DERIVED_COLUMNS}
        seq = block.seq
        for index, key in enumerate(block.keys):
            ticks = block.tick[block.series_rows(index)]
            count = len(ticks)
            out["seq"] += seq[ticks].tolist()
            for name, value in (
                ("gpu", block.gpus[index]),
                ("uuid", key.uuid),
                ("pid", key.pid),
                ("start_time", key.start_time),
            ):
                out[name] += [value] * count
            phase = list(self._values("phase", key, ticks, steps))
            out["phase"] += [None if value is None else value[0] for value in phase]
            out["rate_bytes_per_s"] += [None if value is None else value[1] for value in phase]
            risk = list(self._values("forecast", key, ticks, steps))
            for name, pick in _FORECAST:
                out[name] += [None if value is None else pick(value) for value in risk]
            out["verdict"] += list(self._values("verdict", key, ticks, steps))
        for (name, key), changes in steps.items():
            self._held[name, key] = changes[-1][1]
        for entry in view.gone:
            for name in ("phase", "verdict"):
                self._held.pop((name, entry.key), None)
        return out

    def _values(
        self,
        name: str,
        key: SeriesKey,
        ticks: np.ndarray[Any, np.dtype[np.int64]],
        steps: dict[tuple[str, SeriesKey], list[tuple[int, object]]],
    ) -> Iterator[Any]:
        changes = steps.get((name, key), [])
        values = [self._held.get((name, key)), *(value for _, value in changes)]
        which = np.searchsorted([tick for tick, _ in changes], ticks, side="right")
        for place in which.tolist():
            yield values[place]


_FORECAST: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("p_oom_60s", lambda risk: risk.p_oom[0]),
    ("p_oom_300s", lambda risk: risk.p_oom[1]),
    ("p_oom_900s", lambda risk: risk.p_oom[2]),
    ("eta_low_s", lambda risk: None if risk.level == "none" else risk.eta_low_s),
    ("eta_high_s", lambda risk: None if risk.level == "none" else risk.eta_high_s),
)


def rows_in_order(block: Block) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Row numbers ordered by tick, devices before processes within one."""
    return np.argsort(block.tick, kind="stable")
