"""What the tests of `vramtop import` share: write a log, read it, look at the ticks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vramtop.samples import Observation, Tick
from vramtop.sources.logs import LogImport, LogOptions, open_log
from vramtop.units import MIB

TRACES = Path(__file__).parent / "data" / "traces"


@dataclass
class Imported:
    """The ticks of an import and what was said."""

    source: LogImport
    ticks: list[Tick]

    @property
    def said(self) -> str:
        return "\n".join(self.source.summary.said)

    def observed(self, what: str) -> list[Observation]:
        return [seen for tick in self.ticks for seen in tick.observations if seen.what == what]

    def used_mib(self, gpu: int = 0) -> list[int | None]:
        return [
            None if device.used_bytes is None else device.used_bytes // MIB
            for tick in self.ticks
            for device in tick.devices
            if device.gpu == gpu and device.parent_uuid is None
        ]

    def lists_mib(self) -> list[dict[int, int | None]]:
        """Per tick: PID to MiB."""
        return [
            {p.pid: None if p.used_bytes is None else p.used_bytes // MIB for p in tick.processes}
            for tick in self.ticks
        ]


def read_logs(*paths: Path, **options: Any) -> Imported:
    """Import files."""
    source = open_log(paths, LogOptions(**options))
    return Imported(source, list(source.ticks()))


def read_text(folder: Path, text: str, name: str = "log.txt", **options: Any) -> Imported:
    """Import a log of this text."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_logs(path, **options)
