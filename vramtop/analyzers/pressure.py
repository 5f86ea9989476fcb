"""What verdicts know of processes and devices: peaks, rises, newcomers."""

from __future__ import annotations

from dataclasses import dataclass, field

from vramtop.analyzers.peak import Job
from vramtop.blocks import NULL
from vramtop.samples import SeriesKey
from vramtop.units import NS_PER_S

NEVER_NS = -(1 << 62)
START_NS = 300 * NS_PER_S
"""Growth in the first minutes of a process is its start, not a rise that may come again."""
LOAD_NS = 120 * NS_PER_S
"""Growth that goes on after the first two minutes is more than the loading of a model."""
START_PEAK_NS = 1800 * NS_PER_S
"""For so long after its start a process may be expected to reach its first peak again."""
RISE_REST_NS = 10 * NS_PER_S
RISE_NS = 60 * NS_PER_S
"""A rise lasts a minute at most; ten seconds of rest end it."""
STREAK_NS = 180 * NS_PER_S
"""Rises with less rest than this between them are one growth."""
MAX_RISES = 16
MAX_TENANTS = 16


@dataclass(slots=True)
class Recent:
    """The highest value of the last one to two windows of time."""

    window_ns: int
    start_ns: int = NEVER_NS
    high: int = 0
    before: int = 0

    def add(self, now: int, value: int) -> None:
        """`value` was so at `now`."""
        self.top(now)
        self.high = max(self.high, value)

    def top(self, now: int) -> int:
        """The highest, as of `now`."""
        past = now - self.start_ns
        if past >= self.window_ns:
            self.before = self.high if past < 2 * self.window_ns else 0
            self.high, self.start_ns = 0, now
        return max(self.high, self.before)


@dataclass(slots=True)
class Process:
    """One process on one device.

    Attributes:
        used: Bytes held.
        seen_ns: When it was first seen.
        newcomer: It came during the recording, to a device that others held.
        born: It came during the recording, or held next to nothing when it was first seen.
        level, moved_ns: Where it stood when it last moved by more than counts as flat, and when.
        start_peak: The most it held in its first minutes, if it came during the recording.
        peaks, lately: Highest levels of the last hours and of the last half hour.
        rises: (start, size) of the last rises beyond everything before.
        top: The most it ever held; `rise_from`, `rise_ns`, `risen_ns` tell of the present rise,
            `streak_ns` when the present growth began.
        back: What it may ask for again: its peak less what it holds.
    """

    used: int
    seen_ns: int
    level: int
    moved_ns: int
    peaks: Recent
    lately: Recent
    top: int
    rise_from: int
    rise_ns: int
    risen_ns: int
    streak_ns: int
    rises: list[tuple[int, int]] = field(default_factory=list)
    newcomer: bool = False
    born: bool = False
    start_peak: int = 0
    back: int = 0
    job: Job | None = None
    verdict: str | None = None
    candidate: str | None = None
    candidate_ns: int = 0
    due_ns: int | None = None

    def follow(self, now: int, used: int, flat_bytes: int) -> None:
        """It holds `used` bytes from `now` on."""
        # Written out rather than called: this runs at every change of every process.
        if used - self.level > flat_bytes or self.level - used > flat_bytes:
            self.level, self.moved_ns = used, now
        high = max(self.used, used)
        starting = self.born and now - self.seen_ns < START_NS
        peaks, lately = self.peaks, self.lately
        if starting:
            self.start_peak = max(self.start_peak, used)
        elif now > self.seen_ns and (high > peaks.high or now - peaks.start_ns >= peaks.window_ns):
            # The level held until now counts as seen just now. At the first sight it is not
            # known yet whether this is a start.
            peaks.add(now, high)
        if high > lately.high or now - lately.start_ns >= lately.window_ns:
            lately.add(now, high)
        if used > self.top:
            if now - self.risen_ns > RISE_REST_NS or now - self.rise_ns > RISE_NS:
                self.rise_from, self.rise_ns = self.top, now
            if now - self.risen_ns > STREAK_NS or (starting and now - self.seen_ns < LOAD_NS):
                self.streak_ns = now
            self.top, self.risen_ns = used, now
            if not starting and used - self.rise_from > flat_bytes:
                self._rise(used - self.rise_from)
        self.used = used
        young = self.start_peak and now - self.seen_ns < START_PEAK_NS
        if young or now - peaks.start_ns >= peaks.window_ns:
            self.refresh(now)
        else:
            peak = max(peaks.before, peaks.high)
            self.back = peak - used if peak > used else 0

    def _rise(self, size: int) -> None:
        if self.rises and self.rises[-1][0] == self.rise_ns:
            self.rises[-1] = (self.rise_ns, size)
        else:
            self.rises = [*self.rises, (self.rise_ns, size)][-MAX_RISES:]

    def rise(self, since_ns: int) -> int:
        """The size that rises have reached twice since then; one alone was a spike or a step."""
        sizes = sorted(size for when, size in self.rises if when >= since_ns)
        return sizes[-2] if len(sizes) > 1 else 0

    def grows(self, now: int) -> bool:
        """Whether it has been reaching new highs for a minute, and still does."""
        return self.risen_ns - self.streak_ns >= RISE_NS and now - self.risen_ns <= STREAK_NS

    def peak(self, now: int) -> int:
        """The most it may be expected to reach again, as it has before."""
        peak = max(self.peaks.top(now), self.used)
        if now - self.seen_ns < START_PEAK_NS:
            peak = max(peak, self.start_peak)
        return peak

    def refresh(self, now: int) -> int:
        """Work out `back` again: peaks are forgotten in time. Returns by how much it changed."""
        before, self.back = self.back, self.peak(now) - self.used
        return self.back - before


