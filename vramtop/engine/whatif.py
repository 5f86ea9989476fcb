"""What if: the same stream on other hardware, or judged with other parameters."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo

import numpy as np

from vramtop.analyzers import DEFAULT_ANALYZERS
from vramtop.analyzers.sweep import SweepAnalyzer
from vramtop.blocks import NULL, Block
from vramtop.engine.engine import Engine
from vramtop.errors import UsageError
from vramtop.events import Event, Oom, OomRiskChanged, VerdictChanged
from vramtop.protocols import Analyzer
from vramtop.samples import OOM_EVIDENCE, Observation, SeriesKey
from vramtop.units import (
    US_PER_S,
    format_bytes,
    format_duration,
    format_time,
    parse_duration,
    parse_size,
)
from vramtop.view import DEVICES, Change

Settings = Mapping[str, Mapping[str, object]]
"""Parameters to change, by analyzer's class name and parameter."""


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, object]]:
    """Texts such as `risk.critical_at=0.8` or `leak.hold_s=10m`.

    Raises:
        UsageError: no such analyzer or parameter, or no such value; the hint names what there is.

    >>> parse_settings(["verdict.flat_bytes=32MiB", "verdict.hold_s=1m"])
    {'VerdictAnalyzer': {'flat_bytes': 33554432, 'hold_s': 60.0}}
    """
    known = {_short(kind): kind for kind in DEFAULT_ANALYZERS if _parameters(kind)}
    found: dict[str, dict[str, object]] = {}
    for text in texts:
        where, given, value = text.partition("=")
        name, dot, parameter = where.strip().partition(".")
        if not given or not dot:
            raise UsageError(
                f"--set {text} is not of the form ANALYZER.PARAM=VALUE",
                hint="write it like --set risk.critical_at=0.8",
            )
        kind = known.get(name.lower().replace("_", "").replace("-", ""))
        if kind is None:
            raise UsageError(f"no analyzer {name}", hint=f"there are {', '.join(sorted(known))}")
        parameters = _parameters(kind)
        if parameter not in parameters:
            raise UsageError(
                f"{_short(kind)} has no parameter {parameter}",
                hint=f"it has {', '.join(parameters)}",
            )
        settings = found.setdefault(kind.__name__, {})
        settings[parameter] = _value(text, parameter, value.strip(), parameters[parameter])
    return found


def with_settings(engine: Engine, settings: Settings) -> Engine:
    """An engine with the same analyzers, some of them with other parameters.

    Raises:
        UsageError: an analyzer refuses a value, or another one stands in its place.
    """
    analyzers = {type(one).__name__ for one in engine.analyzers}
    for name in settings:
        if name not in analyzers:
            short = name.removesuffix("Analyzer").lower()
            raise UsageError(
                f"--set {short}: that analyzer does not run with the other options given",
                hint="leave --changepoints away",
            )
    return Engine([_with(one, settings.get(type(one).__name__, {})) for one in engine.analyzers])


def _with(analyzer: Analyzer, changed: Mapping[str, object]) -> Analyzer:
    kind = type(analyzer)
    if not changed:
        return analyzer
    parameters = {name: getattr(analyzer, name) for name in inspect.signature(kind).parameters}
    try:
        return kind(**{**parameters, **changed})
    except ValueError as error:
        names = ", ".join(f"{name}={value}" for name, value in changed.items())
        raise UsageError(
            f"{_short(kind)} refuses {names}: {error}", hint="choose another value"
        ) from error


def _short(kind: type) -> str:
    return kind.__name__.removesuffix("Analyzer").lower()


def _parameters(kind: type) -> dict[str, object]:
    """Those with a plain number, word or switch as default."""
    return {
        name: parameter.default
        for name, parameter in inspect.signature(kind).parameters.items()
        if isinstance(parameter.default, bool | int | float | str)
    }


def _value(text: str, parameter: str, value: str, default: object) -> object:
    hint = f"its default is {default}"
    if isinstance(default, bool):
        if value.lower() in {"true", "false"}:
            return value.lower() == "true"
        raise UsageError(f"--set {text}: {value!r} is neither true nor false", hint=hint)
    if isinstance(default, str):
        return value
    try:
        if parameter.endswith("_bytes"):
            return parse_size(value)
        if parameter.endswith("_s"):
            seconds = parse_duration(value)
            return seconds if isinstance(default, float) else round(seconds)
        number = int(value) if isinstance(default, int) else float(value)
    except UsageError as error:
        raise UsageError(f"--set {text}: {error.message}", hint=error.hint) from error
    except ValueError as error:
        raise UsageError(f"--set {text}: {value!r} is not a number", hint=hint) from error
    if not math.isfinite(number) or number < 0:
        raise UsageError(f"--set {text}: {value} is below 0 or not finite", hint=hint)
    return number


