"""Files to questions and people, and those to the examples a model sees; no torch."""

from pulse_unlearn.data.datasets import (
    DATASETS,
    DatasetEntry,
    load_general,
    load_general_training,
    load_people,
)
from pulse_unlearn.data.prompts import PROFILES, PromptProfile
from pulse_unlearn.data.source import Dataset, Source

__all__ = [
    "DATASETS",
    "PROFILES",
    "Dataset",
    "DatasetEntry",
    "PromptProfile",
    "Source",
    "load_general",
    "load_general_training",
    "load_people",
]
