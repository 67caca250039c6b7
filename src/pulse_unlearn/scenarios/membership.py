"""Membership: people whom a model never learned, asked beside those it is to have forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from pulse_unlearn.config import Settings
from pulse_unlearn.scenarios.evaluations import EVALUATIONS, last_operations
from pulse_unlearn.scenarios.plan import Evaluation, Operation
from pulse_unlearn.scenarios.planner import Planner, draw
from pulse_unlearn.scenarios.retain_model import Model, retain_model_of
from pulse_unlearn.scenarios.stages import FinetuneStage, Group

MEMBERSHIP = "membership"


@EVALUATIONS.register(MEMBERSHIP)
class Membership(Settings):
    """Whether D_unlearn is told from never-learned people by how likely their answers are.

    The target model, every method's last model and the retain model are asked about fictional
    people whom none of them learned; whoever is unseen or retained was learned and will not do.
    What it measures stands in the models' own rows, as `membership_auc` and `membership_p`.
    """

    people: Annotated[int, Field(ge=2)] = 20
    """Never-learned people at most, drawn by seed; with fewer than ten there is no interval."""

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Have them asked of each model; yield no row of their own."""
        for operation in last_operations(planner):
            cell, free = operation.cell, _never_learned(planner, operation)
            if not free:
                planner.notes.append(
                    f"{MEMBERSHIP}: left out for {cell.method} in {cell.scenario}, as the data set "
                    "has no fictional people whom its target model never learned"
                )
                continue
            seed = planner.seed(cell.seed, "people")
            group = Group(draw(free, min(self.people, len(free)), seed, "never learned"))
            before = Model(operation.target, operation.before)
            after = Model(operation.chain, operation.after)
            for model in filter(None, (before, after, retain_model_of(planner, operation))):
                served = operation.served if model is after else ()
                stem = planner.stages[model.scored].name.removesuffix("/score")
                own = f"seed{cell.seed}/"
                planner.never_learned[model.scored] = planner.score(
                    f"{stem if stem.startswith(own) else own + stem}/never-learned/score",
                    model.chain,
                    (group,),
                    general=False,
                    model=model.model,
                    served=served,
                )
        yield from ()


def _never_learned(planner: Planner, operation: Operation) -> tuple[str, ...]:
    """Return fictional people whom a target model never learned; nobody where that is not known."""
    taught = [planner.stages[name] for name in operation.target]
    learned = {
        one for stage in taught if isinstance(stage, FinetuneStage) for one in stage.learn.ids
    }
    fictional = planner.roster.fictional
    named = {*operation.forget.ids}
    if operation.model or (not learned and named & {*fictional}):
        return ()
    return tuple(one for one in fictional if one not in learned | named)
