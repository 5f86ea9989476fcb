"""The scenarios by name.

To add one: write or choose a workload, add a function that fills a machine, and list it in the
table of its sort (`scenarios_*.py`). A change that alters what a seed gives raises the
scenario's `version`.
"""

from __future__ import annotations

import difflib

from vramtop.errors import UsageError
from vramtop.sources.sim.scenario import Scenario
from vramtop.sources.sim.scenarios_serving import SERVING
from vramtop.sources.sim.scenarios_shared import SHARED
from vramtop.sources.sim.scenarios_training import TRAINING

SCENARIOS: dict[str, Scenario] = {
    scenario.name: scenario for scenario in (*TRAINING, *SERVING, *SHARED)
}
"""All scenarios by name, in the order in which they are listed."""


def scenario_named(name: str) -> Scenario:
    """The scenario of that name.

    Raises:
        UsageError: there is none; the hint names the nearest one.
    """
    found = SCENARIOS.get(name)
    if found is None:
        near = difflib.get_close_matches(name, SCENARIOS, n=1, cutoff=0.3)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"there is no scenario {name!r}", hint=f"{meant}vramtop simulate --list names them all"
        )
    return found