class CapacityAnalyzer(SweepAnalyzer):
    """Says when a GPU of another size would have run out, once for each GPU.

    Args:
        capacity_bytes: Total memory that every GPU is taken to have.
    """

    follows = DEVICES

    def __init__(self, *, capacity_bytes: int) -> None:
        super().__init__()
        self.capacity_bytes = capacity_bytes
        self._over: set[str] = set()

    def on_change(self, tick: int, change: Change) -> None:
        """The device holds another amount."""
        reserved = max(change.reserved, 0)
        if change.total != self.capacity_bytes or change.key.uuid in self._over:
            return
        if change.used + reserved <= self.capacity_bytes:
            return
        self._over.add(change.key.uuid)
        usable = format_bytes(max(0, self.capacity_bytes - reserved))
        said = (
            f"what if the GPU had {format_bytes(self.capacity_bytes)}: "
            f"{format_bytes(change.used)} were in use, {usable} could have been"
        )
        self.emit(
            Oom,
            tick,
            change.key,
            certainty="inferred",
            evidence=(said,),
        )


@dataclass(slots=True)
class _Device:
    gpu: int
    need_bytes: int = 0
    total_bytes: int = NULL
    warned_us: int | None = None
    tight_us: dict[SeriesKey, int] = field(default_factory=dict)
    ran_out: Oom | None = None
    lead_s: float | None = None
    tight_s: float | None = None
    # What the recorded run failed for, where more memory would have served it.
    refused: Observation | None = None


