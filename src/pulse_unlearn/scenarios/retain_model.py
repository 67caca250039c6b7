"""The retain model: made as the target model was, without D_unlearn.

Where the target was fine-tuned here, it is fine-tuned again without the people; where it was not, a
scenario's `retain_model` may name one that somebody else made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from pulse_unlearn.config import RETAINED, Settings
from pulse_unlearn.records import Cell
from pulse_unlearn.scenarios.evaluations import EVALUATIONS
from pulse_unlearn.scenarios.plan import Evaluation, Operation
from pulse_unlearn.scenarios.planner import Planner
from pulse_unlearn.scenarios.stages import NOBODY, FinetuneStage, Group, ScoreStage

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
    model that verdicts take for one that never knew. People who are known from pre-training, or
    were taught by somebody else, have one where their scenario or an audit names it.
    """

    each_request: bool = False
    """Whether a sequence has one for each request k, which never learned the people of requests 1
    to k and knows all others: a fine-tuning and its scores more for every request but the last.
    Without it all requests share the one that never learned any of them. Named requests have one
    each at all times, so that a later request changes none."""

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Yield the retain model's rows at request 0 of each cell that has one.

        Where later requests name more people, it is the one that never learned any of them. What
        other requests have of their own stands at their number, under the first method alone.
        """
        rows: dict[Cell, Evaluation] = {}
        sequences: dict[tuple[str, int], dict[int, Evaluation]] = defaultdict(dict)
        for number, operation in enumerate(planner.operations):
            model = retain_model_of(planner, operation, each_request=self.each_request)
            if model is None:
                continue
            planner.operations[number] = replace(operation, never_knew=model.scored)
            cell = replace(operation.cell, condition=RETAIN_MODEL)
            own = Evaluation(cell, operation, model.scored, operation.before, operation.after)
            sequences[cell.scenario, cell.seed].setdefault(cell.request, own)
            start = replace(cell, request=0)
            if start not in rows or rows[start].scores != model.scored:
                rows[start] = replace(own, cell=start)
        yield from rows.values()
        for by_request in sequences.values():
            if len({row.scores for row in by_request.values()}) > 1:
                yield from by_request.values()


def retain_model_of(
    planner: Planner, operation: Operation, *, each_request: bool = False
) -> Model | None:
    """Add the retain model of an operation's target; None where nobody can train one.

    That of a sequence never learned any of its people; `each_request`, those named so far.
    """
    named = planner.stages.get(operation.never_knew)
    if named is not None and named.model:
        return Model((), named.name, named.model)
    target = planner.stages[operation.target[-1]] if operation.target else None
    asked = planner.stages[operation.before]
    if not isinstance(target, FinetuneStage) or not isinstance(asked, ScoreStage):
        return None
    name, gone = f"{operation.stem}retain-model", {*operation.forget.ids}
    if operation.forget.selection and operation.not_forgotten == NOBODY:
        return None
    if each_request:
        turn = operation.cell.request
        so_far = {one for group in operation.requests[:turn] for one in group.ids}
        if so_far < gone:
            name, gone = f"{operation.stem}request{turn}/retain-model", so_far
    stay = operation.not_forgotten
    if not operation.forget.selection:
        stay = Group(tuple(one for one in target.learn.ids if one not in gone))
    stage = planner.finetune(operation.cell.seed, name, stay, settings=target.settings)
    chain = (*target.chain, stage)
    return Model(chain, planner.score(f"{name}/score", chain, asked.ask))
