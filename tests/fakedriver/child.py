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
from vramtop.sources.nvml import NvmlSource, fleet
from vramtop.sources.nvml import source as source_module

closed_at: list[float] = []


def listen(source: NvmlSource) -> None:
    # The raw descriptor: a buffered reader in a daemon thread breaks the interpreter's end.
    if os.read(0, 16):
        closed_at.append(time.monotonic())
        source.close()


def run(out: IO[bytes]) -> None:
    options = ast.literal_eval(sys.argv[1])
    # What is right for a machine is long for a test.
    fleet._PROBE_NS = round(options.pop("probe_s", 10) * 1e9)
    source_module._OFTEN_PERIOD_NS = round(options.pop("often_s", 1) * 1e9)
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
