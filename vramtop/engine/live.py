"""A live stream through the engine, and beside it into a recording that can prove itself."""

from __future__ import annotations

from collections.abc import Iterator

from vramtop.blocks import Block
from vramtop.engine.engine import Engine
from vramtop.events import Event, EventDigest
from vramtop.protocols import Sink, Source
from vramtop.samples import DIGEST, END, Observation, Tick
from vramtop.units import NS_PER_S


def watch(
    source: Source, engine: Engine, *, sink: Sink | None = None, duration_s: float | None = None
) -> Iterator[list[Event]]:
    """Run a live source through the engine, tick by tick.

    Each tick is kept by `sink` before it is judged. When the stream ends, one last tick leaves
    the digest of all events before `finish`, which `vramtop verify` compares with a replay.

    Args:
        source: Closed by the caller to end the stream.
        engine: Fresh, so that its events begin at the recording's first tick.
        sink: A recording; closed here.
        duration_s: End after so much stream time.

    Yields:
        The events of each tick, and at last those of `finish`.
    """
    digest = EventDigest()
    first: Tick | None = None
    last: Tick | None = None
    why = "stopped"
    try:
        for tick in source.ticks():
            if sink is not None:
                sink.append(tick)
            events = engine.update(Block.from_ticks([tick]))
            digest.add(events)
            first, last = first or tick, tick
            yield events
            if duration_s is not None and tick.mono_ns - first.mono_ns >= duration_s * NS_PER_S:
                why = "the duration is over"
                break
    finally:
        source.close()
        farewell = None
        if sink is not None:
            if first is not None and last is not None:
                farewell = _farewell(first, last, engine, digest, why)
                sink.append(farewell)
            sink.close()
    if farewell is not None:
        yield engine.update(Block.from_ticks([farewell]))
    yield engine.finish()


def _farewell(first: Tick, last: Tick, engine: Engine, digest: EventDigest, why: str) -> Tick:
    return Tick(
        seq=last.seq + 1,
        mono_ns=last.mono_ns,
        t_us=last.t_us,
        observations=(
            Observation(
                what=DIGEST,
                data={
                    **engine.fingerprint(),
                    "first_seq": first.seq,
                    "last_seq": last.seq,
                    "sha256": digest.hexdigest(),
                },
            ),
            Observation(what=END, text=why),
        ),
    )
