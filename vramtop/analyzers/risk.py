"""The risk that a device runs out of memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from vramtop.analyzers.risk_model import Evidence, RiskModel
from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL
from vramtop.events import OomRiskChanged
from vramtop.samples import SeriesKey
from vramtop.stats.exhaustion import History, Outlook
from vramtop.units import MIB, NS_PER_S, format_bytes, format_duration, format_rate
from vramtop.view import Change

NONE, WARNING, CRITICAL = "none", "warning", "critical"
RANKS = (NONE, WARNING, CRITICAL)
JUDGE_NS = 5 * NS_PER_S
CALM_NS = 15 * NS_PER_S
CALM_BELOW = 0.03
"""P(out of memory within 900 s) below which a device is judged less often."""
AGAIN_S = (10, 60, 300)
"""Seconds after the last change at which a device that little threatens is judged again."""
SNAPSHOT_NS = 300 * NS_PER_S
EMPTY_SHARE = 20
"""Below a twentieth of its memory a device counts as empty: what follows is a start."""
RELEASE_NS = 10 * NS_PER_S
PAUSE_NS = 45 * NS_PER_S
STILL_BYTES = 64 * MIB
"""Two levels that differ by no more are the same."""
NEVER_NS = -(1 << 62)


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
    history: History
    since_ns: int
    fresh_ns: int
    risen_ns: int
    # When the level rose again after a pause of PAUSE_NS: a load knows no such pause.
    paused_ns: int = NEVER_NS
    released_ns: int = NEVER_NS
    # What has gone within RELEASE_NS, and whether it had held the same for a while.
    released: int = 0
    still: bool = True
    judged_ns: int = NEVER_NS
    due_ns: int | None = None
    again: int = 0
    calm: bool = False
    level: str = NONE
    pending: str | None = None
    pending_ns: int = 0
    eta: tuple[float, float] | None = None
    said: Risk | None = None
    births_ns: dict[SeriesKey, int] = field(default_factory=dict)
    processes: dict[SeriesKey, int] = field(default_factory=dict)
    # What processes held at the last two snapshots, the older first.
    before: list[tuple[int, dict[SeriesKey, int]]] = field(default_factory=list)


class RiskAnalyzer(SweepAnalyzer):
    """Follows how each device approaches its limit and states probabilities.

    The level's ceiling and floor are followed over windows of 1 to 90 minutes
    (`stats/exhaustion.py`). How growth of that kind went on in simulated runs gives the
    probabilities (`risk_model.py`): a growth is trusted for as long as it has lasted, so a model
    load frightens nobody, and a sawtooth below its own peak carries no risk. A level is raised
    and taken back only after it has stood for a while, so it does not flicker.

    Args:
        warn_at: P(out of memory within 900 s) that raises a warning.
        critical_at: P(out of memory within 300 s) that raises a critical alarm.
        clear_warning_at, clear_critical_at: Probability below which it is taken back.
        raise_hold_s, clear_hold_s: How long that must have stood.
    """

    inputs = ("start",)

    def __init__(
        self,
        *,
        warn_at: float = 0.7,
        critical_at: float = 0.55,
        clear_warning_at: float = 0.35,
        clear_critical_at: float = 0.15,
        raise_hold_s: float = 20.0,
        clear_hold_s: float = 50.0,
    ) -> None:
        super().__init__()
        self.warn_at = warn_at
        self.critical_at = critical_at
        self.clear_warning_at = clear_warning_at
        self.clear_critical_at = clear_critical_at
        self.raise_hold_s = raise_hold_s
        self.clear_hold_s = clear_hold_s
        self._model = RiskModel()
        self._devices: dict[str, _Device] = {}

    def on_signal(self, tick: int, name: str, key: SeriesKey, value: bool) -> None:  # noqa: ARG002, FBT001
        """A process was born; the growth that follows may be its start."""
        device = self._devices.get(key.uuid)
        if device is not None and not value:
            device.births_ns[key] = self.now_ns(tick)

    def on_gone(self, tick: int, key: SeriesKey) -> None:
        """Forget the process; what it held will be free."""
        device = self._devices.get(key.uuid)
        if device is None:
            return
        now = self.now_ns(tick)
        if now - device.released_ns > RELEASE_NS:
            device.released, device.still = 0, True
        held = device.processes.pop(key, 0)
        device.released += held
        device.births_ns.pop(key, None)
        for _, before in device.before:
            device.still &= abs(before.pop(key, 0) - held) <= STILL_BYTES
        device.released_ns = now

    def on_change(self, tick: int, change: Change) -> None:
        """Follow the level of a device, and who holds what."""
        device = self._devices.get(change.key.uuid)
        if change.key.pid is not None:
            if device is not None:
                device.processes[change.key] = change.used
            return
        limit = _limit(change)
        if limit is None or self.is_split(tick, change.key.uuid):
            return
        now = self.now_ns(tick)
        if device is None:
            history = History(now, change.used, limit)
            device = _Device(history, now, now, now)
            self._devices[change.key.uuid] = device
        else:
            self._follow(device, now, change.used, limit)
        device.again = 0
        pause_ns = CALM_NS if device.calm else JUDGE_NS
        if now - device.judged_ns >= pause_ns:
            self._judge(tick, change.key, device)
        else:
            self._judge_at(device.judged_ns + pause_ns, change.key, device)

    def on_wake(self, tick: int, key: SeriesKey) -> None:
        """Judge again: time has passed."""
        device = self._devices.get(key.uuid)
        if device is not None and device.due_ns is not None and device.due_ns <= self.now_ns(tick):
            self._judge(tick, key, device)

    def evidence(self, device: _Device, now: int) -> Evidence:
        """What is known of a device at an instant not before its last change."""
        history = device.history
        fresh_ns = self._fresh_ns(device)
        quiet_ns = now - device.risen_ns
        return Evidence(
            history.outlook(now),
            max(history.limit - history.level, 0) / history.limit if history.limit > 0 else 1.0,
            (now - fresh_ns) / NS_PER_S,
            quiet_ns / NS_PER_S,
            (now - device.since_ns) / NS_PER_S,
            device.paused_ns < fresh_ns and quiet_ns < PAUSE_NS,
        )

    def _fresh_ns(self, device: _Device) -> int:
        """Since when what grows now has been there."""
        driver = _driver(device)
        if driver is not None:
            return max(device.fresh_ns, device.births_ns.get(driver, NEVER_NS))
        if device.processes and device.history.level * EMPTY_SHARE > device.history.limit:
            # Nobody visible grows much: a hidden process may have come when the rise began.
            return max(device.fresh_ns, device.paused_ns)
        return max(device.fresh_ns, *device.births_ns.values(), NEVER_NS)

    # -- the level -------------------------------------------------------------------------

    def _follow(self, device: _Device, now: int, used: int, limit: int) -> None:
        history = device.history
        if used * EMPTY_SHARE < limit:
            device.fresh_ns = now
        if used > history.level:
            if now - device.risen_ns >= PAUSE_NS:
                device.paused_ns = now
            device.risen_ns = now
        fallen = history.level - used
        if fallen * 50 > limit and now - device.released_ns <= RELEASE_NS:
            if device.still and abs(device.released - fallen) <= STILL_BYTES:
                # Who has ended held the same all along; the others' growth goes on.
                history.release(now, fallen)
            else:
                # What the device held with it says nothing of what follows.
                device.history = History(now, used, limit)
                device.since_ns = now
                device.before = [(now, dict(device.processes))]
                device.level, device.pending, device.eta = NONE, None, None
                return
        history.put(now, used, limit)

    # -- judgement -------------------------------------------------------------------------

    def _judge_at(self, due_ns: int, key: SeriesKey, device: _Device) -> None:
        if device.due_ns is None or due_ns < device.due_ns:
            device.due_ns = due_ns
            self.wake_at(due_ns, key)

    def _judge(self, tick: int, key: SeriesKey, device: _Device) -> None:
        now = self.now_ns(tick)
        device.judged_ns, device.due_ns = now, None
        evidence = self.evidence(device, now)
        p_oom = self._model.probabilities(evidence)
        device.calm = p_oom[2] < CALM_BELOW
        self._remember(device, now)
        self._settle(tick, key, device, evidence.outlook, p_oom)
        if device.level != NONE or device.pending is not None or p_oom[2] > self.clear_critical_at:
            self._judge_at(now + JUDGE_NS, key, device)
        elif not device.calm and device.again < len(AGAIN_S):
            self._judge_at(now + AGAIN_S[device.again] * NS_PER_S, key, device)
            device.again += 1

    def _remember(self, device: _Device, now: int) -> None:
        if not device.before or now - device.before[-1][0] >= SNAPSHOT_NS:
            device.before = [*device.before[-1:], (now, dict(device.processes))]

    def _settle(
        self,
        tick: int,
        key: SeriesKey,
        device: _Device,
        outlook: Outlook,
        p_oom: tuple[float, float, float],
    ) -> None:
        now = self.now_ns(tick)
        wanted = self._wanted(device.level, p_oom)
        if wanted == device.level:
            device.pending = None
        else:
            if device.pending != wanted:
                device.pending, device.pending_ns = wanted, now
            raising = RANKS.index(wanted) > RANKS.index(device.level)
            hold_s = self.raise_hold_s if raising else self.clear_hold_s
            if now - device.pending_ns >= int(hold_s * NS_PER_S):
                device.level, device.pending = wanted, None
        found = self._model.range_s(outlook)
        if found is not None:
            device.eta = found
        elif device.level == NONE:
            device.eta = None
        low, high = (None, None) if device.eta is None else device.eta
        if device.level != NONE and low is None:
            low, high = 0.0, 900.0  # nothing grows, but what there is leaves hardly any room
        risk = Risk(device.level, low, high, p_oom, _driver(device), outlook.rate)
        if _worth_saying(device.said, risk):
            device.said = risk
            self.emit(
                OomRiskChanged,
                tick,
                key,
                level=risk.level,
                eta_low_s=risk.eta_low_s if risk.level != NONE else None,
                eta_high_s=risk.eta_high_s if risk.level != NONE else None,
                p_oom_60s=p_oom[0],
                p_oom_300s=p_oom[1],
                p_oom_900s=p_oom[2],
                reason=self._reason(tick, device, risk, outlook),
            )
        self.publish("forecast", tick, key, risk)

    def _wanted(self, level: str, p_oom: tuple[float, float, float]) -> str:
        _, p_300, p_900 = p_oom
        critical_from = self.clear_critical_at if level == CRITICAL else self.critical_at
        warning_from = self.warn_at if level == NONE else self.clear_warning_at
        if p_300 >= critical_from:
            return CRITICAL
        return WARNING if p_900 >= warning_from else NONE

    def _reason(self, tick: int, device: _Device, risk: Risk, outlook: Outlook) -> str:
        if risk.level == NONE:
            return "nothing grows towards the limit"
        history = device.history
        free = format_bytes(max(history.limit - history.level, 0))
        if outlook.left_s == inf:
            words = f"growth has paused with {free} free"
        elif outlook.flushed:
            words = (
                "a cache is emptied whenever memory is full, and what remains of it grows at about "
                f"{format_rate(outlook.rate)}; {free} are free"
            )
        else:
            age = format_duration(outlook.window_s)
            words = (
                f"used memory has grown by about {format_rate(outlook.rate)} for the last {age}; "
                f"{free} are free"
            )
        if risk.driver is not None:
            name = self.name_of(tick, risk.driver)
            who = f"pid {risk.driver.pid}" if name is None else f"{name} (pid {risk.driver.pid})"
            words += f"; most of it is {who}"
        elif device.processes:
            words += "; no visible process accounts for it"
        return words


def _limit(change: Change) -> int | None:
    """Bytes that the device's processes can hold together."""
    if change.free != NULL:
        return change.used + change.free
    if change.total != NULL:
        return max(0, change.total - max(change.reserved, 0))
    return None


def _driver(device: _Device) -> SeriesKey | None:
    """The process that has grown most since the snapshot before last."""
    if not device.before:
        return None
    _, then = device.before[0]
    best, most = None, 32 * MIB
    for key in sorted(device.processes, key=lambda key: key.sort_key):
        grown = device.processes[key] - then.get(key, 0)
        if grown > most:
            best, most = key, grown
    return best


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
