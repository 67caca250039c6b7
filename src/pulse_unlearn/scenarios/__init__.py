"""The protocol as pure data: individuals and a seed become splits, requests and ordered stages.

Nothing here touches a tensor or a file, so a plan can be printed, hashed and compared before
anything is spent.
"""

from pulse_unlearn.scenarios.build import SCENARIOS, Scenario, build_plan, derive_seed
from pulse_unlearn.scenarios.plan import (
    Group,
    Operation,
    Plan,
    Roster,
    Stage,
    StageKind,
    View,
)

__all__ = [
    "SCENARIOS",
    "Group",
    "Operation",
    "Plan",
    "Roster",
    "Scenario",
    "Stage",
    "StageKind",
    "View",
    "build_plan",
    "derive_seed",
]
