"""The sealed file of a recording: refuses what is none, and says which ticks it holds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from vramtop.errors import CorruptError, RecordingError, SchemaError
from vramtop.recording.footer import CUT_HINT, check_footer
from vramtop.recording.schema import KINDS, METADATA_KEY, READ_DICTIONARY, SCHEMA
from vramtop.recording.wal import FORMAT
from vramtop.recording.wal import MAGIC as WAL_MAGIC


class Batch(NamedTuple):
    """Row groups that hold the same ticks."""

    groups: tuple[int, ...]
    first: int
    last: int


class Sealed(NamedTuple):
    """The sealed file of a recording.

    Attributes:
        file: A `pyarrow.parquet.ParquetFile`.
        metadata: What it says about itself.
        batches: Its row groups, by the ticks they hold.
        last: The greatest `seq`, -1 if there is none.
    """

    file: Any
    metadata: Mapping[str, Any]
    batches: Sequence[Batch]
    last: int


def open_sealed(path: Path) -> Sealed:
    """Open the sealed file alone.

    Raises:
        RecordingError: it cannot be read; or as a subclass, why it makes no sense.
    """
    if path.is_dir():
        raise RecordingError(f"{path} is a directory", hint="name a recording in it")
    try:
        with path.open("rb") as file:
            start = file.read(4)
            if start == b"PAR1":
                check_footer(file, str(path))
    except OSError as error:
        raise unreadable(path, error) from error
    if not start:
        raise CorruptError(f"{path} is empty (0 bytes)", hint="it holds no recording")
    if start == WAL_MAGIC[:4]:
        raise CorruptError(
            f"{path} is a write-ahead log or a saved stream, no recording",
            hint=f"name the recording it lies beside, or: vramtop replay - < {path}",
        )
    if start != b"PAR1":
        raise CorruptError(
            f"{path} is no recording: it does not begin like a Parquet file",
            hint="logs of other tools become recordings with vramtop import",
        )
    try:
        source = pa.OSFile(str(path), "rb")
        footer = pq.read_metadata(source)
        metadata = _metadata(footer, path)
        file = pq.ParquetFile(
            source,
            metadata=footer,
            read_dictionary=READ_DICTIONARY,
            page_checksum_verification=True,
        )
    except (OSError, pa.ArrowException) as error:
        raise CorruptError(
            f"{path} is damaged: {first_line(error)}",
            hint=CUT_HINT,
        ) from error
    batches = _batches(file)
    return Sealed(file, metadata, batches, batches[-1].last if batches else -1)


def _metadata(footer: Any, path: Path) -> dict[str, Any]:
    """What the file says about itself; refuses what is no recording or too new."""
    text = (footer.metadata or {}).get(METADATA_KEY.encode("ascii"))
    columns = set(footer.schema.names)
    if text is None and not columns.issuperset(SCHEMA.names):
        raise CorruptError(
            f"{path} is a Parquet file, but no recording of vramtop",
            hint="recordings are made with vramtop record, import or simulate",
        )
    try:
        metadata = json.loads(text) if text is not None else {"format": FORMAT}
        version = int(metadata["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{path}: what it says about its format is damaged",
            hint="a copy of the file, if there is one, may be whole",
        ) from error
    if version > FORMAT:
        raise SchemaError(
            f"{path} uses format {version}; this vramtop reads up to {FORMAT}",
            hint="upgrade vramtop",
        )
    missing = sorted(set(SCHEMA.names) - columns)
    if missing:
        raise CorruptError(
            f"{path} lacks the columns {', '.join(missing)}",
            hint="a recording that was rewritten by another program must keep all columns",
        )
    return dict(metadata)


def kinds_of(file: Any, group: int) -> tuple[str, ...]:
    """The kinds of rows that a row group may hold; one if this is our own file."""
    column = file.metadata.row_group(group).column(file.schema_arrow.names.index("kind"))
    statistics = column.statistics
    if statistics is not None and statistics.has_min_max and statistics.min == statistics.max:
        return (str(statistics.min),)
    return KINDS


def _batches(file: Any) -> list[Batch]:
    """Row groups whose ranges of `seq` overlap belong together."""
    seq_column = file.schema_arrow.names.index("seq")
    ranges = []
    for group in range(file.num_row_groups):
        if not file.metadata.row_group(group).num_rows:
            continue
        statistics = file.metadata.row_group(group).column(seq_column).statistics
        if statistics is not None and statistics.has_min_max:
            low, high = int(statistics.min), int(statistics.max)
        else:
            seq = file.read_row_group(group, columns=["seq"]).column(0).to_numpy()
            low, high = int(seq.min()), int(seq.max())
        ranges.append((low, high, group))
    batches: list[Batch] = []
    for low, high, group in sorted(ranges):
        if batches and low <= batches[-1].last:
            last = batches.pop()
            batches.append(Batch((*last.groups, group), last.first, max(last.last, high)))
        else:
            batches.append(Batch((group,), low, high))
    return batches


def unreadable(path: Path, error: OSError) -> RecordingError:
    """What to tell the user when `path` cannot be read."""
    return RecordingError(
        f"cannot read {path}: {error.strerror}", hint=f"look at it with: ls -l {path}*"
    )


def first_line(error: BaseException) -> str:
    """The first line of what an error says: messages of ours have one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
