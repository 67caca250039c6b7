"""Stored answers to tidy results: `results.csv`, `results.json`, and the flags beside them.

Nothing here needs a model, so `pulse score` makes the same files anew from the stored answers.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pulse_unlearn.evaluation.metrics import general_measures, people_measures
from pulse_unlearn.evaluation.relative import relative_measures
from pulse_unlearn.records import RESULT_COLUMNS, Cell, Measurement, Result, Score
from pulse_unlearn.scenarios import Group, Operation, Plan
from pulse_unlearn.store import write_json, write_text

VERSION = 1
DIGITS = 6
"""Decimals kept in files: far below any interval, above rounding differences of a last bit."""


@dataclass(frozen=True, slots=True)
class Flag:
    """Something a reader must know about a cell before trusting its numbers."""

    cell: Cell
    flag: str
    detail: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What results are computed from: finished stages, read without a model."""

    plan: Plan
    scores_of: Callable[[str], Sequence[Score]]
    """Score stage -> its judged answers."""
    outcome_of: Callable[[str], Mapping[str, Any]]
    """Training stage -> its outcome."""
    resolve: Callable[[Group], tuple[str, ...]]
    l2_categories: Mapping[str, str]
    """General question -> its wider category, of questions that have one."""


def compute_results(evidence: Evidence) -> list[Result]:
    """Return every number of the run, operation by operation, in plan order."""
    results: list[Result] = []
    seen: set[Cell] = set()
    for operation in evidence.plan.operations:
        after = evidence.scores_of(operation.after)
        asked = {score.example_id for score in after}
        before = [s for s in evidence.scores_of(operation.before) if s.example_id in asked]
        start = _at_request(operation.cell, 0)
        if start not in seen:
            seen.add(start)
            results += _measure(start, before, _sets(operation, evidence, request=0), evidence)
        sets = _sets(operation, evidence, request=operation.cell.request)
        results += _measure(operation.cell, after, sets, evidence)
        relative = relative_measures(before, after, sets=sets)
        results += [Result(operation.cell, measurement) for measurement in relative]
    return results


def collect_flags(evidence: Evidence) -> list[Flag]:
    """Return how each operation ended and what its guards noticed."""
    flags = []
    for operation in evidence.plan.operations:
        outcome = evidence.outcome_of(operation.unlearn)
        detail = f"{outcome['steps']} steps, stopped by {outcome['stopped_by']}"
        flags.append(Flag(operation.cell, "stopped", detail))
        flags += _trouble(operation.cell, outcome, detail)
        for name in evidence.plan.stage(operation.before).chain:
            below = evidence.outcome_of(name)
            flags += _trouble(operation.cell, below, f"{name}: stopped by {below['stopped_by']}")
    return flags


def _trouble(cell: Cell, outcome: Mapping[str, Any], detail: str) -> list[Flag]:
    """Return what a training's guards noticed, also that of the fine-tuning below an operation."""
    found = [Flag(cell, name, detail) for name in outcome["flags"]]
    if outcome["skipped_steps"]:
        skipped = f"{outcome['skipped_steps']} steps had a non-finite loss or gradient"
        found.append(Flag(cell, "skipped_steps", f"{detail}; {skipped}"))
    return found


def write_results(
    run: Path,
    results: Sequence[Result],
    flags: Iterable[Flag],
    *,
    sets: Mapping[str, Any],
    notes: Sequence[str],
) -> None:
    """Write `results.csv` and `results.json`: the same rows in both."""
    rows = [_row(result) for result in results]
    text = io.StringIO()
    writer = csv.DictWriter(text, RESULT_COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(run / "results.csv", text.getvalue())
    content = {
        "version": VERSION,
        "rows": rows,
        "flags": [
            {**asdict(flag.cell), "flag": flag.flag, "detail": flag.detail} for flag in flags
        ],
        "sets": sets,
        "notes": list(notes),
    }
    write_json(run / "results.json", content)


def resolved_sets(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Return who was in which set, by scenario and seed."""
    return {
        f"{operation.cell.scenario}/{operation.cell.seed}": {
            "forget": list(evidence.resolve(operation.forget)),
            "retain": list(evidence.resolve(operation.retain)),
            "requests": [list(evidence.resolve(group)) for group in operation.requests],
        }
        for operation in evidence.plan.operations
    }


def _sets(operation: Operation, evidence: Evidence, *, request: int) -> dict[str, frozenset[str]]:
    """Return the sets measured after a request; later people are told apart from earlier ones."""
    sets = {
        "forget": frozenset(evidence.resolve(operation.forget)),
        "retain": frozenset(evidence.resolve(operation.retain)),
    }
    if len(operation.requests) > 1:
        people = [evidence.resolve(group) for group in operation.requests]
        parts = {
            "forgotten_earlier": people[: max(request - 1, 0)],
            "just_requested": people[max(request - 1, 0) : request],
            "not_yet_requested": people[request:],
        }
        sets |= {
            name: frozenset(identity for group in groups for identity in group)
            for name, groups in parts.items()
            if groups
        }
    return sets


def _measure(
    cell: Cell,
    scores: Sequence[Score],
    sets: dict[str, frozenset[str]],
    evidence: Evidence,
) -> list[Result]:
    people = [score for score in scores if score.individual]
    general = [score for score in scores if not score.individual]
    measured: list[Measurement] = people_measures(people, sets=sets)
    if general:
        measured += general_measures(general, l2_categories=evidence.l2_categories)
    return [Result(cell, measurement) for measurement in measured]


def _at_request(cell: Cell, request: int) -> Cell:
    return Cell(cell.scenario, cell.method, cell.scope, cell.seed, request)


def _row(result: Result) -> dict[str, Any]:
    measurement = asdict(result.measurement)
    for name in ("value", "low", "high"):
        if measurement[name] is not None:
            measurement[name] = round(measurement[name], DIGITS)
    return {**asdict(result.cell), **measurement}
