"""What would make the numbers misleading: refused before training, or noted beside them."""

from __future__ import annotations

from collections.abc import Iterable

from pulse_unlearn.data.leaks import find_overlaps, find_trained_on_scored
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.scenarios import Plan

Sides = tuple[tuple[str, ...], tuple[str, ...]]
"""Ids to forget, ids to retain."""


def known_sides(plan: Plan) -> list[Sides]:
    """Return the two sides of every operation whose people are known before the run."""
    sides = {
        (operation.forget.ids, operation.retain.ids)
        for operation in plan.operations
        if not operation.forget.selection
    }
    return sorted(sides)


def check_overlaps(inputs: Inputs, sides: Iterable[Sides]) -> None:
    """Raise DataError if someone stands on both sides, unless the experiment allows it."""
    problems = _overlaps(inputs, sides)
    if problems and not inputs.experiment.data.allow_overlap:
        raise DataError(problems)


def leak_notes(inputs: Inputs, sides: Iterable[Sides]) -> list[str]:
    """Return what a reader must know: allowed overlaps, and scored material that is trained on."""
    notes = [str(problem) for problem in _overlaps(inputs, sides)]
    used = {identity for side in sides for part in side for identity in part}
    trained = find_trained_on_scored(
        [inputs.people[identity] for identity in sorted(used)],
        general=inputs.general,
        general_training=inputs.general_training,
    )
    return notes + [str(problem) for problem in trained]


def _overlaps(inputs: Inputs, sides: Iterable[Sides]) -> list[Problem]:
    problems = []
    for pair in sides:
        forget, retain = ([inputs.people[identity] for identity in ids] for ids in pair)
        problems += find_overlaps(forget, retain)
    return problems
