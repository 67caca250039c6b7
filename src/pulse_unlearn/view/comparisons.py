"""What can be looked at in one run: each model after unlearning beside the models before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pulse_unlearn.errors import Corrupted, Problem, StoreError
from pulse_unlearn.records import PLAIN, Cell
from pulse_unlearn.scenarios import RETAIN_MODEL, Group, by_turn
from pulse_unlearn.view.runs import PLAN, Run, read_json

GENERAL = "general"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model's answers, named by their score stages, and who is in which set."""

    cell: Cell
    before: str
    after: str
    """Empty for the target model itself."""
    unlearned: str
    """Score stage of the model that `after` was made from, as by an attack; else empty."""
    never_knew: str
    """Score stage of a model that never learned D_unlearn; empty where there is none."""
    never_is_retain_model: bool
    """Whether that is a retain model; else it is the one before fine-tuning."""
    only: str
    """Score stage to whose questions the answers are restricted; empty for all."""
    operation: Mapping[str, Any]

    @property
    def asked(self) -> str:
        """The score stage whose questions are shown."""
        return self.after or self.before


def comparisons_of(run: Run) -> list[Comparison]:
    """Return what the plan compares, in its order; raises Corrupted if it is not well formed."""
    plan = run.plan or {}
    try:
        return list(_comparisons(plan))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        where = str(run.path / PLAN)
        raise Corrupted(Problem("is not a plan this version reads", where, repr(error))) from error


def _comparisons(plan: Mapping[str, Any]) -> Iterator[Comparison]:
    operations = {_cell(one["cell"]): one for one in plan.get("operations", [])}
    evaluations = plan.get("evaluations", [])
    retain_models = {one["scores"] for one in evaluations if one["condition"] == RETAIN_MODEL}
    for one in evaluations:
        cell = _cell(one)
        operation = operations.get(_plain(cell)) or _last_of(operations, cell)
        never = str(one.get("never_knew") or operation["never_knew"])
        is_target = cell.request == 0 and cell.condition == PLAIN
        yield Comparison(
            cell,
            before=str(one["scores"] if is_target else operation["before"]),
            after="" if is_target else str(one["scores"]),
            unlearned=_unlearned(cell, operation),
            never_knew=never,
            never_is_retain_model=never in retain_models,
            only=str(one["only"]),
            operation=operation,
        )


def _cell(entry: Mapping[str, Any]) -> Cell:
    return Cell(
        str(entry["scenario"]),
        str(entry["method"]),
        str(entry["scope"]),
        int(entry["seed"]),
        int(entry["request"]),
        str(entry["condition"]),
    )


def _plain(cell: Cell) -> Cell:
    return Cell(cell.scenario, cell.method, cell.scope, cell.seed, cell.request)


def _unlearned(cell: Cell, operation: Mapping[str, Any]) -> str:
    if cell.condition == PLAIN or cell.condition.startswith(RETAIN_MODEL):
        return ""
    return str(operation["after"])


def _last_of(operations: Mapping[Cell, Mapping[str, Any]], cell: Cell) -> Mapping[str, Any]:
    """Return the last operation of a scenario and seed, of the same method if it has one.

    On its sets the target model is measured.
    """
    fitting = [
        (other.method == cell.method, other.request, -number, operation)
        for number, (other, operation) in enumerate(operations.items())
        if (other.scenario, other.seed) == (cell.scenario, cell.seed)
    ]
    if not fitting:
        raise ValueError(f"no operation belongs to {cell}")
    return max(fitting, key=lambda one: one[:3])[3]


def sets_of(run: Run, comparison: Comparison) -> dict[str, frozenset[str]]:
    """Return set name -> people; of a sequence also who was requested when.

    Raises StoreError if a set was chosen by a stage that is not complete.
    """
    operation, request = comparison.operation, comparison.cell.request
    try:
        sets = {name: _people(run, operation[name]) for name in ("forget", "retain")}
        sets |= {str(name): _people(run, group) for name, group in operation["unseen"]}
        requests = [_people(run, group) for group in operation["requests"]]
    except (KeyError, TypeError, ValueError) as error:
        where = str(run.path / PLAN)
        raise Corrupted(Problem("an operation is not well formed", where, repr(error))) from error
    return sets | by_turn(requests, request)


def _people(run: Run, group: Mapping[str, Any]) -> frozenset[str]:
    if not group["selection"]:
        return frozenset(map(str, group["ids"]))
    stage = str(group["selection"])
    folder = run.folder_of(stage)
    if folder is None:
        raise StoreError(Problem("people are not chosen yet: this stage is not complete", stage))
    chosen = read_json(run.path, f"stages/{folder.name}/selection.json")
    return frozenset(map(str, Group(selection=stage, part=group["part"]).among(chosen)))
