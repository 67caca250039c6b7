"""The retain model: fine-tuned as the target model was, without D_unlearn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pulse_unlearn.config import RETAINED, Settings
from pulse_unlearn.records import Cell
from pulse_unlearn.scenarios.evaluations import EVALUATIONS
from pulse_unlearn.scenarios.plan import Evaluation, Operation
from pulse_unlearn.scenarios.planner import Planner
from pulse_unlearn.scenarios.stages import FinetuneStage, Group, ScoreStage

RETAIN_MODEL = RETAINED
"""The condition; `retain_model+...` is the same model under another condition besides."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a model is made up of, and the stage that scored it."""

    chain: tuple[str, ...]
    scored: str
    model: str = ""
    """Label of one that somebody else made."""


@EVALUATIONS.register(RETAIN_MODEL)
class RetainModel(Settings):
    """Scores the retain model on all that the target model is asked; one for each seed.

    It is what perfect unlearning would leave: the gold line in figures about D_unlearn, and the
    model that verdicts take for one that never knew. There is none for people who are known from
    pre-training or were taught by somebody else, unless an audit names one.
    """

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Yield the retain model's rows at request 0 of each cell that has one.

        Where later requests name more people, it is the one that never learned any of them.
        """
        rows: dict[Cell, Evaluation] = {}
        for number, operation in enumerate(planner.operations):
            model = retain_model_of(planner, operation)
            if model is None:
                continue
            planner.operations[number] = replace(operation, never_knew=model.scored)
            cell = replace(operation.cell, request=0, condition=RETAIN_MODEL)
            if cell not in rows or rows[cell].scores != model.scored:
                row = Evaluation(cell, operation, model.scored, operation.before, operation.after)
                rows[cell] = row
        yield from rows.values()


def retain_model_of(planner: Planner, operation: Operation) -> Model | None:
    """Add the retain model of an operation's target; None where nobody can train one."""
    if operation.model and operation.never_knew:
        return Model((), operation.never_knew, RETAIN_MODEL)
    target = planner.stages[operation.target[-1]] if operation.target else None
    asked = planner.stages[operation.before]
    if not isinstance(target, FinetuneStage) or not isinstance(asked, ScoreStage):
        return None
    gone = set(operation.forget.ids)
    stay = Group(tuple(name for name in target.learn.ids if name not in gone))
    name = f"{operation.stem}retain-model"
    stage = planner.finetune(operation.cell.seed, name, stay, settings=target.settings)
    chain = (*target.chain, stage)
    return Model(chain, planner.score(f"{name}/score", chain, asked.ask))
