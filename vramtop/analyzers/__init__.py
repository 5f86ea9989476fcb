"""Streaming analyzers."""
