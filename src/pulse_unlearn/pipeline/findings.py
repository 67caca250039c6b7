"""The paper's four findings, and methods against one another, paired and in two readings.

`strict` is the paper's reading; `rotated` is the one that no preference for a letter can fool. A
finding that stands in the first alone is a finding about how models answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, compress
from statistics import fmean
from typing import Any

from pulse_unlearn.evaluation.comparisons import (
    Contrast,
    Gaps,
    Pairing,
    Settled,
    agreement,
    contrast,
    correct_family,
    gaps_between,
    pair_by_question,
)
from pulse_unlearn.evaluation.verdicts import MARGIN
from pulse_unlearn.records import QuestionScore
from pulse_unlearn.scenarios import Group, Operation, Plan

READINGS: tuple[str, ...] = ("accuracy", "rotated_accuracy")
NEARLY_GONE = 0.30
"""Share of general ability kept; the paper's best method kept 27 % after five requests."""


@dataclass(frozen=True, slots=True)
class PaperFinding:
    """One finding of the paper in one reading, method by method."""

    name: str
    reading: str
    contrasts: tuple[Contrast, ...]

    @property
    def settled(self) -> Settled:
        """Say what the methods show together."""
        return agreement(self.contrasts)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods of one scenario against each other: first minus second."""

    scenario: str
    set: str
    measure: str
    contrast: Contrast


@dataclass(frozen=True, slots=True)
class Evidence:
    """What results are computed from: finished stages, read without a model."""

    plan: Plan
    scores_of: Callable[[str], Sequence[QuestionScore]]
    """Score stage -> what it says, question by question."""
    outcome_of: Callable[[str], Mapping[str, Any]]
    """Training stage -> its outcome."""
    resolve: Callable[[Group], tuple[str, ...]]
    methods: Mapping[str, str]
    """Label -> registered method."""
    l2_categories: Mapping[str, str]
    """General question -> its wider category, of questions that have one."""
    same_people: bool = False
    """Whether all seeds have the same people, so that their spread does not hold the people's."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Question about a person -> what it asks after; empty unless methods differ in modality."""
    margin: float = MARGIN
    """Largest difference from a model that never knew that counts as none."""

    def finals(self, scenario: str) -> dict[tuple[str, int], Operation]:
        """Return each label's last operation by (label, seed)."""
        return {
            (operation.cell.method, operation.cell.seed): operation
            for operation in self.plan.operations
            if operation.cell.scenario == scenario
        }

    def pairs(self, operation: Operation, name: str) -> Pairing:
        """Return `forget`, `retain`, `general` or an unseen set before and after an operation."""
        groups = {"forget": operation.forget, "retain": operation.retain, **dict(operation.unseen)}
        people = {""} if name == "general" else {*self.resolve(groups[name])}
        after = [one for one in self.scores_of(operation.after) if one.individual in people]
        asked = {score.question_id for score in after}
        before = [s for s in self.scores_of(operation.before) if s.question_id in asked]
        return pair_by_question(before, after)

    def lost(self, operation: Operation, name: str, reading: str) -> Gaps:
        """Return the accuracy lost in an operation, question by question of a set."""
        return gaps_between(self.pairs(operation, name), reading, before=1.0, after=-1.0)


def paper_findings(evidence: Evidence) -> list[PaperFinding]:
    """Return the four findings in both readings; every contrast is positive as the paper has it.

    * `pretrained_costs`: general accuracy lost with pre-trained people minus with fine-tuned ones;
    * `not_lasting`: 30 % of the general accuracy before, minus that after the last request;
    * `text_harder`: accuracy on D_unlearn lost with the image minus by name alone;
    * `llm_hurts`: general accuracy lost updating the language model alone minus with the projector.

    Holm's correction is over all contrasts of a reading, seed by seed.
    """
    found = []
    for reading in READINGS:
        families = {
            "pretrained_costs": _contrasts(_pretrained_costs(evidence, reading)),
            "not_lasting": _contrasts(_not_lasting(evidence, reading)),
            "text_harder": _contrasts(_text_harder(evidence, reading)),
            "llm_hurts": _contrasts(_llm_hurts(evidence, reading)),
        }
        corrected = iter(correct_family([one for family in families.values() for one in family]))
        for name, family in families.items():
            found.append(PaperFinding(name, reading, tuple(next(corrected) for _ in family)))
    return found


def comparisons(evidence: Evidence) -> list[Comparison]:
    """Compare all pairs of methods after their last request: what is left, and what it cost.

    Holm's correction is over the pairs of one scenario and number, seed by seed.
    """
    found = []
    for scenario in dict.fromkeys(one.cell.scenario for one in evidence.plan.operations):
        finals = evidence.finals(scenario)
        labels = list(dict.fromkeys(label for label, _ in finals))
        unseen = [name for name, _ in next(iter(finals.values())).unseen]
        for of_set in ("forget", "retain", "general", *unseen):
            for measure in READINGS:
                pairs = [
                    _against(evidence, finals, pair_of, (of_set, measure))
                    for pair_of in combinations(labels, 2)
                ]
                found += [Comparison(scenario, of_set, measure, c) for c in correct_family(pairs)]
    return found


