"""Relearning attacks: teach a model again, and ask what was to be forgotten.

What was only hidden comes back with little teaching (arXiv 2406.13356), of half of the facts or of
what has nothing to do with them; what is gone does not. The retain model under the same attack says
what gone looks like: it never knew either half.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

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
from pulse_unlearn.scenarios.stages import NOBODY, Group

RELEARNED = "relearned"
"""The condition is `relearned:STEP`; `retain_model+relearned:STEP` is the control."""
Teach = Literal["forgotten_half", "d_retain", "general"]
CONDITIONS: dict[Teach, str] = {
    "forgotten_half": RELEARNED,
    "d_retain": f"{RELEARNED}_retain",
    "general": f"{RELEARNED}_general",
}
"""What is taught -> the condition, in front of `@RATE` for a further learning rate, and `:STEP`."""
_STAGES: dict[Teach, str] = {
    "forgotten_half": "relearn",
    "d_retain": "relearn-retain",
    "general": "relearn-general",
}


@dataclass(frozen=True, slots=True)
class _Attack:
    """What is taught, and how fast."""

    teach: Teach
    rate: float | None
    """A further learning rate; None for the optimiser's own."""

    @property
    def stage(self) -> str:
        return _STAGES[self.teach] + ("" if self.rate is None else f"-lr{self.rate:g}")

    @property
    def condition(self) -> str:
        return CONDITIONS[self.teach] + ("" if self.rate is None else f"@{self.rate:g}")

    @property
    def halves(self) -> bool:
        """Whether one half of the facts is taught and the other asked for."""
        return self.teach == "forgotten_half"

    def learn(self, operation: Operation) -> Group:
        """Return whom the attacker has questions about."""
        of = {"forgotten_half": operation.forget, "d_retain": operation.retain}
        return of.get(self.teach, NOBODY)


@EVALUATIONS.register("relearning")
class Relearning(Settings):
    """Relearning curves of every method after its last request, beside the retain model's.

    Questions of one fact, the same true answer, stay in one half. The training is multiple choice
    in option orders and on pictures that are never scored. Whoever holds the weights of a served
    system does without its router or guard: what is attacked there is the model inside.
    """

    steps: RisingSteps = (5, 10, 20, 40)
    """After how many optimiser steps D_unlearn is asked about; step 0 is always measured."""
    teach: Annotated[tuple[Teach, ...], Field(min_length=1)] = ("forgotten_half",)
    """What is taught, an attack each. `forgotten_half` teaches half of the facts about D_unlearn
    and asks for the other half; `d_retain` teaches D_retain and `general` the general training
    questions, and D_unlearn is asked about all its facts."""
    learning_rates: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Further learning rates, a curve each beside that of `optimiser`; the worst counts."""
    ask_taught: bool = False
    """Whether the half that is taught is asked as well, so that models are compared where as much
    was taught and not only after as many steps."""
    scope: Scope = "projector+llm"
    update: Update = "lora"
    lora: LoraSettings = LoraSettings()
    optimiser: OptimiserSettings = OptimiserSettings(
        learning_rate=1e-3, batch_size=32, micro_batch_size=8
    )

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Yield the curves of each method's last model, and those of each retain model."""
        for operation in last_operations(planner):
            for attack in self._attacks():
                if attack.teach == "d_retain" and operation.retain == NOBODY:
                    cell = operation.cell
                    planner.notes.append(
                        f"relearning: D_retain is not taught to {cell.method} in {cell.scenario}, "
                        "where nobody is in it"
                    )
                    continue
                yield from self._beside_control(planner, operation, attack)

    def _attacks(self) -> Iterator[_Attack]:
        further = [rate for rate in self.learning_rates if rate != self.optimiser.learning_rate]
        for teach in dict.fromkeys(self.teach):
            for rate in (None, *dict.fromkeys(further)):
                yield _Attack(teach, rate)

    def _beside_control(
        self, planner: Planner, operation: Operation, attack: _Attack
    ) -> Iterator[Evaluation]:
        """Yield one curve of a method, each point held against the retain model's, and that."""
        stem = planner.stages[operation.after].name.removesuffix("/score")
        curve = [*self._curve(planner, operation, stem, attacked_model(operation), attack)]
        model = retain_model_of(planner, operation)
        if model is None:
            yield from curve
            return
        stem = planner.stages[model.scored].name.removesuffix("/score")
        control = [*self._curve(planner, operation, stem, model, attack)]
        for one, gone in zip(curve, control, strict=True):
            yield replace(one, never_knew=gone.scores)
        for gone in control:
            of_control = replace(gone.cell, condition=f"{RETAIN_MODEL}+{gone.cell.condition}")
            yield replace(gone, cell=of_control)

    def _curve(
        self,
        planner: Planner,
        operation: Operation,
        stem: str,
        attacked: Model,
        attack: _Attack,
    ) -> Iterator[Evaluation]:
        """Teach a model, and ask it about D_unlearn on the way."""
        seed = operation.cell.seed
        halves = derive_seed(planner.seed(seed, "people"), "relearning") if attack.halves else 0
        name = f"{stem}/{attack.stage}"
        stage = planner.finetune(
            seed,
            name,
            attack.learn(operation),
            settings=self._training(attack),
            chain=attacked.chain,
            facts="taught" if attack.halves else "all",
            facts_seed=halves,
            snapshots=self.steps,
            model=attacked.model,
        )

        def ask(half: Literal["taught", "held_back"], kind: str) -> list[str]:
            return [
                planner.score(
                    f"{name}/{kind}-step{step}",
                    (*attacked.chain, stage),
                    (operation.forget,),
                    general=False,
                    facts=half if attack.halves else "all",
                    facts_seed=halves,
                    step=step,
                    model=attacked.model,
                )
                for step in self.steps
            ]

        asked = ask("held_back", "score")
        taught = ask("taught", "taught") if self.ask_taught and attack.halves else []
        for number, step in enumerate((0, *self.steps)):
            cell = replace(operation.cell, condition=f"{attack.condition}:{step}")
            yield Evaluation(
                cell,
                operation,
                asked[number - 1] if number else attacked.scored,
                operation.before,
                only=asked[0],
                taught=(taught[number - 1] if number else attacked.scored) if taught else "",
            )

    def _training(self, attack: _Attack) -> FinetuneSettings:
        optimiser = self.optimiser
        if attack.rate is not None:
            optimiser = optimiser.model_copy(update={"learning_rate": attack.rate})
        return FinetuneSettings(
            individuals=1,
            scope=self.scope,
            forms="multiple_choice",
            update=self.update,
            lora=self.lora,
            optimiser=optimiser,
            steps=self.steps[-1],
            replay=1.0 if attack.teach == "general" else 0.0,
        )


def attacked_model(operation: Operation) -> Model:
    """Return the model an attacker holds, and its scores: of a served system that inside."""
    scored = operation.before if operation.served else operation.after
    return Model(operation.chain, scored, operation.model)
