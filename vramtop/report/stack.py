"""Who is stacked on whom: the layers of one device's panel, as curves to fill."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vramtop.blocks import NULL, IntArray
from vramtop.report.decimate import FloatArray, Series
from vramtop.report.model import DeviceHistory, ProcessHistory
from vramtop.report.names import short_command
from vramtop.report.text import clean
from vramtop.units import NS_PER_S


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One filled band.

    Attributes:
        what: `process`, `others` or `unattributed`.
        label: Cleaned, not escaped.
        peak_bytes: Its own highest value, None if it has no reading.
        top: Upper edge in bytes, shape (n,); the lower edge is the layer before.
        processes: The processes in it.
    """

    what: str
    label: str
    peak_bytes: int | None
    top: FloatArray
    processes: tuple[ProcessHistory, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Layers from the bottom up.

    Attributes:
        elapsed_s: Where each value begins to hold, shape (n,).
    """

    elapsed_s: FloatArray
    layers: tuple[Layer, ...]


def stacked(
    device: DeviceHistory, start_ns: int, stop_ns: int, *, most: int = 6, columns: int = 1000
) -> Stack:
    """Stack the processes of a device, the `most` largest by themselves, and what is left.

    Every layer keeps its highest edge in each of `columns` columns of time, so a peak of one
    sample stays visible, and layers never cross because all are taken at the same instants.

    Args:
        device: Its history.
        start_ns: Begin of the time shown.
        stop_ns: Its end.
        most: Processes with a layer of their own.
        columns: About the width of the panel in pixels.
    """
    shown = [
        process
        for process in device.processes
        if process.first_ns <= stop_ns and process.used.peak is not None
    ]
    own, others = (shown, []) if len(shown) <= most + 1 else (shown[:most], shown[most:])
    times = _instants(
        [*(process.used for process in shown), device.unattributed], start_ns, stop_ns
    )
    level = np.zeros(len(times), np.int64)
    edges: list[IntArray] = []
    labels: list[tuple[str, str, int | None, tuple[ProcessHistory, ...]]] = []
    for process in own:
        level = level + np.maximum(process.used.held(times), 0)
        edges.append(level)
        peak = process.used.peak
        labels.append(
            ("process", _key_label(process), None if peak is None else peak[1], (process,))
        )
    if others:
        together = np.zeros(len(times), np.int64)
        for process in others:
            together += np.maximum(process.used.held(times), 0)
        level = level + together
        edges.append(level)
        labels.append(("others", f"{len(others)} others", int(together.max()), tuple(others)))
    unattributed = device.unattributed.held(times)
    if (unattributed != NULL).any():
        level = level + np.maximum(unattributed, 0)
        edges.append(level)
        labels.append(("unattributed", "unattributed", int(unattributed.max()), ()))
    at, chosen = _columns(times, edges, start_ns, stop_ns, columns)
    return Stack(
        at / NS_PER_S,
        tuple(
            Layer(what, label, peak, edge.astype(np.float64), processes)
            for (what, label, peak, processes), edge in zip(labels, chosen, strict=True)
        ),
    )


def _key_label(process: ProcessHistory) -> str:
    """Short enough for the key, and never without its PID."""
    short = short_command(process.name, process.command)
    return f"{clean(short, 19)} {process.key.pid}" if short else f"pid {process.key.pid}"


def line(series: Series, start_ns: int, stop_ns: int) -> tuple[FloatArray, FloatArray]:
    """A step line: times in seconds and bytes, NaN where there is no reading.

    The last reading holds to `stop_ns`.
    """
    first = max(int(np.searchsorted(series.elapsed_ns, start_ns, side="right")) - 1, 0)
    last = int(np.searchsorted(series.elapsed_ns, stop_ns, side="right"))
    times, values = series.elapsed_ns[first:last], series.value[first:last]
    if not len(times):
        return np.zeros(0), np.zeros(0)
    times = np.concatenate([np.maximum(times, start_ns), [stop_ns]])
    values = np.concatenate([values, values[-1:]])
    return times / NS_PER_S, np.where(values == NULL, np.nan, values.astype(np.float64))


def _instants(series: list[Series], start_ns: int, stop_ns: int) -> IntArray:
    times = np.unique(np.concatenate([[start_ns, stop_ns], *(one.elapsed_ns for one in series)]))
    return times[(times >= start_ns) & (times <= stop_ns)].astype(np.int64)


def _columns(
    times: IntArray, edges: list[IntArray], start_ns: int, stop_ns: int, columns: int
) -> tuple[IntArray, list[IntArray]]:
    """At most two instants a column: its highest from where it begins, its last where it ends."""
    if len(times) <= 2 * columns:
        return times, edges
    width = max((stop_ns - start_ns) // columns, 1)
    column = (times - start_ns) // width
    starts = np.concatenate([[0], np.flatnonzero(np.diff(column)) + 1])
    ends = np.concatenate([starts[1:] - 1, [len(times) - 1]])
    at = np.stack([times[starts], times[ends]], axis=1).reshape(-1)
    return at, [
        np.stack([np.maximum.reduceat(edge, starts), edge[ends]], axis=1).reshape(-1)
        for edge in edges
    ]
