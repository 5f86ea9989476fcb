"""`replay --derived`: per-tick series of the analyzers as Parquet."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from vramtop.blocks import Block
from vramtop.engine import Engine
from vramtop.engine.cut import steps
from vramtop.engine.derived import Derived, rows_in_order
from vramtop.errors import OutputError
from vramtop.events import Event

SCHEMA = pa.schema(
    [
        ("seq", pa.int64()),
        ("gpu", pa.int32()),
        ("uuid", pa.string()),
        ("pid", pa.int64()),
        ("start_time", pa.int64()),
        ("phase", pa.string()),
        ("rate_bytes_per_s", pa.float64()),
        ("p_oom_60s", pa.float64()),
        ("p_oom_300s", pa.float64()),
        ("p_oom_900s", pa.float64()),
        ("eta_low_s", pa.float64()),
        ("eta_high_s", pa.float64()),
        ("verdict", pa.string()),
    ]
)


def write_derived(path: Path, blocks: Iterable[Block], engine: Engine) -> Iterator[Event]:
    """Replay `blocks`, writing a row per device and tick and per process and look.

    Yields:
        The events, so that one pass serves both.

    Raises:
        OutputError: the file cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    derived = Derived()
    try:
        with pq.ParquetWriter(aside, SCHEMA, compression="zstd") as writer:
            for block, events in steps(engine, blocks):
                yield from events
                if block is not None and engine.view is not None and block.rows:
                    table = pa.table(derived.columns(engine.view), schema=SCHEMA)
                    writer.write_table(table.take(pa.array(rows_in_order(block))))
        aside.replace(path)
    except OSError as error:
        raise OutputError(
            f"cannot write {path}: {error.strerror or error}", hint="choose another place"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
