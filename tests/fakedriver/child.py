"""Runs an NvmlSource and pickles its ticks to stdout. The argument is a dict of its options."""

import ast
import os
import pickle
import sys
import threading
import time
from typing import IO

from vramtop.enrich.process_facts import read_facts
from vramtop.errors import VramtopError
from vramtop.sources.nvml import NvmlSource

closed_at: list[float] = []


def listen(source: NvmlSource) -> None:
    # The raw descriptor: a buffered reader in a daemon thread breaks the interpreter's end.
    if os.read(0, 16):
        closed_at.append(time.monotonic())
        source.close()


def run(out: IO[bytes]) -> None:
    options = ast.literal_eval(sys.argv[1])
    try:
        source = NvmlSource(facts=read_facts, **options)
    except VramtopError as error:
        pickle.dump(error, out)
        return
    threading.Thread(target=listen, args=(source,), daemon=True).start()
    for tick in source.ticks():
        pickle.dump(tick, out)
        out.flush()
    ended = time.monotonic()
    pickle.dump({**source.stats(), "close_s": ended - closed_at[0]}, out)


with os.fdopen(os.dup(1), "wb") as stream:
    run(stream)