def sequences_against_one_shot(evidence: Evidence) -> list[Comparison]:
    """Compare a sequence of requests with all of its people forgotten at once, method by method.

    Sequence minus one-shot, paired by question, where `finetuned` takes the same D_unlearn out of
    the same model. Holm's correction is over the methods of one scenario and number, seed by seed.
    """
    at_once = evidence.finals("finetuned")
    found = []
    for scenario in dict.fromkeys(one.cell.scenario for one in evidence.plan.operations):
        finals = {
            key: (last, at_once[key])
            for key, last in evidence.finals(scenario).items()
            if last.cell.request > 1 and key in at_once and _alike(evidence, last, at_once[key])
        }
        unseen = [name for name, _ in next((last.unseen for last, _ in finals.values()), ())]
        for of_set in ("forget", "retain", "general", *unseen) if finals else ():
            for measure in READINGS:
                pairs = [
                    _sequence_against(evidence, finals, label, (of_set, measure))
                    for label in dict.fromkeys(label for label, _ in finals)
                ]
                found += [Comparison(scenario, of_set, measure, c) for c in correct_family(pairs)]
    return found


def _alike(evidence: Evidence, last: Operation, once: Operation) -> bool:
    """Tell whether both forget the same people out of the same model, and ask of the same."""
    sets = [
        (dict(one.unseen), one.target, one.cell.scope, {*evidence.resolve(one.forget)})
        for one in (last, once)
    ]
    return sets[0] == sets[1]


def _sequence_against(
    evidence: Evidence,
    finals: Mapping[tuple[str, int], tuple[Operation, Operation]],
    label: str,
    what: tuple[str, str],
) -> Contrast:
    of_set, measure = what
    by_seed = {}
    for (other, seed), both in finals.items():
        if other == label:
            last, once = (evidence.pairs(one, of_set).after for one in both)
            by_seed[seed] = gaps_between(pair_by_question(once, last), measure)
    return contrast(f"{label} - {label} at once", by_seed)


def _against(
    evidence: Evidence,
    finals: Mapping[tuple[str, int], Operation],
    labels: tuple[str, str],
    what: tuple[str, str],
) -> Contrast:
    of_set, measure = what
    by_seed = {}
    for seed in sorted({seed for _, seed in finals}):
        both = [finals[label, seed] for label in labels if (label, seed) in finals]
        if len(both) == len(labels):
            first, second = (evidence.pairs(one, of_set).after for one in both)
            by_seed[seed] = gaps_between(pair_by_question(second, first), measure)
    return contrast(" - ".join(labels), by_seed)


Measured = Iterable[tuple[str, int, Gaps]]
"""Label, seed and gaps of each run that a contrast is made of."""


def _contrasts(measured: Measured) -> list[Contrast]:
    by_label: dict[str, dict[int, Gaps]] = defaultdict(dict)
    for label, seed, gaps in measured:
        by_label[label][seed] = gaps
    return [contrast(label, gaps) for label, gaps in by_label.items()]


def _pretrained_costs(evidence: Evidence, reading: str) -> Measured:
    fine = evidence.finals("finetuned")
    for (label, seed), operation in evidence.finals("pretrained").items():
        if (label, seed) in fine:
            lost = evidence.lost(operation, "general", reading)
            less = evidence.lost(fine[label, seed], "general", reading)
            yield label, seed, _minus(lost, less)


def _not_lasting(evidence: Evidence, reading: str) -> Measured:
    for (label, seed), operation in evidence.finals("sustainability").items():
        if operation.cell.request > 1:
            pairs = evidence.pairs(operation, "general")
            yield label, seed, gaps_between(pairs, reading, before=NEARLY_GONE, after=-1.0)


def _text_harder(evidence: Evidence, reading: str) -> Measured:
    for scenario in ("finetuned", "pretrained"):
        for (label, seed), operation in evidence.finals(scenario).items():
            lost = evidence.lost(operation, "forget", reading)
            yield f"{label}, {scenario}", seed, _image_minus_name(lost)


def _llm_hurts(evidence: Evidence, reading: str) -> Measured:
    finals = evidence.finals("finetuned")
    for (label, seed), operation in finals.items():
        for (other, same), against in finals.items():
            method = evidence.methods.get(label)
            scopes = (operation.cell.scope, against.cell.scope)
            alike = seed == same and method == evidence.methods.get(other)
            if alike and scopes == ("llm", "projector+llm"):
                lost = evidence.lost(operation, "general", reading)
                less = evidence.lost(against, "general", reading)
                yield method or label, seed, _minus(lost, less)


def _minus(more: Gaps, less: Gaps) -> Gaps:
    """Subtract losses on the same questions."""
    other = dict(zip(less.questions, less.values, strict=True))
    both = [name in other for name in more.questions]
    lost = zip(more.questions, more.values, strict=True)
    return Gaps(
        tuple(value - other[name] for name, value in compress(lost, both)),
        tuple(compress(more.clusters, both)),
        tuple(compress(more.strata, both)),
    )


def _image_minus_name(lost: Gaps) -> Gaps:
    """Return for each person the mean loss with the image minus that by name."""
    parts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for value, person, modality in zip(lost.values, lost.clusters, lost.strata, strict=True):
        parts[person][modality].append(value)
    found = {
        person: fmean(of["multimodal"]) - fmean(of["text_only"])
        for person, of in parts.items()
        if len(of) > 1
    }
    return Gaps(tuple(found.values()), tuple(found), ("",) * len(found))
