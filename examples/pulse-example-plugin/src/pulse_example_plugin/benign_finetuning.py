"""An evaluation: does training on D_retain alone bring D_unlearn back?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import FinetuneSettings, LoraSettings, OptimiserSettings, Settings
from pulse_unlearn.scenarios import Evaluation, Planner


class BenignFinetuning(Settings):
    """Every model after unlearning, trained on D_retain a little more and asked again."""

    steps: Annotated[int, Field(ge=1)] = 10
    optimiser: OptimiserSettings = OptimiserSettings(learning_rate=1e-4)
    lora: LoraSettings = LoraSettings()

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Add a training and a scoring for each operation; yield the rows they give."""
        training = FinetuneSettings(
            individuals=1, steps=self.steps, optimiser=self.optimiser, lora=self.lora
        )
        for operation in planner.operations:
            stem = operation.after.removesuffix("/score") + "/benign"
            chain, seed = operation.chain, operation.cell.seed
            stage = planner.finetune(
                seed, f"{stem}/finetune", operation.retain, settings=training, chain=chain
            )
            asked = (operation.forget, operation.retain)
            scores = planner.score(f"{stem}/score", (*chain, stage), asked, general=False)
            cell = replace(operation.cell, condition=f"benign_finetuning:{self.steps}")
            yield Evaluation(cell, operation, scores, compared_to=operation.before)
