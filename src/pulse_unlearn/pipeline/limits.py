"""Which accuracy a stop rule asks for: measured once, before any request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.pipeline.asked import PREDICTIONS
from pulse_unlearn.pipeline.decisions import accuracy_of
from pulse_unlearn.pipeline.stage_context import StageContext
from pulse_unlearn.records import Example
from pulse_unlearn.scenarios import UnlearnStage


@dataclass(frozen=True, slots=True)
class Limit:
    """What accuracy a stop rule asks for, and the target model's own on the same questions."""

    before: float
    accuracy: float


def limit_of(context: StageContext[UnlearnStage], unseen: Sequence[Example]) -> Limit:
    """Return the accuracy to stop at: measured once on the target model, never below chance."""
    stop = context.stage.settings.stop
    asked = read_predictions(context.folder_of(context.stage.before) / PREDICTIONS)
    before = accuracy_of(
        asked,
        frozenset(example.example_id for example in unseen),
        decides=context.stage.decides,
    )
    limit = before * (1 - (stop.target_forgetting or 0.0))
    if stop.floor == "chance":
        limit = max(limit, fmean(1 / len(example.options) for example in unseen))
    return Limit(before, limit)
