"""Where the level of a series changed, the segments between, and what they are called."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from vramtop.analyzers.labels import Namer
from vramtop.analyzers.segments import Edge, Partition, piece_between
from vramtop.analyzers.story import Segmented, Story
from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL, Block
from vramtop.events import Changepoint, Segment
from vramtop.labels import LABELS
from vramtop.samples import PROCESS, Observation, SeriesKey
from vramtop.stats.constline import Moments, Stop
from vramtop.units import MIB, NS_PER_S, US_PER_S
from vramtop.view import Change, View

OPEN_AGES_S = (5, 60, 600)
"""Ages of an unchanged level at which it is looked at without waiting for it to end."""

FIRST_AGE_NS = OPEN_AGES_S[0] * NS_PER_S

QUANTUM_MIB2_S = 2.0 * 2.0 / 12
"""Variance of what is rounded to segments of 2 MiB, for a second: no series has less noise."""

MAX_ANNOUNCED = 64
"""So many tentative changepoints of a series are remembered, lest one be said twice."""


START_TICKS_NS = 10_000_000
"""A process's start time counts hundredths of a second on the boot-time clock."""


_edge_of: Callable[[Any], Edge] = partial(
    tuple.__new__, Edge
)  # the constructor costs more than what it is given


class _Series:
    """One series under way."""

    __slots__ = (
        "age", "announced", "boundary", "changes", "due_ns", "falls", "partition", "story", "travel",
    )  # fmt: skip

    def __init__(self, edge: Edge, partition: Partition, story: Story) -> None:
        self.partition = partition
        self.story = story
        self.boundary = (edge, Moments())
        self.travel = 0
        self.changes = 0
        self.falls = 0
        self.age = 0
        self.due_ns: int | None = None
        self.announced: dict[int, str] = {}


