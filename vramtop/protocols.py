"""The three seams. Read this first.

    Source    yields ticks (NVML, simulator, a foreign log) or blocks (a recording, a stream)
    Analyzer  carries state: `update(view) -> events`, `finish() -> events`
    Sink      takes ticks and keeps them (a recording, a stream on stdout)

Nothing past a source reads a clock, a device or `/proc`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vramtop.blocks import Block
    from vramtop.events import Event
    from vramtop.samples import Tick
    from vramtop.view import View


class Source(Protocol):
    """Where ticks come from. The only layer that knows what time it is."""

    def ticks(self) -> Iterator[Tick]:
        """Ticks in order, `seq` from 0, each complete and immutable.

        A live source sleeps until the next tick is due; it ends after `close`.
        The first tick carries the snapshot: host, device constants, declared interval and
        the facts of every live process, as observations.

        Raises:
            SourceError: the source cannot be read at all.
        """
        ...

    def close(self) -> None:
        """End `ticks` soon, from any thread or a signal handler; safe to call twice."""
        ...


class BlockSource(Protocol):
    """Where blocks come from: a recording, or a stream of one."""

    def blocks(self) -> Iterator[Block]:
        """Blocks in order, of any size."""
        ...


class Analyzer(Protocol):
    """Turns blocks into events. State is private and picklable; seeking restores it.

    No clock, no input or output, no randomness, and only + - * / sqrt, comparisons and
    integers on data, so that live and replay agree to the last bit on every machine.
    """

    def update(self, view: View) -> Sequence[Event]:
        """Advance by the ticks of one block; `view` is the block with its shared statistics.

        An event's `seq` is a tick of this block: what became true at a tick is said at it.
        """
        ...

    def finish(self) -> Sequence[Event]:
        """The stream has ended: what is still open is final now."""
        ...


class Sink(Protocol):
    """Keeps ticks."""

    def append(self, tick: Tick) -> None:
        """Take one tick. When this returns, a kill of this process does not lose it."""
        ...

    def close(self) -> None:
        """End in order."""
        ...
