"""`vramtop explain`: what can be said from a training log alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import click

from vramtop.enrich.oom_advice import KINDS, Explained, explain
from vramtop.enrich.oom_text import OomScanner
from vramtop.errors import LogFormatError
from vramtop.units import format_bytes

_PIECE_BYTES = 1 << 20
_MOST_TEXT = 160


@click.command(name="explain", epilog="Example: vramtop explain train.log")
@click.argument("log", metavar="LOG")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per finding.")
def command(log: str, as_json: bool) -> int:
    """Explain the out-of-memory messages in LOG: who asked, who held, what to try.

    LOG is what a program printed; - reads stdin. Exit code 0 also if there is none in it.
    """
    scanner = OomScanner(keep_repeats=True)
    found = []
    for piece in _pieces(log):
        found += scanner.feed_lines(piece)
    found += scanner.flush_lines()
    findings = explain(found)
    for finding in findings:
        if as_json:
            click.echo(json.dumps(finding.to_json()))
        else:
            click.echo(as_text(finding))
    if not findings:
        click.echo(f"no out-of-memory message in {log} ({scanner.line} lines)", err=as_json)
    return 0


def _pieces(log: str) -> Iterator[bytes]:
    """The bytes of a log, in pieces.

    Raises:
        LogFormatError: it cannot be read, or is a recording.
    """
    if log == "-":
        with click.open_file("-", "rb") as stdin:
            while piece := stdin.read(_PIECE_BYTES):
                yield piece
        return
    try:
        with Path(log).open("rb") as file:
            piece = file.read(_PIECE_BYTES)
            if piece[:4] == b"PAR1":
                raise LogFormatError(
                    f"{log} is a Parquet file, not a log", hint=f"vramtop report {log} -o oom.html"
                )
            while piece:
                yield piece
                piece = file.read(_PIECE_BYTES)
    except OSError as error:
        raise LogFormatError(
            f"{log} cannot be read: {error.strerror}", hint="name the file a program printed to"
        ) from error


def as_text(finding: Explained) -> str:
    """A finding for people, several lines."""
    message = finding.message
    where = f"line {finding.lines[0]}"
    if len(finding.lines) > 1:
        where += f" ({len(finding.lines)} times, last in line {finding.lines[-1]})"
    about = [message.framework]
    if message.rank is not None:
        about.append(f"rank {message.rank}")
    if message.ordinal is not None:
        about.append(f"CUDA device {message.ordinal}")
    rows = [("asked for", format_bytes(message.requested_bytes))]
    if message.free_bytes is not None:
        of = "" if message.total_bytes is None else f" of {format_bytes(message.total_bytes)}"
        rows.append(("free", format_bytes(message.free_bytes) + of))
    rows += _holders(finding)
    rows.append(("message", _excerpt(message.text)))
    rows += [("try", advice) for advice in finding.advice]
    lines = [f"{where}: {', '.join(about)}: {KINDS[message.kind]}"]
    previous = ""
    for name, value in rows:
        lines.append(f"  {'' if name == previous else name:<10} {value}")
        previous = name
    return "\n".join(lines)


def _holders(finding: Explained) -> list[tuple[str, str]]:
    message = finding.message
    rows = []
    parts = []
    if message.allocated_bytes is not None:
        parts.append(f"{format_bytes(message.allocated_bytes)} allocated")
    if message.unused_bytes is not None:
        parts.append(f"{format_bytes(message.unused_bytes)} kept unused")
    if message.process_bytes is not None:
        detail = f" ({', '.join(parts)})" if parts else ""
        rows.append(("held", f"{format_bytes(message.process_bytes)} by this process{detail}"))
    elif parts:
        rows.append(("held", f"{', '.join(parts)} by this process"))
    for pid, held in message.neighbours:
        rows.append(("held", f"{format_bytes(held)} by process {pid}"))
    if finding.unexplained_bytes:
        rows.append(("held", f"{format_bytes(finding.unexplained_bytes)} by nobody it names"))
    return rows


def _excerpt(text: str) -> str:
    """The part of a line that matters, without what a terminal would act on."""
    start = text.lower().find("memory") - 40
    if start > 40:
        text = "…" + text[start:]
    if len(text) > _MOST_TEXT:
        text = text[:_MOST_TEXT] + "…"
    return "".join(letter if letter.isprintable() else "?" for letter in text)