class ChangepointAnalyzer(SweepAnalyzer):
    """Levels, lines and restless stretches of every series, kept up to date as levels change.

    An exact least-squares segmentation of the levels gives boundaries; over these, a second,
    approximate one decides where a level, a line or a restless stretch explains more, so that a
    ramp is one segment. A changepoint is tentative while later data may still move it and
    confirmed once no later data can. A segment is reported, with its label, when both its ends
    are confirmed, and never changes afterwards.

    Args:
        ignore_bytes, ignore_s: A change smaller than this for shorter than this is not worth a
            changepoint. Together they are the penalty: a bump of X bytes for Y seconds saves
            X * X * Y of squared error and costs two changepoints.
        noise_factor: A series that wobbles has a larger penalty: this many times the squared
            height of a typical excursion times its length. 30 is above twice the logarithm of a
            million samples, so pure noise gives no changepoint.
        line_ratio: What a line costs more than a level, in penalties.
        restless_ratio, restless_s: A stretch is restless if changes come more often than every
            `restless_s` and there are more than about `restless_ratio` of them.
        max_candidates: So many possible starts of the open segment are kept.
    """

    observes = (PROCESS,)

    def __init__(
        self,
        *,
        ignore_bytes: int = 64 * MIB,
        ignore_s: float = 10.0,
        noise_factor: float = 30.0,
        line_ratio: float = 0.5,
        restless_ratio: float = 4.0,
        restless_s: float = 12.0,
        max_candidates: int = 16,
    ) -> None:
        super().__init__()
        self.ignore_bytes = ignore_bytes
        self.ignore_s = ignore_s
        self.noise_factor = noise_factor
        self.line_ratio = line_ratio
        self.restless_ratio = restless_ratio
        self.restless_s = restless_s
        self.max_candidates = max_candidates
        self._series: dict[SeriesKey, _Series] = {}
        self._totals: dict[str, int] = {}
        self._told: dict[SeriesKey, tuple[str | None, str | None]] = {}
        self._util = _Utilisation()
        self._t_us: list[int] = []
        self._end: tuple[int, int] = (0, 0)

    def __getstate__(self) -> dict[str, Any]:
        """State between blocks; the block itself is no part of it."""
        return {**super().__getstate__(), "_t_us": []}

    # -- what happens ----------------------------------------------------------------------

    def on_block(self, view: View) -> None:
        """Note utilisation, and the last tick, where the open segments end if the stream does."""
        block = view.block
        self._util.read(block)
        self._t_us = block.t_us.tolist()
        if len(block):
            self._end = (view.mono_ns[-1], self._t_us[-1])

    def on_observation(self, tick: int, seen: Observation) -> None:  # noqa: ARG002
        """Note what a process is built with."""
        if seen.uuid is None or seen.pid is None:
            return
        data = seen.data or {}
        framework, command = (
            data.get("framework"),
            data.get("command", data.get("cmdline", seen.name)),
        )
        key = SeriesKey(seen.uuid, seen.pid, seen.start_time, seen.life)
        facts = (
            framework if isinstance(framework, str) else None,
            command if isinstance(command, str) else None,
        )
        self._told[key] = facts
        if key in self._series:
            self._series[key].story.namer.learn(*facts)

    def on_change(self, tick: int, change: Change) -> None:
        """Close the run that ends here and open the next."""
        key, now = change.key, self._mono[tick]
        series = self._series.get(key)
        if series is None:
            if key.pid is None and change.total != NULL:
                self._totals[key.uuid] = change.total
            series = self._series[key] = self._born(tick, change)
        else:
            partition, used = series.partition, change.used
            before = partition.value
            if used > before:
                series.travel += used - before
            elif used < before:
                series.travel += before - used
                series.falls += 1
            else:
                return  # another column of the device changed
            series.changes += 1
            if not partition.joins(now, used) and partition.move(
                self._edge(tick, key, series, before, used)
            ):
                self._report(tick, key, series, partition.settle())
        series.age = 0
        due_ns = now + FIRST_AGE_NS
        if series.due_ns is None or due_ns < series.due_ns:
            # Also while an old level waits for its next age: that may be ten minutes away.
            self._look_at(due_ns, key, series)

    def on_gone(self, tick: int, key: SeriesKey) -> None:
        """The series has ended: everything is final."""
        series = self._series.pop(key, None)
        self._told.pop(key, None)
        if series is not None:
            value = series.partition.value
            self._finish(tick, key, series, self._edge(tick, key, series, value, value))

    def on_finish(self) -> None:
        """The stream has ended: everything is final."""
        ns, t_us = self._end
        for key in sorted(self._series, key=lambda key: key.sort_key):
            series = self._series[key]
            value = series.partition.value
            util = self._util.last(key.uuid)
            edge = Edge(ns, t_us, value, value, series.travel, series.changes, series.falls, *util)
            self._finish(None, key, series, edge)
        self._series.clear()

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """A level has held for a while: does it amount to a changepoint already?"""
        series = self._series.get(key)
        now = self._mono[tick]
        if series is None or series.due_ns is None or now < series.due_ns:
            return  # asked for by a level that has ended since
        series.due_ns = None
        partition = series.partition
        held = now - partition.since_ns
        if held >= OPEN_AGES_S[0] * NS_PER_S:
            while series.age < len(OPEN_AGES_S) and OPEN_AGES_S[series.age] * NS_PER_S <= held:
                series.age += 1
            self._judge_held(tick, key, series)
        if series.age < len(OPEN_AGES_S):
            self._look_at(partition.since_ns + OPEN_AGES_S[series.age] * NS_PER_S, key, series)

    # -- the partition ---------------------------------------------------------------------

    def _born(self, tick: int, change: Change) -> _Series:
        key = change.key
        edge = Edge(
            self._mono[tick], self._t_us[tick], change.used, change.used,
            0, 0, 0, *self._util.at(key.uuid, tick),
        )  # fmt: skip
        namer = Namer(
            born_ns=_start_ns(key, edge.ns),
            total=self._totals.get(key.uuid),
            device=key.pid is None,
        )
        namer.learn(*self._told.get(key, (None, None)))
        return _Series(edge, self._partition(edge, key), self._story(namer))

    def _partition(self, edge: Edge, key: SeriesKey) -> Partition:  # noqa: ARG002 - see posthoc
        return Partition(edge, **self._options())

    def _story(self, namer: Namer) -> Story:
        return Story(namer)

    def _options(self) -> dict[str, Any]:
        size = self.ignore_bytes / MIB
        return {
            "penalty": max(size * size * self.ignore_s / 2, self.noise_factor * QUANTUM_MIB2_S),
            "near_bytes": self.ignore_bytes // 8,
            "noise_factor": self.noise_factor,
            "noise_below_s": self.ignore_s,
            "line_ratio": self.line_ratio,
            "restless_ratio": self.restless_ratio,
            "restless_s": self.restless_s,
            "max_candidates": self.max_candidates,
        }

    def _edge(self, tick: int, key: SeriesKey, series: _Series, before: int, after: int) -> Edge:
        total, count = self._util.at(key.uuid, tick)
        fields = (
            self._mono[tick], self._t_us[tick], before, after,
            series.travel, series.changes, series.falls, total, count,
        )  # fmt: skip
        return _edge_of(fields)

    def _judge_held(self, tick: int, key: SeriesKey, series: _Series) -> None:
        partition = series.partition
        if partition.open or series.age == 1:
            value = partition.value
            partition.hold(self._edge(tick, key, series, value, value))
            self._report(tick, key, series, partition.settle())
            path, sure = partition.present()
            if sure and len(path) > 1:
                self._report(tick, key, series, partition.conclude(path))
            elif len(path) > 1:
                self._announce(tick, key, series, path[-2].tag, "tentative")
        if not partition.open:
            self._say(tick, key, series, series.story.waited(self._mono[tick]))
            if series.boundary[0].before != series.boundary[0].after:
                # What is final may still be told as part of a bump or a staircase.
                self._announce(tick, key, series, series.boundary[0], "tentative")

    def _look_at(self, due_ns: int, key: SeriesKey, series: _Series) -> None:
        series.due_ns = due_ns
        self.wake_at(due_ns, key)

    def _finish(self, tick: int | None, key: SeriesKey, series: _Series, edge: Edge) -> None:
        self._report(tick, key, series, series.partition.finish(edge))
        self._say(tick, key, series, series.story.finish())

    # -- what is said ----------------------------------------------------------------------

    def _report(self, tick: int | None, key: SeriesKey, series: _Series, stops: list[Stop]) -> None:
        """Take the stretches up to these final boundaries into the story."""
        for stop in stops:
            start, first = series.boundary
            piece = piece_between(start, stop.tag, first, stop.moments, stop.model)
            series.boundary = (stop.tag, stop.moments)
            self._say(tick, key, series, series.story.add(piece))

    def _say(
        self, tick: int | None, key: SeriesKey, series: _Series, found: list[Segmented]
    ) -> None:
        for segment in found:
            start, end = segment.start, segment.end
            self._emit(
                Segment, tick, key,
                start=start.t_us / US_PER_S,
                end=end.t_us / US_PER_S,
                label=LABELS[segment.label].name,
                label_id=segment.label,
                mean_bytes=segment.level,
                delta_bytes=segment.delta,
                slope_bytes_per_s=segment.slope,
            )  # fmt: skip
            if end.before != end.after:
                self._announce(tick, key, series, end, "confirmed")

    def _announce(
        self, tick: int | None, key: SeriesKey, series: _Series, edge: Edge, state: str
    ) -> None:
        known = series.announced.get(edge.ns)
        if known in {state, "confirmed"}:
            return
        series.announced[edge.ns] = state
        if len(series.announced) > MAX_ANNOUNCED:
            del series.announced[min(series.announced)]
        self._emit(
            Changepoint, tick, key,
            at=edge.t_us / US_PER_S, before_bytes=edge.before, after_bytes=edge.after, state=state,
        )  # fmt: skip

    def _emit(self, event: Any, tick: int | None, key: SeriesKey, **fields: Any) -> None:
        if tick is None:
            self.emit_last(event, key, **fields)
        else:
            self.emit(event, tick, key, **fields)


