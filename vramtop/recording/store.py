"""Writes sealed recordings: from ticks, or by adding slices to one that exists.

A Parquet file ends in a footer that lists its row groups. Adding to a recording copies the
row groups as they are into a file aside, writes the new ones behind them and a footer that
lists all, flushes, and puts the file in the old one's place. At every instant the name leads
to a whole recording; a kill leaves at worst a `.tmp-` file, which the next seal removes.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

import vramtop
from vramtop.errors import RecordingError, SchemaError
from vramtop.recording.decode import PartDecoder
from vramtop.recording.footer import read_footer, rewrite_footer
from vramtop.recording.lock import WriterLock, unwritable
from vramtop.recording.rows import Rows
from vramtop.recording.schema import METADATA_KEY, WRITE_OPTIONS, WRITE_SCHEMA, to_tables
from vramtop.recording.wal import (
    FORMAT,
    TickEncoder,
    WalHeader,
    decode_header,
    encode_header,
    list_parts,
)
from vramtop.samples import Tick
from vramtop.units import MIB

SLICE_BYTES = 8 * MIB
"""How much of a WAL is sealed at once; this bounds the memory it takes."""


def write_recording(
    path: str | os.PathLike[str],
    ticks: Iterable[Tick],
    *,
    overwrite: bool = False,
    recording_id: str | None = None,
) -> int:
    """Write a whole sealed recording.

    Args:
        path: Where; its directory must exist. The file appears when it is complete.
        ticks: In order; taken one at a time, so they may be many.
        overwrite: Replace a sealed recording that is there.
        recording_id: Made up if not given.

    Returns:
        How many ticks were written.

    Raises:
        RecordingError: `path` exists, or cannot be written.
        LockedError: somebody is recording into `path`.
    """
    target = Path(path).absolute()
    lock = WriterLock(target)
    try:
        if list_parts(target):
            raise RecordingError(
                f"{target} was interrupted and is not sealed yet",
                hint=f"vramtop recover {target.name}, or choose another file with -o",
            )
        if os.path.lexists(target) and not overwrite:
            raise RecordingError(
                f"{target} exists already", hint="choose another file with -o, or remove it"
            )
        counter = _Counter(ticks)
        metadata = file_metadata(recording_id or uuid.uuid4().hex)
        write_sealed(target, None, _slices(counter), metadata)
        return counter.count
    except OSError as error:
        raise unwritable(target.parent, error) from error
    finally:
        lock.release()


def file_metadata(recording_id: str, part: int = 0) -> dict[str, object]:
    """What a sealed file says about itself, under the key `vramtop`."""
    return {
        "format": FORMAT,
        "recording_id": recording_id,
        "part": part,
        "vramtop": vramtop.__version__,
    }


def write_sealed(
    target: Path,
    existing: Path | None,
    slices: Iterable[Rows],
    metadata: Mapping[str, object],
) -> None:
    """Write the row groups of `existing`, if any, and those of `slices` to `target`.

    `target` may be `existing`. Crash-safe: `target` is replaced when all is on the disk.

    Raises:
        OSError: the disk refuses; `target` is unchanged.
        SchemaError: `existing` has other columns.
    """
    aside = target.with_name(f"{target.name}.tmp-{secrets.token_hex(6)}")
    fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w+b", buffering=MIB) as file:
            if existing is None:
                _write_new(file, slices, metadata)
            else:
                _write_behind(file, existing, slices)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise
    sync_directory(target.parent)


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` survive a power cut."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_new(file: BinaryIO, slices: Iterable[Rows], metadata: Mapping[str, object]) -> None:
    text = json.dumps(metadata)
    with pq.ParquetWriter(file, WRITE_SCHEMA, **WRITE_OPTIONS) as writer:
        writer.add_key_value_metadata({METADATA_KEY: text})
        for rows in slices:
            _write_rows(writer, rows)
    file.flush()
    end, footer = read_footer(file)
    rewrite_footer(file, end, footer)


def _write_behind(file: BinaryIO, existing: Path, slices: Iterable[Rows]) -> None:
    collected: list[Any] = []
    with existing.open("rb") as old:
        footer = pq.read_metadata(old)
        end, _ = read_footer(old)
        sink = pa.PythonFile(file, "w")
        with pq.ParquetWriter(
            sink, WRITE_SCHEMA, metadata_collector=collected, **WRITE_OPTIONS
        ) as writer:
            # pyarrow has written the magic that a file begins with. It takes the offsets that
            # it will note from its sink, so the old row groups go through the same sink.
            old.seek(sink.tell())
            _copy(old, sink, end - sink.tell())
            for rows in slices:
                _write_rows(writer, rows)
    # The writer closed with a footer of its own, about the new row groups only.
    for index in range(collected[0].num_row_groups):
        end = max(end, _row_group_end(collected[0], index))
    try:
        footer.append_row_groups(collected[0])
    except RuntimeError as error:
        raise SchemaError(
            f"{existing} has other columns than this vramtop writes",
            hint="recover it into a new file with -o",
        ) from error
    text = io.BytesIO()
    footer.write_metadata_file(text)
    rewrite_footer(file, end, read_footer(text)[1])


def _write_rows(writer: Any, rows: Rows) -> None:
    for table in to_tables(rows):
        writer.write_table(table, row_group_size=max(1, table.num_rows))


def _row_group_end(footer: Any, index: int) -> int:
    group = footer.row_group(index)
    end = 0
    for number in range(group.num_columns):
        column = group.column(number)
        start = int(column.data_page_offset)
        if column.has_dictionary_page:
            start = min(start, int(column.dictionary_page_offset))
        end = max(end, start + int(column.total_compressed_size))
    return end


def _copy(source: BinaryIO, target: Any, length: int) -> None:
    while length:
        chunk = source.read(min(length, MIB))
        if not chunk:
            raise RecordingError(
                "the recording became shorter while it was copied",
                hint="something else writes to it; its log is kept, so try again",
            )
        target.write(chunk)
        length -= len(chunk)


class _Counter:
    """Counts what passes through."""

    def __init__(self, ticks: Iterable[Tick]) -> None:
        self.count = 0
        self._ticks = ticks

    def __iter__(self) -> Iterator[Tick]:
        for tick in self._ticks:
            self.count += 1
            yield tick


def _slices(ticks: Iterable[Tick]) -> Iterator[Rows]:
    """Ticks by way of the log's own encoding: compact while they wait, and one path for all."""
    encoder, payloads, size = TickEncoder(), [], 0
    for tick in ticks:
        payload = encoder.encode(tick)
        payloads.append(payload)
        size += len(payload)
        if size >= SLICE_BYTES:
            yield PartDecoder(_HEADER).decode(payloads)
            encoder, payloads, size = TickEncoder(), [], 0
    if payloads:
        yield PartDecoder(_HEADER).decode(payloads)


_HEADER: WalHeader = decode_header(encode_header({"recording_id": "", "part": 0}, seed=0), name="")
