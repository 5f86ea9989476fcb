"""The capture loop: ticks of a source, joined by what else happened, into a sink.

It runs in a thread of its own, because the main thread waits for signals and for the
recorded program; a source that hangs then holds up neither.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vramtop.capture.selfmeasure import SelfMeasurement
from vramtop.errors import RecordingError, VramtopError
from vramtop.samples import END, FAULT, SIMULATED, Observation, Tick
from vramtop.units import NS_PER_S

if TYPE_CHECKING:
    from vramtop.protocols import Sink, Source

MAX_PENDING = 1000
"""Observations that wait for the next tick; beyond that the oldest are dropped and counted."""


class Session:
    """One recording, from the first tick to its end.

    Args:
        open_source: Opens the source; called in the session's thread.
        open_sink: Opens the sink, after the first tick was read: a source that fails
            leaves no file.
        duration_s: Stream time after which the recording ends; None for no limit.
        on_change: Called from the session's thread when it has started and when it has ended.
        look: Called with each tick as it is recorded (who is on which GPU).
    """

    def __init__(
        self,
        *,
        open_source: Callable[[], Source],
        open_sink: Callable[[], Sink],
        duration_s: float | None = None,
        on_change: Callable[[], None] = lambda: None,
        look: Callable[[Tick], None] = lambda _tick: None,
    ) -> None:
        self.started = threading.Event()
        """Set once the first tick is kept, or the session has failed before."""
        self.ended = threading.Event()
        self.error: VramtopError | None = None
        self.ticks = 0
        self.end_reason: str | None = None
        """Why the recording ends, once that is known."""
        self._open_source = open_source
        self._open_sink = open_sink
        self._duration_ns = None if duration_s is None else round(duration_s * NS_PER_S)
        self._on_change = on_change
        self._look = look
        self._pending: deque[Observation] = deque()
        self._dropped = 0
        self._lock = threading.Lock()
        self._source: Source | None = None
        self._first: Tick | None = None
        self._last: Tick | None = None
        self._simulated = False
        self._measurement = SelfMeasurement()
        self._thread = threading.Thread(target=self._run, name="vramtop-session", daemon=True)

    def start(self) -> None:
        """Begin, in a thread."""
        self._thread.start()

    def observe(self, observation: Observation) -> None:
        """Have `observation` recorded with the next tick; from any thread."""
        with self._lock:
            if len(self._pending) >= MAX_PENDING:
                self._pending.popleft()
                self._dropped += 1
            self._pending.append(observation)

    def stop(self, reason: str) -> None:
        """End the recording in order, soon; from any thread. The first reason is kept."""
        with self._lock:
            if self.end_reason is None:
                self.end_reason = reason
            source = self._source
        if source is not None:
            source.close()

    def _run(self) -> None:
        try:
            self._record()
        except BrokenPipeError:
            self.end_reason = "the reader went away"
        except VramtopError as error:
            self.error = error
        except (OSError, MemoryError, RuntimeError) as error:
            # RuntimeError: no more threads to be had. MemoryError has no words of its own.
            why = str(error) or "out of memory"
            if self.ticks:
                self.error = RecordingError(
                    f"the recording stopped: {why}", hint="what was written until then is kept"
                )
            else:
                self.error = RecordingError(
                    f"the recording could not start: {why}", hint="look at the limits: ulimit -a"
                )
        finally:
            self.ended.set()
            self.started.set()
            self._on_change()

    def _record(self) -> None:
        source = self._open_source()
        self._measurement.source_stats = getattr(source, "stats", None)
        with self._lock:
            self._source = source
            stopped_already = self.end_reason is not None
        if stopped_already:
            source.close()
        sink: Sink | None = None
        try:
            for tick in source.ticks():
                if sink is None:
                    sink = self._open_sink()
                self._keep(sink, tick)
                if self.end_reason is not None:
                    break
        except VramtopError as error:
            # What the source could still tell is kept; the reader learns why there is no more.
            self.end_reason = f"the source failed: {error.message}"
            self.error = error
        finally:
            source.close()
            if sink is not None:
                self._close(sink)

    def _keep(self, sink: Sink, tick: Tick) -> None:
        pending = self._take_pending()
        if pending:
            tick = replace(tick, observations=tick.observations + pending)
        before_ns = time.perf_counter_ns()
        sink.append(tick)
        report = self._measurement.add(tick, work_ns=time.perf_counter_ns() - before_ns)
        if report is not None:
            self.observe(report)
        self._last = tick
        self.ticks += 1
        self._look(tick)
        if self._first is None:
            self._first = tick
            self._simulated = any(o.what == SIMULATED for o in tick.observations)
            self.started.set()
            self._on_change()
        if self._duration_ns is not None and self.end_reason is None:
            spent_ns = tick.mono_ns - self._first.mono_ns
            if spent_ns >= self._duration_ns:
                self.end_reason = "duration"

    def _take_pending(self) -> tuple[Observation, ...]:
        if not self._pending:
            return ()
        with self._lock:
            taken = tuple(self._pending)
            self._pending.clear()
            dropped, self._dropped = self._dropped, 0
        if dropped:
            text = f"{dropped} observations came faster than they could be recorded"
            taken = (*taken, Observation(what=FAULT, name="observations", text=text))
        return taken

    def _close(self, sink: Sink) -> None:
        """Write the last tick, which says why there is no more, and close."""
        try:
            if self._last is not None:
                sink.append(self._end_tick(self._last))
        finally:
            sink.close()

    def _end_tick(self, last: Tick) -> Tick:
        reason = self.end_reason or "the source ended"
        self.end_reason = reason
        # A simulated run lives in its own time; a clock reading would put a gap at its end.
        mono_ns, t_us = last.mono_ns, last.t_us
        if not self._simulated:
            mono_ns = max(mono_ns, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
            t_us = time.time_ns() // 1000
        observations = [*self._take_pending(), Observation(what=END, text=reason)]
        report = self._measurement.last()
        if report is not None:
            observations.insert(-1, report)
        return Tick(seq=last.seq + 1, mono_ns=mono_ns, t_us=t_us, observations=tuple(observations))
