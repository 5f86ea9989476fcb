"""The loop that most analyzers share: changes and due times in stream order.

A block's ticks are never visited one by one. An analyzer is called at changes of level, when
a process is gone, when another analyzer's signal changes, where it found something in the block
as a whole, and at the first tick at or after a time it asked to be woken. All of these are properties of the stream, not of its blocks, so
live and replay run through the same calls with the same arguments.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, ClassVar, TypeVar

from vramtop.events import Event, ordered
from vramtop.samples import Observation, SeriesKey
from vramtop.view import ALL, NOTHING, Change, Facts, View

EventT = TypeVar("EventT", bound=Event)

_OBSERVATION, _GONE, _CHANGE, _SIGNAL, _FOUND = range(5)


class SweepAnalyzer:
    """Base of analyzers that follow changes.

    Within one tick the order is: observations, processes gone, changes (devices first),
    signals, what was found, wakes.

    Attributes:
        follows: Whose changes are handed to `on_change`: all, devices, processes or nothing.
        inputs: Names of the signals to be handed to `on_signal`.
        observes: Kinds of observations to be handed to `on_observation`.
    """

    follows: ClassVar[str] = ALL
    inputs: ClassVar[tuple[str, ...]] = ()
    observes: ClassVar[tuple[str, ...]] = ()

    def __init__(self) -> None:
        self._wakes: list[tuple[int, tuple[Any, ...], SeriesKey]] = []
        self._view: View | None = None
        self._events: list[Event] = []
        self._found: list[tuple[int, int, Any]] = []
        self._last: tuple[int, int] = (0, 0)
        self._facts = Facts()
        self._clock_ns = -1
        self._mono: list[int] = []

    def __getstate__(self) -> dict[str, Any]:
        """State between blocks; the block itself is no part of it."""
        return {**self.__dict__, "_view": None, "_events": [], "_found": [], "_mono": []}

    # -- what a subclass overrides ---------------------------------------------------------

    def on_observation(self, tick: int, seen: Observation) -> None:
        """Something of a kind in `observes` was observed."""

    def on_change(self, tick: int, change: Change) -> None:
        """A series has a new level from `tick` on."""

    def on_gone(self, tick: int, key: SeriesKey) -> None:
        """A process left its device."""

    def on_signal(self, tick: int, name: str, key: SeriesKey, value: Any) -> None:
        """Another analyzer's signal changed."""

    def on_found(self, tick: int, key: SeriesKey, value: Any) -> None:
        """What `found` was told in `on_block`."""

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """The first tick at or after a time asked for with `wake_at`."""

    def on_block(self, view: View) -> None:
        """Before the sweep: what has to be read from the block as a whole."""

    def on_finish(self) -> None:
        """The stream has ended; `emit_last` still works."""

    # -- what a subclass calls -------------------------------------------------------------

    def now_ns(self, tick: int) -> int:
        """Boot-time clock of a tick of the present block."""
        return self._mono[tick]

    def wake_at(self, due_ns: int, key: SeriesKey) -> None:
        """Ask for `on_wake(key)` at the first tick at or after `due_ns`."""
        # Not before the next instant: an event may not be older than what was said already.
        due_ns = max(due_ns, self._clock_ns + 1)
        heapq.heappush(self._wakes, (due_ns, key.sort_key, key))

    def found(self, tick: int, key: SeriesKey, value: object) -> None:
        """Say in `on_block` what was found in the block; `on_found` gets it in its turn.

        Within a tick the order is that of these calls.
        """
        self._found.append((tick, _FOUND, (key, value)))

    def emit(self, event: type[EventT], tick: int, key: SeriesKey | None, **fields: Any) -> None:
        """Say that something became true at `tick`."""
        block = self._present.block
        t_us, seq = int(block.t_us[tick]), int(block.seq[tick])
        self._events.append(self._event(event, t_us, seq, key, fields))

    def emit_last(self, event: type[EventT], key: SeriesKey | None, **fields: Any) -> None:
        """Say something at the end of the stream, with the last tick's number."""
        t_us, seq = self._last
        self._events.append(self._event(event, t_us, seq, key, fields))

    def name_of(self, tick: int, key: SeriesKey) -> str | None:
        """A process's name as known at `tick`."""
        return self._facts.name(key, int(self._present.block.seq[tick]))

    def is_split(self, tick: int, uuid: str) -> bool:
        """Whether a GPU is split into MIG instances, which are judged in its place."""
        return self._facts.is_split(uuid, int(self._present.block.seq[tick]))

    def publish(self, name: str, tick: int, key: SeriesKey, value: object) -> None:
        """Tell the analyzers that run after this one."""
        self._present.publish(name, tick, key, value)

    # -- the protocol ----------------------------------------------------------------------

    def update(self, view: View) -> Sequence[Event]:
        """See `vramtop.protocols.Analyzer`."""
        self._view = view
        self._facts = view.facts
        self._mono = view.mono_ns
        self._events = []
        self._found = []
        self.on_block(view)
        self._sweep(view)
        block = view.block
        if len(block):
            self._last = (int(block.t_us[-1]), int(block.seq[-1]))
            self._clock_ns = self._mono[-1]
        self._view = None
        return self._events

    def finish(self) -> Sequence[Event]:
        """See `vramtop.protocols.Analyzer`."""
        self._events = []
        self.on_finish()
        return ordered(self._events)

    # -- the sweep -------------------------------------------------------------------------

    @property
    def _present(self) -> View:
        if self._view is None:
            raise RuntimeError("only inside update()")
        return self._view

    def _sweep(self, view: View) -> None:
        deaf = type(self).on_change is SweepAnalyzer.on_change
        changes = view.changes_of(NOTHING if deaf else self.follows)
        done = 0
        for tick, kind, item in sorted(self._extra(view), key=_order):
            # Of its own tick, what comes before changes goes before them.
            bound = tick + (kind > _CHANGE)
            if done < len(changes) and changes[done][0] < bound:
                stop = bisect_left(changes, bound, done, key=_tick_of)
                self._each_change(changes[done:stop])
                done = stop
            self._wake_until(tick)
            self._clock_ns = self._mono[tick]
            if kind == _GONE:
                self.on_gone(tick, item.key)
            elif kind == _OBSERVATION:
                self.on_observation(tick, item)
            elif kind == _SIGNAL:
                name, signal = item
                self.on_signal(tick, name, signal.key, signal.value)
            else:
                self.on_found(tick, *item)
        self._each_change(changes[done:] if done else changes)
        self._wake_until(len(view.block))

    def _each_change(self, changes: list[Change]) -> None:
        mono, wakes, on_change = self._mono, self._wakes, self.on_change
        present = -1
        for change in changes:
            tick = change[0]
            if tick != present:
                present = tick
                if wakes and wakes[0][0] <= mono[tick]:
                    self._wake_until(tick)
                self._clock_ns = mono[tick]
            on_change(tick, change)

    def _extra(self, view: View) -> list[tuple[int, int, Any]]:
        """All calls that are no changes."""
        extra: list[tuple[int, int, Any]] = [(entry.tick, _GONE, entry) for entry in view.gone]
        if self.observes:
            extra += [
                (tick, _OBSERVATION, seen)
                for tick, seen in view.block.observations
                if seen.what in self.observes
            ]
        for name in self.inputs:
            extra += [
                (signal.tick, _SIGNAL, (name, signal)) for signal in view.signals.get(name, ())
            ]
        return extra + self._found

    def _wake_until(self, stop: int) -> None:
        """Wake at every due tick before tick `stop`."""
        wakes = self._wakes
        mono = self._mono
        while wakes and stop > 0 and wakes[0][0] <= mono[stop - 1]:
            tick = bisect_left(mono, wakes[0][0])
            _, _, key = heapq.heappop(wakes)
            self._clock_ns = mono[tick]
            self.on_wake(tick, key)

    def _event(
        self,
        event: type[EventT],
        t_us: int,
        seq: int,
        key: SeriesKey | None,
        fields: dict[str, Any],
    ) -> EventT:
        host = self._facts.host(seq)
        if key is None:
            return event(t_us=t_us, seq=seq, host=host, **fields)
        return event(
            t_us=t_us,
            seq=seq,
            host=host,
            gpu=self._facts.gpu(key.uuid, seq),
            uuid=key.uuid,
            pid=key.pid,
            start_time=key.start_time,
            life=key.life,
            **fields,
        )


def _order(call: tuple[int, int, Any]) -> tuple[int, int]:
    return call[0], call[1]


def _tick_of(change: Change) -> int:
    return change.tick
