"""Proof that a recording replays identically, however it is cut into blocks."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from vramtop.blocks import Block
from vramtop.engine.cut import rechunked
from vramtop.engine.engine import Engine
from vramtop.events import Event, EventDigest
from vramtop.samples import DIGEST


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One replay.

    Attributes:
        how: How the stream was cut.
        events: How many events it gave.
        digest: SHA-256 of all events, those of `finish` included.
    """

    how: str
    events: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What `verify` found.

    Attributes:
        runs: All replays; equal digests prove equal events.
        live: What the recording's live digest says: `equal`, `different`, `absent`, or why it
            cannot be compared.
        difference: The first event that differs, as (how, expected, found).
    """

    runs: tuple[Run, ...]
    live: str
    difference: tuple[str, str, str] | None = None

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return self.difference is None and self.live != "different"


def verify(blocks: Callable[[], Iterable[Block]], *, seed: int, rounds: int = 3) -> Proof:
    """Replay a stream in several chunkings and compare.

    Args:
        blocks: Opens the stream again from its start.
        seed: Of the random chunkings.
        rounds: How many random chunkings, besides the stored blocks; one of them also stores
            and restores the engine's state on the way, as seeking does.
    """
    expected = [event.canonical() for event in _events(blocks(), Engine())]
    runs = [_run("stored blocks", expected)]
    longest = (1, 40, 2000)
    difference = None
    for number in range(rounds):
        draw = random.Random(f"{seed}-{number}")  # noqa: S311 - chunk sizes, not secrets
        most = longest[number % len(longest)]
        how = "single ticks" if most == 1 else f"random blocks of up to {most} ticks"
        stream = _singly(blocks()) if most == 1 else rechunked(blocks(), draw, most)
        found = [
            event.canonical() for event in _events(stream, Engine(), restore=number == rounds - 1)
        ]
        runs.append(_run(how, found))
        if difference is None and found != expected:
            difference = (how, *_first_difference(expected, found))
    return Proof(runs=tuple(runs), live=_live(blocks), difference=difference)


SINGLE_TICKS = 20_000
"""A longer recording is replayed tick by tick for so many ticks, in stored blocks from there on."""


def _singly(blocks: Iterable[Block]) -> Iterator[Block]:
    done = 0
    for block in blocks:
        if done >= SINGLE_TICKS:
            yield block
            continue
        for tick in range(len(block)):
            yield block.part(tick, tick + 1)
        done += len(block)


def _events(blocks: Iterable[Block], engine: Engine, *, restore: bool = False) -> Iterator[Event]:
    for number, block in enumerate(blocks):
        yield from engine.update(block)
        if restore and number % 7 == 3:
            engine = pickle.loads(pickle.dumps(engine))  # noqa: S301 - made one line ago
    yield from engine.finish()


def _run(how: str, lines: list[str]) -> Run:
    digest = EventDigest()
    digest.add_lines(lines)
    return Run(how=how, events=len(lines), digest=digest.hexdigest())


def _first_difference(expected: list[str], found: list[str]) -> tuple[str, str]:
    for one, other in zip(expected, found, strict=False):
        if one != other:
            return one, other
    ended = "the events end here"
    shorter = min(len(expected), len(found))
    return (
        expected[shorter] if shorter < len(expected) else ended,
        found[shorter] if shorter < len(found) else ended,
    )


def _live(blocks: Callable[[], Iterable[Block]]) -> str:
    said: Mapping[str, object] | None = None
    for block in blocks():
        for _, seen in block.observations:
            if seen.what == DIGEST and seen.data is not None:
                said = seen.data
    if said is None:
        return "absent"
    engine = Engine()
    mine = engine.fingerprint()
    if any(said.get(name) != value for name, value in mine.items()):
        return "not comparable: made with another analyzer version or other parameters"
    digest = EventDigest()
    for block in blocks():
        events = engine.update(block)
        digest.add(event for event in events if event.seq <= _int(said.get("last_seq")))
    return "equal" if digest.hexdigest() == said.get("sha256") else "different"


def _int(value: object) -> int:
    return value if isinstance(value, int) else -1
