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


def known_sides(plan: Plan) -> list[Sides]:
    """Return the parts of every operation whose people are known before the run."""
    known = [operation for operation in plan.operations if not operation.forget.selection]
    return _sides(known, lambda group: group.ids)


def all_sides(plan: Plan, resolve: Callable[[Group], tuple[str, ...]]) -> list[Sides]:
    """Return the parts of every operation; `resolve` also knows who was selected."""
    return _sides(plan.operations, resolve)


def selected_sides(forget: tuple[str, ...], retain: tuple[str, ...]) -> list[Sides]:
    """Return the parts of operations on people that were just selected."""
    return [(("forget", forget), ("retain", retain))]


def check_leaks(inputs: Inputs, sides: Iterable[Sides]) -> None:
    """Raise DataError unless the experiment allows it, if someone stands in two parts.

    So it does if what is scored is trained on: pictures of people, general questions.
    """
    problems = refused(find_leaks(inputs, sides), inputs.experiment.data.allow_overlap)
    if problems:
        raise DataError(gathered(problems))


def leak_notes(inputs: Inputs, sides: Iterable[Sides]) -> list[str]:
    """Return what the report must say: every leak that data.allow_overlap let pass.

    And who was declared different although they share a name or look alike.
    """
    sides = list(sides)
    different = inputs.experiment.data.different_people
    declared = [
        line for parts in sides for line in find_declared(_people_of(inputs, parts), different)
    ]
    allowed = inputs.experiment.data.allow_overlap
    return [
        *(
            f"allowed by data.allow_overlap ({kind}): {problem}"
            for kind, problems in find_leaks(inputs, sides).items()
            if kind in allowed
            for problem in problems
        ),
        *(f"declared by data.different_people: {line}" for line in dict.fromkeys(declared)),
    ]


def _people_of(inputs: Inputs, parts: Sides) -> list[Part]:
    return [Part(name, [inputs.people[identity] for identity in ids]) for name, ids in parts]


def _sides(
    operations: Iterable[Operation], resolve: Callable[[Group], tuple[str, ...]]
) -> list[Sides]:
    """Return each operation's parts, those of equal operations once."""
    return sorted({_parts(operation, resolve) for operation in operations})


def _parts(operation: Operation, resolve: Callable[[Group], tuple[str, ...]]) -> Sides:
    requests = operation.requests if len(operation.requests) > 1 else (operation.forget,)
    names = [f"request {number}" for number in range(1, len(requests) + 1)]
    names = names if len(requests) > 1 else ["forget"]
    groups = (*zip(names, requests, strict=True), ("retain", operation.retain))
    return tuple((name, resolve(group)) for name, group in groups)


def find_leaks(inputs: Inputs, sides: Iterable[Sides]) -> Leaks:
    """Return all leaks by kind; people who are in several operations are told once."""
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
