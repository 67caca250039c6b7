"""What one question contributes to a number, and the small rules that all numbers share.

Per-question measures live in the registry `MEASURES`: a new one is one function, here or behind the
entry-point group `pulse_unlearn.measures`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np

from pulse_unlearn.evaluation.intervals import (
    Estimate,
    FloatArray,
    clustered_mean,
    join_reasons,
    mean_of_strata,
)
from pulse_unlearn.records import MODALITIES, UNREADABLE, Measurement, QuestionScore
from pulse_unlearn.registry import Registry

ALL = "all"
"""Modality of a number that is the mean of the multimodal and the text-only one (Figure 4)."""
GENERAL = "general"
"""Set of the questions about no individual (MMBench)."""

Measure = Callable[[QuestionScore], float | None]
"""The answers to one question -> a number in [0, 1], averaged over questions; None if not asked."""

MEASURES: Registry[Measure] = Registry("measure", group="pulse_unlearn.measures")

READINGS: tuple[str, ...] = (
    "accuracy",
    "rotated_accuracy",
    "words_accuracy",
    "words_per_token_accuracy",
    "words_named",
)
"""Measures that read knowledge, each with a chance of 1 / options at most: strict first, then those
that one letter cannot fool. `circular_accuracy` is no more than strict in every order, and the
chance of `mentions` depends on how much is said, so both are told apart from these."""


@MEASURES.register("accuracy")
def accuracy(score: QuestionScore) -> float | None:
    """Return 1 if the generated answer is right; refused and unreadable count as wrong."""
    return _is(score, "correct")


@MEASURES.register("rotated_accuracy")
def rotated_accuracy(score: QuestionScore) -> float | None:
    """Return 1 if the true option is the likeliest by log-probabilities averaged over orders."""
    return score.rotated


@MEASURES.register("circular_accuracy")
def circular_accuracy(score: QuestionScore) -> float | None:
    """Return 1 if the generated answer is right in every order of the options."""
    return score.circular


@MEASURES.register("words_accuracy")
def words_accuracy(score: QuestionScore) -> float | None:
    """Return 1 if the true text is the likeliest behind the bare question, summed over tokens."""
    return score.words


@MEASURES.register("words_per_token_accuracy")
def words_per_token_accuracy(score: QuestionScore) -> float | None:
    """Return 1 if the true text is the likeliest behind the bare question, by mean of tokens."""
    return score.words_per_token


@MEASURES.register("words_named")
def words_named(score: QuestionScore) -> float | None:
    """Return 1 if the generated answer to the bare question names the true option and no other."""
    return score.words_named


@MEASURES.register("words_lettered")
def words_lettered(score: QuestionScore) -> float | None:
    """Return 1 if the generated answer to the bare question is an option's letter."""
    return score.words_lettered


@MEASURES.register("mentions")
def mentions(score: QuestionScore) -> float | None:
    """Return the share of orders in which the generated answer names the true option anywhere."""
    return score.mentions


@MEASURES.register("mentions_of_others")
def mentions_of_others(score: QuestionScore) -> float | None:
    """Return that share for the other options, averaged: what naming without knowing scores."""
    return score.mentions_others


@MEASURES.register("letter_accuracy")
def letter_accuracy(score: QuestionScore) -> float | None:
    """Return 1 if the true letter is the likeliest in the file's order; one letter fools it."""
    return score.letter


@MEASURES.register("unparsable")
def unparsable(score: QuestionScore) -> float | None:
    """Return 1 if the generated answer is complete, names no option and refuses nothing."""
    return _is(score, "unparsable")


@MEASURES.register("cut_off")
def cut_off(score: QuestionScore) -> float | None:
    """Return 1 if the answer was cut off at `scoring.max_new_tokens` before an option was read."""
    return _is(score, "cut_off")


@MEASURES.register("unreadable")
def unreadable(score: QuestionScore) -> float | None:
    """Return 1 if no option is read in the answer, complete or cut off, and it is no refusal."""
    return None if score.verdict is None else float(score.verdict in UNREADABLE)


