"""Stored answers to tidy results: `results.csv`, `results.json`, and what stands beside the rows.

Nothing here needs a model, so `pulse score` rebuilds the same files from the stored answers.
"""

from __future__ import annotations

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

from pulse_unlearn.evaluation.comparisons import Contrast
from pulse_unlearn.evaluation.intervals import (
    MIN_INDIVIDUALS,
    Estimate,
    OverSeeds,
    mean_over_seeds,
)
from pulse_unlearn.evaluation.measures import ALL, measurement
from pulse_unlearn.evaluation.membership import membership_measures
from pulse_unlearn.evaluation.metrics import (
    attribute_measures,
    general_measures,
    people_measures,
    request_measures,
)
from pulse_unlearn.evaluation.never_knew import never_knew_measures
from pulse_unlearn.evaluation.relative import relative_measures
from pulse_unlearn.evaluation.verdicts import (
    ForgettingVerdict,
    correct_tests,
    judge,
    readings_against_chance,
)
from pulse_unlearn.pipeline.arms import ArmContrast, arm_json
from pulse_unlearn.pipeline.decisions import Habits
from pulse_unlearn.pipeline.findings import Comparison, Evidence, PaperFinding
from pulse_unlearn.records import (
    PLAIN,
    RESULT_COLUMNS,
    Cell,
    Measurement,
    QuestionScore,
    Result,
)
from pulse_unlearn.scenarios import (
    RETAIN_MODEL,
    TRAJECTORY,
    Evaluation,
    Operation,
    TrainingStage,
    by_turn,
)
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
class Findings:
    """Everything in `results.json` that is more than rows."""

    verdicts: Mapping[Cell, ForgettingVerdict]
    flags: Sequence[Flag]
    paper: Sequence[PaperFinding]
    comparisons: Sequence[Comparison]
    arms: Sequence[ArmContrast]
    selections: Sequence[Mapping[str, Any]]
    """How well the chosen are known, by seed."""
    matches: Sequence[Mapping[str, Any]]
    """How alike the people of two arms are, by seed."""
    sets: Mapping[str, Any]
    notes: Sequence[str]


def compute_results(evidence: Evidence, verdicts: Mapping[Cell, ForgettingVerdict]) -> list[Result]:
    """Return every number of the run, evaluation by evaluation, in plan order."""
    results: list[Result] = []
    for evaluation in evidence.plan.evaluations:
        cell = evaluation.cell
        answers = _answers(evaluation, evaluation.scores, evidence)
        groups = _groups(evaluation.operation, evidence)
        sets = measured_sets(groups, request=cell.request)
        if cell.condition != PLAIN:  # which may ask about some of the people only
            asked = {score.individual for score in answers}
            sets = {name: people for name, people in sets.items() if people & asked}
        measured = people_measures(answers, sets=sets)
        if cell.condition in (PLAIN, RETAIN_MODEL):
            measured += request_measures(answers, request_sets(groups))
        if general := [score for score in answers if not score.individual]:
            measured += general_measures(general, l2_categories=evidence.l2_categories)
        strangers = evidence.plan.never_learned.get(evaluation.scores)
        if strangers and cell.condition in (PLAIN, RETAIN_MODEL):
            about = [one for one in answers if one.individual in sets["forget"]]
            never = evidence.scores_of(strangers)
            measured += membership_measures(about, never, of_set="forget")
        if evaluation.taught:
            measured += _taught(evaluation, evidence, sets["forget"])
        if evidence.attributes:
            about = [one for one in answers if one.individual in sets["forget"]]
            measured += attribute_measures(about, of_set="forget", attributes=evidence.attributes)
        if cell in verdicts:
            measured.append(_remembered(answers, sets["forget"], verdicts[cell]))
            ids = {score.question_id for score in answers}
            before = [s for s in evidence.scores_of(evaluation.compared_to) if s.question_id in ids]
            measured += relative_measures(before, answers, sets=sets)
            if evaluation.control:
                gone = _answers(evaluation, evaluation.control, evidence)
                never = [score for score in gone if score.question_id in ids]
                measured += never_knew_measures(answers, never, sets=sets, margin=evidence.margin)
        results += [Result(cell, one) for one in measured]
    return results


def _taught(
    evaluation: Evaluation, evidence: Evidence, forgotten: frozenset[str]
) -> list[Measurement]:
    """Measure what an attack taught about D_unlearn, as the set `taught`."""
    held_back = {score.question_id for score in evidence.scores_of(evaluation.only)}
    answers = [
        score
        for score in evidence.scores_of(evaluation.taught)
        if score.individual in forgotten and score.question_id not in held_back
    ]
    return people_measures(answers, sets={"taught": forgotten})


