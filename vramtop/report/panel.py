"""One device's panel of the figure, and the key of signs that all panels share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import SubFigure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vramtop.blocks import NULL
from vramtop.events import Mark, OomRiskChanged, ProcessExit, ProcessStart
from vramtop.report.glyphs import drawable
from vramtop.report.model import DeviceHistory, Report
from vramtop.report.stack import Layer, Stack, line, stacked
from vramtop.report.text import clean
from vramtop.report.theme import PROCESSES, Theme
from vramtop.report.timeaxis import time_axis
from vramtop.units import GIB, MIB, NS_PER_S, format_bytes, format_duration, format_pct

WIDTH_IN = 12.0
# Lines only: a hatch of dots is a megabyte of SVG.
_UNATTRIBUTED_HATCH = "\\\\\\\\"
_DENSE = 1500
_MOST_GAPS_DRAWN = 200
_MOST_MARKS_NAMED = 5
_MOST_TRIANGLES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What one panel shows.

    Attributes:
        title: None for the device's own.
        show_axis: Label the time axis.
        columns: Points of time per layer.
    """

    device: DeviceHistory
    start_ns: int
    stop_ns: int
    height_in: float
    title: str | None
    show_axis: bool
    columns: int


def draw_panel(axes: Axes, panel: Panel, report: Report, theme: Theme) -> None:
    """Draw one device into `axes`, which are as wide as its time and leave room at the right."""
    device = panel.device
    start_s, stop_s = panel.start_ns / NS_PER_S, panel.stop_ns / NS_PER_S
    axes.set_xlim(start_s, stop_s)
    unit, unit_name = (GIB, "GiB") if _scale_bytes(device) >= 4 * GIB else (MIB, "MiB")
    axes.set_ylim(0, _scale_bytes(device) / unit)
    _dress(axes, panel, report, theme, unit_name)
    rows = int(panel.height_in / 0.155) - 3
    stack = stacked(
        device, panel.start_ns, panel.stop_ns, most=max(1, min(len(PROCESSES), rows)),
        columns=panel.columns,
    )  # fmt: skip
    _draw_stack(axes, stack, unit, theme)
    _draw_levels(axes, panel, unit, theme)
    _draw_gaps(axes, panel, report, theme)
    _draw_risk(axes, panel, report, theme)
    _draw_marks(axes, panel, report, theme)
    _draw_births(axes, panel, report, stack, theme)
    _draw_oom(axes, panel, report, theme)
    _draw_names(axes, panel, stack, theme)


def _scale_bytes(device: DeviceHistory) -> float:
    peak = device.used.peak
    top = device.total_bytes or 0
    if peak is not None:
        # A hundredth of air, so that a line at the very top is not cut.
        top = max(top, round(peak[1] * 1.01))
    return max(top, MIB)


def _dress(axes: Axes, panel: Panel, report: Report, theme: Theme, unit_name: str) -> None:
    axes.set_facecolor(theme.paper)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.faint)
    axes.tick_params(colors=theme.ink, labelsize=8.5, length=3)
    axes.yaxis.set_major_locator(
        MaxNLocator(nbins=5 if panel.height_in > 2 else 4, steps=[1, 2, 4, 5, 8, 10])
    )
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel(f"memory, {unit_name}", fontsize=8.5, color=theme.ink)
    axes.grid(visible=True, axis="both", color=theme.grid, linewidth=0.6)
    shown = time_axis(
        panel.start_ns / NS_PER_S, panel.stop_ns / NS_PER_S, report.first_t_us or 0, report.zone
    )
    axes.set_xticks(
        shown.ticks_s, labels=shown.labels if panel.show_axis else [""] * len(shown.ticks_s)
    )
    if panel.show_axis:
        axes.set_xlabel(shown.title, fontsize=8.5, color=theme.ink, labelpad=2)
    axes.set_title(
        drawable(panel.title or _title(panel.device), 120),
        loc="left", fontsize=9.5, fontweight="bold", color=theme.ink, pad=5, parse_math=False,
    )  # fmt: skip


def _title(device: DeviceHistory) -> str:
    name = f" {clean(device.name, 40)}" if device.name else ""
    instance = f" instance {device.uuid[:16]}" if device.parent_uuid is not None else ""
    peak = device.used.peak
    if peak is None:
        return f"GPU {device.gpu}{name}{instance}: no memory reading"
    limit = device.limit_bytes
    share = f" of {format_bytes(limit)} ({format_pct(peak[1] / limit)})" if limit else ""
    return f"GPU {device.gpu}{name}{instance}: peak {format_bytes(peak[1])}{share}"


def fill_of(layer: Layer, place: int, theme: Theme) -> str:
    """Colour of a layer; `place` counts from the bottom."""
    if layer.what == "others":
        return theme.others
    if layer.what == "unattributed":
        return theme.paper
    return PROCESSES[place % len(PROCESSES)]