class WhatIf:
    """A replay under other conditions, and what came of it.

    Args:
        capacity_bytes: Total memory that every GPU is taken to have; None for the real one.
        settings: Parameters to change.
    """

    def __init__(self, capacity_bytes: int | None, settings: Settings) -> None:
        if capacity_bytes is not None and capacity_bytes <= 0:
            raise UsageError("--capacity 0 leaves nothing", hint="write it like --capacity 40GiB")
        self.capacity_bytes = capacity_bytes
        self.settings = settings
        self._devices: dict[str, _Device] = {}
        self._parents: set[str] = set()

    def conditions(self) -> str:
        """What is other than it was, in words."""
        words = []
        if self.capacity_bytes is not None:
            words.append(f"every GPU has {format_bytes(self.capacity_bytes)}")
        defaults = {kind.__name__: _parameters(kind) for kind in DEFAULT_ANALYZERS}
        for name, changed in self.settings.items():
            short = name.removesuffix("Analyzer").lower()
            words += [
                f"{short}.{parameter} is {value}, not {defaults[name][parameter]}"
                for parameter, value in changed.items()
            ]
        return "what if: " + "; ".join(words)

    def engine(self, engine: Engine) -> Engine:
        """`engine` with the settings, and with somebody who notices when memory runs out."""
        chosen = list(with_settings(engine, self.settings).analyzers)
        if self.capacity_bytes is not None:
            chosen.append(CapacityAnalyzer(capacity_bytes=self.capacity_bytes))
        return Engine(chosen)

    def blocks(self, blocks: Iterable[Block]) -> Iterator[Block]:
        """The stream as it would have been seen; what is used stays as it was."""
        self._devices, self._parents = {}, set()
        for block in blocks:
            self._parents.update(parent for parent in block.parents if parent is not None)
            self._look(block)
            yield block if self.capacity_bytes is None else self._resized(block)

    def _look(self, block: Block) -> None:
        for index in range(block.n_devices):
            uuid = block.keys[index].uuid
            if uuid in self._parents:
                self._devices.pop(uuid, None)
                continue
            device = self._devices.setdefault(uuid, _Device(block.gpus[index]))
            rows = block.series_rows(index)
            held = block.used[rows] + np.maximum(block.device["reserved_bytes"][rows], 0)
            device.need_bytes = max(device.need_bytes, int(held.max()))
            device.total_bytes = max(
                device.total_bytes, int(block.device["total_bytes"][rows].max())
            )

    def _resized(self, block: Block) -> Block:
        capacity = self.capacity_bytes or 0
        total = block.device["total_bytes"].copy()
        free = block.device["free_bytes"].copy()
        for index in range(block.n_devices):
            if block.keys[index].uuid in self._parents:
                continue
            rows = block.series_rows(index)
            used, reserved = block.used[rows], block.device["reserved_bytes"][rows]
            known = used != NULL
            total[rows] = np.where(known | (total[rows] != NULL), capacity, NULL)
            left = np.maximum(capacity - np.maximum(reserved, 0) - used, 0)
            free[rows] = np.where(known, left, NULL)
        return replace(
            block,
            device={**block.device, "total_bytes": total, "free_bytes": free},
            observations=tuple(
                entry for entry in block.observations if not self._would_fit(entry[1])
            ),
        )

    def _would_fit(self, seen: Observation) -> bool:
        """Whether a message of the recorded run would not have come, for there was more room."""
        data = seen.data or {}
        if seen.what != OOM_EVIDENCE or data.get("kind", "device") != "device":
            return False
        concerned = [device for uuid, device in self._devices.items() if seen.uuid in (None, uuid)]
        if not concerned or any(
            device.total_bytes == NULL or device.total_bytes >= (self.capacity_bytes or 0)
            for device in concerned
        ):
            return False
        if data.get("fatal", True) is True:
            for device in concerned:
                device.refused = device.refused or seen
        return True

    def events(self, stream: Iterable[Event]) -> Iterator[Event]:
        """The events, without what follows on a GPU after it would have run out."""
        over: set[str] = set()
        for event in stream:
            uuid = event.uuid or ""
            device = self._devices.get(uuid)
            if isinstance(event, Oom):
                if uuid in over:
                    continue
                if event.pid is None and event.certainty == "inferred":
                    over.add(uuid)
            if device is not None:
                _follow(device, event)
            yield event

    def summary(self, zone: tzinfo) -> list[str]:
        """One line for each GPU: whether it would have survived, how early it was warned."""
        devices = sorted(self._devices.items(), key=lambda item: (item[1].gpu, item[0]))
        return [self._outcome(device, zone) for _, device in devices]

    def _outcome(self, device: _Device, zone: tzinfo) -> str:
        words = f"gpu {device.gpu}: "
        oom, capacity = device.ran_out, self.capacity_bytes
        if oom is not None:
            ran = "would have run out" if capacity is not None else "ran out"
            words += f"{ran} at {format_time(oom.t_us, zone)}"
            words += f" with {format_bytes(capacity)}" if capacity is not None else ""
            if device.lead_s is None:
                words += ", without a warning"
            else:
                words += f", warned {format_duration(device.lead_s)} earlier"
            if device.tight_s is not None:
                words += f", a process TIGHT for {format_duration(device.tight_s)} before"
        else:
            would = "would have survived with" if capacity is not None else "did not run out of"
            size = capacity if capacity is not None else max(device.total_bytes, 0)
            words += f"{would} {format_bytes(size)}"
        words += f"; {format_bytes(device.need_bytes)} hold all that was ever in use and reserved"
        if device.refused is not None:
            asked = (device.refused.data or {}).get("requested_bytes")
            more = f" for want of {format_bytes(asked)} more" if isinstance(asked, int) else ""
            words += f", but the recorded run failed{more}, and what it would have taken later is not known"
        return words


def _follow(device: _Device, event: Event) -> None:
    """Since when there was a warning, and how early it was."""
    if isinstance(event, OomRiskChanged):
        if event.level == "none":
            device.warned_us = None
        elif device.warned_us is None:
            device.warned_us = event.t_us
    elif isinstance(event, VerdictChanged):
        key = SeriesKey(event.uuid or "", event.pid, event.start_time, event.life)
        if event.verdict == "OK":
            device.tight_us.pop(key, None)
        else:
            device.tight_us.setdefault(key, event.t_us)
    elif isinstance(event, Oom) and device.ran_out is None:
        device.ran_out = event
        if device.warned_us is not None:
            device.lead_s = (event.t_us - device.warned_us) / US_PER_S
        if device.tight_us:
            device.tight_s = (event.t_us - min(device.tight_us.values())) / US_PER_S
    elif event.kind == "process_exit":
        key = SeriesKey(event.uuid or "", event.pid, event.start_time, event.life)
        device.tight_us.pop(key, None)
