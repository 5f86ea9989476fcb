"""Reads a recording: what is sealed and what is still in the write-ahead log, as one.

Reading changes nothing and asks nothing of the writer, so it works on a read-only medium and
while the recording is being made. A seal may finish between looking at the sealed file and
at the log; then the look is repeated.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta, timezone, tzinfo
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vramtop.blocks import Block, IntArray
from vramtop.errors import CorruptError, RecordingError
from vramtop.recording.lock import is_locked
from vramtop.recording.part import WalPart
from vramtop.recording.rows import Rows, tick_axis
from vramtop.recording.schema import (
    DEVICE,
    DEVICE_READ,
    KINDS,
    OBSERVATION,
    OBSERVATION_READ,
    PROCESS,
    PROCESS_READ,
    SCHEMA,
    TIME_READ,
    from_tables,
    observations_of,
    times_of,
    to_tables,
)
from vramtop.recording.sealed import (
    Batch,
    Sealed,
    first_line,
    kinds_of,
    open_sealed,
    unreadable,
)
from vramtop.recording.wal import (
    list_parts,
)
from vramtop.samples import HOST, SIMULATED, Observation

if TYPE_CHECKING:
    import polars as pl

_MOST_BLOCK_ROWS = 2_000_000
_TRIES = 20
_COLUMNS = {DEVICE: DEVICE_READ, PROCESS: PROCESS_READ, OBSERVATION: OBSERVATION_READ}


Axes = tuple[IntArray, IntArray, IntArray]


class TickTime(NamedTuple):
    """When a tick was."""

    seq: int
    t_us: int
    mono_ns: int


class Recording:
    """A recording as it is at one moment. Made by `open_recording`.

    Attributes:
        path: Of the sealed file, which may not exist yet.
        state: `sealed`, `recording` (a live process writes it) or `interrupted`.
        id: Names the recording across its parts.
        bytes: On the disk now, sealed and not.
        parts: The parts of the write-ahead log.
        sealed_last: The greatest `seq` in the sealed file, -1 if there is none.
        tail: The ticks that are only in the write-ahead log.
    """

    def __init__(
        self, path: Path, sealed: Sealed | None, parts: Sequence[WalPart], *, state: str, size: int
    ) -> None:
        self.path = path
        self.state = state
        self.bytes = size + sum(part.size for part in parts)
        self.parts = parts
        self.sealed_last = -1 if sealed is None else sealed.last
        self._file: Any = None if sealed is None else sealed.file
        self._batches = () if sealed is None else sealed.batches
        self.tail = _tail(parts, self.sealed_last)
        ids = [] if sealed is None else [str(sealed.metadata.get("recording_id", ""))]
        ids += [part.header.recording_id for part in parts if part.header is not None]
        self.id = ids[0] if ids else ""

    def blocks(self, start_seq: int = 0, stop_seq: int | None = None) -> Iterator[Block]:
        """The ticks with `start_seq <= seq < stop_seq`, in order, a slice at a time.

        Raises:
            CorruptError: bytes of the sealed file are damaged.
        """
        for rows in self._rows(start_seq, stop_seq):
            chosen = rows.between(start_seq, stop_seq)
            if len(chosen):
                yield from _split(chosen.to_block())

    def _rows(self, start_seq: int, stop_seq: int | None) -> Iterator[Rows]:
        for batch in self._batches:
            if batch.last >= start_seq and (stop_seq is None or batch.first < stop_seq):
                tables = self._tables(batch, KINDS)
                yield from_tables(tables[DEVICE], tables[PROCESS], tables[OBSERVATION])
        yield from self.tail

    def _tables(self, batch: Batch, kinds: Sequence[str]) -> dict[str, pa.Table]:
        pieces: dict[str, list[pa.Table]] = {kind: [] for kind in KINDS}
        for group in batch.groups:
            held = kinds_of(self._file, group)
            wanted = [kind for kind in kinds if kind in held]
            if not wanted:
                continue
            names = {name for kind in wanted for name in _COLUMNS[kind]}
            table = self._read(group, [name for name in SCHEMA.names if name in names])
            for kind in wanted:
                pieces[kind].append(
                    table
                    if len(held) == 1
                    else table.filter(pc.equal(table.column("kind").cast(pa.string()), kind))
                )
        return {
            kind: pa.concat_tables(tables) if tables else _EMPTY for kind, tables in pieces.items()
        }

    def _read(self, group: int, columns: list[str]) -> pa.Table:
        try:
            return self._file.read_row_group(group, columns=columns, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise CorruptError(
                f"{self.path.name}: row group {group} is damaged: {first_line(error)}",
                hint="a copy of the file, if there is one, may be whole",
            ) from error

    def check(self) -> None:
        """Read every column once: analyzers leave some alone, and damage in them unseen.

        Raises:
            CorruptError: a page does not have its checksum, or makes no sense.
        """
        if self._file is not None:
            for group in range(self._file.num_row_groups):
                self._read(group, SCHEMA.names)

    def frame(self) -> pl.DataFrame:
        """All rows as the file stores them, sealed or not, sorted by `seq`.

        Returns:
            The columns of docs/recording-format.md.
        """
        import polars as pl

        tables = [] if self._file is None else [self._file.read(columns=SCHEMA.names)]
        tables += [table for rows in self.tail for table in to_tables(rows)]
        if not tables:
            return pl.DataFrame(pl.from_arrow(SCHEMA.empty_table()))
        plain = [table.select(SCHEMA.names).cast(SCHEMA) for table in tables]
        return pl.DataFrame(pl.from_arrow(pa.concat_tables(plain))).sort("seq", maintain_order=True)

    def observations(self) -> Iterator[tuple[int, Observation]]:
        """(seq, observation) in order; does not touch the readings."""
        for batch in self._batches:
            yield from observations_of(self._tables(batch, (OBSERVATION,))[OBSERVATION])
        for rows in self.tail:
            yield from rows.observations

    @cached_property
    def ticks(self) -> int:
        """How many ticks it holds."""
        sealed = 0
        for batch in self._batches:
            columns = [self._read(group, ["seq"]).column(0).to_numpy() for group in batch.groups]
            sealed += len(tick_axis(*columns))
        return sealed + sum(len(rows) for rows in self.tail)

    @cached_property
    def first(self) -> TickTime | None:
        """The first tick; None if there is none."""
        if self._batches:
            return _time(self._times_of(self._batches[0]), 0)
        return _time(_axes(self.tail[0]), 0) if self.tail else None

    @cached_property
    def last(self) -> TickTime | None:
        """The last tick; None if there is none."""
        if self.tail:
            return _time(_axes(self.tail[-1]), -1)
        return _time(self._times_of(self._batches[-1]), -1) if self._batches else None

    def times(self) -> tuple[IntArray, IntArray, IntArray]:
        """`seq`, `t_us` and `mono_ns` of every tick, each of shape (ticks,)."""
        found = [self._times_of(batch) for batch in self._batches]
        found += [_axes(rows) for rows in (*self.tail, Rows.none())]
        seq, t_us, mono_ns = (np.concatenate(column) for column in zip(*found, strict=True))
        return seq, t_us, mono_ns

    def _times_of(self, batch: Batch) -> Axes:
        return times_of([self._read(group, list(TIME_READ)) for group in batch.groups])

    @cached_property
    def _introduction(self) -> dict[str, Observation]:
        """The last word of the first tick on each thing that concerns the whole recording."""
        found: dict[str, Observation] = {}
        first = None
        for seq, observation in self.observations():
            first = seq if first is None else first
            if seq != first:
                break
            found[observation.what] = observation
        return found

    @property
    def host(self) -> str | None:
        """Name of the machine it was made on."""
        host = self._introduction.get(HOST)
        return None if host is None else host.name

    @property
    def simulated(self) -> str | None:
        """The scenario of a simulated recording, else None."""
        simulated = self._introduction.get(SIMULATED)
        return None if simulated is None else simulated.name or "unnamed"

    @cached_property
    def zone(self) -> tzinfo:
        """The recorder's time zone; UTC where it does not say."""
        return zone_of(self._introduction.get(HOST))


