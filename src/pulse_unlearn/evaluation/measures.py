"""What one judged answer contributes to a number, and the small rules all numbers share.

Per-answer measures live in the registry `MEASURES`: a new one is one function, here or behind the
entry-point group `pulse_unlearn.measures`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.intervals import (
    Estimate,
    FloatArray,
    clustered_mean,
    join_reasons,
)
from pulse_unlearn.records import MODALITIES, Measurement, Score
from pulse_unlearn.registry import Registry

ALL = "all"
"""Modality of a number that is the mean of the multimodal and the text-only one (Figure 4)."""
GENERAL = "general"
"""Set of the questions about no individual (MMBench)."""

Measure = Callable[[Score], float]
"""One judged answer -> a number in [0, 1], averaged over questions."""

MEASURES: Registry[Measure] = Registry("measure", group="pulse_unlearn.measures")


@MEASURES.register("accuracy")
def accuracy(score: Score) -> float:
    """Return 1 if the generated answer is right; refused and unparsable count as wrong."""
    return float(score.verdict == "correct")


@MEASURES.register("letter_accuracy")
def letter_accuracy(score: Score) -> float:
    """Return 1 if the true letter has the highest log-probability."""
    return float(score.letter_correct)


@MEASURES.register("unparsable")
def unparsable(score: Score) -> float:
    """Return 1 if the generated answer names no option and refuses nothing."""
    return float(score.verdict == "unparsable")


@MEASURES.register("refused")
def refused(score: Score) -> float:
    """Return 1 if the generated answer is a refusal."""
    return float(score.verdict == "refused")


@MEASURES.register("correct_probability")
def correct_probability(score: Score) -> float:
    """Return the probability of the true letter, renormalised over the option letters."""
    return score.letter_probability


def of_modality(scores: Sequence[Score], modality: str) -> list[Score]:
    """Return the scores that count towards `modality`; `all` takes both."""
    return [score for score in scores if modality in (ALL, score.modality)]


def cluster_of(score: Score) -> str:
    """Return the unit that is independent of others: the individual, else the question."""
    return score.individual or score.question_id


def strata_of(scores: Sequence[Score]) -> list[str]:
    """Return what is averaged apart first: people's modalities; general questions are as one."""
    return [score.modality if score.individual else "" for score in scores]


def missing_modality(scores: Sequence[Score], modality: str) -> str:
    """Return why `modality` has no value: no questions, or `all` of people with one modality."""
    if not scores:
        return "no questions"
    if modality == ALL and any(score.individual for score in scores):
        present = {score.modality for score in scores}
        absent = [kind for kind in MODALITIES if kind not in present]
        return f"no {absent[0]} questions, so no mean of both modalities" if absent else ""
    return ""


def check_unique(scores: Sequence[Score]) -> None:
    """Raise DataError naming every example that occurs more than once."""
    counts = Counter(score.example_id for score in scores)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        fix = "pass the scores of one stage, each example once"
        raise DataError([Problem("example scored twice", f"'{name}'", fix=fix) for name in twice])


def values_of(scores: Sequence[Score], measure: Measure) -> FloatArray:
    """Return the measure of every score, (scores,)."""
    return np.fromiter((measure(score) for score in scores), dtype=np.float64, count=len(scores))


def estimate_mean(scores: Sequence[Score], measure: Measure) -> Estimate:
    """Return the mean of modality means with a t interval clustered by individual."""
    return clustered_mean(
        values_of(scores, measure),
        [cluster_of(score) for score in scores],
        strata=strata_of(scores),
    )


def histogram_measures(scores: Sequence[Score]) -> list[tuple[str, Measure]]:
    """Return one measure `chosen:<letter>` for every letter that is an answer or was chosen."""
    letters = {score.answer for score in scores} | {score.choice for score in scores}

    def chosen(letter: str) -> Measure:
        return lambda score: float(score.choice == letter)

    return [(f"chosen:{letter}", chosen(letter)) for letter in sorted(letters - {""})]


def measurement(
    name: str,
    scores: Sequence[Score],
    estimate: Estimate,
    *,
    of_set: str,
    modality: str,
    note: str = "",
) -> Measurement:
    """Put an estimate into its row, with the numbers of questions and people behind it."""
    return Measurement(
        set=of_set,
        modality=modality,
        measure=name,
        value=estimate.value,
        low=estimate.low,
        high=estimate.high,
        questions=len({score.question_id for score in scores}),
        individuals=len({score.individual for score in scores} - {""}),
        reason=join_reasons(estimate.reason, note),
    )