def _draw_stack(axes: Axes, stack: Stack, unit: int, theme: Theme) -> None:
    below = None
    for place, layer in enumerate(stack.layers):
        top = layer.top / unit
        hatched = layer.what == "unattributed"
        band: PolyCollection = axes.fill_between(
            stack.elapsed_s, 0 if below is None else below, top, step="post",
            facecolor=fill_of(layer, place, theme), linewidth=0.0, zorder=2,
        )  # fmt: skip
        if hatched:
            band.set_hatch(_UNATTRIBUTED_HATCH)
            band.set_edgecolor(theme.unattributed)
        elif below is not None and len(top) <= _DENSE:
            # A thin seam tells neighbours apart where colour cannot; where curves are dense
            # the seams would hide them.
            axes.plot(
                stack.elapsed_s, below, color=theme.paper, linewidth=0.5, drawstyle="steps-post",
                zorder=2.5,
            )  # fmt: skip
        below = top


def _draw_levels(axes: Axes, panel: Panel, unit: int, theme: Theme) -> None:
    device = panel.device
    times, used = line(device.used, panel.start_ns, panel.stop_ns)
    if len(times):
        axes.plot(
            times, used / unit, color=theme.used, drawstyle="steps-post", zorder=4,
            linewidth=1.0 if len(times) <= _DENSE else 0.4,
        )  # fmt: skip
    if device.total_bytes is None:
        return
    limit = (device.limit_bytes or device.total_bytes) / unit
    if device.reserved_bytes:
        axes.axhspan(
            limit, device.total_bytes / unit, facecolor="none", edgecolor=theme.reserved,
            hatch="////", linewidth=0.0, zorder=3,
        )  # fmt: skip
    axes.axhline(limit, color=theme.limit, linewidth=1.1, linestyle=(0, (5, 2)), zorder=5)


def _draw_gaps(axes: Axes, panel: Panel, report: Report, theme: Theme) -> None:
    spans = [
        (start, stop)
        for start, stop, _, uuid in report.evidence.gaps
        if uuid in (None, panel.device.uuid) and stop > panel.start_ns and start < panel.stop_ns
    ]
    for start, stop in sorted(spans, key=lambda span: span[0] - span[1])[:_MOST_GAPS_DRAWN]:
        axes.axvspan(
            max(start, panel.start_ns) / NS_PER_S, min(stop, panel.stop_ns) / NS_PER_S,
            facecolor=theme.paper, edgecolor=theme.gap, hatch="xxx", linewidth=0.0, zorder=5.5,
        )  # fmt: skip
        if (stop - start) * 14 > panel.stop_ns - panel.start_ns:
            _label(axes, (start + stop) / 2 / NS_PER_S, 0.5, "gap", theme, theme.faint, "center")


def _draw_risk(axes: Axes, panel: Panel, report: Report, theme: Theme) -> None:
    """Shade the time during which a warning was in force."""
    level, since = "none", 0
    changes = [
        (timed.elapsed_ns, timed.event.level)
        for timed in report.events
        if isinstance(timed.event, OomRiskChanged) and timed.event.uuid == panel.device.uuid
    ]
    ooms = [oom.elapsed_ns for oom in report.ooms if oom.uuid == panel.device.uuid]
    first: int | None = None
    for at_ns, new in [*changes, (report.span_ns, "none")]:
        if level != "none":
            # After the failure the warning is no news.
            stop = min([at_ns, *(oom for oom in ooms if oom > since)])
            colour = theme.critical if level == "critical" else theme.warning
            left, right = max(since, panel.start_ns), min(stop, panel.stop_ns)
            if right > left:
                axes.axvspan(
                    left / NS_PER_S,
                    right / NS_PER_S,
                    color=colour,
                    alpha=0.28,
                    linewidth=0,
                    zorder=1,
                )
                axes.axvspan(
                    left / NS_PER_S, right / NS_PER_S, ymin=0.0, ymax=0.03, color=colour,
                    linewidth=0, zorder=6,
                )  # fmt: skip
        if first is None and new != "none":
            first = at_ns
        level, since = new, at_ns
    oom = next((oom for oom in report.ooms if oom.uuid == panel.device.uuid), None)
    if oom is not None and oom.warned is not None and oom.warned.first_ns >= panel.start_ns:
        lead = format_duration((oom.elapsed_ns - oom.warned.first_ns) / NS_PER_S)
        at_s = oom.warned.first_ns / NS_PER_S
        _flag(axes, panel, at_s, 0.42, f"warned {lead} before", theme, theme.ink)


def _draw_marks(axes: Axes, panel: Panel, report: Report, theme: Theme) -> None:
    marks = [
        (timed.elapsed_ns / NS_PER_S, timed.event.text or "mark")
        for timed in report.events
        if isinstance(timed.event, Mark)
        and timed.event.uuid in (None, panel.device.uuid)
        and panel.start_ns <= timed.elapsed_ns <= panel.stop_ns
    ]
    for place, (at_s, text) in enumerate(marks[:_MOST_TRIANGLES]):
        axes.axvline(at_s, color=theme.mark, linewidth=0.9, linestyle=":", zorder=6)
        if place < _MOST_MARKS_NAMED:
            _flag(axes, panel, at_s, 0.80 - 0.12 * (place % 3), clean(text, 28), theme, theme.mark)


