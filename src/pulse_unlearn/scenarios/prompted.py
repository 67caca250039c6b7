"""Prompt attacks: the model after unlearning, asked in ways that need neither weights nor training.

The retain model, asked alike, says what the wording does to a model that never knew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings
from pulse_unlearn.records import PROMPTINGS, Prompting
from pulse_unlearn.scenarios.evaluations import EVALUATIONS, last_operations
from pulse_unlearn.scenarios.plan import Evaluation, Operation
from pulse_unlearn.scenarios.planner import Planner
from pulse_unlearn.scenarios.retain_model import RETAIN_MODEL, Model, retain_model_of
from pulse_unlearn.scenarios.stages import Group


@EVALUATIONS.register("prompted")
class Prompted(Settings):
    """Every method's last model and the retain model about D_unlearn, asked in other ways.

    `few_shot` puts solved questions about other people in front of each; `answer_begun` begins the
    assistant's turn; `paraphrase_memory` and `paraphrase_quiz` put the question in other words;
    `blank_picture` and `swapped_picture` show a uniform picture or that of somebody else, also
    beside questions by name. Each is a condition of that name; the controls are
    `retain_model+few_shot`, ... A served system is asked as it is served. The target model, asked
    alike at request 0, says how much of what is known such a question can reach at all.
    """

    ways: Annotated[tuple[Prompting, ...], Field(min_length=1)] = PROMPTINGS
    shots: Annotated[int, Field(ge=1, le=16)] = 3
    """Solved questions in front of each with `few_shot`."""

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Yield a row for each way of asking a last model, its target and its retain model."""
        for operation in last_operations(planner):
            model = retain_model_of(planner, operation)
            for way in dict.fromkeys(self.ways):
                last = Model(operation.chain, operation.after, operation.model)
                forget = operation.forget
                asked = self._asked(planner, forget, way, last, served=operation.served)
                control = self._asked(planner, forget, way, model) if model else ""
                cell = replace(operation.cell, condition=way)
                row = Evaluation(
                    cell, operation, asked, operation.before, only=asked, never_knew=control
                )
                yield row
                if not operation.model:
                    yield self._before(planner, operation, way)
                if control:
                    of_control = replace(cell, condition=f"{RETAIN_MODEL}+{way}")
                    yield replace(row, cell=of_control, scores=control, never_knew="")

    def _before(self, planner: Planner, operation: Operation, way: Prompting) -> Evaluation:
        """Ask the target model in one way; all methods of a scenario share it."""
        cell = replace(operation.cell, request=0, condition=way)
        stem = f"seed{cell.seed}/{cell.scenario}/target"
        model = Model(operation.target, operation.before)
        target = self._asked(planner, operation.forget, way, model, stem=stem)
        return Evaluation(cell, operation, target, only=target)

    def _asked(
        self,
        planner: Planner,
        forget: Group,
        way: Prompting,
        model: Model,
        *,
        stem: str = "",
        served: tuple[str, ...] = (),
    ) -> str:
        """Ask a model about D_unlearn in one way; stages are named by `stem` or its own scores."""
        return planner.score(
            f"{stem or model.scored.removesuffix('/score')}/{way}/score",
            model.chain,
            (forget,),
            general=False,
            model=model.model,
            served=served,
            prompted=way,
            shots=self.shots if way == "few_shot" else 0,
        )
