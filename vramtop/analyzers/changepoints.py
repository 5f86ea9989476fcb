"""Where the level of a series changed, and the segments between."""

from __future__ import annotations

from dataclasses import dataclass, field

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL
from vramtop.events import Changepoint, Segment
from vramtop.samples import SeriesKey
from vramtop.stats.fpop import Fpop, Node
from vramtop.units import MIB, NS_PER_S, US_PER_S
from vramtop.view import Change

OPEN_AGES_S = (5, 60, 600)
"""Ages of an unchanged level at which it is looked at without waiting for it to end."""

SETTLE_EVERY = 8
"""A restless series is searched for final changepoints at every so many changes."""


@dataclass(slots=True)
class _Series:
    fpop: Fpop
    value: int
    since_ns: int
    final: Node
    born_us: int
    age: int = 0
    due_ns: int | None = None
    announced: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Start:
    """What stood at the first run after a possible changepoint."""

    t_us: int
    ns: int
    value: int
    before: int


class ChangepointAnalyzer(SweepAnalyzer):
    """Exact least-squares segmentation of every series, kept up to date as levels change.

    A changepoint is tentative while later data may still move it and confirmed once no later
    data can. A segment is reported when both its ends are confirmed.

    Args:
        ignore_bytes, ignore_s: A change smaller than this for shorter than this is not worth a
            changepoint. Together they are the penalty: a bump of X bytes for Y seconds saves
            X * X * Y of squared error and costs two changepoints.
    """

    def __init__(self, *, ignore_bytes: int = 64 * MIB, ignore_s: float = 10.0) -> None:
        super().__init__()
        self.ignore_bytes = ignore_bytes
        self.ignore_s = ignore_s
        self._series: dict[SeriesKey, _Series] = {}
        self._totals: dict[str, int] = {}
        self._now_us = 0
        self._end: tuple[int, int] = (0, 0)

    def on_change(self, tick: int, change: Change) -> None:
        """Close the run that ends here and open the next."""
        if change.key.pid is None and change.total != NULL:
            self._totals[change.key.uuid] = change.total
        now = self.now_ns(tick)
        t_us = self._wall(tick)
        series = self._series.get(change.key)
        if series is None:
            size = self.ignore_bytes / MIB
            fpop = Fpop(penalty=size * size * self.ignore_s / 2)
            fpop.newest.tag = _Start(t_us, now, change.used, change.used)
            series = _Series(fpop, change.used, now, fpop.newest, t_us)
            self._series[change.key] = series
        elif change.used == series.value:
            return  # another column of the device changed
        else:
            self._close_run(series, now)
            series.fpop.newest.tag = _Start(t_us, now, change.used, series.value)
            if series.fpop.newest.index % SETTLE_EVERY == 0:
                self._advance(tick, change.key, series)
            series.value, series.since_ns = change.used, now
        series.age = 0
        due_ns = series.since_ns + OPEN_AGES_S[0] * NS_PER_S
        if series.due_ns is None or due_ns < series.due_ns:
            # Also while an old level waits for its next age: that may be ten minutes away.
            self._look_at(due_ns, change.key, series)

    def on_gone(self, tick: int, key: SeriesKey) -> None:
        """The series has ended: everything is final."""
        series = self._series.pop(key, None)
        if series is not None:
            self._finish(series, key, self.now_ns(tick), self._wall(tick), tick)

    def on_finish(self) -> None:
        """The stream has ended: everything is final."""
        for key in sorted(self._series, key=lambda key: key.sort_key):
            self._finish(self._series[key], key, *self._end, None)
        self._series.clear()

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """A level has held for a while: does it amount to a changepoint already?"""
        series = self._series.get(key)
        now = self.now_ns(tick)
        if series is None or series.due_ns is None or now < series.due_ns:
            return  # asked for by a level that has ended since
        series.due_ns = None
        held = now - series.since_ns
        while series.age < len(OPEN_AGES_S) and OPEN_AGES_S[series.age] * NS_PER_S <= held:
            series.age += 1
        if held >= OPEN_AGES_S[0] * NS_PER_S:
            node, final = series.fpop.last_changepoint(series.value / MIB, held / NS_PER_S)
            if node.index > series.final.index:
                self._announce(tick, key, series, node, "confirmed" if final else "tentative")
            if held >= 60 * NS_PER_S:
                self._advance(tick, key, series)
        if series.age < len(OPEN_AGES_S):
            self._look_at(series.since_ns + OPEN_AGES_S[series.age] * NS_PER_S, key, series)

    def _look_at(self, due_ns: int, key: SeriesKey, series: _Series) -> None:
        series.due_ns = due_ns
        self.wake_at(due_ns, key)

    # -- the partition ---------------------------------------------------------------------

    def _wall(self, tick: int) -> int:
        return int(self._present.block.t_us[tick])

    def on_block(self, view: object) -> None:  # noqa: ARG002
        """Note the last tick, where the open segments end if the stream does."""
        block = self._present.block
        if len(block):
            self._end = (int(block.mono_ns[-1]), int(block.t_us[-1]))

    def _close_run(self, series: _Series, now: int) -> None:
        series.fpop.push(series.value / MIB, (now - series.since_ns) / NS_PER_S)

    def _advance(self, tick: int, key: SeriesKey, series: _Series) -> None:
        """Report what has become final."""
        self._report(tick, key, series, series.fpop.settled(series.final))

    def _report(self, tick: int | None, key: SeriesKey, series: _Series, settled: Node) -> None:
        """Say the changepoints and segments up to `settled`; they are final."""
        if settled.index <= series.final.index:
            return
        chain: list[Node] = []
        node: Node | None = settled
        while node is not None and node.index > series.final.index:
            chain.append(node)
            node = node.parent
        before = series.final
        for node in reversed(chain):
            self._announce(tick, key, series, node, "confirmed")
            self._segment(tick, key, series, before, node)
            before = node
        settled.parent = None  # what lies before is final and need not be kept
        series.final = settled
        series.announced = {
            index: state for index, state in series.announced.items() if index > settled.index
        }

    def _announce(
        self, tick: int | None, key: SeriesKey, series: _Series, node: Node, state: str
    ) -> None:
        known = series.announced.get(node.index)
        if known in {state, "confirmed"} or not isinstance(node.tag, _Start):
            return
        series.announced[node.index] = state
        start = node.tag
        fields = {
            "at": start.t_us / US_PER_S,
            "before_bytes": start.before,
            "after_bytes": start.value,
            "state": state,
        }
        if tick is None:
            self.emit_last(Changepoint, key, **fields)
        else:
            self.emit(Changepoint, tick, key, **fields)

    def _segment(
        self, tick: int | None, key: SeriesKey, series: _Series, before: Node, after: Node
    ) -> None:
        if isinstance(before.tag, _Start) and isinstance(after.tag, _Start):
            end = after.tag
            self._say_segment(
                tick, key, series, before.tag, end.ns, end.t_us, end.before, after.mean
            )

    def _say_segment(
        self,
        tick: int | None,
        key: SeriesKey,
        series: _Series,
        start: _Start,
        end_ns: int,
        end_us: int,
        last: int,
        mean_mib: float,
    ) -> None:
        lasted_s = (end_ns - start.ns) / NS_PER_S
        delta = last - start.value
        label = self._label(key, series, start, lasted_s, round(mean_mib * MIB))
        fields = {
            "start": start.t_us / US_PER_S,
            "end": end_us / US_PER_S,
            "label": label,
            "label_id": label.lower().replace(" ", "_"),
            "mean_bytes": round(mean_mib * MIB),
            "delta_bytes": delta,
            "slope_bytes_per_s": delta / lasted_s if lasted_s > 0 else 0.0,
        }
        if tick is None:
            self.emit_last(Segment, key, **fields)
        else:
            self.emit(Segment, tick, key, **fields)

    def _label(
        self, key: SeriesKey, series: _Series, start: _Start, lasted_s: float, mean: int
    ) -> str:
        total = self._totals.get(key.uuid)
        if mean < 10 * MIB:
            return "Idle"
        if total is not None and mean * 100 > total * 85:
            return "Saturation"
        if (start.t_us - series.born_us) < 60 * US_PER_S and lasted_s < 60:
            return "Initialization"
        return "Steady State" if lasted_s >= 60 else "Plateau"

    def _finish(
        self, series: _Series, key: SeriesKey, end_ns: int, end_us: int, tick: int | None
    ) -> None:
        self._close_run(series, max(end_ns, series.since_ns + 1))
        self._report(tick, key, series, series.fpop.best)
        before = series.final
        if isinstance(before.tag, _Start):
            mean = series.fpop.best_mean
            self._say_segment(tick, key, series, before.tag, end_ns, end_us, series.value, mean)
