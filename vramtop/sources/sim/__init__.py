"""Simulated GPUs: PyTorch's allocator under real workloads, deterministic per seed.

Standard library only, because the recorder process may load it.
"""

from vramtop.sources.sim.scenario import Scenario
from vramtop.sources.sim.scenarios import SCENARIOS
from vramtop.sources.sim.source import SimSource

__all__ = ["SCENARIOS", "Scenario", "SimSource"]
