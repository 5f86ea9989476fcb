"""Streams of one process whose level is a function of time, as blocks, and made-up levels."""

from __future__ import annotations

import random

import numpy as np

from vramtop.analyzers.leak import LeakAnalyzer
from vramtop.analyzers.observed import ObservedAnalyzer
from vramtop.analyzers.phase import PhaseAnalyzer
from vramtop.blocks import NULL, Block
from vramtop.engine import Engine
from vramtop.samples import DEVICE_COLUMNS, LOOKED_PROCESSES, PROCESS, Observation, SeriesKey
from vramtop.units import GIB, MIB, NS_PER_S

UUID = "GPU-a"
KEY = SeriesKey(UUID, 7, 1)


def quantised(level_mib):
    """Bytes in whole segments of 2 MiB, as drivers hand them out."""
    return int(max(0, level_mib)) * MIB // (2 * MIB) * 2 * MIB


def block(level, *, seconds, step=1.0, start=0.0, dropped=None, device=None, born=0.0):
    """A process at `level(t)` MiB; `device(t)` MiB is its GPU's use beside it, if given.

    Args:
        start: Boot-time clock at the first tick, in seconds.
        dropped: Takes a tick's number and time; where it is true the tick is left out.
        born: Before this time only the device is there.
    """
    times = [n * step for n in range(int(seconds / step)) if not (dropped and dropped(n, n * step))]
    mono = np.array([round((start + t) * NS_PER_S) for t in times], np.int64)
    own = [(n, quantised(level(t))) for n, t in enumerate(times) if t >= born]
    if device is None:
        keys, n_devices, used = (KEY,), 0, [used for _, used in own]
        ticks, offsets = [n for n, _ in own], [0, len(own)]
        columns = {name: np.empty(0, np.int64) for name in DEVICE_COLUMNS}
    else:
        keys, n_devices = (SeriesKey(UUID), KEY), 1
        beside = [quantised(device(t)) for t in times]
        held = dict(own)
        whole = [value + held.get(n, 0) for n, value in enumerate(beside)]
        used = whole + [used for _, used in own]
        ticks = [*range(len(times)), *(n for n, _ in own)]
        offsets = [0, len(times), len(times) + len(own)]
        columns = {name: np.full(len(times), NULL, np.int64) for name in DEVICE_COLUMNS}
        columns["used_bytes"] = np.array(whole, np.int64)
        columns["total_bytes"] = np.full(len(times), 80 * GIB, np.int64)
        columns["looked"] = np.full(len(times), LOOKED_PROCESSES, np.int64)
    first = own[0][0] if own else 0
    return Block(
        seq=np.arange(len(times)),
        t_us=mono // 1000,
        mono_ns=mono,
        keys=keys,
        gpus=(0,) * len(keys),
        parents=(None,) * n_devices,
        n_devices=n_devices,
        offsets=np.array(offsets, np.int64),
        tick=np.array(ticks, np.int64),
        used=np.array(used, np.int64),
        device=columns,
        observations=(
            (first, Observation(what=PROCESS, gpu=0, uuid=UUID, pid=7, start_time=1, name="train")),
        ),
    )


def said(blocks, kind):
    """Events of a kind, from the analyzers of growth alone."""
    engine = Engine([ObservedAnalyzer(), PhaseAnalyzer(), LeakAnalyzer()])
    found = [event for part in blocks for event in engine.update(part)]
    return [event for event in found + engine.finish() if event.kind == kind]


def sawtooth(t, height, period, up):
    """From 0 up to `height` in the share `up` of the period, and down again."""
    x = (t % period) / period
    return height * (x / up if x < up else (1 - x) / (1 - up))


def jitter(spread, seed=1):
    """Gaussian noise as a function of time, the same at every sampling rate."""
    draw = random.Random(seed)
    noise = [draw.gauss(0, spread) for _ in range(4096)]
    return lambda t: noise[int(t * 5) % 4096]