class _Utilisation:
    """Sum and number of each device's readings of utilisation, as of any tick of the block."""

    def __init__(self) -> None:
        self._ended: dict[str, tuple[int, int]] = {}
        self._began: dict[str, tuple[int, int]] = {}
        self._block: Block | None = None
        self._rows: dict[str, int] = {}
        self._known: dict[str, tuple[list[int], list[int], list[int]]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """The totals; the block is no part of the state."""
        return {**self.__dict__, "_block": None, "_rows": {}, "_known": {}}

    def read(self, block: Block) -> None:
        """Go on to the next block."""
        self._began = dict(self._ended)
        self._block = block
        self._known = {}
        self._rows = {}
        column = block.device["gpu_util_pct"]
        offsets = block.offsets.tolist()
        for index in range(block.n_devices):
            uuid = block.keys[index].uuid
            self._rows[uuid] = index
            readings = column[offsets[index] : offsets[index + 1]]
            there = readings != NULL
            total, count = self._ended.get(uuid, (0, 0))
            self._ended[uuid] = (
                total + int(readings[there].sum()), count + int(np.count_nonzero(there))
            )  # fmt: skip

    def last(self, uuid: str) -> tuple[int, int]:
        """As of the end of the last block."""
        return self._ended.get(uuid, (0, 0))

    def at(self, uuid: str, tick: int) -> tuple[int, int]:
        """As of a tick, its own reading not yet counted."""
        known = self._known.get(uuid)
        if known is None:
            index = self._rows.get(uuid)
            block = self._block
            if index is None or block is None:
                return self.last(uuid)
            span = block.series_rows(index)
            readings = block.device["gpu_util_pct"][span].tolist()
            total, count = self._began.get(uuid, (0, 0))
            known = self._known[uuid] = (
                block.tick[span].tolist(),
                list(accumulate((max(one, 0) for one in readings), initial=total)),
                list(accumulate((one != NULL for one in readings), initial=count)),
            )
        place = bisect_left(known[0], tick)
        return known[1][place], known[2][place]


def _start_ns(key: SeriesKey, seen_ns: int) -> int:
    """When the process began, as far as that is known, else when it was first seen."""
    if key.start_time is None:
        return seen_ns
    start_ns = key.start_time * START_TICKS_NS
    return min(start_ns, seen_ns)
