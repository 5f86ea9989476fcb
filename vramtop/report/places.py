"""How sentences name moments, GPUs and processes of a report."""

from __future__ import annotations

from vramtop.report.model import Report
from vramtop.report.text import clean
from vramtop.units import NS_PER_S, format_duration, format_time


def gpu_label(report: Report, uuid: str | None, gpu: int | None = None) -> str:
    """What a GPU is called; instances of one GPU are told apart by their UUID."""
    device = report.device(uuid)
    if device is None:
        return "a GPU that is not known" if gpu is None else f"GPU {gpu}"
    if device.parent_uuid is not None:
        return f"GPU {device.gpu} instance {clean(device.uuid, 16)}"
    # An index can mean another board after a reboot, or in a log of several machines.
    twins = [other.uuid for other in report.devices if other.gpu == device.gpu]
    if (
        sum(
            not one.is_parent and one.parent_uuid is None and one.gpu == device.gpu
            for one in report.devices
        )
        > 1
    ):
        return f"GPU {device.gpu} ({_told_apart(device.uuid, twins)})"
    return f"GPU {device.gpu}"


def _told_apart(uuid: str, among: list[str]) -> str:
    """The shortest beginning of a UUID, at least 12 characters, that no other one has."""
    for length in range(12, len(uuid)):
        if sum(other.startswith(uuid[:length]) for other in among) == 1:
            return clean(uuid[:length], 40)
    return clean(uuid, 40)


def clock(report: Report, elapsed_ns: int) -> str:
    """Time of day at the recorder, with the date if it is not the first day's, and how far in."""
    wall = format_time(report.wall_us(elapsed_ns), report.zone)
    first = format_time(report.wall_us(0), report.zone)
    if not elapsed_ns:
        return f"{wall[11:19]} (the start)"
    shown = wall[11:19] if wall[:10] == first[:10] else wall[:19]
    return f"{shown} (+{format_duration(elapsed_ns / NS_PER_S)})"


def full_clock(report: Report, elapsed_ns: int) -> str:
    """Date, time and zone of a moment, and how far into the recording it is."""
    wall = format_time(report.wall_us(elapsed_ns), report.zone)
    return f"{wall}, {format_duration(elapsed_ns / NS_PER_S)} into the recording"


def span_label(span_ns: int) -> str:
    """A short span as it is said in "in the 60 s before"."""
    seconds = span_ns / NS_PER_S
    return f"{seconds:.0f} s" if 1 <= seconds <= 120 else format_duration(seconds)


def series_label(report: Report, uuid: str | None, gpu: int | None, pid: int | None) -> str:
    """What a device or a process on a device is called."""
    if pid is None:
        return gpu_label(report, uuid, gpu)
    device = report.device(uuid)
    labels = [] if device is None else [p.label for p in device.processes if p.key.pid == pid]
    return f"{labels[0] if labels else f'pid {pid}'} on {gpu_label(report, uuid, gpu)}"
