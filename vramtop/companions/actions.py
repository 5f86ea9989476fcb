"""What to do when memory is about to run out, and when to do it."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vramtop.errors import UsageError

if TYPE_CHECKING:
    # The recorder checks rules with this module; events would cost it 4 MB for OpenSSL.
    from vramtop.events import OomRiskChanged

LEVELS = ("none", "warning", "critical")
_HINT = "write it like critical=signal:USR1 or warning=exec:./save.sh"


@dataclass(frozen=True, slots=True)
class Rule:
    """One `--on-risk`.

    Attributes:
        level: From which level on: warning or critical.
        kind: `signal` to COMMAND, or `exec`.
        what: The signal's name without SIG, or the command line for `/bin/sh -c`.
    """

    level: str
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.level}={self.kind}:{self.what}"


def parse_rule(text: str) -> Rule:
    """`LEVEL=signal:NAME` or `LEVEL=exec:CMD`.

    Raises:
        UsageError: it is neither.

    >>> parse_rule("critical=signal:SIGUSR1")
    Rule(level='critical', kind='signal', what='USR1')
    """
    level, _, action = text.partition("=")
    kind, _, what = action.partition(":")
    if level not in LEVELS[1:]:
        raise UsageError(f"{level!r} is no risk level", hint=_HINT)
    if kind not in {"signal", "exec"} or not what.strip():
        raise UsageError(f"{action!r} is no action", hint=_HINT)
    if kind == "signal":
        what = signal_number(what).name.removeprefix("SIG")
    return Rule(level, kind, what)


def signal_number(name: str) -> signal.Signals:
    """`USR1`, `SIGUSR1` or `10`.

    Raises:
        UsageError: there is no such signal.
    """
    upper = name.strip().upper()
    try:
        if upper.isdigit():
            return signal.Signals(int(upper))
        return signal.Signals[upper if upper.startswith("SIG") else f"SIG{upper}"]
    except (ValueError, KeyError):
        raise UsageError(f"{name!r} is no signal", hint=_HINT) from None


class Episodes:
    """Lets each rule fire once per episode and device.

    An episode lasts from the level that a rule names until the risk is gone: falling from
    critical to warning and rising again is the same episode.

    Args:
        rules: All of them.
    """

    def __init__(self, rules: tuple[Rule, ...]) -> None:
        self._rules = rules
        self._fired: dict[str | None, set[Rule]] = {}

    def due(self, event: OomRiskChanged) -> list[Rule]:
        """The rules that fire at this event."""
        fired = self._fired.setdefault(event.uuid, set())
        if event.level == "none":
            fired.clear()
            return []
        height = LEVELS.index(event.level)
        due = [
            rule for rule in self._rules if height >= LEVELS.index(rule.level) and rule not in fired
        ]
        fired.update(due)
        return due
