"""Colours. Neighbours in a stack differ in lightness, so they survive greyscale and print."""

from __future__ import annotations

from dataclasses import dataclass

PROCESSES = (
    "#1f5f99", "#f0b44c", "#0b7a6b", "#a8d5ee", "#8f3b76", "#e3cfa0", "#4a4a8f", "#a4d08e",
)  # fmt: skip
"""Fills of process layers from the bottom up: dark and light by turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """Colours of a figure, as `#rrggbb`."""

    paper: str
    ink: str
    faint: str
    grid: str
    others: str
    unattributed: str
    reserved: str
    limit: str
    used: str
    oom: str
    warning: str
    critical: str
    mark: str
    gap: str
    simulated: str


LIGHT = Theme(
    paper="#ffffff",
    ink="#1b1f24",
    faint="#57606a",
    grid="#d8dee4",
    others="#9aa3ad",
    unattributed="#5c6670",
    reserved="#8a939c",
    limit="#1b1f24",
    used="#000000",
    oom="#c8102e",
    warning="#f5c518",
    critical="#e5533d",
    mark="#6f42c1",
    gap="#7d8791",
    simulated="#c8102e",
)
DARK = Theme(
    paper="#14181d",
    ink="#e8ebee",
    faint="#a3adb8",
    grid="#333b44",
    others="#6b7580",
    unattributed="#b9c2cb",
    reserved="#7d8791",
    limit="#e8ebee",
    used="#ffffff",
    oom="#ff6b6b",
    warning="#f5c518",
    critical="#ff7a5c",
    mark="#c3a6ff",
    gap="#8a949e",
    simulated="#ff6b6b",
)


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour, 0-1 (WCAG 2.1).

    >>> round(luminance("#ffffff"), 3), round(luminance("#000000"), 3)
    (1.0, 0.0)
    """
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in channels
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
