"""What a recording holds, in one object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from vramtop.blocks import NULL, Block
from vramtop.samples import (
    DEVICE,
    END,
    FAULT,
    HOST,
    IMPORTED,
    INTERVAL,
    MARK,
    OOM_EVIDENCE,
    PROCESS,
    SELF,
    Observation,
    SeriesKey,
)
from vramtop.units import NS_PER_S, US_PER_S, format_time

if TYPE_CHECKING:
    from vramtop.recording.reader import Recording


class _Series:
    """What is known of one series so far."""

    def __init__(self, gpu: int, t_us: int) -> None:
        self.gpu = gpu
        self.first_us = self.last_us = t_us
        self.peak: int | None = None
        self.total: int | None = None
        self.rows = 0


class Summary:
    """Takes in the blocks of a recording and says what was in them."""

    def __init__(self) -> None:
        self._series: dict[SeriesKey, _Series] = {}
        self._names: dict[SeriesKey, str | None] = {}
        self._last_said: dict[str, Observation] = {}
        self._counts: dict[str, int] = dict.fromkeys((FAULT, MARK, OOM_EVIDENCE), 0)
        self._overhead: list[Mapping[str, object]] = []
        self._rows = 0
        self._ticks = 0
        self._times: tuple[int, int] | None = None

    def add(self, block: Block) -> None:
        """Take in the next block."""
        if not len(block):
            return
        self._rows += block.rows
        self._ticks += len(block)
        first = int(block.t_us[0]) if self._times is None else self._times[0]
        self._times = first, int(block.t_us[-1])
        if block.keys:
            self._add_series(block)
        for _, observation in block.observations:
            self._add_observation(observation)

    def _add_series(self, block: Block) -> None:
        starts, stops = block.offsets[:-1], block.offsets[1:]
        peaks = np.maximum.reduceat(block.used, starts).tolist()
        totals = np.maximum.reduceat(block.device["total_bytes"], starts[: block.n_devices])
        for index, key in enumerate(block.keys):
            begin, end = int(block.tick[starts[index]]), int(block.tick[stops[index] - 1])
            series = self._series.get(key)
            if series is None:
                series = _Series(block.gpus[index], int(block.t_us[begin]))
                self._series[key] = series
            series.last_us = int(block.t_us[end])
            series.rows += int(stops[index] - starts[index])
            series.peak = _greater(series.peak, peaks[index])
            if index < block.n_devices:
                series.total = _greater(series.total, int(totals[index]))

    def _add_observation(self, seen: Observation) -> None:
        self._last_said[seen.what] = seen
        if seen.what in self._counts:
            self._counts[seen.what] += 1
        if seen.what in (DEVICE, PROCESS) and seen.uuid is not None:
            self._names[SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)] = seen.name
        if seen.what == SELF and seen.data is not None:
            self._overhead.append(seen.data)

    def to_json(self, recording: Recording) -> dict[str, object]:
        """The object that `vramtop info --json` prints; times are Unix seconds."""
        zone = recording.zone
        start, end = self._times or (None, None)
        sealed = recording.bytes
        return {
            "path": str(recording.path),
            "state": recording.state,
            "recording_id": recording.id,
            "ticks": self._ticks,
            "start": _seconds(start),
            "end": _seconds(end),
            "start_text": None if start is None else format_time(start, zone),
            "end_text": None if end is None else format_time(end, zone),
            "duration_s": None if start is None or end is None else (end - start) / US_PER_S,
            "interval_s": self._interval_s(),
            "host": recording.host,
            "driver": self._host_fact("driver"),
            "vramtop": self._host_fact("vramtop"),
            "simulated": recording.simulated,
            "imported": self._name_of(IMPORTED),
            "ended": None if END not in self._last_said else self._last_said[END].text or "ended",
            "gpus": [self._gpu(key, series) for key, series in self._sorted(processes=False)],
            "processes": [
                self._process(key, series) for key, series in self._sorted(processes=True)
            ],
            "marks": self._counts[MARK],
            "faults": self._counts[FAULT],
            "oom_messages": self._counts[OOM_EVIDENCE],
            "rows": self._rows,
            "bytes": sealed,
            "bytes_per_row": round(sealed / self._rows, 2) if self._rows else None,
            "recorder": self._recorder(),
        }

    def _sorted(self, *, processes: bool) -> list[tuple[SeriesKey, _Series]]:
        chosen = [pair for pair in self._series.items() if (pair[0].pid is not None) == processes]
        return sorted(chosen, key=lambda pair: (pair[1].gpu, pair[0].sort_key))

    def _gpu(self, key: SeriesKey, series: _Series) -> dict[str, object]:
        return {
            "gpu": series.gpu,
            "uuid": key.uuid,
            "name": self._names.get(key),
            "total_bytes": series.total,
            "peak_used_bytes": series.peak,
            "rows": series.rows,
        }

    def _process(self, key: SeriesKey, series: _Series) -> dict[str, object]:
        return {
            "pid": key.pid,
            "start_time": key.start_time,
            "name": self._names.get(key),
            "gpu": series.gpu,
            "uuid": key.uuid,
            "peak_bytes": series.peak,
            "first": _seconds(series.first_us),
            "last": _seconds(series.last_us),
            "rows": series.rows,
        }

    def _interval_s(self) -> float | None:
        declared = self._last_said.get(INTERVAL)
        interval = (declared.data or {}).get("interval_ns") if declared is not None else None
        return interval / NS_PER_S if isinstance(interval, int) else None

    def _host_fact(self, name: str) -> object:
        host = self._last_said.get(HOST)
        return None if host is None or host.data is None else host.data.get(name)

    def _name_of(self, what: str) -> str | None:
        seen = self._last_said.get(what)
        return None if seen is None else seen.name or seen.text or "unnamed"

    def _recorder(self) -> dict[str, object] | None:
        """What recording cost, over all the recorder's reports on itself."""
        if not self._overhead:
            return None
        return {
            "cpu_s": _total(self._overhead, "cpu_s"),
            "span_s": _total(self._overhead, "span_s"),
            "missed_ticks": _total(self._overhead, "missed_ticks"),
            "late_max_us": _most(self._overhead, "late_max_us"),
            "resident_bytes": _most(self._overhead, "resident_bytes"),
        }


def _greater(one: int | None, other: int) -> int | None:
    if other == NULL:
        return one
    return other if one is None else max(one, other)


def _seconds(t_us: int | None) -> float | None:
    return None if t_us is None else t_us / US_PER_S


def _numbers(reports: list[Mapping[str, object]], name: str) -> list[int | float]:
    values = (report.get(name) for report in reports)
    return [value for value in values if isinstance(value, (int, float))]


def _total(reports: list[Mapping[str, object]], name: str) -> int | float | None:
    numbers = _numbers(reports, name)
    return sum(numbers) if numbers else None


def _most(reports: list[Mapping[str, object]], name: str) -> int | float | None:
    return max(_numbers(reports, name), default=None)
