"""Stored answers to tidy results: `results.csv`, `results.json`, and what stands beside the rows.

Nothing here needs a model, so `pulse score` makes the same files anew from the stored answers.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pulse_unlearn.evaluation.contrasts import Contrast
from pulse_unlearn.evaluation.gauges import MOSTLY
from pulse_unlearn.evaluation.intervals import (
    MIN_INDIVIDUALS,
    Estimate,
    OverSeeds,
    t_over_seeds,
)
from pulse_unlearn.evaluation.measures import ALL, measurement
from pulse_unlearn.evaluation.metrics import general_measures, people_measures
from pulse_unlearn.evaluation.relative import relative_measures
from pulse_unlearn.evaluation.verdicts import Verdict, corrected, judge, test_readings
from pulse_unlearn.pipeline.findings import Comparison, PaperFinding
from pulse_unlearn.records import (
    PLAIN,
    RESULT_COLUMNS,
    Cell,
    Measurement,
    QuestionScore,
    Result,
)
from pulse_unlearn.scenarios import Evaluation, Group, Operation, Plan
from pulse_unlearn.store import write_json, write_text

VERSION = 4
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
    scores_of: Callable[[str], Sequence[QuestionScore]]
    """Score stage -> what it says, question by question."""
    outcome_of: Callable[[str], Mapping[str, Any]]
    """Training stage -> its outcome."""
    resolve: Callable[[Group], tuple[str, ...]]
    l2_categories: Mapping[str, str]
    """General question -> its wider category, of questions that have one."""
    same_people: bool = False
    """Whether all seeds have the same people, so that their spread does not hold the people's."""


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything in `results.json` that is more than rows."""

    verdicts: Mapping[Cell, Verdict]
    flags: Sequence[Flag]
    paper: Sequence[PaperFinding]
    comparisons: Sequence[Comparison]
    selections: Sequence[Mapping[str, Any]]
    """How well the chosen are known, by seed."""
    sets: Mapping[str, Any]
    notes: Sequence[str]


def compute_results(evidence: Evidence, verdicts: Mapping[Cell, Verdict]) -> list[Result]:
    """Return every number of the run, evaluation by evaluation, in plan order."""
    results: list[Result] = []
    for evaluation in evidence.plan.evaluations:
        cell = evaluation.cell
        answers = _answers(evaluation, evaluation.scores, evidence)
        sets = _sets(evaluation.operation, evidence, request=cell.request)
        if cell.condition != PLAIN:  # which may ask about some of the people only
            asked = {score.individual for score in answers}
            sets = {name: people for name, people in sets.items() if people & asked}
        results += _measure(cell, answers, sets, evidence)
        if cell in verdicts:
            results += _relative(evaluation, answers, sets, evidence, verdicts[cell])
    return results


def _relative(
    evaluation: Evaluation,
    answers: Sequence[QuestionScore],
    sets: dict[str, frozenset[str]],
    evidence: Evidence,
    verdict: Verdict,
) -> list[Result]:
    """Return what stands beside an evaluation's own numbers: its verdict, and what changed."""
    told = None if verdict.word == "unknown" else float(verdict.is_remembered)
    remembered = Estimate(told, reason=verdict.why)
    about = [score for score in answers if score.individual in sets["forget"]]
    row = measurement("remembered", about, remembered, of_set="forget", modality=ALL)
    asked = {score.question_id for score in answers}
    before = [s for s in evidence.scores_of(evaluation.compared_to) if s.question_id in asked]
    measured = [row, *relative_measures(before, answers, sets=sets)]
    return [Result(evaluation.cell, one) for one in measured]


def compute_verdicts(evidence: Evidence) -> dict[Cell, Verdict]:
    """Return the word for every model that unlearned; tests are corrected over those compared.

    A family are the evaluations of one scenario, seed, request and condition, with all their
    readings.
    """
    families: dict[tuple[str, int, int, str], list[Evaluation]] = defaultdict(list)
    for evaluation in evidence.plan.evaluations:
        cell = evaluation.cell
        if evaluation.compared_to:
            families[cell.scenario, cell.seed, cell.request, cell.condition].append(evaluation)
    found: dict[Cell, Verdict] = {}
    for family in families.values():
        about = {one.scores: _about_forgotten(one, one.scores, evidence) for one in family}
        tests = corrected({name: test_readings(scores) for name, scores in about.items()})
        for one in family:
            stage = one.operation.never_knew
            never = _about_forgotten(one, stage, evidence) if stage else ()
            people = len(evidence.resolve(one.operation.forget))
            found[one.cell] = judge(
                about[one.scores],
                tests[one.scores],
                enough_people=people >= MIN_INDIVIDUALS,
                never_knew=never,
            )
    return found


