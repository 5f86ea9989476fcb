"""A checksum for the footer of the sealed file.

Parquet pages carry checksums, its footer does not: one altered bit in it can hide a row group
without any complaint. So eight bytes go before it, where Parquet readers do not look:

    row groups | "VRFT" | u32 CRC of the footer | footer | u32 its length | "PAR1"

A file that another tool has written anew does not have them, and is taken as it is.
"""

from __future__ import annotations

import os
import struct
import zlib
from typing import BinaryIO

from vramtop.errors import CorruptError

_END = struct.Struct("<I4s")
_CHECK = struct.Struct("<4sI")
_MAGIC = b"VRFT"


def read_footer(file: BinaryIO) -> tuple[int, bytes]:
    """Offset at which the row groups end, and the footer; empty if there is none."""
    start, footer = _footer(file)
    return start if _stored(file, start) is None else start - _CHECK.size, footer


def check_footer(file: BinaryIO, name: str) -> None:
    """Compare the footer with its checksum, if it has one.

    Raises:
        CorruptError: they differ, or there is no footer.
    """
    start, footer = _footer(file)
    stored = _stored(file, start)
    if stored is not None and zlib.crc32(footer) != stored:
        raise CorruptError(f"{name} is damaged: its footer was altered", hint=CUT_HINT)
    if not footer:
        raise CorruptError(f"{name} is damaged: it has no footer", hint=CUT_HINT)


def rewrite_footer(file: BinaryIO, end: int, footer: bytes) -> None:
    """Put `footer` and its checksum at `end`, in place of all that is there."""
    file.seek(end)
    file.truncate()
    file.write(_CHECK.pack(_MAGIC, zlib.crc32(footer)))
    file.write(footer)
    file.write(_END.pack(len(footer), b"PAR1"))


CUT_HINT = "it may have been cut off or altered while it was copied"


def _footer(file: BinaryIO) -> tuple[int, bytes]:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END.size))
    end = file.read(_END.size)
    if len(end) < _END.size:
        return size, b""
    length, magic = _END.unpack(end)
    start = size - _END.size - length
    if magic != b"PAR1" or start < 4:
        return size, b""
    file.seek(start)
    return start, file.read(length)


def _stored(file: BinaryIO, start: int) -> int | None:
    """The checksum before `start`, if there is one."""
    file.seek(max(0, start - _CHECK.size))
    data = file.read(_CHECK.size)
    if len(data) < _CHECK.size or not data.startswith(_MAGIC):
        return None
    return int(_CHECK.unpack(data)[1])
