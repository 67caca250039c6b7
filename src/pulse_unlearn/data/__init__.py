"""Files to questions and people, and those to the examples a model sees; no torch."""

from pulse_unlearn.data.datasets import (
    DATASETS,
    DatasetEntry,
    load_general,
    load_general_training,
    load_people,
)
from pulse_unlearn.data.examples import (
    Forms,
    circular,
    general_training,
    other_view,
    scored,
    training,
)
from pulse_unlearn.data.images import check_picture, check_pictures, decode, picture_from_bytes
from pulse_unlearn.data.leaks import find_overlaps, find_trained_on_scored
from pulse_unlearn.data.prompts import PROFILES, PromptProfile, render, render_short_answer
from pulse_unlearn.data.source import Dataset, Source

__all__ = [
    "DATASETS",
    "PROFILES",
    "Dataset",
    "DatasetEntry",
    "Forms",
    "PromptProfile",
    "Source",
    "check_picture",
    "check_pictures",
    "circular",
    "decode",
    "find_overlaps",
    "find_trained_on_scored",
    "general_training",
    "load_general",
    "load_general_training",
    "load_people",
    "other_view",
    "picture_from_bytes",
    "render",
    "render_short_answer",
    "scored",
    "training",
]