def zone_of(host: Observation | None) -> tzinfo:
    """The time zone that a `host` observation names; UTC where it does not say."""
    facts = host.data if host is not None and host.data is not None else {}
    name, offset = facts.get("zone"), facts.get("utc_offset_s")
    if isinstance(name, str):
        try:
            return ZoneInfo(name)
        except (OSError, ValueError, KeyError):  # unknown here: go by the offset
            name = None
    if isinstance(offset, (int, float)) and abs(offset) < 86400:
        return timezone(timedelta(seconds=offset))
    return timezone.utc


def open_recording(path: str | os.PathLike[str]) -> Recording:
    """Open a recording to read it, finished or not.

    Raises:
        RecordingError: there is none, or it cannot be read.
        CorruptError: it is no recording, or damaged beyond reading.
        SchemaError: made by a newer vramtop.
    """
    target = Path(path).absolute()
    for _ in range(_TRIES):
        locked = is_locked(target)
        before = _stat(target)
        sealed = None if before is None else open_sealed(target)
        try:
            parts = [WalPart(name) for name in list_parts(target)]
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unreadable(target, error) from error
        after = _stat(target)
        if _same(before, after):
            break
    else:
        raise RecordingError(f"{target} keeps changing", hint="try again")
    if before is None and not parts:
        raise RecordingError(f"{target} does not exist", hint="look for the right name with ls")
    state = "recording" if locked else "interrupted" if parts else "sealed"
    return Recording(
        target, sealed, parts, state=state, size=0 if before is None else before.st_size
    )


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error


def _same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    if one is None or other is None:
        return one is other
    return (one.st_ino, one.st_size, one.st_mtime_ns) == (
        other.st_ino, other.st_size, other.st_mtime_ns
    )  # fmt: skip


def _tail(parts: Sequence[WalPart], sealed_last: int) -> list[Rows]:
    """The ticks that are not sealed yet; a part may be sealed and not yet removed."""
    tail = []
    last = sealed_last
    for part in parts:
        rows = part.rows_after(last)
        if len(rows):
            last = int(rows.seq[-1])
            tail.append(rows)
    return tail


def _split(block: Block) -> Iterator[Block]:
    pieces = -(-block.rows // _MOST_BLOCK_ROWS)
    if pieces <= 1:
        yield block
        return
    bounds = [len(block) * piece // pieces for piece in range(pieces + 1)]
    for start, stop in itertools.pairwise(bounds):
        if stop > start:
            yield block.part(start, stop)


def _axes(rows: Rows) -> Axes:
    return rows.seq, rows.t_us, rows.mono_ns


def _time(axes: Axes, index: int) -> TickTime:
    seq, t_us, mono_ns = axes
    return TickTime(int(seq[index]), int(t_us[index]), int(mono_ns[index]))


_EMPTY = SCHEMA.empty_table()
