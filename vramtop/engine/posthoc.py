"""Segmentation after the fact, with the whole series in hand: by ruptures, or over penalties."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import log, sqrt
from typing import Any

import numpy as np

from vramtop.analyzers import DEFAULT_ANALYZERS
from vramtop.analyzers.changepoints import ChangepointAnalyzer
from vramtop.analyzers.labels import Named, Namer
from vramtop.analyzers.segments import Edge, Partition, Piece
from vramtop.analyzers.story import Segmented, Story, segmented
from vramtop.blocks import Block
from vramtop.engine.carry import Carry
from vramtop.engine.engine import Engine
from vramtop.errors import UsageError
from vramtop.protocols import Analyzer
from vramtop.samples import SeriesKey
from vramtop.stats.constline import LEVEL, Moments, Stop
from vramtop.stats.crops import crops
from vramtop.units import MIB, NS_PER_S

POINTS = {"l2": 20_000, "rbf": 4_000, "l1": 1_000, "normal": 1_000}
"""What ruptures gets of a series at most: it is quadratic where nothing changes."""
METHODS = (*(f"ruptures:{model}" for model in POINTS), "crops")
"""What `--changepoints` understands."""


def check_method(method: str) -> str:
    """The method, if there is one of that name.

    Raises:
        UsageError: there is none, or ruptures is not installed.
    """
    if method not in METHODS:
        raise UsageError(
            f"there is no way to find changepoints called {method!r}",
            hint=f"one of {', '.join(METHODS)}; without the option they are found online",
        )
    if method != "crops":
        try:
            import ruptures  # noqa: F401
        except ImportError as error:
            raise UsageError("ruptures is not installed", hint="pip install ruptures") from error
    return method


def engine_with(method: str, say: Callable[[str], None]) -> Engine:
    """The engine, with ruptures in the place of the online segmentation.

    Args:
        method: `ruptures:` and one of `POINTS`.
        say: Is told per series what was done.
    """
    model = method.partition(":")[2]
    chosen: list[Analyzer] = [
        _PosthocAnalyzer(model, say) if kind is ChangepointAnalyzer else kind()
        for kind in DEFAULT_ANALYZERS
    ]
    return Engine(chosen)


class _PosthocAnalyzer(ChangepointAnalyzer):
    """Says changepoints and segments when a series has ended."""

    def __init__(self, model: str, say: Callable[[str], None]) -> None:
        super().__init__()
        self._model = model
        self._say_done = say

    def _partition(self, edge: Edge, key: SeriesKey) -> Partition:
        return _Recorded(edge, self._options(), self._model, _named(key), self._say_done)

    def _story(self, namer: Namer) -> Story:
        return _PlainStory(namer)


class _PlainStory(Story):
    """Every stretch is a segment of its own."""

    __slots__ = ()

    def _tell(self, piece: Piece, label: str) -> list[Segmented]:
        return [segmented(piece, label)]

    def _group(self, now_ns: int, *, ended: bool) -> tuple[int, bool]:  # noqa: ARG002
        return 1, False

    def _names(self, piece: Piece, *, bump: bool, stairs: bool, last: bool) -> Named:
        named = super()._names(piece, bump=bump, stairs=stairs, last=last)
        return [(piece, max(named, key=lambda entry: entry[0].seconds)[1])]


class _Recorded(Partition):
    """Keeps all runs and cuts them at the end."""

    __slots__ = ("_edges", "_model", "_name", "_say")

    def __init__(
        self, edge: Edge, options: dict[str, Any], model: str, name: str, say: Callable[[str], None]
    ) -> None:
        super().__init__(edge, **options)
        self._edges: list[tuple[Edge, Moments]] = []
        self._model = model
        self._name = name
        self._say = say

    def joins(self, now: int, after: int) -> bool:  # noqa: ARG002
        return False

    def move(self, edge: Edge) -> bool:
        self._note(edge)
        self.value = edge.after
        self.since_ns = edge.ns
        return False

    def hold(self, edge: Edge) -> None:
        pass

    def settle(self) -> list[Stop]:
        return []

    @property
    def open(self) -> bool:
        return False

    def present(self) -> tuple[list[Stop], bool]:
        return [], False

    def finish(self, edge: Edge) -> list[Stop]:
        self._note(edge)
        stops = []
        for place in [*self._cuts(), len(self._edges) - 1]:
            end, moments = self._edges[place]
            stops.append(Stop(place, moments, end, None, LEVEL, 0.0))
        return stops

    def _note(self, edge: Edge) -> None:
        self._edges.append((edge, self._after(edge)))

    def _cuts(self) -> list[int]:
        """Places in the list of edges at which ruptures begins a new segment."""
        edges = [edge for edge, _ in self._edges]
        born_s, ended_s = self.birth_ns / NS_PER_S, edges[-1].ns / NS_PER_S
        if len(edges) < 2 or ended_s <= born_s:
            return []
        times = np.array([edge.ns / NS_PER_S for edge in edges])
        levels = np.array([edge.before / MIB for edge in edges])
        spacing = float(np.diff(np.concatenate(([born_s], times))).min())
        step_s = max((ended_s - born_s) / POINTS[self._model], min(spacing, 1.0), 1e-3)
        count = max(int((ended_s - born_s) / step_s), 4)
        grid = born_s + (np.arange(count) + 0.5) * (ended_s - born_s) / count
        signal = levels[np.minimum(np.searchsorted(times, grid), len(levels) - 1)]
        cuts = _ruptures(self._model, signal, self.penalty, (ended_s - born_s) / count)
        at = born_s + np.array(cuts, float) * (ended_s - born_s) / count
        # A change lies at a run's end; the grid has moved it by less than a step.
        places = {int(np.abs(times[:-1] - one).argmin()) for one in at}
        self._say(
            f"{self._name}: ruptures {self._model} on {count} points of "
            f"{(ended_s - born_s) / count:.3g} s found {len(places)} changes"
        )
        return sorted(places)


def _ruptures(model: str, signal: Any, penalty: float, step_s: float) -> list[int]:
    """Interior changepoints of a signal in MiB; `penalty` is in MiB squared times seconds."""
    from ruptures.detection import KernelCPD, Pelt

    size_mib, lasts_s = _felt(penalty)
    shifted = (signal - signal[0]).reshape(-1, 1)
    if model in {"l2", "rbf"}:
        kernel = "linear" if model == "l2" else "rbf"
        # The radial kernel saves at most one per point.
        due = penalty / step_s if model == "l2" else max(lasts_s / 2 / step_s, 1.0)
        search: Any = KernelCPD(kernel=kernel, min_size=1, jump=1)
    else:
        due = size_mib * lasts_s / 2 / step_s if model == "l1" else 3.0 * log(len(signal))
        search = Pelt(model=model, min_size=2, jump=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that constant stretches get a small bias
        found: list[int] = search.fit(shifted).predict(pen=due)
    return found[:-1]


def _felt(penalty: float) -> tuple[float, float]:
    """A penalty as the bump of so many MiB for ten seconds that it ignores."""
    return sqrt(2 * penalty / 10.0), 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """How many changepoints a series has if changes up to a size are ignored.

    Attributes:
        uuid, pid, start_time: The series.
        low_bytes, high_bytes: Ignoring changes of this size for ten seconds.
        changes: Changepoints then.
        whole: False where the search was ended early and steps may be missing.
    """

    uuid: str
    pid: int | None
    start_time: int | None
    low_bytes: int
    high_bytes: int
    changes: int
    whole: bool


def sensitivities(
    blocks: Iterable[Block], *, low_bytes: int = 16 * MIB, high_bytes: int = 65536 * MIB
) -> Iterator[Sensitivity]:
    """The penalty path of every series, levels only, from fine to coarse."""
    runs: dict[SeriesKey, list[tuple[float, float]]] = {}
    open_runs: dict[SeriesKey, tuple[int, int]] = {}
    carry = Carry()
    last_ns = 0
    for block in blocks:
        view = carry.view(block)
        for change in view.changes:
            now = view.mono_ns[change.tick]
            value, since = open_runs.get(change.key, (change.used, now))
            if change.used != value and now > since:
                runs.setdefault(change.key, []).append((value / MIB, (now - since) / NS_PER_S))
            if change.used != value or change.key not in open_runs:
                open_runs[change.key] = (change.used, now)
        for gone in view.gone:
            _end(runs, open_runs, gone.key, view.mono_ns[gone.tick])
        carry.facts.settle()
        if len(block):
            last_ns = int(block.mono_ns[-1])
    for key in list(open_runs):
        _end(runs, open_runs, key, last_ns)
    bounds = [(size / MIB) ** 2 * 10.0 / 2 for size in (low_bytes, high_bytes)]
    for key in sorted(runs, key=lambda key: key.sort_key):
        steps, whole = crops(runs[key], low=bounds[0], high=bounds[1])
        for step in steps:
            yield Sensitivity(
                uuid=key.uuid,
                pid=key.pid,
                start_time=key.start_time,
                low_bytes=round(_felt(step.low)[0] * MIB),
                high_bytes=round(_felt(step.high)[0] * MIB),
                changes=step.changes,
                whole=whole,
            )


def _end(
    runs: dict[SeriesKey, list[tuple[float, float]]],
    open_runs: dict[SeriesKey, tuple[int, int]],
    key: SeriesKey,
    now_ns: int,
) -> None:
    value, since = open_runs.pop(key, (0, now_ns))
    if now_ns > since:
        runs.setdefault(key, []).append((value / MIB, (now_ns - since) / NS_PER_S))


def _named(key: SeriesKey) -> str:
    return key.uuid if key.pid is None else f"{key.uuid} pid {key.pid}"
