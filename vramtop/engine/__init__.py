"""Blocks to events: one engine for live, replay and every companion."""