def _remembered(
    answers: Sequence[QuestionScore], people: frozenset[str], verdict: ForgettingVerdict
) -> Measurement:
    told = None if verdict.word == "unknown" else float(verdict.is_remembered)
    about = [score for score in answers if score.individual in people]
    estimate = Estimate(told, reason=verdict.why)
    return measurement("remembered", about, estimate, of_set="forget", modality=ALL)


def compute_verdicts(evidence: Evidence) -> dict[Cell, ForgettingVerdict]:
    """Return the word for every model that unlearned; tests are corrected over those compared.

    A family are the evaluations of one scenario, seed, request and condition, with all their
    readings.
    """
    families: dict[tuple[str, int, int, str], list[Evaluation]] = defaultdict(list)
    for evaluation in evidence.plan.evaluations:
        cell = evaluation.cell
        if evaluation.compared_to:
            families[cell.scenario, cell.seed, cell.request, cell.condition].append(evaluation)
    found: dict[Cell, ForgettingVerdict] = {}
    for family in families.values():
        about = {one.scores: _about_forgotten(one, one.scores, evidence) for one in family}
        tests = correct_tests(
            {name: readings_against_chance(scores) for name, scores in about.items()}
        )
        for one in family:
            stage = one.never_knew or one.operation.never_knew
            never = _about_forgotten(one, stage, evidence) if stage else ()
            people = len(evidence.resolve(one.operation.forget))
            found[one.cell] = judge(
                about[one.scores],
                tests[one.scores],
                enough_people=people >= MIN_INDIVIDUALS,
                never_knew=never,
                margin=evidence.margin,
                served=bool(one.operation.served),
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


_ACROSS = tuple(name for name in RESULT_COLUMNS[: RESULT_COLUMNS.index("value")] if name != "seed")
"""What a number over the seeds belongs to."""


def over_seeds(results: Sequence[Result], *, same_people: bool) -> list[dict[str, Any]]:
    """Return the mean of every number over the seeds, with an interval for another seed's mean.

    t over the seeds' values; where all seeds have the same people the interval also holds what
    other people would change, as each seed's own interval does. Empty for a single seed.
    """
    if len({result.cell.seed for result in results}) < 2:
        return []
    groups: dict[tuple[Any, ...], list[Measurement]] = defaultdict(list)
    for one in results:
        place = dict(zip(RESULT_COLUMNS, _row(one), strict=True))
        groups[tuple(place[name] for name in _ACROSS)].append(one.measurement)
    return [
        {**dict(zip(_ACROSS, key, strict=True)), **asdict(_over(numbers, same_people))}
        for key, numbers in groups.items()
    ]


def _over(numbers: Sequence[Measurement], same_people: bool) -> OverSeeds:
    values = [number.value for number in numbers if number.value is not None]
    halves = [(n.high - n.low) / 2 for n in numbers if n.high is not None and n.low is not None]
    measure = numbers[0].measure
    bounds = (0.0, 1.0) if "_pct" not in measure else (-math.inf, math.inf)
    if measure.endswith("_from_never_knew"):
        bounds = (-1.0, 1.0)
    return mean_over_seeds(values, sampling=halves, bounds=bounds, same_people=same_people)


def collect_flags(evidence: Evidence, verdicts: Mapping[Cell, ForgettingVerdict]) -> list[Flag]:
    """Return how each operation ended, what its guards noticed, and how its answers are broken."""
    flags = []
    for operation in evidence.plan.operations:
        if operation.unlearn:
            outcome = evidence.outcome_of(operation.unlearn)
            detail = f"{outcome['steps']} steps, stopped by {outcome['stopped_by']}"
            flags.append(Flag(operation.cell, "stopped", detail))
            flags += _trouble(operation.cell, outcome, detail)
            flags += _strayed(operation.cell, outcome, evidence)
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


_AS_IT_WENT = ("steps", "stopped_by", "checks")


def _strayed(cell: Cell, outcome: Mapping[str, Any], evidence: Evidence) -> list[Flag]:
    """Say so where the way of an operation, gone once more for its snapshots, was another."""
    again = replace(cell, condition=TRAJECTORY)
    measured = {one.scores for one in evidence.plan.evaluations}
    ways = {
        stage.chain[-1] for stage in evidence.plan.stages if stage.name in measured and stage.chain
    }
    found = []
    for stage in evidence.plan.stages:
        if not isinstance(stage, TrainingStage) or stage.cell != again or stage.name not in ways:
            continue
        other = evidence.outcome_of(stage.name)
        if any(other[name] != outcome[name] for name in _AS_IT_WENT):
            detail = f"{other['steps']} steps, stopped by {other['stopped_by']}, on the way again"
            found.append(Flag(cell, "trajectory_strayed", detail))
    return found


def _trouble(cell: Cell, outcome: Mapping[str, Any], detail: str) -> list[Flag]:
    """Return what a training's guards noticed, also that of the fine-tuning below an operation."""
    found = [Flag(cell, name, detail) for name in outcome["flags"]]
    if outcome["skipped_steps"]:
        skipped = f"{outcome['skipped_steps']} steps had a non-finite loss or gradient"
        found.append(Flag(cell, "skipped_steps", f"{detail}; {skipped}"))
    if reached := outcome.get("answers_at_stop"):
        habits = Habits(**reached)
        if habits.flag:
            found.append(Flag(cell, habits.flag, f"{detail}; {habits.why}"))
    return found


_row = attrgetter(
    *(f"cell.{one.name}" for one in fields(Cell)),
    *(f"measurement.{one.name}" for one in fields(Measurement)),
)
"""The columns of `results.csv`, of a result; `asdict` takes ten times as long."""


def write_results(
    run: Path, results: Sequence[Result], findings: Findings, *, same_people: bool
) -> None:
    """Write every number as a row of `results.csv`, and the rest as `results.json`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(RESULT_COLUMNS)
    writer.writerows(rounded(_row(result)) for result in results)
    write_text(run / "results.csv", text.getvalue())
    seeds = over_seeds(results, same_people=same_people)
    content = {
        "version": VERSION,
        "over_seeds": [rounded(one) for one in seeds],
        "verdicts": [
            rounded({**asdict(cell), **_verdict_json(verdict)})
            for cell, verdict in findings.verdicts.items()
        ],
        "paper_findings": [rounded(_finding_json(one)) for one in findings.paper],
        "comparisons": [rounded(_comparison_json(one)) for one in findings.comparisons],
        "arms": [rounded(arm_json(one)) for one in findings.arms],
        "selections": list(findings.selections),
        "matches": [rounded(one) for one in findings.matches],
        "flags": [
            {**asdict(flag.cell), "flag": flag.flag, "detail": flag.detail}
            for flag in findings.flags
        ],
        "sets": findings.sets,
        "notes": list(findings.notes),
    }
    write_json(run / "results.json", content)


def _verdict_json(verdict: ForgettingVerdict) -> dict[str, Any]:
    habit, tests = verdict.habit, []
    for test in verdict.tests:
        row = {**asdict(test), **_ends_json(test.estimate), "above_chance": test.is_above}
        del row["estimate"]
        tests.append(row)
    return {
        "word": verdict.word,
        "why": verdict.why,
        "remembered": verdict.is_remembered,
        "highest": verdict.highest.reading if verdict.highest else "",
        "readings": tests,
        "letter": {
            "letter": habit.letter,
            **_ends_json(habit.share),
            "base_rate": habit.base_rate,
            "above_base_rate": habit.above_base_rate,
            "one_letter": habit.is_one_letter,
            "entropy": habit.entropy,
            "readable": habit.readable,
        },
    }


def _ends_json(estimate: Estimate) -> dict[str, float | None]:
    return {"value": estimate.value, "low": estimate.low, "high": estimate.high}


def _finding_json(one: PaperFinding) -> dict[str, Any]:
    return {
        "name": one.name,
        "reading": one.reading,
        "settled": one.settled,
        "contrasts": [_contrast_json(part) for part in one.contrasts],
    }


def _comparison_json(one: Comparison) -> dict[str, Any]:
    place = {"scenario": one.scenario, "set": one.set, "measure": one.measure}
    return {**place, **_contrast_json(one.contrast)}


def _contrast_json(one: Contrast) -> dict[str, Any]:
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
        f"{operation.cell.scenario}/{operation.cell.seed}": _groups(operation, evidence)
        for operation in evidence.plan.operations
    }


def _groups(operation: Operation, evidence: Evidence) -> dict[str, Any]:
    return {
        "forget": list(evidence.resolve(operation.forget)),
        "retain": list(evidence.resolve(operation.retain)),
        "requests": [list(evidence.resolve(group)) for group in operation.requests],
        **{name: list(evidence.resolve(group)) for name, group in operation.unseen},
    }


def measured_sets(groups: Mapping[str, Any], *, request: int) -> dict[str, frozenset[str]]:
    """Return the sets measured after a request; later people are told apart from earlier ones.

    `groups` is an entry of `resolved_sets`. D_retain is left out where nobody is in it.
    """
    sets = {name: frozenset(ids) for name, ids in groups.items() if name != "requests"}
    sets |= by_turn(groups["requests"], request)
    return {name: people for name, people in sets.items() if people or name != "retain"}


def request_sets(groups: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """Return the people of each request of a sequence, `request:1`, ...; none of a single one."""
    requests = groups["requests"] if len(groups["requests"]) > 1 else ()
    return {f"request:{turn}": frozenset(ids) for turn, ids in enumerate(requests, start=1)}
