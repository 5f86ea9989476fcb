"""The risk that a device runs out of memory."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL
from vramtop.events import OomRiskChanged
from vramtop.samples import SeriesKey
from vramtop.units import MIB, NS_PER_S, format_bytes, format_duration, format_rate
from vramtop.view import Change

NONE, WARNING, CRITICAL = "none", "warning", "critical"
HORIZONS_S = (60, 300, 900)
WINDOWS_S = (30, 120, 480, 1920)
RISE_NS = 5 * NS_PER_S
BASE_RATE = (0.0005, 0.001, 0.002)
"""Probability of running out within each horizon when nothing grows: a rounding up from zero,
not a fit."""


class Risk(NamedTuple):
    """What other analyzers are told: the level, the range, the probabilities, who drives it."""

    level: str
    eta_low_s: float | None
    eta_high_s: float | None
    p_oom: tuple[float, float, float]
    driver: SeriesKey | None
    rate: float


@dataclass(slots=True)
class _Device:
    record: int
    first_ns: int
    start_ns: int
    start_record: int
    last_ns: int
    used: int
    free: int = NULL
    total: int = NULL
    reserved: int = NULL
    high_ns: int = 0
    released_ns: int = -(1 << 62)
    # Pauses between the last rises of this growth, newest last.
    pauses_ns: tuple[int, ...] = ()
    # (when, record high) of this growth, at most one every RISE_NS.
    history: list[tuple[int, int]] = field(default_factory=list)
    judged_ns: int = 0
    due_ns: int | None = None
    level: str = NONE
    pending: str | None = None
    pending_ns: int = 0
    said: Risk | None = None
    told: tuple[str, SeriesKey | None] = (NONE, None)
    births_ns: dict[SeriesKey, int] = field(default_factory=dict)
    processes: dict[SeriesKey, int] = field(default_factory=dict)
    processes_then: dict[SeriesKey, int] = field(default_factory=dict)


class RiskAnalyzer(SweepAnalyzer):
    """Extrapolates new territory only, and trusts a growth for as long as it has lasted.

    Only a level never reached before counts as growth, so a sawtooth below its own peak carries
    no risk however steep its teeth. The growth since it began is measured over several windows;
    the fastest and the slowest give the range of times. That it goes on for another `eta` after
    having lasted `age` is given the odds age : eta, so a model load frightens nobody; a growth
    that began with a process is not trusted for its first `startup_s`.

    Args:
        startup_s: Growth in the first seconds of a process is a start, not a trend.
        warn_at, critical_at: P(OOM within 900 s) and P(OOM within 300 s) that raise a level.
        clear_at: Probability below which a level is taken back.
        raise_hold_s, clear_hold_s: How long that must have stood.
    """

    inputs = ("start",)

    def __init__(
        self,
        *,
        startup_s: float = 120.0,
        warn_at: float = 0.5,
        critical_at: float = 0.5,
        clear_at: float = 0.3,
        raise_hold_s: float = 5.0,
        clear_hold_s: float = 45.0,
    ) -> None:
        super().__init__()
        self.startup_s = startup_s
        self.warn_at = warn_at
        self.critical_at = critical_at
        self.clear_at = clear_at
        self.raise_hold_s = raise_hold_s
        self.clear_hold_s = clear_hold_s
        self._devices: dict[str, _Device] = {}

    def on_signal(self, tick: int, name: str, key: SeriesKey, value: bool) -> None:  # noqa: ARG002, FBT001
        """A process was born; the growth that follows may be its start."""
        device = self._devices.get(key.uuid)
        if device is not None and not value:
            device.births_ns[key] = self.now_ns(tick)

    def on_gone(self, tick: int, key: SeriesKey) -> None:
        """Forget the process, and start afresh: its memory is free for others now."""
        device = self._devices.get(key.uuid)
        if device is None:
            return
        device.processes.pop(key, None)
        device.processes_then.pop(key, None)
        device.births_ns.pop(key, None)
        device.released_ns = self.now_ns(tick)
        if device.used < device.record:
            self._restart(device, device.released_ns, device.used)

    def on_change(self, tick: int, change: Change) -> None:
        """Follow the record high of a device, and who holds what."""
        now = self.now_ns(tick)
        if change.key.pid is not None:
            device = self._devices.get(change.key.uuid)
            if device is not None:
                device.processes[change.key] = change.used
                device.processes_then.setdefault(change.key, change.used)
            return
        device = self._devices.get(change.key.uuid)
        if device is None:
            device = _Device(change.used, now, now, change.used, now, change.used, high_ns=now)
            device.history.append((now, change.used))
            self._devices[change.key.uuid] = device
        self._forget_old_highs(device, now, change.used)
        device.used, device.free = change.used, change.free
        device.total, device.reserved = change.total, change.reserved
        if change.used > device.record:
            self._rise(device, now, change.used)
        self._judge_soon(tick, change.key, device)

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """Judge again: time has passed."""
        device = self._devices.get(key.uuid)
        if device is not None and device.due_ns is not None and device.due_ns <= self.now_ns(tick):
            device.due_ns = None
            self._judge(tick, key, device)

    # -- growth ----------------------------------------------------------------------------

    def _forget_old_highs(self, device: _Device, now: int, used: int) -> None:
        """A high that another process reached, or long ago, does not tell new territory."""
        if device.used * 2 >= device.record:
            device.high_ns = now
        long_low = now - device.high_ns > 300 * NS_PER_S
        released = now - device.released_ns <= 10 * NS_PER_S
        if used < device.record and (released or long_low):
            self._restart(device, now, min(used, device.used))

    def _rise(self, device: _Device, now: int, used: int) -> None:
        pause = now - device.last_ns
        patience = max(60 * NS_PER_S, 3 * max(device.pauses_ns, default=0))
        lonely = len(device.history) <= 2 and pause <= 900 * NS_PER_S
        if pause > patience and not lonely:
            # The first rise after a rest begins a new growth and is not itself part of it.
            device.start_ns, device.start_record, device.pauses_ns = now, used, ()
            device.processes_then = dict(device.processes)
            device.history = [(now, used)]
        elif now - device.history[-1][0] < RISE_NS:
            device.history[-1] = (device.history[-1][0], used)
        else:
            device.pauses_ns = (*device.pauses_ns, now - device.history[-1][0])[-3:]
            device.history.append((now, used))
        device.record, device.last_ns = used, now
        oldest = now - WINDOWS_S[-1] * NS_PER_S
        drop = bisect_right(device.history, (oldest, 1 << 62)) - 1
        if drop > 0:
            del device.history[:drop]

    def _restart(self, device: _Device, now: int, used: int) -> None:
        device.record = device.start_record = used
        device.start_ns = device.last_ns = device.high_ns = now
        device.pauses_ns = ()
        device.history = [(now, used)]
        device.processes_then = dict(device.processes)

    def _rates(self, device: _Device, now: int) -> tuple[float, float] | None:
        """(slowest, fastest) growth of the record high in bytes per second, or None."""
        grown = device.record - device.start_record
        age_ns = now - device.start_ns
        if grown < max(32 * MIB, max(device.total, 0) // 1000) or age_ns < 15 * NS_PER_S:
            return None
        pause = max(device.pauses_ns, default=0)
        if now - device.last_ns > max(30 * NS_PER_S, 4 * pause):
            return None  # it has stopped
        steps = [after[1] - before[1] for before, after in pairwise(device.history)]
        if len(steps) < 3 or max(steps) * 5 > sum(steps) * 3:
            return None  # a jump or two, no growth
        rates = [grown * NS_PER_S / age_ns]
        for window_s in WINDOWS_S:
            window_ns = window_s * NS_PER_S
            if window_ns > age_ns or window_ns < 2 * pause:
                continue
            place = bisect_right(device.history, (now - window_ns, 1 << 62)) - 1
            before = device.history[max(place, 0)][1]
            rates.append((device.record - before) * NS_PER_S / window_ns)
        positive = [rate for rate in rates if rate > 0]
        return min(positive), max(positive)

    # -- judgement -------------------------------------------------------------------------

    def _judge_soon(self, tick: int, key: SeriesKey, device: _Device) -> None:
        now = self.now_ns(tick)
        due = device.judged_ns + 5 * NS_PER_S
        if due <= now:
            self._judge(tick, key, device)
        elif device.due_ns is None or device.due_ns > due:
            device.due_ns = due
            self.wake_at(due, key)

    def _judge(self, tick: int, key: SeriesKey, device: _Device) -> None:
        now = self.now_ns(tick)
        device.judged_ns = now
        risk = self._risk(device, now)
        self._settle(tick, key, device, risk)
        if device.pending is not None or device.level != NONE:
            device.due_ns = now + 5 * NS_PER_S
        elif risk.eta_low_s is not None:
            # Nothing is near; the next new high is judged at once, this is for the pauses.
            device.due_ns = now + 30 * NS_PER_S
        else:
            return
        self.wake_at(device.due_ns, key)

    def _risk(self, device: _Device, now: int) -> Risk:
        headroom = _headroom(device)
        rates = None if headroom is None else self._rates(device, now)
        if headroom is None or rates is None:
            return Risk(NONE, None, None, BASE_RATE, None, 0.0)
        slow, fast = rates
        low, high = 0.7 * headroom / fast, 1.4 * headroom / slow
        middle = headroom * 2 / (slow + fast)
        driver = _driver(device)
        age_s = self._trusted_age_s(device, driver, now)
        odds = age_s / (age_s + middle) if age_s + middle > 0 else 0.0
        p_oom = [
            max(base, odds * _share(horizon, low, high))
            for base, horizon in zip(BASE_RATE, HORIZONS_S, strict=True)
        ]
        return Risk(NONE, low, high, (p_oom[0], p_oom[1], p_oom[2]), driver, (slow + fast) / 2)

    def _trusted_age_s(self, device: _Device, driver: SeriesKey | None, now: int) -> float:
        """How long the growth has lasted, the start of what grows left out."""
        since = device.start_ns
        startup_ns = int(self.startup_s * NS_PER_S)
        if driver is None:
            began = device.start_record
        else:
            began = device.processes_then.get(driver, 0)
            if driver in device.births_ns:
                since = max(since, device.births_ns[driver] + startup_ns)
        if since == device.start_ns and began * 20 < device.total:
            # From next to nothing: a start, whether or not it was seen to begin.
            since += startup_ns
        return max(0, now - since) / NS_PER_S

    def _settle(self, tick: int, key: SeriesKey, device: _Device, risk: Risk) -> None:
        now = self.now_ns(tick)
        wanted = self._wanted(device.level, risk)
        if wanted == device.level:
            device.pending = None
        else:
            if device.pending != wanted:
                device.pending, device.pending_ns = wanted, now
            rank = (NONE, WARNING, CRITICAL)
            raising = rank.index(wanted) > rank.index(device.level)
            hold_s = self.raise_hold_s if raising else self.clear_hold_s
            if now - device.pending_ns >= int(hold_s * NS_PER_S):
                device.level, device.pending = wanted, None
        if device.level != NONE and risk.eta_low_s is None and device.said is not None:
            # The growth has paused but the level still stands: the last range stands with it.
            risk = device.said
        risk = risk._replace(level=device.level)
        if _worth_saying(device.said, risk):
            device.said = risk
            self.emit(
                OomRiskChanged,
                tick,
                key,
                level=risk.level,
                eta_low_s=risk.eta_low_s if risk.level != NONE else None,
                eta_high_s=risk.eta_high_s if risk.level != NONE else None,
                p_oom_60s=risk.p_oom[0],
                p_oom_300s=risk.p_oom[1],
                p_oom_900s=risk.p_oom[2],
                reason=self._reason(device, risk, now),
            )
        self.publish("forecast", tick, key, risk)
        told = (risk.level, risk.driver)
        if told != device.told or risk.level != NONE:
            device.told = told
            self.publish("risk", tick, key, risk)

    def _wanted(self, level: str, risk: Risk) -> str:
        _, p_300, p_900 = risk.p_oom
        critical_from = self.clear_at if level == CRITICAL else self.critical_at
        warning_from = self.warn_at if level == NONE else self.clear_at
        if p_300 >= critical_from:
            return CRITICAL
        return WARNING if p_900 >= warning_from else NONE

    def _reason(self, device: _Device, risk: Risk, now: int) -> str:
        if risk.level == NONE:
            return "nothing grows towards the limit"
        age = format_duration((now - device.start_ns) // NS_PER_S)
        words = (
            f"used memory reaches new highs at about {format_rate(risk.rate)} for {age}; "
            f"{format_bytes(_headroom(device))} are left above the highest"
        )
        if risk.driver is not None:
            words += f"; most of it is pid {risk.driver.pid}"
        return words


def _headroom(device: _Device) -> int | None:
    """Bytes between the highest level reached and the end of memory."""
    if device.free != NULL:
        return max(0, device.used + device.free - device.record)
    if device.total != NULL:
        return max(0, device.total - max(device.reserved, 0) - device.record)
    return None


def _driver(device: _Device) -> SeriesKey | None:
    """The process that grew most since the growth began."""
    best, most = None, 0
    for key in sorted(device.processes, key=lambda key: key.sort_key):
        grown = device.processes[key] - device.processes_then.get(key, 0)
        if grown > most:
            best, most = key, grown
    return best


def _share(horizon_s: float, low_s: float, high_s: float) -> float:
    """How much of the range of times lies within the horizon."""
    if horizon_s <= low_s:
        return 0.0
    if horizon_s >= high_s:
        return 1.0
    return (horizon_s - low_s) / (high_s - low_s)


def _worth_saying(said: Risk | None, risk: Risk) -> bool:
    """A new level, or a bound that moved by a quarter."""
    if said is None or said.level != risk.level:
        return said is not None or risk.level != NONE
    if risk.level == NONE:
        return False
    for before, after in (
        (said.eta_low_s, risk.eta_low_s),
        (said.eta_high_s, risk.eta_high_s),
    ):
        if before is not None and after is not None and abs(after - before) * 4 >= before:
            return after != before
    return False
