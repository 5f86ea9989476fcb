"""What other tools logged, as ticks: one module per log form, added to `FORMS`.

`open_log` recognises the form of each log, and the logs of one run become one stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from vramtop.errors import LogFormatError, UsageError
from vramtop.sources.logs import (
    gpustat_json,
    plain_csv,
    smi_compute_apps,
    smi_dmon,
    smi_pmon,
    smi_query,
    smi_table,
    vramtop_csv,
)
from vramtop.sources.logs._assemble import Assembler
from vramtop.sources.logs._notes import Notes
from vramtop.sources.logs._polls import Log, LogOptions, Poll
from vramtop.sources.logs._text import LogText
from vramtop.sources.logs._times import Clock, parse_stamp, parse_zone

if TYPE_CHECKING:
    from vramtop.samples import Tick

__all__ = ["FORMS", "ImportSummary", "LogForm", "LogImport", "LogOptions", "open_log"]


class LogForm(Protocol):
    """A module that reads one log form."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module constant
        """What `--form` calls it."""
        ...

    @property
    def TITLE(self) -> str:  # noqa: N802 - a module constant
        """What makes such logs."""
        ...

    def recognise(self, head: Sequence[str], columns: Sequence[str]) -> bool:
        """Whether the first lines, given the user's `--columns`, are of this form."""
        ...

    def read(self, log: Log) -> Iterator[Poll]:
        """The polls of the log, in its order."""
        ...


# The order is the order of trying: the last one takes any CSV that begins with a time.
FORMS: tuple[LogForm, ...] = (
    gpustat_json,
    smi_table,
    smi_pmon,
    smi_dmon,
    vramtop_csv,
    plain_csv,
    smi_compute_apps,
    smi_query,
)


@dataclass(slots=True)
class ImportSummary:
    """What an import found.

    Attributes:
        ticks: How many ticks.
        gpus: How many GPUs and MIG instances.
        processes: How many processes, a PID that came back counted again.
        first_t_us, last_t_us: Wall clock of the first and last tick; None without ticks.
        said: What is to be told: assumptions, lines left out, columns not kept.
    """

    ticks: int = 0
    gpus: int = 0
    processes: int = 0
    first_t_us: int | None = None
    last_t_us: int | None = None
    said: list[str] = field(default_factory=list)


class LogImport:
    """A source: the ticks of one or more logs of one run.

    Attributes:
        forms: Name of the form of each log, in their order.
        summary: What was found; complete once `ticks` has ended.
    """

    def __init__(self, logs: Sequence[Log], forms: Sequence[LogForm], options: LogOptions) -> None:
        self.forms = [form.NAME for form in forms]
        self.summary = ImportSummary()
        self._logs = logs
        self._notes = logs[0].notes
        self._assembler = Assembler(
            [(log, form.read(log)) for log, form in zip(logs, forms, strict=True)],
            self.forms,
            options,
            self._notes,
        )
        self._closed = False
        self._started = False

    def ticks(self) -> Iterator[Tick]:
        """The ticks in order; can be walked once.

        Raises:
            LogFormatError: a log turns out not to be what it seemed.
        """
        summary = self.summary
        self._started = True
        try:
            for tick in self._assembler.ticks():
                if self._closed:
                    break
                summary.ticks += 1
                summary.last_t_us = tick.t_us
                if summary.first_t_us is None:
                    summary.first_t_us = tick.t_us
                summary.processes += sum(seen.what == "process" for seen in tick.observations)
                yield tick
        finally:
            summary.gpus = len(self._assembler.devices)
            summary.said = self._notes.lines()
            self._let_go()

    def close(self) -> None:
        """End `ticks` soon; safe to call twice."""
        self._closed = True
        if not self._started:
            self._let_go()

    def _let_go(self) -> None:
        for log in self._logs:
            log.close()


def open_log(paths: Sequence[Path], options: LogOptions | None = None) -> LogImport:
    """The logs of one run as one source of ticks.

    Args:
        paths: One or more logs of one machine; their polls are laid side by side by time.
        options: What the logs do not say.

    Raises:
        LogFormatError: a log cannot be read, or is of no known form.
        UsageError: no log, or an option that means nothing.
    """
    options = options or LogOptions()
    if not paths:
        raise UsageError("no log is given", hint="vramtop import LOG… -o FILE")
    zone = None if options.zone is None else parse_zone(options.zone)
    if options.start is not None and parse_stamp(options.start) is None:
        raise UsageError(
            f"{options.start!r} is no time", hint="write it like '2026-04-30 22:19:43'"
        )
    if options.interval_s is not None and not 0 < options.interval_s < 1e6:
        raise UsageError(f"{options.interval_s:g} s is no interval", hint="--interval 1")
    chosen = None if options.form is None else _named(options.form)
    notes = Notes()
    logs: list[Log] = []
    try:
        for path in paths:
            log = Log(LogText(path, notes), Clock(zone, notes), notes, options)
            logs.append(log)
        forms = [chosen or _recognised(log, path) for log, path in zip(logs, paths, strict=True)]
    except BaseException:
        for log in logs:
            log.close()
        raise
    return LogImport(logs, forms, options)


def _named(name: str) -> LogForm:
    for form in FORMS:
        if name == form.NAME:
            return form
    raise UsageError(
        f"no log form is called {name!r}", hint="forms: " + ", ".join(form.NAME for form in FORMS)
    )


def _recognised(log: Log, path: Path) -> LogForm:
    for form in FORMS:
        if form.recognise(log.head, log.columns):
            return form
    raise LogFormatError(
        f"{path} is in no form that can be imported (it begins {log.head[0][:40]!r})",
        hint="known are " + "; ".join(form.TITLE for form in FORMS),
    )
