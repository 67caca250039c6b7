"""The experiment: typed settings, YAML and `--set`, all errors at once."""

from pulse_unlearn.config.load import (
    dump_experiment,
    load_experiment,
    parse_experiment,
    shipped_experiments,
)
from pulse_unlearn.config.schema import (
    EMBEDDED,
    Experiment,
    FinetuneSettings,
    LoraSettings,
    MethodEntry,
    ModelSettings,
    OptimiserSettings,
    PeopleSettings,
    PretrainedScenario,
    Scope,
    ScoringSettings,
    Settings,
    SpeedSettings,
    StopSettings,
    UnlearnSettings,
)

__all__ = [
    "EMBEDDED",
    "Experiment",
    "FinetuneSettings",
    "LoraSettings",
    "MethodEntry",
    "ModelSettings",
    "OptimiserSettings",
    "PeopleSettings",
    "PretrainedScenario",
    "Scope",
    "ScoringSettings",
    "Settings",
    "SpeedSettings",
    "StopSettings",
    "UnlearnSettings",
    "dump_experiment",
    "load_experiment",
    "parse_experiment",
    "shipped_experiments",
]
