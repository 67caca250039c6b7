"""What would make the numbers misleading: refused before training, or noted beside them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pulse_unlearn.data.leaks import find_overlaps, find_trained_on_scored
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.scenarios import Group, Operation, Plan

Sides = tuple[tuple[str, ...], tuple[str, ...]]
"""Ids to forget, ids to retain."""


def known_sides(plan: Plan) -> list[Sides]:
    """Return the two sides of every operation whose people are known before the run."""
    known = [operation for operation in plan.operations if not operation.forget.selection]
    return _sides(known, lambda group: group.ids)


def all_sides(plan: Plan, resolve: Callable[[Group], tuple[str, ...]]) -> list[Sides]:
    """Return the two sides of every operation; `resolve` also knows who was selected."""
    return _sides(plan.operations, resolve)


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


def _sides(
    operations: Iterable[Operation], resolve: Callable[[Group], tuple[str, ...]]
) -> list[Sides]:
    """Return ids to forget and to retain, each pair once."""
    return sorted({(resolve(one.forget), resolve(one.retain)) for one in operations})


def _overlaps(inputs: Inputs, sides: Iterable[Sides]) -> list[Problem]:
    problems = []
    for pair in sides:
        forget, retain = ([inputs.people[identity] for identity in ids] for ids in pair)
        problems += find_overlaps(forget, retain)
    return problems
