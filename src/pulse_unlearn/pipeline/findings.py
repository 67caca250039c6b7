"""The paper's four findings, and methods against one another, paired and in two readings.

`strict` is the paper's reading; `rotated` is the one that no preference for a letter can fool. A
finding that stands in the first alone is a finding about how models answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from pulse_unlearn.evaluation.contrasts import (
    Contrast,
    Gaps,
    Settled,
    contrast,
    settle,
    together,
)
from pulse_unlearn.evaluation.measures import MEASURES, cluster_of, strata_of
from pulse_unlearn.evaluation.relative import Pairing, pair
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
        return together(self.contrasts)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods of one scenario against each other: first minus second."""

    scenario: str
    set: str
    measure: str
    contrast: Contrast


@dataclass(frozen=True, slots=True)
class Material:
    """What findings are computed from."""

    plan: Plan
    scores_of: Callable[[str], Sequence[QuestionScore]]
    resolve: Callable[[Group], tuple[str, ...]]
    methods: Mapping[str, str]
    """Label -> registered method."""

    def finals(self, scenario: str) -> dict[tuple[str, int], Operation]:
        """Return each label's last operation by (label, seed)."""
        found: dict[tuple[str, int], Operation] = {}
        for operation in self.plan.operations:
            if operation.cell.scenario == scenario:
                found[operation.cell.method, operation.cell.seed] = operation
        return found

    def general(self, operation: Operation) -> Pairing:
        """Return the general questions before and after."""
        return self._pairs(operation, lambda score: not score.individual)

    def of_set(self, operation: Operation, name: str) -> Pairing:
        """Return the questions of `forget`, `retain`, `general` or an unseen set."""
        if name == "general":
            return self.general(operation)
        groups = {"forget": operation.forget, "retain": operation.retain, **dict(operation.unseen)}
        people = frozenset(self.resolve(groups[name]))
        return self._pairs(operation, lambda score: score.individual in people)

    def _pairs(self, operation: Operation, inside: Callable[[QuestionScore], bool]) -> Pairing:
        after = [score for score in self.scores_of(operation.after) if inside(score)]
        asked = {score.question_id for score in after}
        before = [s for s in self.scores_of(operation.before) if s.question_id in asked]
        return pair(before, after)


def paper_findings(material: Material) -> list[PaperFinding]:
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
            "pretrained_costs": _pretrained_costs(material, reading),
            "not_lasting": _not_lasting(material, reading),
            "text_harder": _text_harder(material, reading),
            "llm_hurts": _llm_hurts(material, reading),
        }
        settled = iter(settle([one for family in families.values() for one in family]))
        for name, family in families.items():
            found.append(PaperFinding(name, reading, tuple(next(settled) for _ in family)))
    return found


def comparisons(material: Material) -> list[Comparison]:
    """Compare all pairs of methods after their last request: what is left, and what it cost.

    Holm's correction is over the pairs of one scenario and number, seed by seed.
    """
    found = []
    for scenario in dict.fromkeys(one.cell.scenario for one in material.plan.operations):
        finals = material.finals(scenario)
        labels = list(dict.fromkeys(label for label, _ in finals))
        sets = ["forget", "retain", "general"]
        sets += [name for name, _ in next(iter(finals.values())).unseen]
        for of_set in sets:
            for measure in READINGS:
                pairs = [
                    _against(material, finals, pair_of, (of_set, measure))
                    for pair_of in combinations(labels, 2)
                ]
                found += [Comparison(scenario, of_set, measure, one) for one in settle(pairs)]
    return found


def _against(
    material: Material,
    finals: Mapping[tuple[str, int], Operation],
    labels: tuple[str, str],
    what: tuple[str, str],
) -> Contrast:
    of_set, measure = what
    by_seed = {}
    for seed in sorted({seed for _, seed in finals}):
        both = [finals.get((label, seed)) for label in labels]
        if both[0] and both[1]:
            first, second = (material.of_set(one, of_set).after for one in both if one)
            by_seed[seed] = _gaps(pair(second, first), measure)
    return contrast(" - ".join(labels), by_seed)


