"""Blocks to events: one engine for live, replay and every companion."""

from vramtop.engine.engine import Engine

__all__ = ["Engine"]
