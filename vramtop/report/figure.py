"""The picture: each device's memory over time, stacked by process, with what happened.

Drawn with matplotlib's own canvas, never pyplot, so that nothing global is left behind and
no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from PIL import Image

from vramtop.report.glyphs import drawable
from vramtop.report.legend import WIDTH_IN, draw_key
from vramtop.report.model import DeviceHistory, OutOfMemory, Report
from vramtop.report.panel import Panel, draw_panel
from vramtop.report.places import span_label
from vramtop.report.text import clean, listed
from vramtop.report.theme import LIGHT, Theme
from vramtop.units import NS_PER_S, format_bytes, format_duration, format_time

_LEFT_IN, _RIGHT_IN = 0.75, 3.0
_HEADER_IN, _KEY_IN, _FOOTER_IN = 1.12, 0.3, 0.2
_TITLE_IN, _AXIS_IN = 0.34, 0.5
_MOST_DEVICES = 16
PNG_DPI = 150

_SETTINGS: dict[Any, Any] = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "hatch.linewidth": 0.6,
    # Text stays text: a sixth of the bytes, and it can be searched.
    "svg.fonttype": "none",
    "svg.hashsalt": "vramtop",
    "path.simplify": True,
    "agg.path.chunksize": 20_000,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Drawing:
    """Panels of one report and the space they take."""

    report: Report
    panels: tuple[Panel, ...]
    omitted: str | None
    header: bool

    @property
    def header_in(self) -> float:
        """Height of what stands above the panels, in inches."""
        return _HEADER_IN if self.header else _KEY_IN + (0.2 if self.omitted else 0.0)

    @property
    def height_in(self) -> float:
        """Height in inches."""
        panels = sum(panel.height_in + _TITLE_IN + _axis_in(panel) for panel in self.panels)
        return self.header_in + panels + _FOOTER_IN + (0.0 if self.panels else 0.6)


def render(
    reports: Sequence[Report],
    form: str,
    *,
    theme: Theme = LIGHT,
    columns: int = 1000,
    header: bool = True,
    palette: bool = False,
) -> bytes:
    """The figure of one or more reports, one below the other, as a file's bytes.

    Args:
        reports: What to draw.
        form: `png`, `svg` or `pdf`.
        theme: Colours.
        columns: Points of time per layer; fewer make a smaller SVG.
        header: With headline and facts, for a picture that stands alone.
        palette: Make a PNG of 256 colours, a third of the bytes.
    """
    with mpl.rc_context(_SETTINGS):
        figure = draw(reports, theme=theme, columns=columns, header=header)
        out = io.BytesIO()
        # Without a date the same recording gives the same bytes.
        metadata: dict[str, str | None] = {"Title": drawable(reports[0].headline)}
        metadata |= {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[form]
        figure.savefig(
            out, format=form, dpi=PNG_DPI, facecolor=theme.paper, metadata=dict(metadata)
        )
    return _with_palette(out) if palette and form == "png" else out.getvalue()


def _with_palette(png: io.BytesIO) -> bytes:
    """The same picture with 256 colours."""
    out = io.BytesIO()
    with Image.open(png) as picture:
        few = picture.convert("RGB").quantize(
            256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
        few.save(out, "PNG", optimize=True)
    return out.getvalue()


def draw(
    reports: Sequence[Report], *, theme: Theme = LIGHT, columns: int = 1000, header: bool = True
) -> Figure:
    """The matplotlib figure of one or more reports."""
    drawings = [_drawing(report, columns, header=header) for report in reports]
    heights = [drawing.height_in for drawing in drawings]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), facecolor=theme.paper)
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(drawings), 1, height_ratios=heights, squeeze=False)
    for drawing, part in zip(drawings, parts[:, 0], strict=True):
        part.set_facecolor(theme.paper)
        _draw_report(part, drawing, theme)
    return figure


def _drawing(report: Report, columns: int, *, header: bool) -> _Drawing:
    devices = [device for device in report.devices if not device.is_parent]
    shown, omitted = _chosen(devices)
    height = 3.1 if len(shown) <= 2 else 2.2 if len(shown) <= 4 else 1.5
    panels: list[Panel] = []
    stop_ns = max(report.span_ns, 1_000_000)
    oom = report.ooms[0] if report.ooms else None
    for place, device in enumerate(shown):
        close_up = _close_up(report, device, oom, columns)
        panels.append(
            Panel(
                device=device,
                start_ns=0,
                stop_ns=stop_ns,
                height_in=height,
                title=None,
                show_axis=place == len(shown) - 1 or close_up is not None,
                columns=columns,
            )
        )
        if close_up is not None:
            panels.append(close_up)
    return _Drawing(report=report, panels=tuple(panels), omitted=omitted, header=header)


def _chosen(devices: list[DeviceHistory]) -> tuple[list[DeviceHistory], str | None]:
    """The devices that have a panel, in order, and a sentence about the others."""
    if len(devices) <= _MOST_DEVICES:
        return devices, None
    busiest = sorted(devices, key=lambda device: -(device.used.peak or (0, 0))[1])
    left = busiest[_MOST_DEVICES:]
    highest = max(((device.used.peak or (0, 0))[1] for device in left), default=0)
    names = listed([str(device.gpu) for device in left], 8)
    kept = {device.uuid for device in busiest[:_MOST_DEVICES]}
    return (
        [device for device in devices if device.uuid in kept],
        f"Not drawn: GPU {names}, none of which held more than {format_bytes(highest)}.",
    )


def _close_up(
    report: Report, device: DeviceHistory, oom: OutOfMemory | None, columns: int
) -> Panel | None:
    """The seconds around the first out-of-memory, if the whole is much longer."""
    if oom is None or oom.close_up is None or oom.uuid != device.uuid:
        return None
    if not oom.close_up.used.elapsed_ns.size:
        return None
    stop_ns = max(int(oom.close_up.used.elapsed_ns[-1]), oom.elapsed_ns + NS_PER_S)
    length_ns = stop_ns - oom.close_up_from_ns
    if report.span_ns < 3 * length_ns:
        return None
    before = span_label(oom.elapsed_ns - oom.close_up_from_ns)
    return Panel(
        device=oom.close_up,
        start_ns=oom.close_up_from_ns,
        stop_ns=stop_ns,
        height_in=2.4,
        title=f"GPU {device.gpu}, the {before} before memory ran out, every sample",
        show_axis=True,
        columns=columns,
    )


def _axis_in(panel: Panel) -> float:
    return _AXIS_IN if panel.show_axis else 0.06


def _draw_report(part: SubFigure, drawing: _Drawing, theme: Theme) -> None:
    report = drawing.report
    height = drawing.height_in
    _draw_header(part, drawing, theme)
    top = height - drawing.header_in
    for panel in drawing.panels:
        top -= _TITLE_IN + panel.height_in
        axes = part.add_axes(
            (
                _LEFT_IN / WIDTH_IN,
                top / height,
                1 - (_LEFT_IN + _RIGHT_IN) / WIDTH_IN,
                panel.height_in / height,
            )
        )
        draw_panel(axes, panel, report, theme)
        top -= _axis_in(panel)
    if not drawing.panels:
        part.text(
            _LEFT_IN / WIDTH_IN,
            0.3 / height,
            "There is no GPU to draw.",
            color=theme.faint,
            fontsize=10,
        )
    if report.simulated is not None:
        part.text(
            0.42,
            0.5 * (height - drawing.header_in) / height,
            "SIMULATED",
            color=theme.simulated,
            alpha=0.13,
            fontsize=64,
            fontweight="bold",
            rotation=18,
            ha="center",
            va="center",
            zorder=100,
        )


def _draw_header(part: SubFigure, drawing: _Drawing, theme: Theme) -> None:
    report, height = drawing.report, drawing.height_in

    def write(x_in: float, down_in: float, words: str, size: float, **kwargs: Any) -> None:
        part.text(
            x_in / WIDTH_IN,
            1 - down_in / height,
            drawable(words),
            fontsize=size,
            va="baseline",
            parse_math=False,
            **{"color": theme.ink, **kwargs},
        )

    left = 0.2
    if drawing.header:
        colour = theme.oom if report.ooms else theme.ink
        write(left, 0.36, clean(report.headline, 108), 14, fontweight="bold", color=colour)
        write(left, 0.6, _facts(report), 9, color=theme.faint)
        if report.simulated is not None:
            write(
                WIDTH_IN - 0.2, 0.36, "SIMULATED", 12, ha="right", fontweight="bold",
                color=theme.simulated,
            )  # fmt: skip
    if drawing.omitted is not None:
        write(left, drawing.header_in - 0.32, drawing.omitted, 9, color=theme.faint)
    key_in = drawing.header_in - 0.12
    draw_key(part, left / WIDTH_IN, 1 - key_in / height, height, report, theme)


def _facts(report: Report) -> str:
    words = [clean(report.host, 40)] if report.host else ["unknown host"]
    if report.first_t_us is not None:
        words.append(format_time(report.first_t_us, report.zone)[:19])
        words.append(f"{format_duration(report.span_ns / NS_PER_S)}")
    words.append(f"{report.ticks:,} ticks".replace(",", "\u202f"))
    if report.driver:
        words.append(f"driver {clean(report.driver, 20)}")
    if report.state != "sealed":
        words.append(report.state)
    words.append(clean(report.source, 50))
    return "  ·  ".join(words)