def _pretrained_costs(material: Material, reading: str) -> list[Contrast]:
    fine, pre = material.finals("finetuned"), material.finals("pretrained")
    by_label: dict[str, dict[int, Gaps]] = defaultdict(dict)
    for (label, seed), operation in pre.items():
        if (label, seed) in fine:
            lost = _lost(material.general(operation), reading)
            less = _lost(material.general(fine[label, seed]), reading)
            by_label[label][seed] = _minus(lost, less)
    return [contrast(label, gaps) for label, gaps in by_label.items()]


def _not_lasting(material: Material, reading: str) -> list[Contrast]:
    by_label: dict[str, dict[int, Gaps]] = defaultdict(dict)
    for (label, seed), operation in material.finals("sustainability").items():
        if operation.cell.request > 1:
            pairs = material.general(operation)
            by_label[label][seed] = _gaps(pairs, reading, before=NEARLY_GONE, after=-1.0)
    return [contrast(label, gaps) for label, gaps in by_label.items()]


def _text_harder(material: Material, reading: str) -> list[Contrast]:
    found = []
    for scenario in ("finetuned", "pretrained"):
        by_label: dict[str, dict[int, Gaps]] = defaultdict(dict)
        for (label, seed), operation in material.finals(scenario).items():
            lost = _lost(material.of_set(operation, "forget"), reading)
            by_label[label][seed] = _image_minus_name(lost)
        found += [contrast(f"{label}, {scenario}", gaps) for label, gaps in by_label.items()]
    return found


def _llm_hurts(material: Material, reading: str) -> list[Contrast]:
    finals = material.finals("finetuned")
    by_method: dict[str, dict[int, Gaps]] = defaultdict(dict)
    for (label, seed), operation in finals.items():
        for (other, same), against in finals.items():
            alike = material.methods.get(label) == material.methods.get(other)
            scopes = (operation.cell.scope, against.cell.scope)
            if seed == same and alike and scopes == ("llm", "projector+llm"):
                lost = _lost(material.general(operation), reading)
                less = _lost(material.general(against), reading)
                by_method[material.methods.get(label, label)][seed] = _minus(lost, less)
    return [contrast(method, gaps) for method, gaps in by_method.items()]


@dataclass(frozen=True, slots=True)
class _Lost:
    """Accuracy lost, question by question."""

    scores: tuple[QuestionScore, ...]
    gaps: Gaps


def _lost(pairs: Pairing, reading: str) -> _Lost:
    return _Lost(*_kept(pairs, reading, before=1.0, after=-1.0))


def _gaps(pairs: Pairing, reading: str, *, before: float = -1.0, after: float = 1.0) -> Gaps:
    return _kept(pairs, reading, before=before, after=after)[1]


def _kept(
    pairs: Pairing, reading: str, *, before: float, after: float
) -> tuple[tuple[QuestionScore, ...], Gaps]:
    """Return before x (value before) + after x (value after) where both were asked."""
    measure = MEASURES.get(reading)
    rows = [
        (score, before * was + after * now)
        for score, was, now in (
            (one, measure(one), measure(other))
            for one, other in zip(pairs.before, pairs.after, strict=True)
        )
        if was is not None and now is not None
    ]
    scores = tuple(score for score, _ in rows)
    clusters, strata = tuple(map(cluster_of, scores)), tuple(strata_of(scores))
    return scores, Gaps(tuple(value for _, value in rows), clusters, strata)


def _minus(more: _Lost, less: _Lost) -> Gaps:
    """Subtract losses on the same questions."""
    other = dict(zip((s.question_id for s in less.scores), less.gaps.values, strict=True))
    rows = [
        (cluster, stratum, value - other[score.question_id])
        for score, cluster, stratum, value in zip(
            more.scores, more.gaps.clusters, more.gaps.strata, more.gaps.values, strict=True
        )
        if score.question_id in other
    ]
    return Gaps(tuple(r[2] for r in rows), tuple(r[0] for r in rows), tuple(r[1] for r in rows))


def _image_minus_name(lost: _Lost) -> Gaps:
    """Return for each person the mean loss with the image minus that by name."""
    parts: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score, value in zip(lost.scores, lost.gaps.values, strict=True):
        parts[score.individual][score.modality].append(value)
    rows = [
        (person, _mean(of["multimodal"]) - _mean(of["text_only"]))
        for person, of in parts.items()
        if len(of) > 1
    ]
    people = tuple(person for person, _ in rows)
    return Gaps(tuple(gap for _, gap in rows), people, ("",) * len(rows))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
