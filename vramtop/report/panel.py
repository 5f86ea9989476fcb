"""One device's panel of the figure, and the key of signs that all panels share."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vramtop.events import Mark, OomRiskChanged, ProcessExit, ProcessStart
from vramtop.report.glyphs import drawable
from vramtop.report.legend import RESERVED_HATCH, UNATTRIBUTED_HATCH, draw_names, fill_of
from vramtop.report.model import DeviceHistory, Report
from vramtop.report.places import gpu_label
from vramtop.report.stack import Stack, line, stacked
from vramtop.report.text import clean
from vramtop.report.theme import PROCESSES, Theme
from vramtop.report.timeaxis import time_axis
from vramtop.units import GIB, MIB, NS_PER_S, format_bytes, format_duration, format_pct

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
    unit, unit_name = (GIB, "GiB") if _scale_bytes(device, report) >= 4 * GIB else (MIB, "MiB")
    axes.set_ylim(0, _scale_bytes(device, report) / unit)
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
    draw_names(axes, panel.device, panel.height_in, stack, theme)


def _scale_bytes(device: DeviceHistory, report: Report) -> float:
    """Height of the panel in bytes: what the device has, or what any device ever held."""
    peak = device.used.peak
    held = 0 if peak is None else peak[1]
    if device.total_bytes is not None:
        # A hundredth of air, so that a line at the very top is not cut.
        return max(device.total_bytes, round(held * 1.01), MIB)
    # Of unknown size: on the scale of the others, so that an idle GPU looks idle.
    sizes = [one.total_bytes or (one.used.peak or (0, 0))[1] for one in report.devices]
    return max([round(size * 1.05) for size in (*sizes, held)] + [GIB])


def _dress(axes: Axes, panel: Panel, report: Report, theme: Theme, unit_name: str) -> None:
    axes.set_facecolor(theme.paper)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(theme.faint)
    axes.tick_params(colors=theme.ink, labelsize=8.5, length=3)
    axes.yaxis.set_major_locator(
        MaxNLocator(nbins=5 if panel.height_in > 2 else 4, steps=[1, 2, 2.5, 5, 10])
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
        drawable(panel.title or _title(panel.device, report), 120),
        loc="left", fontsize=9.5, fontweight="bold", color=theme.ink, pad=5, parse_math=False,
    )  # fmt: skip


def _title(device: DeviceHistory, report: Report) -> str:
    name = f" {clean(device.name, 40)}" if device.name else ""
    label = gpu_label(report, device.uuid, device.gpu)
    peak = device.used.peak
    if peak is None:
        return f"{label}{name}: no memory reading"
    limit = device.limit_bytes
    share = f" of {format_bytes(limit)} ({format_pct(peak[1] / limit)})" if limit else ""
    return f"{label}{name}: peak {format_bytes(peak[1])}{share}"


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
            band.set_hatch(UNATTRIBUTED_HATCH)
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
        if not device.looks:
            axes.fill_between(
                times, 0, used / unit, step="post", facecolor=theme.others, linewidth=0, zorder=2
            )
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
            hatch=RESERVED_HATCH, linewidth=0.0, zorder=3,
        )  # fmt: skip
    axes.axhline(limit, color=theme.limit, linewidth=1.1, linestyle=(0, (5, 2)), zorder=5)


def _draw_gaps(axes: Axes, panel: Panel, report: Report, theme: Theme) -> None:
    spans = [
        (start, stop)
        for start, stop, _, uuid in report.evidence.gaps
        if uuid in (None, panel.device.uuid) and stop > panel.start_ns and start < panel.stop_ns
    ]
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    for start, stop in sorted(merged, key=lambda span: span[0] - span[1])[:_MOST_GAPS_DRAWN]:
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
