"""The protocol as pure data: individuals and a seed become splits, requests and ordered stages.

Nothing here touches a tensor or a file, so a plan can be printed, hashed and compared before
anything is spent.
"""

from pulse_unlearn.scenarios.adapter_off import ADAPTER_OFF, AdapterOff
from pulse_unlearn.scenarios.build import SCENARIOS, Scenario, build_plan
from pulse_unlearn.scenarios.evaluations import EVALUATIONS, Condition
from pulse_unlearn.scenarios.membership import Membership
from pulse_unlearn.scenarios.plan import (
    Evaluation,
    Operation,
    Plan,
    Roster,
    by_turn,
)
from pulse_unlearn.scenarios.planner import ARM, Planner, Target, derive_seed
from pulse_unlearn.scenarios.probing import Probing
from pulse_unlearn.scenarios.prompted import Prompted
from pulse_unlearn.scenarios.quantised import Quantised
from pulse_unlearn.scenarios.relearning import Relearning
from pulse_unlearn.scenarios.retain_model import RETAIN_MODEL, RetainModel
from pulse_unlearn.scenarios.same_checkpoint import OTHER_ARM, SAME_CHECKPOINT, arms_of
from pulse_unlearn.scenarios.stages import (
    AUDITED,
    ChoosingStage,
    FinetuneStage,
    Group,
    MatchStage,
    ProbeStage,
    ScoreStage,
    SelectStage,
    Stage,
    TrainingStage,
    UnlearnStage,
    View,
)
from pulse_unlearn.scenarios.trajectory import STEP, TRAJECTORY, Trajectory

__all__ = [
    "ADAPTER_OFF",
    "ARM",
    "AUDITED",
    "EVALUATIONS",
    "OTHER_ARM",
    "RETAIN_MODEL",
    "SAME_CHECKPOINT",
    "SCENARIOS",
    "STEP",
    "TRAJECTORY",
    "AdapterOff",
    "ChoosingStage",
    "Condition",
    "Evaluation",
    "FinetuneStage",
    "Group",
    "MatchStage",
    "Membership",
    "Operation",
    "Plan",
    "Planner",
    "ProbeStage",
    "Probing",
    "Prompted",
    "Quantised",
    "Relearning",
    "RetainModel",
    "Roster",
    "Scenario",
    "ScoreStage",
    "SelectStage",
    "Stage",
    "Target",
    "TrainingStage",
    "Trajectory",
    "UnlearnStage",
    "View",
    "arms_of",
    "build_plan",
    "by_turn",
    "derive_seed",
]
