"""One part of the write-ahead log, read whole."""

from __future__ import annotations

from pathlib import Path

from vramtop.errors import CorruptError
from vramtop.recording.decode import PartDecoder
from vramtop.recording.rows import Rows
from vramtop.recording.wal import (
    WalHeader,
    decode_header,
    header_size,
    is_cut_off,
    part_number,
    scan_frames,
)


class WalPart:
    """A part of the write-ahead log as it was when it was opened.

    Attributes:
        path, number: Which part.
        header: None if it was cut off or damaged inside.
        decoder: For what may follow; None without a header.
        size: Bytes in the file.
        end: Where trust in it ends: just past the last good frame.
        damage: See `wal.Scan`.
        rows: Its ticks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = part_number(path)
        self.header: WalHeader | None = None
        self.decoder: PartDecoder | None = None
        self.damage: str | None = None
        data = path.read_bytes()
        self.size = len(data)
        self.end = 0
        try:
            self.header = decode_header(data, name=path.name)
        except CorruptError:
            # A part cut off in its header holds no tick; any other says what it lost.
            self.damage = "torn" if is_cut_off(data, header_size(data)) else "corrupt"
            self.rows = Rows.none()
            return
        self.decoder = PartDecoder(self.header)
        scan = scan_frames(data, self.header.size, self.header.seed)
        self.end, self.damage = scan.end, scan.damage
        self.rows = self.decoder.decode(scan.payloads)

    def rows_after(self, seq: int) -> Rows:
        """The ticks beyond `seq`; with -1 they begin a recording, so they say all there is."""
        rows = self.rows.between(seq + 1, None)
        if seq < 0 and self.decoder is not None:
            rows = rows.introduced(self.decoder.snapshot)
        return rows

    @property
    def closed(self) -> bool:
        """It holds the mark that the writer closed in order."""
        return self.decoder is not None and self.decoder.closed
