"""The relearning attack: teach half of the forgotten facts again, ask for the other half.

What was only hidden comes back with little teaching (arXiv 2406.13356); what is gone does not. The
retain model under the same attack says what gone looks like: it never knew either half.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pulse_unlearn.config import (
    FinetuneSettings,
    LoraSettings,
    OptimiserSettings,
    Scope,
    Settings,
    Update,
)
from pulse_unlearn.scenarios.evaluations import EVALUATIONS, RisingSteps, last_operations
from pulse_unlearn.scenarios.plan import Evaluation, Operation
from pulse_unlearn.scenarios.planner import Planner, derive_seed
from pulse_unlearn.scenarios.retain_model import RETAIN_MODEL, Model, retain_model_of

RELEARNED = "relearned"
"""The condition is `relearned:STEP`; `retain_model+relearned:STEP` is the control."""


@EVALUATIONS.register("relearning")
class Relearning(Settings):
    """Relearning curves of every method after its last request, beside the retain model's.

    Questions of one fact, the same true answer, stay in one half. The training is multiple choice
    in option orders and on pictures that are never scored. Whoever holds the weights of a served
    system does without its router or guard: what is attacked there is the model inside.
    """

    steps: RisingSteps = (5, 10, 20, 40)
    """After how many optimiser steps the other half is asked for; step 0 is always measured."""
    scope: Scope = "projector+llm"
    update: Update = "lora"
    lora: LoraSettings = LoraSettings()
    optimiser: OptimiserSettings = OptimiserSettings(
        learning_rate=1e-3, batch_size=32, micro_batch_size=8
    )

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Yield a curve for each method's last model, and one for each retain model."""
        for operation in last_operations(planner):
            stem = planner.stages[operation.after].name.removesuffix("/score")
            curve = [
                *self._curve(
                    planner, operation, stem, attacked_model(operation), condition=RELEARNED
                )
            ]
            model = retain_model_of(planner, operation)
            if model is None:
                yield from curve
                continue
            control = [
                *self._curve(
                    planner,
                    operation,
                    planner.stages[model.scored].name.removesuffix("/score"),
                    model,
                    condition=f"{RETAIN_MODEL}+{RELEARNED}",
                )
            ]
            for one, gone in zip(curve, control, strict=True):
                yield replace(one, never_knew=gone.scores)
            yield from control

    def _curve(
        self,
        planner: Planner,
        operation: Operation,
        stem: str,
        attacked: Model,
        *,
        condition: str,
    ) -> Iterator[Evaluation]:
        """Teach one half to a model, and ask for the other on the way."""
        seed = operation.cell.seed
        halves = derive_seed(planner.seed(seed, "people"), "relearning")
        stage = planner.finetune(
            seed,
            f"{stem}/relearn",
            operation.forget,
            settings=self._training(),
            chain=attacked.chain,
            facts="taught",
            facts_seed=halves,
            snapshots=self.steps,
            model=attacked.model,
        )
        asked = [
            planner.score(
                f"{stem}/relearn/score-step{step}",
                (*attacked.chain, stage),
                (operation.forget,),
                general=False,
                facts="held_back",
                facts_seed=halves,
                step=step,
                model=attacked.model,
            )
            for step in self.steps
        ]
        for step, scores in ((0, attacked.scored), *zip(self.steps, asked, strict=True)):
            cell = replace(operation.cell, condition=f"{condition}:{step}")
            yield Evaluation(cell, operation, scores, operation.before, only=asked[0])

    def _training(self) -> FinetuneSettings:
        return FinetuneSettings(
            individuals=1,
            scope=self.scope,
            forms="multiple_choice",
            update=self.update,
            lora=self.lora,
            optimiser=self.optimiser,
            steps=self.steps[-1],
        )


def attacked_model(operation: Operation) -> Model:
    """Return the model an attacker holds, and its scores: of a served system that inside."""
    scored = operation.before if operation.served else operation.after
    return Model(operation.chain, scored, operation.model)
