"""Who held what at one instant, from device histories at full rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from vramtop.blocks import NULL
from vramtop.enrich.oom_patterns import classify
from vramtop.events import Oom, OomRiskChanged
from vramtop.report.model import (
    DeviceHistory,
    Holding,
    Moment,
    OutOfMemory,
    ProcessHistory,
    Report,
    TimedEvent,
    Warned,
)
from vramtop.report.names import process_label
from vramtop.samples import Observation
from vramtop.units import NS_PER_S, format_duration

OOM = "oom"
PEAK = "peak"
END = "end"
_IN_MESSAGES = ("requested_bytes", "free_bytes", "allocated_bytes", "unused_bytes")
_MESSAGE_NEAR_NS = 5 * NS_PER_S
_SETTLED_NS = 10 * NS_PER_S


def holdings(
    device: DeviceHistory,
    at_ns: int,
    *,
    occasion: str,
    since_ns: int | None = None,
    look_before_ns: int | None = None,
) -> Moment:
    """Who held what on `device` at `at_ns`.

    Args:
        device: With every sample around `at_ns`.
        at_ns: The instant, nanoseconds since the first tick.
        occasion: `oom`, `peak` or `end`.
        since_ns: Also say how much each has grown since then.
        look_before_ns: Take the process list at or before this time instead; at most `at_ns`.
    """
    used = device.used.held_at(at_ns)
    reserved = device.reserved.held_at(at_ns)
    looks = device.unattributed.elapsed_ns
    place = int(
        np.searchsorted(looks, at_ns if look_before_ns is None else look_before_ns, "right")
    )
    rows: list[Holding] = []
    note = None
    if place == 0:
        note = "The process list of this GPU was never read, so nobody can be named."
        rows.append(Holding(what="unattributed", label="not attributable", held_bytes=used))
    else:
        look_ns = int(looks[place - 1])
        present = [process for process in device.processes if _present(process, look_ns)]
        rows += [_process_holding(process, look_ns, since_ns) for process in present]
        rows.sort(key=lambda row: -(-1 if row.held_bytes is None else row.held_bytes))
        rest = device.unattributed.held_at(look_ns)
        if rest is None and used is not None:
            note = "The driver hides what some of these processes hold."
        rows.append(Holding(what="unattributed", label="unattributed", held_bytes=rest))
        at_look = device.used.held_at(look_ns)
        if used is not None and at_look is not None and used != at_look:
            after = format_duration((at_ns - look_ns) / NS_PER_S)
            rows.append(
                Holding(
                    what="since_look",
                    label=f"change in the {after} since the process list was read",
                    held_bytes=used - at_look,
                )
            )
    if reserved is not None:
        rows.append(Holding(what="reserved", label="reserved by the driver", held_bytes=reserved))
    free = None
    if used is not None and device.total_bytes is not None:
        free = device.total_bytes - used - (reserved or 0)
    rows.append(Holding(what="free", label="free", held_bytes=free))
    return Moment(
        occasion=occasion,
        elapsed_ns=at_ns,
        uuid=device.uuid,
        gpu=device.gpu,
        total_bytes=device.total_bytes,
        used_bytes=used,
        holdings=tuple(rows),
        window_ns=None if since_ns is None else at_ns - since_ns,
        note=note,
    )


def _present(process: ProcessHistory, look_ns: int) -> bool:
    """Whether the process had a row, with a reading or hidden, at this look."""
    place = int(np.searchsorted(process.used.elapsed_ns, look_ns))
    return place < len(process.used.elapsed_ns) and (
        int(process.used.elapsed_ns[place]) == look_ns and process.last_ns >= look_ns
    )


def _process_holding(process: ProcessHistory, look_ns: int, since_ns: int | None) -> Holding:
    held = process.used.held_at(look_ns)
    grown = None
    if held is not None and since_ns is not None:
        before = process.used.held_at(max(since_ns, process.first_ns))
        # Born within the window: all that it holds is growth.
        born = process.first_ns > since_ns + 2 * NS_PER_S
        grown = held if born else None if before is None else held - before
    return Holding(
        what="process",
        label=process.label,
        pid=process.key.pid,
        user=process.user,
        held_bytes=held,
        grown_bytes=grown,
    )


def out_of_memory(
    report: Report,
    timed: TimedEvent,
    devices: Sequence[DeviceHistory],
    start_ns: int,
    messages: Sequence[tuple[int, Observation]],
) -> OutOfMemory:
    """All that is known about one out-of-memory.

    Args:
        report: The report so far, for its events.
        timed: The event.
        devices: Histories at full rate around it.
        start_ns: Where these begin.
        messages: Messages caught from the program, with their times.
    """
    event = timed.event
    if not isinstance(event, Oom):
        raise TypeError(f"not an oom event: {event.kind}")
    device = _failing_device(event, devices)
    said = _message_data(event, timed.elapsed_ns, messages)
    moment = None
    if device is not None:
        at_ns, look_ns = _instant(device, event.pid, timed.elapsed_ns)
        moment = holdings(device, at_ns, occasion=OOM, since_ns=start_ns, look_before_ns=look_ns)
    free, source = said.get("free_bytes"), "the message of the program"
    if free is None and moment is not None:
        free, source = moment.holdings[-1].held_bytes, "the last reading before it"
    requested = event.requested_bytes
    if requested is None:
        requested = said.get("requested_bytes")
    return OutOfMemory(
        elapsed_ns=timed.elapsed_ns,
        seq=event.seq,
        uuid=device.uuid if device is not None else event.uuid,
        gpu=device.gpu if device is not None else event.gpu,
        pid=event.pid,
        label=_label_of(event.pid, device, report),
        certainty=event.certainty,
        evidence=event.evidence,
        requested_bytes=requested,
        free_bytes=free,
        free_source=None if free is None else source,
        allocated_bytes=said.get("allocated_bytes"),
        unused_bytes=said.get("unused_bytes"),
        warned=warning_before(report, timed, device.uuid if device is not None else event.uuid),
        moment=moment,
        close_up=device,
        close_up_from_ns=start_ns,
    )


def _failing_device(event: Oom, devices: Sequence[DeviceHistory]) -> DeviceHistory | None:
    """The device the event names, or else the only one that it can be."""
    for device in devices:
        if device.uuid == event.uuid:
            return device
    if event.pid is not None:
        having = [
            device
            for device in devices
            if any(process.key.pid == event.pid for process in device.processes)
        ]
        if len(having) == 1:
            return having[0]
    whole = [device for device in devices if not device.is_parent]
    return whole[0] if len(whole) == 1 else None


def _instant(device: DeviceHistory, pid: int | None, oom_ns: int) -> tuple[int, int | None]:
    """The instant to show for an out-of-memory, and the process list to take.

    By the tick at which it is known, the failed process may have let go of everything. So:
    the highest reading from the last look that still had the process, up to the next look.
    """
    looks = device.unattributed.elapsed_ns
    lives = [process for process in device.processes if process.key.pid == pid]
    seen = [
        int(time)
        for process in lives
        for time, value in zip(process.used.elapsed_ns, process.used.value, strict=True)
        if time <= oom_ns and (value != NULL or time <= process.last_ns)
    ]
    if seen:
        look_ns = max(time for time in seen if time in looks) if len(looks) else max(seen)
        later = looks[looks > look_ns]
        stop_ns = min(oom_ns, int(later[0]) - 1) if len(later) else oom_ns
        return _highest(device, look_ns, stop_ns), look_ns
    return _highest(device, oom_ns - _SETTLED_NS, oom_ns), None


def _highest(device: DeviceHistory, start_ns: int, stop_ns: int) -> int:
    """When the device's use was highest between two times; the latter if it has no reading."""
    times, used = device.used.elapsed_ns, device.used.value
    inside = np.flatnonzero((times >= start_ns) & (times <= stop_ns) & (used != NULL))
    return int(times[inside[used[inside].argmax()]]) if len(inside) else stop_ns


