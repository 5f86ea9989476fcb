"""`vramtop report`: the post-mortem of a recording."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(epilog="Example: vramtop report run.parquet -o oom.html")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(readable=False, path_type=Path),
    metavar="FILE…",
)
@click.option(
    "-o", "--output", "output", required=True, type=click.Path(path_type=Path), metavar="OUT",
    help="Where to; .html, .png, .svg, .pdf or .md says the form. Replaces a file that is there.",
)  # fmt: skip
def command(files: tuple[Path, ...], output: Path) -> None:
    """Write a report: did memory run out, who held what, how it came to that.

    Several FILEs stand one below the other in one report, each on its own clock.
    """
    from vramtop.recording.reader import open_recording
    from vramtop.report.build import build
    from vramtop.report.write import check_writable, form_of, write_report

    form_of(output)
    check_writable(output)
    reports = [build(open_recording(file), source=file.name) for file in files]
    write_report(reports, output)
    click.echo(output)
