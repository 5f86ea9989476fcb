"""Times at which nothing was observed."""

from __future__ import annotations

import numpy as np

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.events import Gap
from vramtop.samples import GAP, INTERVAL, SeriesKey
from vramtop.units import NS_PER_S
from vramtop.view import View


class GapAnalyzer(SweepAnalyzer):
    """Reports a gap once ticks, or one GPU's readings, are too far apart.

    Too far is more than `factor` times the declared interval, and more than `floor_s`. A stream
    that declares no interval (an imported log) is judged by the median of its past spacings.

    Args:
        factor: In units of the interval.
        floor_s: Seconds that are never a gap.
        past: How many past spacings the median is taken over.
    """

    def __init__(self, *, factor: int = 3, floor_s: float = 2.0, past: int = 15) -> None:
        super().__init__()
        self.factor = factor
        self.floor_s = floor_s
        self.past = past
        self._declared_ns: int | None = None
        self._recent_ns: list[int] = []
        self._device_ns: dict[SeriesKey, tuple[int, int]] = {}

    def on_block(self, view: View) -> None:
        """Compare the spacings of the block's ticks, then of each device's rows."""
        block = view.block
        if not len(block):
            return
        reasons = {
            (tick, seen.uuid): seen.text for tick, seen in block.observations if seen.what == GAP
        }
        declared = _declared(view)
        mono = np.concatenate((np.array(self._recent_ns, np.int64), block.mono_ns))
        ahead = len(self._recent_ns)
        spacing = np.diff(mono)
        for position in np.flatnonzero(spacing > int(self.floor_s * NS_PER_S)).tolist():
            tick = position + 1 - ahead
            if tick < 0:
                continue  # found when its tick was in the block
            limit = self._limit_ns(tick, declared, spacing[max(0, position - self.past) : position])
            if limit is not None and spacing[position] > limit:
                self.emit(
                    Gap,
                    tick,
                    None,
                    text=reasons.get((tick, None)),
                    duration_s=int(spacing[position]) / NS_PER_S,
                )
        self._devices(view, ahead, spacing, declared, reasons)
        if declared:
            self._declared_ns = declared[-1][1]
        self._recent_ns = mono[-(self.past + 2) :].tolist()

    def _devices(
        self,
        view: View,
        ahead: int,
        spacing: np.ndarray[tuple[int], np.dtype[np.int64]],
        declared: list[tuple[int, int]],
        reasons: dict[tuple[int, str | None], str | None],
    ) -> None:
        """A device that missed ticks which others had."""
        block = view.block
        first, newest = int(block.seq[0]), (int(block.seq[-1]), int(block.mono_ns[-1]))
        # Nearly always a device has a row at every tick, and the ticks are numbered through.
        through = newest[0] - first == len(block) - 1
        bounds = block.offsets[: block.n_devices + 1].tolist()
        for index in range(block.n_devices):
            key = block.keys[index]
            if through and bounds[index + 1] - bounds[index] == len(block):
                last = self._device_ns.get(key)
                if last is None or last[0] == first - 1:
                    self._device_ns[key] = newest
                    continue
            ticks = block.tick[block.series_rows(index)]
            seqs = block.seq[ticks]
            last = self._device_ns.get(key)
            times = block.mono_ns[ticks]
            if last is not None:
                seqs = np.concatenate(([last[0]], seqs))
                times = np.concatenate(([last[1]], times))
            shift = 0 if last is None else 1
            for row in np.flatnonzero(np.diff(seqs) > 1).tolist():
                away = int(times[row + 1] - times[row])
                tick = int(ticks[row + 1 - shift])
                before = tick - 1 + ahead
                limit = self._limit_ns(tick, declared, spacing[max(0, before - self.past) : before])
                if limit is not None and away > limit:
                    self.emit(
                        Gap,
                        tick,
                        key,
                        text=reasons.get((tick, key.uuid)),
                        duration_s=away / NS_PER_S,
                    )
            self._device_ns[key] = (int(seqs[-1]), int(times[-1]))

    def _limit_ns(
        self,
        tick: int,
        declared: list[tuple[int, int]],
        past: np.ndarray[tuple[int], np.dtype[np.int64]],
    ) -> int | None:
        interval = self._declared_ns
        for since, value in declared:
            if since > tick:
                break
            # At the tick of the change the spacing before it still had the old interval.
            interval = value if since < tick or interval is None else max(interval, value)
        if interval is None:
            if len(past) < 3:
                return None
            interval = int(np.sort(past)[len(past) // 2])
        return max(self.factor * interval, int(self.floor_s * NS_PER_S))


def _declared(view: View) -> list[tuple[int, int]]:
    found = []
    for tick, seen in view.block.observations:
        interval = (seen.data or {}).get("interval_ns") if seen.what == INTERVAL else None
        if isinstance(interval, int):
            found.append((tick, interval))
    return found
