"""What the signs and colours of the figure stand for."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from vramtop.blocks import NULL
from vramtop.events import OomRiskChanged
from vramtop.report.glyphs import drawable
from vramtop.report.model import DeviceHistory, Report
from vramtop.report.stack import Layer, Stack
from vramtop.report.theme import PROCESSES, Theme
from vramtop.units import format_bytes

WIDTH_IN = 12.0
# Lines only: a hatch of dots is a megabyte of SVG.
UNATTRIBUTED_HATCH = "\\\\\\\\"
RESERVED_HATCH = "////"


def fill_of(layer: Layer, place: int, theme: Theme) -> str:
    """Colour of a layer; `place` counts from the bottom."""
    if layer.what == "others":
        return theme.others
    if layer.what == "unattributed":
        return theme.paper
    return PROCESSES[place % len(PROCESSES)]


def draw_names(
    axes: Axes, device: DeviceHistory, height_in: float, stack: Stack, theme: Theme
) -> None:
    """The list right of the panel, in the order of the stack, with each one's own peak."""
    rows: list[tuple[str, str | None, str | None, str]] = []
    if device.reserved_bytes is not None:
        rows.append(
            ("reserved by the driver", "none", RESERVED_HATCH, format_bytes(device.reserved_bytes))
        )
    for place in reversed(range(len(stack.layers))):
        layer = stack.layers[place]
        hatch = UNATTRIBUTED_HATCH if layer.what == "unattributed" else None
        peak = "hidden" if layer.peak_bytes is None else format_bytes(layer.peak_bytes)
        rows.append((layer.label, fill_of(layer, place, theme), hatch, peak))
    silent = sum(process.used.peak is None for process in device.processes)
    if silent:
        rows.append((f"{silent} with hidden memory", None, None, "unknown"))
    elif not device.looks and (device.used.value != NULL).any():
        peak_bytes = device.used.peak
        rows.append(
            ("by whom is not known", theme.others, None, format_bytes(peak_bytes and peak_bytes[1]))
        )
    elif not stack.layers:
        rows.append(("no process seen", None, None, ""))
    line_in = 0.158
    pixel = 1.0 / height_in
    width_in = axes.get_position().width * WIDTH_IN
    x_of = 1.0 / width_in
    axes.text(
        1 + 2.86 * x_of, 1.0, "peak", transform=axes.transAxes, fontsize=7.5, color=theme.faint,
        ha="right", va="center",
    )  # fmt: skip
    for place, (label, colour, hatch, peak) in enumerate(rows, start=1):
        y = 1.0 - place * line_in * pixel
        if colour is not None:
            edge = theme.faint if hatch else theme.ink
            axes.add_patch(
                Rectangle(
                    (1 + 0.12 * x_of, y - 0.045 * pixel), 0.2 * x_of, 0.1 * pixel,
                    transform=axes.transAxes, clip_on=False, facecolor=colour, edgecolor=edge,
                    linewidth=0.5, hatch=hatch,
                )
            )  # fmt: skip
        axes.text(
            1 + 0.4 * x_of, y, drawable(label, 30), transform=axes.transAxes, fontsize=8,
            color=theme.ink, va="center", parse_math=False,
        )  # fmt: skip
        axes.text(
            1 + 2.86 * x_of, y, peak, transform=axes.transAxes, fontsize=8, color=theme.ink,
            ha="right", va="center",
        )  # fmt: skip


def draw_key(
    part: SubFigure, x: float, y: float, height_in: float, report: Report, theme: Theme
) -> None:
    """One line that explains the signs, only those that occur."""
    kinds = report.events_seen
    signs: list[tuple[str, dict[str, Any]]] = [
        ("in use (whole GPU)", {"color": theme.used, "linewidth": 1.2}),
    ]
    if any(device.limit_bytes is not None for device in report.devices):
        signs.append(
            ("limit", {"color": theme.limit, "linewidth": 1.1, "linestyle": (0, (3, 1.5))})
        )
    if report.ooms:
        signs.append(("out of memory", {"color": theme.oom, "linewidth": 2}))
    if kinds.get("oom_risk"):
        signs.append(("warning in force", {"color": theme.warning, "linewidth": 6, "alpha": 0.6}))
        if any(
            isinstance(timed.event, OomRiskChanged) and timed.event.level == "critical"
            for timed in report.events
        ):
            signs.append(("critical", {"color": theme.critical, "linewidth": 6, "alpha": 0.6}))
    if kinds.get("mark"):
        signs.append(("mark", {"color": theme.mark, "linestyle": ":"}))
    for name, marker, kind in (("start", "^", "process_start"), ("exit", "v", "process_exit")):
        if kinds.get(kind):
            signs.append(
                (name, {"color": theme.others, "marker": marker, "linestyle": "none",
                        "markeredgecolor": theme.ink, "markersize": 6})
            )  # fmt: skip
    if kinds.get("gap"):
        signs.append(("xx  gap: nothing was recorded", {"color": theme.gap, "linewidth": 0}))
    inch = 1.0 / WIDTH_IN
    for words, style in signs:
        part.add_artist(
            Line2D(
                [x, x + 0.14 * inch, x + 0.28 * inch],
                [y + 0.04 / height_in] * 3,
                markevery=[1],
                **style,
            )
        )
        part.text(x + 0.36 * inch, y, words, fontsize=8, color=theme.faint, va="baseline")
        x += (0.36 + 0.072 * len(words) + 0.25) * inch
