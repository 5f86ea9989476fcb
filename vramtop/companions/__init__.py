"""Processes that follow a recording and act on it; they can die without costing a tick."""
