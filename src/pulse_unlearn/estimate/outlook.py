"""What a plan would take, and whether its model would be accepted: what `pulse plan` tells."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_unlearn.errors import ModelError, Problem, SizesUnknown
from pulse_unlearn.estimate.sizes import SizedModel, describe
from pulse_unlearn.estimate.stages import StageEstimate, estimate_stages
from pulse_unlearn.models.loading import look_at_model
from pulse_unlearn.pipeline.inputs import Inputs

ASSUMED_RATES = {"float32": 0.1, "bfloat16": 100.0, "float16": 100.0}
"""10^12 operations a second: two CPU cores (the demo reaches 0.13), a third of an A100's peak."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """Sizes and work of a plan, as far as they can be told."""

    model: SizedModel | None = None
    stages: tuple[StageEstimate, ...] = ()
    unknown: str = ""
    """Why there are no sizes, or no work; empty if there are."""
    refused: tuple[Problem, ...] = ()
    """Why a run would not accept the model; empty if, by its small files, it would."""
    on_trial: str = ""
    """What only its weights can show, once it is loaded."""

    @property
    def memory(self) -> float:
        """Bytes on the device at the peak."""
        return max((sum(stage.memory.values()) for stage in self.stages if stage.memory), default=0)

    @property
    def disk(self) -> float:
        """Bytes in the run folder at the peak."""
        passing = max((stage.passing_bytes for stage in self.stages), default=0)
        return sum(stage.kept_bytes for stage in self.stages) + passing

    def seconds(self, dtype: str) -> float:
        """Return the model time at the rate assumed for a data type."""
        return sum(stage.operations for stage in self.stages) / (ASSUMED_RATES[dtype] * 1e12)


def look_ahead(inputs: Inputs) -> Outlook:
    """Return what the plan takes; no weight is loaded and the hub is not asked."""
    settings, unknown, on_trial = inputs.experiment.model, "", ""
    model: SizedModel | None = None
    stages: tuple[StageEstimate, ...] = ()
    try:
        try:
            model = describe(settings)
            stages = estimate_stages(inputs, model)
        except SizesUnknown as error:
            unknown = str(error)
        files = look_at_model(settings)
        on_trial = files.on_trial if files else ""
    except ModelError as error:
        return Outlook(model, stages, unknown, refused=error.problems)
    return Outlook(model, stages, unknown, on_trial=on_trial)
