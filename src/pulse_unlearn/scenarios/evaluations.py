"""What is measured beside the plain protocol: other models, and models under a condition.

An entry is a frozen settings model with `plan`: it adds stages to the planner and yields the
evaluations that ask them. Each names its condition in the cell, which is a column of `results.csv`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Protocol, runtime_checkable

from pydantic import AfterValidator, Field

from pulse_unlearn.registry import Registry
from pulse_unlearn.scenarios.plan import Evaluation, Operation, plain_evaluations
from pulse_unlearn.scenarios.planner import Planner


def _rising(steps: tuple[int, ...]) -> tuple[int, ...]:
    if list(steps) != sorted(set(steps)):
        raise ValueError("steps must rise")
    return steps


RisingSteps = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1), AfterValidator(_rising)
]
"""Optimiser steps after which a model is asked, one after the other."""


@runtime_checkable
class Condition(Protocol):
    """One kind of evaluation, with its settings."""

    def plan(self, planner: Planner) -> Iterable[Evaluation]:
        """Add what it needs to the planner, whose operations are complete, and yield its rows."""


EVALUATIONS: Registry[type[Any]] = Registry("evaluation", group="pulse_unlearn.evaluations")


def evaluations_of(planner: Planner) -> tuple[Evaluation, ...]:
    """Return every evaluation of the experiment: the plain ones first."""
    more: list[Evaluation] = []
    for name, settings in planner.experiment.evaluations.items():
        entry: Condition = EVALUATIONS.get(name)(**settings)
        more += entry.plan(planner)
    return (*plain_evaluations(tuple(planner.operations)), *more)


def last_operations(planner: Planner) -> Iterator[Operation]:
    """Yield each method's operation after the last request of a scenario and seed."""
    yield from {
        (one.cell.scenario, one.cell.method, one.cell.seed): one for one in planner.operations
    }.values()
