"""Who holds what on a device, and whose recent growth used the memory up."""

from __future__ import annotations

from dataclasses import dataclass, field

from vramtop.blocks import NULL
from vramtop.samples import SeriesKey
from vramtop.units import MIB, NS_PER_S, format_bytes, format_duration

BUCKET_NS = 60 * NS_PER_S
MAX_BUCKETS = 64


@dataclass(slots=True)
class Held:
    """One process's memory.

    Attributes:
        born_ns: When it was first seen.
        first_bytes: What it held then.
        used: What it holds.
        peak: The most it has held.
        risen_ns: When it last grew.
        highs: (start, peak up to then) at each minute in which the peak rose, oldest first.
    """

    born_ns: int
    first_bytes: int
    used: int = 0
    peak: int = 0
    risen_ns: int = 0
    highs: list[tuple[int, int]] = field(default_factory=list)

    def peak_before(self, when_ns: int) -> int:
        """The most it had held before `when_ns`, to the minute; 0 if it came later."""
        best = self.first_bytes
        for since, high in self.highs:
            if since > when_ns:
                break
            best = high
        return best


@dataclass(slots=True)
class Ledger:
    """The processes of one device. Bounded by how many live at once."""

    device_used: int = NULL
    first_ns: int = NULL
    processes: dict[SeriesKey, Held] = field(default_factory=dict)

    def level(self, key: SeriesKey, now: int, used: int) -> None:
        """A process holds `used` bytes from `now` on."""
        if self.first_ns == NULL:
            self.first_ns = now
        held = self.processes.get(key)
        if held is None:
            # What stood at the first look is no growth; its beginning was not seen.
            first = used if now == self.first_ns else 0
            held = self.processes[key] = Held(now, first, peak=first, risen_ns=now)
        if used > held.used:
            held.risen_ns = now
        held.used = used
        if used > held.peak:
            if not held.highs or now - held.highs[-1][0] >= BUCKET_NS:
                held.highs.append((now, used))
                del held.highs[:-MAX_BUCKETS]
            else:
                held.highs[-1] = (held.highs[-1][0], used)
            held.peak = used

    def gone(self, key: SeriesKey) -> Held | None:
        """Forget a process; what it was."""
        return self.processes.pop(key, None)

    def holders(self) -> tuple[tuple[int | None, int], ...]:
        """(pid, bytes), the largest first; under None what is nobody's, if it is much."""
        found: list[tuple[int | None, int]] = [
            (key.pid, held.used)
            for key, held in sorted(self.processes.items(), key=lambda item: item[0].sort_key)
            if held.used > 0
        ]
        nobodys = self.device_used - sum(held for _, held in found)
        if self.device_used != NULL and nobodys >= 512 * MIB:
            found.append((None, nobodys))
        return tuple(sorted(found, key=lambda entry: -entry[1])[:16])

    def blamed(self, now: int, within_s: float) -> tuple[SeriesKey | None, str]:
        """Who went furthest beyond its earlier peak of late, and in which words.

        The last fifteenth of the time is asked first: who has just arrived is to blame rather
        than who loaded its model an hour ago, as long as it took a twentieth of what is in use.
        """
        much = max(64 * MIB, self.device_used // 20)
        for share, least in ((15, much), (3, much), (1, much), (1, 64 * MIB)):
            span_ns = int(within_s * NS_PER_S) // share
            best = self._furthest(now - span_ns, least)
            if best is not None:
                return best, self._because(best, now, span_ns)
        return None, ""

    def _furthest(self, since: int, least: int) -> SeriesKey | None:
        best = None
        for key in sorted(self.processes, key=lambda key: key.sort_key):
            held = self.processes[key]
            gained = held.peak - held.peak_before(since)
            if gained > least:
                best, least = key, gained
        return best

    def _because(self, key: SeriesKey, now: int, span_ns: int) -> str:
        held = self.processes[key]
        if held.born_ns > now - span_ns and held.born_ns != self.first_ns:
            came = format_duration((now - held.born_ns) / NS_PER_S)
            return f"it came {came} before and took up to {format_bytes(held.peak)}"
        before = held.peak_before(now - span_ns)
        span = format_duration(min(span_ns, now - held.born_ns) / NS_PER_S)
        return (
            f"it went {format_bytes(held.peak - before)} beyond its earlier peak of "
            f"{format_bytes(before)} within {span}"
        )