@MEASURES.register("refused")
def refused(score: QuestionScore) -> float | None:
    """Return 1 if the generated answer is a refusal."""
    return _is(score, "refused")


@MEASURES.register("correct_probability")
def correct_probability(score: QuestionScore) -> float | None:
    """Return the probability of the true letter in the file's order, among the option letters."""
    return score.letter_probability


@MEASURES.register("rotated_probability")
def rotated_probability(score: QuestionScore) -> float | None:
    """Return the probability of the true option by log-probabilities averaged over orders."""
    return score.rotated_probability


@MEASURES.register("words_probability")
def words_probability(score: QuestionScore) -> float | None:
    """Return the probability of the true text behind the bare question, among the options'."""
    return score.words_probability


@MEASURES.register("rotation_flip_rate")
def rotation_flip_rate(score: QuestionScore) -> float | None:
    """Return 1 if the orders that can be read name different options; needs two of them."""
    return score.flipped


def _is(score: QuestionScore, verdict: str) -> float | None:
    return None if score.verdict is None else float(score.verdict == verdict)


def of_modality(scores: Sequence[QuestionScore], modality: str) -> list[QuestionScore]:
    """Return the scores that count towards `modality`; `all` takes both."""
    return [score for score in scores if modality in (ALL, score.modality)]


def cluster_of(score: QuestionScore) -> str:
    """Return the unit that is independent of others: the individual, else the question."""
    return score.individual or score.question_id


def strata_of(scores: Sequence[QuestionScore]) -> list[str]:
    """Return what is averaged apart first: people's modalities; general questions are as one."""
    return [score.modality if score.individual else "" for score in scores]


def unit_of(scores: Sequence[QuestionScore]) -> str:
    """Return what clusters are called in notes: `people`, or `questions` if about nobody."""
    return "people" if any(score.individual for score in scores) else "questions"


def missing_modality(scores: Sequence[QuestionScore], modality: str) -> str:
    """Return why `modality` has no value: no questions, or `all` of people with one modality."""
    if not scores:
        return "no questions"
    if modality == ALL and any(score.individual for score in scores):
        present = {score.modality for score in scores}
        absent = [kind for kind in MODALITIES if kind not in present]
        return f"no {absent[0]} questions, so no mean of both modalities" if absent else ""
    return ""


def values_of(scores: Sequence[QuestionScore], measure: Measure) -> FloatArray:
    """Return the measure of every score, (scores,); NaN where it was not asked."""
    values = ((math.nan if value is None else value) for value in map(measure, scores))
    return np.fromiter(values, dtype=np.float64, count=len(scores))


def drop_missing(
    scores: Sequence[QuestionScore], measure: Measure
) -> tuple[list[QuestionScore], FloatArray, str]:
    """Return the questions that have this measure, their values, and a note on the others."""
    values = values_of(scores, measure)
    there = ~np.isnan(values)
    having = list(compress(scores, there))
    if len(having) == len(scores):
        return having, values, ""
    note = f"without {len(scores) - len(having)} of {len(scores)} questions that lack it"
    return having, values[there], note if having else "not asked"


def estimate_mean(scores: Sequence[QuestionScore], measure: Measure) -> Estimate:
    """Return the mean of modality means with an interval clustered by individual."""
    having, values, note = drop_missing(scores, measure)
    clusters, strata = [cluster_of(score) for score in having], strata_of(having)
    found = clustered_mean(values, clusters, strata=strata, unit=unit_of(having))
    return replace(found, reason=join_reasons(found.reason, note) if having else note)


def chance_of(scores: Sequence[QuestionScore]) -> float | None:
    """Return the mean of 1 / options over the modality means; nothing is sampled."""
    chances = [score.chance for score in scores]
    return mean_of_strata(chances, strata_of(scores)) if scores else None


def measurement(
    name: str,
    scores: Sequence[QuestionScore],
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
