"""A recorder to be killed: writes ticks and says on stdout which ones were acknowledged.

python recording_child.py PATH SPACING_S ROTATE_BYTES [COUNT]
"""

from __future__ import annotations

import os
import sys
import time

from recording_fixtures import training

from vramtop.recording.writer import RecordingWriter


def main() -> None:
    path, spacing_s, rotate_bytes = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    count = int(sys.argv[4]) if len(sys.argv) > 4 else 10**9
    writer = RecordingWriter(
        path, rotate_bytes=rotate_bytes, on_fault=lambda s: os.write(2, s.encode())
    )
    for tick in training(count):
        writer.append(tick)
        os.write(1, b"%d\n" % tick.seq)
        time.sleep(spacing_s)
    writer.close()


if __name__ == "__main__":
    main()
