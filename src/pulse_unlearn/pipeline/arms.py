"""The two arms of one checkpoint against each other: does what unlearning does follow the origin?

Every contrast is the first arm minus the second: people who were taught minus people who were known
before, unless an experiment names two groups of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from pulse_unlearn.evaluation.comparisons import Contrast, Gaps, contrast, correct_family
from pulse_unlearn.evaluation.measures import (
    GENERAL,
    MEASURES,
    READINGS,
    chance_of,
    cluster_of,
    estimate_mean,
    strata_of,
)
from pulse_unlearn.evaluation.trajectories import HALFWAY, Point, first_down_to, level_of
from pulse_unlearn.pipeline.findings import Evidence
from pulse_unlearn.records import QuestionScore
from pulse_unlearn.scenarios import ARM, OTHER_ARM, STEP, Operation, UnlearnStage, arms_of

Kind = Literal["before", "forgotten", "kept", "kept_matched"]
"""Right about D_unlearn before, and lost by the end; right about others at the end, and where both
arms have forgotten as much: half of the way from the lower of both before down to chance, by the
same reading."""
_FORGET = "forget"
_NO_GAPS = Gaps((), (), ())


@dataclass(frozen=True, slots=True)
class ArmContrast:
    """One number of one method, first arm minus second."""

    arms: tuple[str, ...]
    """Labels of both arms."""
    method: str
    """Empty before any has done anything."""
    scope: str
    update: str
    kind: Kind
    set: str
    measure: str
    contrast: Contrast
    told: tuple[str, ...] = ()
    """Of matched forgetting, seed by seed: after how many steps it was reached, or why not."""


def arm_contrasts(evidence: Evidence) -> list[ArmContrast]:
    """Return every contrast of the two arms; none without the scenario.

    D_unlearn is paired by the people whom the match paired, all else by question, as both arms
    start from one model. Holm's correction is over the methods of one kind, set and reading, seed
    by seed.
    """
    runs = _runs(evidence)
    if not runs:
        return []
    first, _ = next(iter(runs.values()))
    # Before anything is unlearned all methods are the same.
    start = {("", seed): both for (_, seed), both in runs.items()}
    others = ("retain", *(name for name, _ in first.unseen if name != OTHER_ARM), GENERAL)
    found: list[ArmContrast] = []
    for name in READINGS:
        read = _Reading(evidence, name)
        found += _family(evidence, start, read.before, ("before", _FORGET, name))
        found += _family(evidence, runs, read.lost, ("forgotten", _FORGET, name))
        for of_set in others:
            found += _family(evidence, runs, read.kept, ("kept", of_set, name))
            found += _family(evidence, runs, read.kept_matched, ("kept_matched", of_set, name))
    return found


_Both = tuple[Operation, Operation]
"""The operations of one method and seed on either arm."""


@dataclass(frozen=True, slots=True)
class _Found:
    """The gaps of a method in one seed, if there are any, and a remark."""

    gaps: Gaps = _NO_GAPS
    told: str = ""


def _runs(evidence: Evidence) -> dict[tuple[str, int], _Both]:
    """Return both arms' operations by label and seed, where both are there."""
    arms = [evidence.finals(name) for name in arms_of(evidence.plan.operations)]
    if len(arms) != 2:
        return {}
    first, second = arms
    return {key: (one, second[key]) for key, one in first.items() if key in second}


def _family(
    evidence: Evidence,
    runs: Mapping[tuple[str, int], _Both],
    measured: Callable[[_Both, str], _Found],
    what: tuple[Kind, str, str],
) -> Iterator[ArmContrast]:
    """Yield one number of all methods, corrected together, of those that have it or a remark."""
    kind, of_set, reading = what
    by_label: dict[str, dict[int, _Found]] = defaultdict(dict)
    for (label, seed), both in runs.items():
        by_label[label][seed] = measured(both, of_set)
    gaps = {
        label: {seed: one.gaps for seed, one in of.items() if one.gaps.values}
        for label, of in by_label.items()
    }
    family = correct_family([contrast(label, by_seed) for label, by_seed in gaps.items()])
    many = len({seed for _, seed in runs}) > 1
    for one in family:
        remarks = {seed: found.told for seed, found in by_label[one.label].items() if found.told}
        if not one.by_seed and not remarks:
            continue
        both = next(both for (label, _), both in runs.items() if label == one.label)
        stage = evidence.plan.stage(both[0].unlearn) if one.label else None
        yield ArmContrast(
            tuple(map(_label, both)),
            one.label,
            both[0].cell.scope if one.label else "",
            stage.settings.update if isinstance(stage, UnlearnStage) else "",
            kind,
            of_set,
            reading,
            one,
            tuple(f"seed {seed}: {told}" if many else told for seed, told in remarks.items()),
        )


