"""Scores along an operation: where a method stands at each step between before and its end.

Methods stop at different points, and one stopping point says little of a method. Along the way they
can be compared where they have forgotten as much, and as a frontier of what is forgotten and kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from pulse_unlearn.config import Settings
from pulse_unlearn.scenarios.evaluations import EVALUATIONS, RisingSteps, last_operations
from pulse_unlearn.scenarios.plan import Evaluation, Operation
from pulse_unlearn.scenarios.planner import Planner
from pulse_unlearn.scenarios.stages import ScoreStage, UnlearnStage

TRAJECTORY, STEP = "trajectory", "step"
"""The condition is `step:N`; that of the stage that goes the way once more is `trajectory`."""


@EVALUATIONS.register(TRAJECTORY)
class Trajectory(Settings):
    """Scores after some steps of each method's last request, on all that is asked after its end.

    The operation is trained once more, from the same seeds in the same order, and kept on the way:
    the operation itself stays as it is, and a finished one is not computed anew. Steps that a
    method cannot reach (`unlearn.stop.max_steps`) are left out, and so are methods that have no
    model on the way, only an end: systems that serve, edits without steps, what others unlearned.
    """

    steps: RisingSteps = (5, 10, 20, 40)
    """After how many optimiser steps everything is asked; step 0 and the end are there already."""

    def plan(self, planner: Planner) -> Iterator[Evaluation]:
        """Yield the model at step 0 and after each step; the end is the operation's own row."""
        for operation in last_operations(planner):
            label, unlearn = operation.cell.method, planner.stages.get(operation.unlearn)
            if not isinstance(unlearn, UnlearnStage):
                why = "which somebody else made"
            elif operation.served:
                why = "which changes what is served and has no steps"
            elif label in planner.stepless:
                why = "whose steps are not on the way to its end"
            else:
                steps = [one for one in self.steps if one < unlearn.settings.stop.max_steps]
                if steps:
                    yield from self._along(planner, operation, unlearn, tuple(steps))
                    continue
                why = f"which ends after {unlearn.settings.stop.max_steps} steps or fewer"
            planner.notes.append(f"{TRAJECTORY}: left out for {label}, {why}")

    def _along(
        self,
        planner: Planner,
        operation: Operation,
        unlearn: UnlearnStage,
        steps: tuple[int, ...],
    ) -> Iterator[Evaluation]:
        asked = planner.stages[operation.after]
        if not isinstance(asked, ScoreStage):
            raise TypeError(f"{asked.name} scores nobody")
        cell = operation.cell
        stem = unlearn.name.removesuffix("/unlearn")
        again = planner.add(
            replace(
                unlearn,
                name=f"{stem}/{TRAJECTORY}",
                snapshots=steps,
                cell=replace(cell, condition=TRAJECTORY),
            )
        )
        scored = {
            step: planner.score(
                f"{stem}/{TRAJECTORY}/score-step{step}",
                (*unlearn.chain, again),
                asked.ask,
                general=asked.general,
                step=step,
            )
            for step in steps
        }
        for step, scores in ((0, _start(planner, operation)), *scored.items()):
            at = replace(cell, condition=f"{STEP}:{step}")
            yield Evaluation(at, operation, scores, operation.before, only=operation.after)


def _start(planner: Planner, operation: Operation) -> str:
    """Return what scored the model that the operation began with."""
    earlier = replace(operation.cell, request=operation.cell.request - 1)
    found = (one.after for one in planner.operations if one.cell == earlier)
    return next(found, operation.before)
