"""The report as Markdown, for an issue tracker."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vramtop import __version__
from vramtop.report.model import Report, Section
from vramtop.report.tables import (
    Table,
    device_table,
    event_table,
    moment_heading,
    moment_table,
    process_table,
)
from vramtop.report.text import clean, plural
from vramtop.units import NS_PER_S, format_duration, format_time

_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|~<>&!])")
_MOST_ROWS = 40


def literal(text: str) -> str:
    r"""Text in which nothing is markup, HTML, a mention or a link.

    >>> literal("a_b <img src=x> @ada | c"), literal("https://x.y")
    ('a\\_b \\<img src=x\\> @\u200bada \\| c', 'https:\u200b//x.y')
    """
    escaped = _SPECIAL.sub(r"\\\1", text)
    # A zero-width space ends what trackers would turn into a mention or a link.
    return escaped.replace("@", "@\u200b").replace("://", ":\u200b//")


def markdown(reports: Sequence[Report]) -> str:
    """All reports, one below the other."""
    return "\n\n---\n\n".join(_report(report) for report in reports) + (
        f"\n\nMade by vramtop {__version__}.\n"
    )


def _report(report: Report) -> str:
    parts = [f"# {literal(clean(report.headline))}"]
    if report.simulated is not None:
        scenario = literal(clean(report.simulated, 80))
        parts.append(f"**SIMULATED**: no GPU was involved (scenario {scenario})")
    parts.append(_facts(report))
    parts += _section(report.outcome)
    parts += _section(report.asked)
    telling = [moment for moment in report.moments if moment.occasion != "end"]
    if telling:
        parts.append(f"## {moment_heading(report)}")
        parts += [_table(moment_table(report, moment)) for moment in telling]
    for section in (report.history, report.warned, report.advice, report.quality):
        parts += _section(section)
    if report.devices:
        parts += ["## GPUs and processes", _table(device_table(report))]
        if any(device.processes for device in report.devices):
            parts.append(_table(process_table(report)))
        else:
            parts.append("No process was seen on any GPU.")
        parts += [
            _table(moment_table(report, moment))
            for moment in report.moments
            if moment.occasion == "end"
        ]
    if report.events:
        parts += ["## Events", _table(event_table(report))]
    return "\n\n".join(parts)


def _facts(report: Report) -> str:
    words = [f"host {clean(report.host, 60)}" if report.host else "host not recorded"]
    if report.first_t_us is not None:
        words.append(f"from {format_time(report.first_t_us, report.zone)}")
        words.append(f"for {format_duration(report.span_ns / NS_PER_S)}")
    words += [plural(report.ticks, "tick"), report.state, clean(report.source, 120)]
    return literal(", ".join(words))


def _section(section: Section | None) -> list[str]:
    if section is None:
        return []
    sentences = [f"- {literal(sentence)}" for sentence in section.sentences]
    return [f"## {literal(section.heading)}", "\n".join(sentences)]


def _table(table: Table) -> str:
    figures = [any(row[place].figure for row in table.rows) for place in range(len(table.headings))]
    lines = [
        f"**{literal(table.title)}**",
        "",
        "| " + " | ".join(literal(heading) for heading in table.headings) + " |",
        "|" + "|".join("---:" if figure else "---" for figure in figures) + "|",
    ]
    lines += [
        "| " + " | ".join(literal(cell.text) for cell in row) + " |"
        for row in table.rows[:_MOST_ROWS]
    ]
    if len(table.rows) > _MOST_ROWS:
        lines += ["", f"The first {_MOST_ROWS} of {len(table.rows)} rows."]
    if table.note:
        lines += ["", literal(table.note)]
    return "\n".join(lines)