def _message_data(
    event: Oom, oom_ns: int, messages: Sequence[tuple[int, Observation]]
) -> dict[str, int]:
    """Whole numbers from the messages that belong to the event."""
    numbers: dict[str, int] = {}
    # What the recorder took from a message stands above what can be read from it now.
    for text in event.evidence:
        found = classify(text)
        if found is not None:
            read = {name: getattr(found[1], name) for name in _IN_MESSAGES}
            numbers |= {name: value for name, value in read.items() if value is not None}
    for at_ns, message in messages:
        if abs(at_ns - oom_ns) > _MESSAGE_NEAR_NS:
            continue
        if event.pid is not None and message.pid is not None and message.pid != event.pid:
            continue
        for name, value in (message.data or {}).items():
            if name in _IN_MESSAGES and isinstance(value, int) and not isinstance(value, bool):
                numbers[name] = value
    return numbers


def _label_of(pid: int | None, device: DeviceHistory | None, report: Report) -> str:
    for place in (*([device] if device is not None else []), *report.devices):
        for process in place.processes:
            if process.key.pid == pid and pid is not None:
                return process.label
    return process_label(None, None, pid)


def warning_before(report: Report, oom: TimedEvent, uuid: str | None) -> Warned | None:
    """The warning of this device that was in force when it ran out, None if there was none."""
    current: dict[object, OomRiskChanged] = {}
    first: TimedEvent | None = None
    critical_ns: int | None = None
    for timed in report.events:
        event = timed.event
        # At the tick of the failure itself it is no warning any more.
        if timed.elapsed_ns >= oom.elapsed_ns:
            break
        if not isinstance(event, OomRiskChanged) or event.uuid != uuid:
            continue
        if event.level == "none":
            current.pop((event.pid, event.start_time), None)
            if not current:
                first = critical_ns = None
            continue
        current[event.pid, event.start_time] = event
        first = first or timed
        if event.level == "critical" and critical_ns is None:
            critical_ns = timed.elapsed_ns
    if first is None or not isinstance(first.event, OomRiskChanged):
        return None
    return Warned(
        first_ns=first.elapsed_ns,
        level=first.event.level,
        critical_ns=critical_ns,
        eta_low_s=first.event.eta_low_s,
        eta_high_s=first.event.eta_high_s,
        reason=first.event.reason,
    )