def _draw_births(axes: Axes, panel: Panel, report: Report, stack: Stack, theme: Theme) -> None:
    """Triangles at the foot: up for a start, down for an exit, in the colour of the layer."""
    colours = {
        process.key: fill_of(layer, place, theme)
        for place, layer in enumerate(stack.layers)
        for process in layer.processes
    }
    drawn = 0
    for timed in report.events:
        event = timed.event
        if not isinstance(event, (ProcessStart, ProcessExit)) or event.uuid != panel.device.uuid:
            continue
        if not panel.start_ns <= timed.elapsed_ns <= panel.stop_ns or drawn >= _MOST_TRIANGLES:
            continue
        if isinstance(event, ProcessStart) and event.already_running:
            continue
        drawn += 1
        colour = next(
            (shade for key, shade in colours.items() if key.pid == event.pid), theme.others
        )
        axes.plot(
            [timed.elapsed_ns / NS_PER_S], [0.0],
            marker="^" if isinstance(event, ProcessStart) else "v",
            markersize=6.5, color=colour, markeredgecolor=theme.ink, markeredgewidth=0.7,
            clip_on=False, zorder=8, transform=axes.get_xaxis_transform(),
        )  # fmt: skip


def _draw_oom(axes: Axes, panel: Panel, report: Report, theme: Theme) -> None:
    ooms = [
        oom
        for oom in report.ooms
        if oom.uuid in (None, panel.device.uuid)
        and panel.start_ns <= oom.elapsed_ns <= panel.stop_ns
    ]
    for place, oom in enumerate(ooms):
        at_s = oom.elapsed_ns / NS_PER_S
        axes.axvline(at_s, color=theme.oom, linewidth=1.8, zorder=9)
        if place == 0:
            asked = (
                f": {format_bytes(oom.requested_bytes)} asked"
                if oom.requested_bytes is not None
                else ""
            )
            sure = "out of memory" if oom.certainty == "confirmed" else "out of memory (inferred)"
            _flag(axes, panel, at_s, 0.62, sure + asked, theme, theme.oom, bold=True)


def _flag(
    axes: Axes, panel: Panel, at_s: float, height: float, words: str, theme: Theme, colour: str,
    *, bold: bool = False,
) -> None:  # fmt: skip
    """A label beside a vertical line, on the side that has room."""
    right = at_s > (panel.start_ns + 0.6 * (panel.stop_ns - panel.start_ns)) / NS_PER_S
    shift = 0.004 * (panel.stop_ns - panel.start_ns) / NS_PER_S
    _label(
        axes, at_s - shift if right else at_s + shift, height, words, theme, colour,
        "right" if right else "left", bold=bold,
    )  # fmt: skip


def _label(
    axes: Axes, at_s: float, height: float, words: str, theme: Theme, colour: str, align: str,
    *, bold: bool = False,
) -> None:  # fmt: skip
    axes.text(
        at_s, height, drawable(words), transform=axes.get_xaxis_transform(), fontsize=8,
        color=colour, ha=align, va="center", zorder=12, parse_math=False,
        fontweight="bold" if bold else "normal",
        bbox={"facecolor": theme.paper, "edgecolor": colour, "linewidth": 0.6, "pad": 1.6, "alpha": 0.92},
    )  # fmt: skip


def _draw_names(axes: Axes, panel: Panel, stack: Stack, theme: Theme) -> None:
    """The list right of the panel, in the order of the stack, with each one's own peak."""
    device = panel.device
    rows: list[tuple[str, str | None, str | None, str]] = []
    if device.reserved_bytes is not None:
        rows.append(("reserved by the driver", "none", "////", format_bytes(device.reserved_bytes)))
    for place in reversed(range(len(stack.layers))):
        layer = stack.layers[place]
        hatch = _UNATTRIBUTED_HATCH if layer.what == "unattributed" else None
        peak = "hidden" if layer.peak_bytes is None else format_bytes(layer.peak_bytes)
        rows.append((layer.label, fill_of(layer, place, theme), hatch, peak))
    silent = sum(process.used.peak is None for process in device.processes)
    if silent:
        rows.append((f"{silent} with hidden memory", None, None, "unknown"))
    elif not device.looks and (device.used.value != NULL).any():
        rows.append(("process list never read", None, None, ""))
    elif not stack.layers:
        rows.append(("no process seen", None, None, ""))
    line_in = 0.158
    pixel = 1.0 / panel.height_in
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
        ("limit", {"color": theme.limit, "linewidth": 1.1, "linestyle": (0, (3, 1.5))}),
    ]
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
