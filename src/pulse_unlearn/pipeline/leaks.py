"""What would make the numbers misleading: refused before training, or allowed and noted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from pulse_unlearn.config import Overlap
from pulse_unlearn.data.checks import gathered
from pulse_unlearn.data.leaks import (
    Part,
    find_declared,
    find_overlaps,
    find_trained_on_scored,
    refused,
)
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.scenarios import Group, Operation, Plan

Leaks = Mapping[str, list[Problem]]
Sides = tuple[tuple[str, tuple[str, ...]], ...]
"""(name, ids) of each part of an operation: every request, or all to forget; those to retain."""


def sides_of(
    operations: Iterable[Operation], resolve: Callable[[Group], tuple[str, ...]]
) -> list[Sides]:
    """Return each operation's parts, those of equal operations once."""
    found = set()
    for operation in operations:
        groups = [("forget", operation.forget)]
        if len(operation.requests) > 1:
            groups = [(f"request {n}", group) for n, group in enumerate(operation.requests, 1)]
        sides = (*groups, ("retain", operation.retain))
        found.add(tuple((name, resolve(group)) for name, group in sides))
    return sorted(found)


def known_sides(plan: Plan) -> list[Sides]:
    """Return the parts of every operation whose people are known before the run."""
    known = [operation for operation in plan.operations if not operation.forget.selection]
    return sides_of(known, lambda group: group.ids)


def check_leaks(inputs: Inputs, sides: Iterable[Sides]) -> None:
    """Raise DataError if someone is in two parts, or if what is scored is trained on.

    That is, pictures of people or general questions; `data.allow_overlap` allows either.
    """
    problems = refused(find_leaks(inputs, sides), inputs.experiment.data.allow_overlap)
    if problems:
        raise DataError(gathered(problems))


def leak_notes(inputs: Inputs, sides: Iterable[Sides]) -> list[str]:
    """Return what the report must say: every leak that data.allow_overlap allows.

    And who was declared different although they share a name or look alike.
    """
    sides, data = list(sides), inputs.experiment.data
    allowed = [
        f"allowed by data.allow_overlap ({kind}): {problem}"
        for kind, problems in find_leaks(inputs, sides).items()
        if kind in data.allow_overlap
        for problem in problems
    ]
    declared = [
        f"declared by data.different_people: {line}"
        for parts in sides
        for line in find_declared(_people_of(inputs, parts), data.different_people)
    ]
    return [*allowed, *dict.fromkeys(declared)]


def _people_of(inputs: Inputs, parts: Sides) -> list[Part]:
    return [Part(name, [inputs.people[identity] for identity in ids]) for name, ids in parts]


def find_leaks(inputs: Inputs, sides: Iterable[Sides]) -> Leaks:
    """Return all leaks by kind; people in several operations are named once."""
    sides = list(sides)
    people, different = inputs.people, inputs.experiment.data.different_people
    twice = [
        problem
        for parts in sides
        for problem in find_overlaps(_people_of(inputs, parts), different=different)
    ]
    used = sorted({identity for parts in sides for _, ids in parts for identity in ids})
    trained = find_trained_on_scored(
        [people[identity] for identity in used],
        general=inputs.general,
        general_training=inputs.general_training,
    )
    found: dict[Overlap, list[Problem]] = {"same_person": twice, "trained_on_scored": trained}
    return {kind: list(dict.fromkeys(problems)) for kind, problems in found.items()}