@dataclass(slots=True)
class Tenant:
    """A process that came to a device which others held; `like` says what sort it is."""

    key: SeriesKey
    like: tuple[str | None, bool]
    came_ns: int
    peak: int


@dataclass(slots=True)
class Device:
    """One device.

    Attributes:
        used, free, total: Bytes; `free` also where only the total is known.
        sum_back: What all processes may ask for again, together.
        trouble: (level, whether running out is likely, who drives it, rate) from the risk.
        tenants: Those who came, the last ones.
        worst_rise, worst_tenant, margin: Bounds of what rules may ask for beside `sum_back`.
        calm: All verdicts are OK and none waits; then nobody need be judged while `free` is not
            below `room`.
    """

    used: int = 0
    free: int = NULL
    total: int = NULL
    sum_back: int = 0
    trouble: tuple[str, bool, SeriesKey | None] = ("none", False, None)
    rate: float = 0.0
    p_oom: float = 0.0
    processes: dict[SeriesKey, Process] = field(default_factory=dict)
    tenants: list[Tenant] = field(default_factory=list)
    jobs: dict[SeriesKey, Job] = field(default_factory=dict)
    worst_rise: int = 0
    worst_tenant: int = 0
    margin: int = 0
    calm: bool = False

    @property
    def room(self) -> int:
        """With so much free memory no rule can speak."""
        return self.sum_back + self.worst_rise + self.worst_tenant + self.margin

    def follow(self, key: SeriesKey, process: Process, now: int, used: int, flat: int) -> None:
        """A process holds `used` bytes from `now` on."""
        before = process.back
        process.follow(now, used, flat)
        self.sum_back += process.back - before
        if process.rises and process.rises[-1][1] > self.worst_rise:
            self.worst_rise = process.rises[-1][1]
        if process.newcomer:
            for tenant in self.tenants:
                if tenant.key == key and used > tenant.peak:
                    tenant.peak = used
                    self.worst_tenant = max(self.worst_tenant, used)

    def forget(self, key: SeriesKey) -> None:
        """A process has gone."""
        process = self.processes.pop(key, None)
        self.jobs.pop(key, None)
        if process is not None:
            self.sum_back -= process.back

    def arrive(self, key: SeriesKey, process: Process, now: int, name: str | None) -> None:
        """A process has come during the recording."""
        process.born = True
        process.start_peak = process.used
        others = sum(other.used for one, other in self.processes.items() if one != key)
        if self.total != NULL and others * 20 >= self.total:
            process.newcomer = True
            like = (name, process.job is not None and process.job.training)
            self.tenants = [*self.tenants, Tenant(key, like, now, process.used)][-MAX_TENANTS:]
            self.worst_tenant = max(self.worst_tenant, process.used)

    def tenant_bytes(self, key: SeriesKey, since_ns: int, *, alike: bool = False) -> int:
        """The peak of the largest newcomer since then but this one; `alike`: of its sort."""
        sort = next((one.like for one in self.tenants if one.key == key), None) if alike else None
        return max(
            (
                one.peak
                for one in self.tenants
                if one.came_ns >= since_ns and one.key != key and sort in (None, one.like)
            ),
            default=0,
        )

    def settle_room(self, margin: int) -> None:
        """Work out the bounds again, which were only raised since the last time."""
        self.margin = margin
        rises = (process.rise(NEVER_NS) for process in self.processes.values())
        self.worst_rise = max(rises, default=0)
        self.worst_tenant = max((one.peak for one in self.tenants), default=0)