def _about_forgotten(
    evaluation: Evaluation, stage: str, evidence: Evidence
) -> tuple[QuestionScore, ...]:
    people = frozenset(evidence.resolve(evaluation.operation.forget))
    answers = _answers(evaluation, stage, evidence)
    return tuple(score for score in answers if score.individual in people)


def _answers(evaluation: Evaluation, stage: str, evidence: Evidence) -> Sequence[QuestionScore]:
    """Return a score stage's answers to the questions that the evaluation is about."""
    answers = evidence.scores_of(stage)
    if not evaluation.only:
        return answers
    asked = {score.question_id for score in evidence.scores_of(evaluation.only)}
    return [score for score in answers if score.question_id in asked]


@dataclass(frozen=True, slots=True)
class SeedsRow:
    """One number over the seeds of a cell."""

    scenario: str
    method: str
    scope: str
    request: int
    condition: str
    set: str
    modality: str
    measure: str
    over: OverSeeds


def over_seeds(results: Sequence[Result], *, same_people: bool) -> list[SeedsRow]:
    """Return the mean of every number over the seeds, with an interval for another seed's mean.

    t over the seeds' values; where all seeds have the same people the interval also holds what
    other people would change, as each seed's own interval does. Empty for a single seed.
    """
    if len({result.cell.seed for result in results}) < 2:
        return []
    groups: dict[tuple[str, str, str, int, str, str, str, str], list[Measurement]]
    groups = defaultdict(list)
    for result in results:
        cell, number = result.cell, result.measurement
        place = (cell.scenario, cell.method, cell.scope, cell.request, cell.condition)
        groups[*place, number.set, number.modality, number.measure].append(number)
    return [SeedsRow(*key, _over(numbers, same_people)) for key, numbers in groups.items()]


def _over(numbers: Sequence[Measurement], same_people: bool) -> OverSeeds:
    values = [number.value for number in numbers if number.value is not None]
    halves = [(n.high - n.low) / 2 for n in numbers if n.high is not None and n.low is not None]
    bounds = (-float("inf"), float("inf"))
    if not numbers[0].measure.partition("_pct")[1]:
        bounds = (0.0, 1.0)
    return t_over_seeds(values, sampling=halves, bounds=bounds, same_people=same_people)


def collect_flags(evidence: Evidence, verdicts: Mapping[Cell, Verdict]) -> list[Flag]:
    """Return how each operation ended, what its guards noticed, and how its answers are broken."""
    flags = []
    for operation in evidence.plan.operations:
        outcome = evidence.outcome_of(operation.unlearn)
        detail = f"{outcome['steps']} steps, stopped by {outcome['stopped_by']}"
        flags.append(Flag(operation.cell, "stopped", detail))
        flags += _trouble(operation.cell, outcome, detail)
        verdict = verdicts[operation.cell]
        if verdict.word == "output broken":
            flags.append(Flag(operation.cell, "collapsed", verdict.why))
        if verdict.habit.is_one_letter:
            share = verdict.habit.share.value or 0.0
            said = f"{verdict.habit.letter} in {share:.0%} of the answers that can be read"
            flags.append(Flag(operation.cell, "one_letter", said))
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
    reached = outcome.get("answers_at_stop")
    if reached and reached["unreadable"] >= MOSTLY:
        why = f"{reached['unreadable']:.0%} of the answers could not be read"
        found.append(Flag(cell, "target_reached_by_unreadable_answers", f"{detail}; {why}"))
    elif reached and reached["one_letter"]:
        why = f"{reached['letter']} was said in {reached['letter_share']:.0%} of the answers"
        found.append(Flag(cell, "target_reached_by_one_letter", f"{detail}; {why}"))
    return found


