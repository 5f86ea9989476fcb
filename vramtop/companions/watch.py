"""`record --watch`: says how the risk and the verdict change, and acts on it.

It runs beside the recorder, follows the file that grows, and may die or hang without
costing a tick. Its fd 0 is a socket to the recorder: what it does is told there, so that
the recording says so too; when the socket ends, the recorder has ended.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from vramtop.companions.actions import Episodes, Rule, parse_rule
from vramtop.events import Event, OomRiskChanged, VerdictChanged
from vramtop.units import format_bytes, format_duration

RECORDER = 0
"""The socket to the recorder."""
_LAST_TICKS_S = 5.0


class Watcher:
    """Turns events into lines and actions.

    Args:
        path: The recording, for the environment of `exec` actions.
        rules: What to do at which level.
        out: Where lines go.
    """

    def __init__(self, path: Path, rules: tuple[Rule, ...], out: TextIO) -> None:
        self._path = path
        self._episodes = Episodes(rules)
        self._out = out
        self._levels: dict[str | None, str] = {}
        self._children: list[subprocess.Popen[bytes]] = []

    def take(self, events: Sequence[Event]) -> None:
        """Say and do what these events call for."""
        for event in events:
            if isinstance(event, OomRiskChanged):
                if self._levels.get(event.uuid, "none") != event.level:
                    self._levels[event.uuid] = event.level
                    self._say(risk_line(event))
                for rule in self._episodes.due(event):
                    self._act(rule, event)
            elif isinstance(event, VerdictChanged):
                self._say(verdict_line(event))
        self._children = [child for child in self._children if child.poll() is None]

    def _act(self, rule: Rule, event: OomRiskChanged) -> None:
        told: dict[str, object] = {
            "action": rule.kind,
            "rule": str(rule),
            "what": rule.what,
            "level": event.level,
            "reason": event.reason,
            "seq": event.seq,
            "gpu": event.gpu,
            "uuid": event.uuid,
        }
        if rule.kind == "exec":
            told["pid"] = self._execute(rule, event)
        # A signal is the recorder's to send: only COMMAND's parent knows that its PID is still its.
        with contextlib.suppress(OSError):
            os.write(RECORDER, json.dumps(told).encode("ascii"))
        self._say(f"{_about(event)}: {rule}")

    def _execute(self, rule: Rule, event: OomRiskChanged) -> int | None:
        environment = {
            **os.environ,
            "VRAMTOP_RECORDING": str(self._path),
            "VRAMTOP_LEVEL": event.level,
            "VRAMTOP_REASON": event.reason,
            "VRAMTOP_GPU": "" if event.gpu is None else str(event.gpu),
            "VRAMTOP_UUID": event.uuid or "",
            "VRAMTOP_ETA_LOW_S": "" if event.eta_low_s is None else f"{event.eta_low_s:.1f}",
        }
        try:
            child = subprocess.Popen(
                ["/bin/sh", "-c", rule.what], stdin=subprocess.DEVNULL, env=environment
            )
        except OSError as error:
            self._say(f"cannot run {rule.what}: {error.strerror}")
            return None
        self._children.append(child)
        return child.pid

    def _say(self, line: str) -> None:
        text = "".join(letter if letter.isprintable() else "?" for letter in line)
        with contextlib.suppress(OSError):
            self._out.write(f"vramtop: {text}\n")
            self._out.flush()


def _about(event: Event) -> str:
    parts = [] if event.gpu is None else [f"gpu {event.gpu}"]
    if event.pid is not None:
        parts.append(f"pid {event.pid}")
    return " ".join(parts) or "all"


def risk_line(event: OomRiskChanged) -> str:
    """One line on the risk of a device."""
    if event.level == "none":
        return f"{_about(event)}: risk is over ({event.reason})"
    low, high = format_duration(event.eta_low_s), format_duration(event.eta_high_s)
    return f"{_about(event)}: risk {event.level}, full in {low} to {high} ({event.reason})"


def verdict_line(event: VerdictChanged) -> str:
    """One line on whether a process will fit."""
    free = format_bytes(event.free_bytes)
    return f"{_about(event)}: verdict {event.verdict}, {free} free ({event.reason})"


def _stop_with_recorder(stop: threading.Event) -> None:
    """Set `stop` a while after the recorder is gone; it never sends anything."""
    waiting = select.poll()
    waiting.register(RECORDER, select.POLLIN | select.POLLHUP)
    waiting.poll()
    # The last ticks are worth reading; `follow` ends by itself where it can.
    stop.wait(_LAST_TICKS_S)
    stop.set()


def main(arguments: Sequence[str]) -> int:
    """Follow a recording until it ends; returns the exit code."""
    parser = argparse.ArgumentParser(prog="vramtop.companions.watch")
    parser.add_argument("path", type=Path)
    parser.add_argument("--on-risk", action="append", default=[])
    chosen = parser.parse_args(arguments)
    os.nice(10)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")
    from vramtop.engine import Engine
    from vramtop.recording.follow import follow

    stop = threading.Event()
    threading.Thread(target=_stop_with_recorder, args=(stop,), daemon=True).start()
    watcher = Watcher(chosen.path, tuple(map(parse_rule, chosen.on_risk)), sys.stderr)
    engine = Engine()
    for block in follow(chosen.path, stop=stop):
        watcher.take(engine.update(block))
    watcher.take(engine.finish())
    return 0
