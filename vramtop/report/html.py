"""The report as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape

from vramtop import __version__
from vramtop.report.figure import render
from vramtop.report.model import Moment, Report, Section
from vramtop.report.page import SCRIPT, STYLE
from vramtop.report.tables import (
    Cell,
    Table,
    device_table,
    event_table,
    moment_heading,
    moment_table,
    process_table,
)
from vramtop.report.text import clean, plural
from vramtop.report.theme import DARK, LIGHT, Theme
from vramtop.units import NS_PER_S, format_duration, format_time

_SVG_COLUMNS = 400


def page(reports: Sequence[Report]) -> str:
    """The whole page; several reports stand one below the other, each on its own clock.

    All text from outside is escaped, and the page's own policy forbids loading anything and
    running any script but the one that sorts tables.
    """
    title = clean(reports[0].headline) if len(reports) == 1 else plural(len(reports), "recording")
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta name="generator" content="vramtop {escape(__version__)}">',
        # An icon of its own keeps the browser from asking a server for one.
        '<link rel="icon" href="data:,">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        "</head>",
        "<body>",
        "<main>",
    ]
    if len(reports) > 1:
        parts.append(_contents(reports))
    for number, report in enumerate(reports, start=1):
        parts += _article(report, number)
    parts += [
        (
            f"<footer>Made by vramtop {escape(__version__)} from what was recorded; phases, warnings "
            "and verdicts are computed from the readings each time.</footer>"
        ),
        "</main>",
        f"<script>{SCRIPT}</script>",
        "</body>",
        "</html>",
    ]
    return "\n".join(parts) + "\n"


def _contents(reports: Sequence[Report]) -> str:
    rows = "".join(
        f'<li><a href="#r{number}">{escape(clean(report.source))}</a>: '
        f"{escape(clean(report.headline))}</li>"
        for number, report in enumerate(reports, start=1)
    )
    return (
        f"<h1>{plural(len(reports), 'recording')}</h1>"
        "<p>Each is told by itself and on its own clock; they are not merged.</p>"
        f"<ul>{rows}</ul>"
    )


def _article(report: Report, number: int) -> list[str]:
    parts = [f'<article id="r{number}">']
    if report.simulated is not None:
        parts.append(
            '<p class="banner">SIMULATED: no GPU was involved '
            f"(scenario {escape(clean(report.simulated, 80))})</p>"
        )
    bad = ' class="bad"' if report.ooms else ""
    parts += [f"<h1{bad}>{escape(clean(report.headline))}</h1>", _facts(report)]
    moments = list(report.moments)
    parts += _section(report.outcome)
    parts += _section(report.asked)
    telling = [moment for moment in moments if moment.occasion != "end"]
    if telling:
        parts.append(f"<h2>{moment_heading(report)}</h2>")
        parts += [_moment(report, moment) for moment in telling]
    parts += _section(report.history)
    if report.devices:
        parts.append(_figure(report))
    for section in (report.warned, report.advice, report.quality):
        parts += _section(section)
    if report.devices:
        parts.append("<h2>GPUs and processes</h2>")
        parts.append(_table(device_table(report)))
        if any(device.processes for device in report.devices):
            parts.append(_table(process_table(report)))
        else:
            parts.append("<p>No process was seen on any GPU.</p>")
        parts += [_moment(report, moment) for moment in moments if moment.occasion == "end"]
    parts.append("<h2>Events</h2>")
    if report.events:
        parts.append(_table(event_table(report)))
    else:
        parts.append("<p>No events.</p>")
    parts.append("</article>")
    return parts


def _facts(report: Report) -> str:
    words = [f"host {clean(report.host, 60)}" if report.host else "host not recorded"]
    if report.first_t_us is not None:
        words.append(f"from {format_time(report.first_t_us, report.zone)}")
        words.append(f"for {format_duration(report.span_ns / NS_PER_S)}")
    words.append(plural(report.ticks, "tick"))
    words.append(f"driver {clean(report.driver, 30)}" if report.driver else "driver not recorded")
    if report.imported is not None:
        words.append(f"imported from {clean(report.imported, 60)}")
    words += [report.state, clean(report.source, 120)]
    return f'<p class="facts">{escape("  ·  ".join(words))}</p>'


def _section(section: Section | None) -> list[str]:
    """A heading and its sentences: one is a paragraph, several a list; evidence is quoted."""
    if section is None:
        return []
    parts = [f"<h2>{escape(section.heading)}</h2>"]
    plain: list[str] = []
    for sentence in section.sentences:
        if sentence.startswith("Evidence: "):
            parts += _sentences(plain)
            plain = []
            parts.append(f"<blockquote>{escape(sentence.removeprefix('Evidence: '))}</blockquote>")
        else:
            plain.append(sentence)
    return parts + _sentences(plain)


def _sentences(sentences: list[str]) -> list[str]:
    if len(sentences) == 1:
        return [f"<p>{escape(sentences[0])}</p>"]
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return [f"<ul>{items}</ul>"] if items else []


def _moment(report: Report, moment: Moment) -> str:
    failed = {oom.pid for oom in report.ooms} if moment.occasion == "oom" else set()
    classes = [
        "failed" if row.pid is not None and row.pid in failed
        else "" if row.what == "process" else "rest"
        for row in moment.holdings
    ]  # fmt: skip
    return _table(moment_table(report, moment), classes)


def _table(table: Table, classes: Sequence[str] = ()) -> str:
    figures = [any(row[place].figure for row in table.rows) for place in range(len(table.headings))]
    head = "".join(
        f'<th scope="col"{" class=figure" if figure else ""}>{escape(heading)}</th>'
        for heading, figure in zip(table.headings, figures, strict=True)
    )
    body = []
    for place, row in enumerate(table.rows):
        of_class = classes[place] if place < len(classes) else ""
        cells = "".join(_cell(cell) for cell in row)
        body.append(f"<tr{f' class={of_class}' if of_class else ''}>{cells}</tr>")
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    sortable = " data-sortable" if table.sortable and len(table.rows) > 1 else ""
    return (
        f'<div class="scroll"><table{sortable}><caption>{escape(table.title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>{note}"
    )


def _cell(cell: Cell) -> str:
    if not cell.figure:
        of_class = "long" if len(cell.text) > 60 else "short" if len(cell.text) <= 24 else ""
        return f"<td{f' class={of_class}' if of_class else ''}>{escape(cell.text)}</td>"
    order = "" if cell.order is None else f' data-order="{cell.order:.17g}"'
    return f'<td class="figure"{order}>{escape(cell.text)}</td>'


def _figure(report: Report) -> str:
    """The picture in light and dark; on paper and without a preference the light one shows."""
    light, dark = (_picture(report, theme) for theme in (LIGHT, DARK))
    words = (
        f"Memory of {plural(len(report.devices), 'GPU')} over time, stacked by process, with the "
        "limit, the driver's reservation and what happened."
    )
    return (
        "<figure><picture>"
        f'<source media="screen and (prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" alt="{escape(words)}">'
        "</picture>"
        f'<figcaption class="note">{escape(words)} Every peak is kept, however short.</figcaption>'
        "</figure>"
    )


def _picture(report: Report, theme: Theme) -> str:
    """A data URI of the figure: SVG or PNG, whichever is smaller."""
    svg = render([report], "svg", theme=theme, columns=_SVG_COLUMNS, header=False)
    kind, data = "svg+xml", svg
    if len(svg) > 200_000:
        png = render([report], "png", theme=theme, header=False, palette=True)
        if len(png) < len(svg):
            kind, data = "png", png
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
