"""Reports into files: the suffix says the form, and a file is there whole or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from vramtop.errors import OutputError, UsageError
from vramtop.report.model import Report

FORMS = (".html", ".png", ".svg", ".pdf", ".md")


def form_of(path: Path) -> str:
    """The form that a file name asks for: one of `FORMS`.

    Raises:
        UsageError: the suffix stands for none.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMS:
        raise UsageError(
            f"cannot write a report as {path.name!r}: unknown suffix {suffix or '(none)'}",
            hint=f"use one of {' '.join(FORMS)}",
        )
    return suffix


def write_report(reports: Sequence[Report], path: Path) -> None:
    """Write one or more reports to `path`, replacing a file that is there.

    Raises:
        UsageError: unknown suffix.
        OutputError: the file cannot be written.
    """
    store(_rendered(reports, form_of(path)), path)


def check_writable(path: Path) -> None:
    """Fail early, before minutes of work, where writing cannot succeed.

    Raises:
        OutputError: the directory is missing or does not allow new files.
    """
    parent = path.parent
    if path.is_dir():
        raise OutputError(f"{path} is a directory", hint="name a file")
    if not parent.is_dir():
        raise OutputError(
            f"cannot write {path}: {parent} is not a directory", hint="make the directory first"
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write {path}: no permission in {parent}", hint="choose another directory"
        )


def _rendered(reports: Sequence[Report], form: str) -> bytes:
    if form == ".html":
        from vramtop.report.html import page

        return page(reports).encode("utf-8")
    if form == ".md":
        from vramtop.report.markdown import markdown

        return markdown(reports).encode("utf-8")
    from vramtop.report.figure import render

    return render(reports, form.removeprefix("."))


def store(data: bytes, path: Path) -> None:
    """Put `data` in place of what is at `path`, in one step.

    Raises:
        OutputError: it cannot be written.
    """
    check_writable(path)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(
            f"cannot write {path}: {error.strerror}", hint="choose another place"
        ) from error
