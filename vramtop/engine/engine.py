"""The engine: carries analyzers along a stream of blocks."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence

from vramtop import analyzers
from vramtop.analyzers import DEFAULT_ANALYZERS
from vramtop.blocks import Block
from vramtop.engine.carry import Carry
from vramtop.events import Event, ordered
from vramtop.protocols import Analyzer
from vramtop.view import View


class Engine:
    """Runs analyzers over blocks. Picklable between blocks.

    The events do not depend on how the stream was cut into blocks.

    Args:
        chosen: Analyzers in order; by default all of `DEFAULT_ANALYZERS`.

    Attributes:
        view: The last block with the signals that analyzers published on it.
    """

    def __init__(self, chosen: Sequence[Analyzer] | None = None) -> None:
        self.analyzers: tuple[Analyzer, ...] = (
            tuple(kind() for kind in DEFAULT_ANALYZERS) if chosen is None else tuple(chosen)
        )
        self.view: View | None = None
        self._carry = Carry()

    def __getstate__(self) -> dict[str, object]:
        """Everything but the last block."""
        return {**self.__dict__, "view": None}

    def update(self, block: Block) -> list[Event]:
        """Events that became true in `block`, in stream order."""
        if not len(block):
            return []
        view = self.view = self._carry.view(block)
        events: list[Event] = []
        for analyzer in self.analyzers:
            events += analyzer.update(view)
        self._carry.facts.settle()
        return ordered(events)

    def finish(self) -> list[Event]:
        """The stream has ended: the last events, after all others."""
        events: list[Event] = []
        for analyzer in self.analyzers:
            events += analyzer.finish()
        return ordered(events)

    def fingerprint(self) -> dict[str, object]:
        """Analyzer version and a hash of all parameters; equal ones give equal events."""
        parameters = {
            type(analyzer).__name__: {
                name: getattr(analyzer, name)
                for name in inspect.signature(type(analyzer)).parameters
            }
            for analyzer in self.analyzers
        }
        text = json.dumps(parameters, sort_keys=True)
        return {
            "analyzer_version": analyzers.VERSION,
            "parameters": hashlib.sha256(text.encode()).hexdigest()[:16],
        }