class _Reading:
    """What one reading finds in the answers of both arms."""

    def __init__(self, evidence: Evidence, name: str) -> None:
        self.evidence, self.read = evidence, MEASURES.get(name)
        self._ways: dict[str, list[Point]] = {}
        """Score stage of an operation's end -> the models on the way to it."""

    def before(self, both: _Both, name: str) -> _Found:
        """Return what is right about D_unlearn before, pair by pair."""
        known = [self._by_person(self._about(one, one.before, name)) for one in both]
        return _Found(self._of_pairs(both, known))

    def lost(self, both: _Both, name: str) -> _Found:
        """Return what is lost of D_unlearn, pair by pair."""
        lost = []
        for one in both:
            was, now = (
                self._by_person(self._about(one, stage, name)) for stage in (one.before, one.after)
            )
            lost.append({key: value - now[key] for key, value in was.items() if key in now})
        return _Found(self._of_pairs(both, lost))

    def kept(self, both: _Both, name: str) -> _Found:
        """Return what is right about a set at the end, question by question."""
        values = [self._by_question(self._about(one, one.after, name)) for one in both]
        return _Found(self._of_questions(both, name, values))

    def kept_matched(self, both: _Both, name: str) -> _Found:
        """Return what is right about a set where both arms have forgotten as much."""
        ways = [self._way(one) for one in both]
        if any(len(way) < 2 for way in ways) or not self.kept(both, name).gaps.values:
            return _Found()
        before = min(way[0].remembered for way in ways)
        chance = fmean(chance_of(self._about(one, one.before, _FORGET)) or 0.0 for one in both)
        if before <= chance:
            return _Found(told="no better known than by chance before")
        level = level_of(before, chance, HALFWAY)
        points = [first_down_to(way, level) for way in ways]
        there = [point for point in points if point]
        if len(there) < len(points):
            short = [
                f"{_label(one)} stays at {min(point.remembered for point in way):.0%} or more"
                for one, way, point in zip(both, ways, points, strict=True)
                if point is None
            ]
            return _Found(told=f"not down to {level:.0%}: {', '.join(short)}")
        gaps = self._of_questions(both, name, [point.kept for point in there])
        steps = " and ".join(f"{point.step or 0:.1f}" for point in there)
        return _Found(gaps, f"{level:.0%} left after {steps} steps")

    def _way(self, operation: Operation) -> list[Point]:
        """Return the models from before to the end, with what is right question by question."""
        if operation.after not in self._ways:
            cell, end = operation.cell, self.evidence.outcome_of(operation.unlearn)["steps"]
            place = (cell.scenario, cell.method, cell.seed, cell.request)
            at = {
                int(one.cell.condition.partition(":")[2]): one.scores
                for one in self.evidence.plan.evaluations
                if one.cell.condition.startswith(f"{STEP}:")
                and (one.cell.scenario, one.cell.method, one.cell.seed, one.cell.request) == place
            }
            stages = {step: name for step, name in sorted(at.items()) if step < end}
            stages |= {end: operation.after} if at else {}
            found = [self._point(operation, step, name) for step, name in stages.items()]
            self._ways[operation.after] = [point for point in found if point]
        return self._ways[operation.after]

    def _point(self, operation: Operation, step: int, stage: str) -> Point | None:
        known = estimate_mean(self._about(operation, stage, _FORGET), self.read).value
        if known is None:
            return None
        return Point(step, known, self._by_question(self.evidence.scores_of(stage)))

    def _about(self, operation: Operation, stage: str, name: str) -> list[QuestionScore]:
        """Return what a model answered about a set of an operation."""
        groups = {_FORGET: operation.forget, "retain": operation.retain, **dict(operation.unseen)}
        people = {""} if name == GENERAL else {*self.evidence.resolve(groups[name])}
        return [one for one in self.evidence.scores_of(stage) if one.individual in people]

    def _by_person(self, answers: Sequence[QuestionScore]) -> dict[tuple[str, str], float]:
        """Return the mean by person and modality."""
        found: dict[tuple[str, str], list[float]] = defaultdict(list)
        for one in answers:
            if (value := self.read(one)) is not None:
                found[one.individual, one.modality].append(value)
        return {key: fmean(values) for key, values in found.items()}

    def _by_question(self, answers: Sequence[QuestionScore]) -> dict[str, float]:
        read = ((one.question_id, self.read(one)) for one in answers)
        return {name: value for name, value in read if value is not None}

    def _of_pairs(self, both: _Both, values: Sequence[Mapping[tuple[str, str], float]]) -> Gaps:
        """Return the difference of each pair in each modality."""
        first, second = values
        pairs = zip(*(self.evidence.resolve(one.forget) for one in both), strict=True)
        rows = [
            (value - second[other, modality], f"{one} and {other}", modality)
            for one, other in pairs
            for (person, modality), value in first.items()
            if person == one and (other, modality) in second
        ]
        return Gaps(
            tuple(value for value, _, _ in rows),
            tuple(pair for _, pair, _ in rows),
            tuple(modality for _, _, modality in rows),
        )

    def _of_questions(self, both: _Both, name: str, values: Sequence[Mapping[str, float]]) -> Gaps:
        """Return the difference of each question about a set that both arms were asked."""
        first, second = values
        asked = [
            one
            for one in self._about(both[0], both[0].after, name)
            if one.question_id in first and one.question_id in second
        ]
        names = tuple(one.question_id for one in asked)
        return Gaps(
            tuple(first[key] - second[key] for key in names),
            tuple(map(cluster_of, asked)),
            tuple(strata_of(asked)),
            names,
        )


def _label(operation: Operation) -> str:
    return operation.cell.scenario.partition(ARM)[2]


def arm_json(one: ArmContrast) -> dict[str, Any]:
    """Return a contrast as `results.json` holds it."""
    place = {name: getattr(one, name) for name in ("method", "scope", "update", "kind", "set")}
    found = one.contrast
    return {
        "arms": list(one.arms),
        **place,
        "measure": one.measure,
        "told": list(one.told),
        "settled": found.settled,
        **asdict(found.over_seeds),
        "by_seed": [{"seed": seed, **asdict(gap)} for seed, gap in found.by_seed.items()],
    }