def write_results(
    run: Path, results: Sequence[Result], findings: Findings, *, same_people: bool
) -> None:
    """Write every number as a row of `results.csv`, and the rest as `results.json`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, RESULT_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rounded({**asdict(r.cell), **asdict(r.measurement)}) for r in results)
    write_text(run / "results.csv", text.getvalue())
    content = {
        "version": VERSION,
        "over_seeds": [rounded(_flat(row)) for row in over_seeds(results, same_people=same_people)],
        "verdicts": [
            rounded({**asdict(cell), **_told(verdict)})
            for cell, verdict in findings.verdicts.items()
        ],
        "paper_findings": [rounded(_finding(one)) for one in findings.paper],
        "comparisons": [rounded(_comparison(one)) for one in findings.comparisons],
        "selections": list(findings.selections),
        "flags": [
            {**asdict(flag.cell), "flag": flag.flag, "detail": flag.detail}
            for flag in findings.flags
        ],
        "sets": findings.sets,
        "notes": list(findings.notes),
    }
    write_json(run / "results.json", content)


def _flat(row: SeedsRow) -> dict[str, Any]:
    content = asdict(row)
    over = content.pop("over")
    return {**content, **over}


def _told(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as it stands in `results.json`."""
    tests = [
        {**asdict(test), **_ends(test.estimate), "above_chance": test.is_above}
        for test in verdict.tests
    ]
    for test in tests:
        del test["estimate"]
    habit = verdict.habit
    return {
        "word": verdict.word,
        "why": verdict.why,
        "remembered": verdict.is_remembered,
        "highest": verdict.highest.reading if verdict.highest else "",
        "readings": tests,
        "letter": {
            "letter": habit.letter,
            **_ends(habit.share),
            "base_rate": habit.base_rate,
            "above_base_rate": habit.above_base_rate,
            "one_letter": habit.is_one_letter,
            "entropy": habit.entropy,
            "readable": habit.readable,
        },
    }


def _ends(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _finding(one: PaperFinding) -> dict[str, Any]:
    return {
        "name": one.name,
        "reading": one.reading,
        "settled": one.settled,
        "contrasts": [_contrast(part) for part in one.contrasts],
    }


def _comparison(one: Comparison) -> dict[str, Any]:
    place = {"scenario": one.scenario, "set": one.set, "measure": one.measure}
    return {**place, **_contrast(one.contrast)}


def _contrast(one: Contrast) -> dict[str, Any]:
    return {
        "label": one.label,
        "settled": one.settled,
        **asdict(one.over_seeds),
        "by_seed": [{"seed": seed, **asdict(gap)} for seed, gap in one.by_seed.items()],
    }


def rounded(value: Any) -> Any:
    """Return nested values with every float at the digits that files keep."""
    if isinstance(value, float):
        return round(value, DIGITS)
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(part) for part in value]
    return value


def resolved_sets(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """Return who was in which set, by scenario and seed."""
    return {
        f"{operation.cell.scenario}/{operation.cell.seed}": {
            "forget": list(evidence.resolve(operation.forget)),
            "retain": list(evidence.resolve(operation.retain)),
            "requests": [list(evidence.resolve(group)) for group in operation.requests],
            **{name: list(evidence.resolve(group)) for name, group in operation.unseen},
        }
        for operation in evidence.plan.operations
    }


def _sets(operation: Operation, evidence: Evidence, *, request: int) -> dict[str, frozenset[str]]:
    """Return the sets measured after a request; later people are told apart from earlier ones."""
    sets = {
        "forget": frozenset(evidence.resolve(operation.forget)),
        "retain": frozenset(evidence.resolve(operation.retain)),
        **{name: frozenset(evidence.resolve(group)) for name, group in operation.unseen},
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
    scores: Sequence[QuestionScore],
    sets: dict[str, frozenset[str]],
    evidence: Evidence,
) -> list[Result]:
    people = [score for score in scores if score.individual]
    general = [score for score in scores if not score.individual]
    measured: list[Measurement] = people_measures(people, sets=sets)
    if general:
        measured += general_measures(general, l2_categories=evidence.l2_categories)
    return [Result(cell, measurement) for measurement in measured]
