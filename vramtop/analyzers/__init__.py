"""Streaming analyzers: state in, events out.

To add one: write its file, list it here. The contract suite finds it and tries it with random
chunkings, single ticks, no devices, vanished processes, gaps and missing readings. Order
matters: an analyzer sees the signals of those before it.
"""

from __future__ import annotations

from vramtop.analyzers.changepoints import ChangepointAnalyzer
from vramtop.analyzers.gaps import GapAnalyzer
from vramtop.analyzers.holders import IdleHolderAnalyzer
from vramtop.analyzers.leak import LeakAnalyzer
from vramtop.analyzers.observed import ObservedAnalyzer
from vramtop.analyzers.oom import OomAnalyzer
from vramtop.analyzers.orphans import OrphanAnalyzer
from vramtop.analyzers.phase import PhaseAnalyzer
from vramtop.analyzers.risk import RiskAnalyzer
from vramtop.analyzers.service import ServiceAnalyzer
from vramtop.analyzers.verdict import VerdictAnalyzer

DEFAULT_ANALYZERS = (
    ObservedAnalyzer,
    GapAnalyzer,
    PhaseAnalyzer,
    ChangepointAnalyzer,
    LeakAnalyzer,
    RiskAnalyzer,
    VerdictAnalyzer,
    OomAnalyzer,
    IdleHolderAnalyzer,
    OrphanAnalyzer,
    ServiceAnalyzer,
)
VERSION = 3
"""Raised when the same recording may give other events; part of the live digest."""
