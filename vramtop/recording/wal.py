"""The write-ahead log: file layout, frames, and the encoding of ticks. Standard library only.

    run.parquet.wal-000000      one file per part, created 0600, only ever appended to

A part is a header and frames. Everything is little endian:

    header   8 bytes magic | u32 seed | u32 length | u32 CRC of the JSON | JSON
    frame    u32 length | u32 CRC of (length, payload), seeded with the header's seed | payload

The seed is random per part, so that a run of zeros (what ext4 leaves after a power cut) or a
frame of an older file on the same blocks is never a valid frame. A payload is a tick, an
introduction (at the start of every part but the first), or the mark that the writer closed
in order. `docs/recording-format.md` draws all of it.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from vramtop.errors import CorruptError, SchemaError
from vramtop.samples import DEVICE_COLUMNS, Observation, Tick

FORMAT = 1
"""Version of the WAL and of the sealed file; readers refuse what is newer."""

MAGIC = b"VRAMWAL\n"
TICK, INTRODUCTION, CLOSED = 1, 2, 3
"""Kinds of payload."""

_HEADER = struct.Struct("<8sIII")
_FRAME = struct.Struct("<II")
PAYLOAD = struct.Struct("<BqqqIII")
"""kind, seq, mono_ns, t_us, device rows, process rows, bytes of JSON."""

DEVICE_ROW: tuple[tuple[str, str], ...] = (
    ("slot", "u4"),
    *((name, "i8") for name in DEVICE_COLUMNS),
)
PROCESS_ROW: tuple[tuple[str, str], ...] = (("slot", "u4"), ("used_bytes", "i8"))
"""Fields of a row and their NumPy type codes; they stand in the header, so that a later
version can decode a part whose rows had other fields."""

_CODES = {"u4": "I", "i8": "q"}
_DEVICE_CODE = "".join(_CODES[code] for _, code in DEVICE_ROW)
_PROCESS_CODE = "".join(_CODES[code] for _, code in PROCESS_ROW)
_DEVICE_VALUES = attrgetter(*DEVICE_COLUMNS)
_INT64_MAX = 2**63 - 1


class WalHeader(NamedTuple):
    """What a part says about itself.

    Attributes:
        seed: Start value of this part's CRCs.
        recording_id: The same in every part of one recording.
        part: Number of the part, from 0.
        info: The whole JSON: format, boot_id, created_us, vramtop, device_row, process_row.
        size: Bytes of the header; the first frame begins there.
    """

    seed: int
    recording_id: str
    part: int
    info: Mapping[str, object]
    size: int


def part_path(path: Path, part: int) -> Path:
    """The file of WAL part number `part` of the recording `path`."""
    return path.with_name(f"{path.name}.wal-{part:06d}")


def part_number(path: Path) -> int:
    """The number in the name of a WAL part."""
    return int(path.name.rpartition("-")[2])


def list_parts(path: Path) -> list[Path]:
    """The WAL parts of the recording `path` that exist now, oldest first."""
    pattern = re.compile(re.escape(path.name) + r"\.wal-\d{6,}")
    try:
        found = [entry for entry in path.parent.iterdir() if pattern.fullmatch(entry.name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found, key=part_number)


def encode_header(info: Mapping[str, object], *, seed: int) -> bytes:
    """The first bytes of a part or a stream; `info` needs `recording_id` and `part`."""
    text = json.dumps(
        {"format": FORMAT, **info, "device_row": DEVICE_ROW, "process_row": PROCESS_ROW},
        separators=(",", ":"),
    ).encode("ascii")
    return _HEADER.pack(MAGIC, seed, len(text), zlib.crc32(text, seed)) + text


def header_size(data: bytes) -> int:
    """Bytes that the header beginning with `data` has; more than `len(data)` asks for more."""
    if len(data) < _HEADER.size:
        return _HEADER.size
    return _HEADER.size + int(_HEADER.unpack_from(data)[2])


def decode_header(data: bytes, *, name: str) -> WalHeader:
    """Read the header at the start of `data`; `name` is for messages.

    Raises:
        CorruptError: it is damaged, or this is no WAL part.
        SchemaError: made by a newer vramtop.
    """
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise CorruptError(
            f"{name} does not begin like a recording ({len(data)} bytes)",
            hint="it may have been cut off before its header was written",
        )
    _, seed, length, crc = _HEADER.unpack_from(data)
    text = bytes(data[_HEADER.size : _HEADER.size + length])
    if len(text) < length or zlib.crc32(text, seed) != crc:
        raise CorruptError(
            f"{name}: the header is damaged ({len(data)} bytes)",
            hint="a copy of the file, if there is one, may be whole",
        )
    info = json.loads(text)
    if info["format"] > FORMAT:
        raise SchemaError(
            f"{name} uses format {info['format']}; this vramtop reads up to {FORMAT}",
            hint="upgrade vramtop",
        )
    return WalHeader(seed, info["recording_id"], info["part"], info, _HEADER.size + length)


def frame(payload: bytes, seed: int) -> bytes:
    """`payload` with its length and checksum."""
    length = len(payload)
    crc = zlib.crc32(payload, zlib.crc32(length.to_bytes(4, "little"), seed))
    return _FRAME.pack(length, crc) + payload


class Scan(NamedTuple):
    """The frames found in a stretch of bytes.

    Attributes:
        payloads: Views into the bytes scanned.
        end: Offset just past the last good frame.
        damage: None if the bytes end with a whole frame; `torn` if the rest is an incomplete
            or zeroed last frame, as a crash leaves it; `corrupt` if bytes were altered.
    """

    payloads: list[memoryview]
    end: int
    damage: str | None


def scan_frames(data: bytes, offset: int, seed: int) -> Scan:
    """Check and list the frames of `data` from `offset`; nothing after a bad one is trusted."""
    view = memoryview(data)
    size = len(view)
    payloads: list[memoryview] = []
    damage = None
    while offset < size:
        if size - offset < _FRAME.size:
            damage = "torn"
            break
        length, crc = _FRAME.unpack_from(view, offset)
        start = offset + _FRAME.size
        end = start + length
        payload = view[start:end]
        if (
            length < PAYLOAD.size
            or end > size
            or zlib.crc32(payload, zlib.crc32(view[offset : offset + 4], seed)) != crc
        ):
            damage = "torn" if is_cut_off(view[offset:], end - offset) else "corrupt"
            break
        payloads.append(payload)
        offset = end
    return Scan(payloads, offset, damage)


def is_cut_off(data: bytes | memoryview, length: int) -> bool:
    """Whether `data`, which should begin with `length` bytes, merely ends too early.

    A power cut may leave zeros in place of the end. Fewer than 8 bytes do not even hold a
    length, so then `length` itself says nothing.
    """
    written = len(bytes(data).rstrip(b"\0"))
    return written <= max(length, _FRAME.size)


class TickEncoder:
    """Encodes ticks for one part: rows name their device or process by a slot number.

    A slot is defined in the first tick of the part that uses it, so a part can be decoded
    without any other.

    Attributes:
        devices: Per slot: gpu, uuid, parent_uuid.
        processes: Per slot: gpu, uuid, pid, start_time, life.
    """

    def __init__(self) -> None:
        self.devices: list[tuple[int, str, str | None]] = []
        self.processes: list[tuple[int, str, int, int | None, int]] = []
        self._device_slots: dict[tuple[int, str, str | None], int] = {}
        self._process_slots: dict[tuple[int, str, int, int | None, int], int] = {}

    def encode(self, tick: Tick) -> bytes:
        """The payload of one tick; about 40 us for 8 GPUs and 64 processes."""
        known = len(self.devices), len(self.processes)
        cells: list[int] = []
        for device in tick.devices:
            identity = (device.gpu, device.uuid, device.parent_uuid)
            slot = self._device_slots.get(identity)
            if slot is None:
                slot = self._device_slots[identity] = len(self.devices)
                self.devices.append(identity)
            cells.append(slot)
            cells += [-1 if value is None else value for value in _DEVICE_VALUES(device)]
        for process in tick.processes:
            member = (
                process.gpu, process.uuid, process.pid, process.start_time, process.life
            )  # fmt: skip
            slot = self._process_slots.get(member)
            if slot is None:
                slot = self._process_slots[member] = len(self.processes)
                self.processes.append(member)
            used = process.used_bytes
            cells += (slot, -1 if used is None else used)
        text = b""
        if tick.observations or known != (len(self.devices), len(self.processes)):
            text = _details(self.devices[known[0] :], self.processes[known[1] :], tick.observations)
        counts = len(tick.devices), len(tick.processes)
        head = (TICK, tick.seq, tick.mono_ns, tick.t_us, *counts, len(text))
        rows = "<" + _DEVICE_CODE * counts[0] + _PROCESS_CODE * counts[1]
        try:
            body = struct.pack(rows, *cells)
        except struct.error:
            # An impossible reading must not cost the tick: it becomes "no answer".
            cells = [cell if -1 <= cell <= _INT64_MAX else -1 for cell in cells]
            body = struct.pack(rows, *cells)
        return PAYLOAD.pack(*head) + body + text

    def introduction(
        self, devices: int, processes: int, snapshot: tuple[Observation, ...]
    ) -> bytes:
        """A payload to begin a later part with: the first slots so far, and what is known."""
        text = _details(self.devices[:devices], self.processes[:processes], snapshot)
        return PAYLOAD.pack(INTRODUCTION, 0, 0, 0, 0, 0, len(text)) + text


def closed_payload() -> bytes:
    """The payload that says: the writer closed in order, nothing follows."""
    return PAYLOAD.pack(CLOSED, 0, 0, 0, 0, 0, 0)


def _details(
    devices: list[tuple[int, str, str | None]],
    processes: list[tuple[int, str, int, int | None, int]],
    observations: tuple[Observation, ...],
) -> bytes:
    details = {
        "d": devices,
        "p": processes,
        "o": [observation_fields(observation) for observation in observations],
    }
    # `default=str`: an odd value in an observation must not cost the tick.
    return json.dumps(details, separators=(",", ":"), default=str).encode("ascii")


_OBSERVATION_FIELDS = ("gpu", "uuid", "pid", "start_time", "name", "text", "data")


def observation_fields(observation: Observation) -> dict[str, object]:
    """The fields of `observation` that say something, for JSON."""
    fields: dict[str, object] = {"what": observation.what}
    for name in _OBSERVATION_FIELDS:
        value = getattr(observation, name)
        if value is not None:
            fields[name] = dict(value) if isinstance(value, Mapping) else value
    if observation.life:
        fields["life"] = observation.life
    return fields


def boot_id() -> str | None:
    """Names this boot of the machine; None where `/proc` does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return None
