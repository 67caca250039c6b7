"""Answers about D_unlearn held against those of a model that never learned it, person by person.

Two questions, in every reading: is the difference within the margin (an equivalence test), and do
the probabilities of the true options have the same distribution (Kolmogorov-Smirnov)?
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pulse_unlearn.evaluation.comparisons import (
    Pairing,
    equivalence_gap,
    gaps_between,
    is_within,
    pair_by_question,
    sign_flip,
)
from pulse_unlearn.evaluation.intervals import (
    MIN_INDIVIDUALS,
    Design,
    Estimate,
    FloatArray,
    few_clusters,
    join_reasons,
)
from pulse_unlearn.evaluation.measures import (
    ALL,
    MEASURES,
    READINGS,
    cluster_of,
    measurement,
    missing_modality,
    strata_of,
)
from pulse_unlearn.evaluation.relative import FORGET_SETS
from pulse_unlearn.records import MODALITIES, Measurement, QuestionScore, Sets

PROBABILITIES: tuple[str, ...] = ("rotated_probability", "words_probability", "correct_probability")
"""Measures of the true option's probability: in all orders, in words, and as a letter in the
file's order, which a letter said to everything moves as well."""
PERMUTATIONS = 2_000
LIKE_NEVER_KNOWN = "like_never_known"


def never_knew_measures(
    answers: Iterable[QuestionScore],
    never_knew: Iterable[QuestionScore],
    *,
    sets: Sets,
    margin: float,
) -> list[Measurement]:
    """Return how far a model is from one that never knew, for each forget set x modality.

    For each reading that both were asked, accuracies as fractions and paired by question:

    * `<reading>_from_never_knew`: what the model scores more, with its 90 % interval clustered by
      individual: two one-sided tests at 5 % each;
    * `<reading>_equivalent`: 1 if that interval lies within `margin` of 0 on both sides;
    * `like_never_known`: 1 if that holds in every reading.

    For each probability of the true option: `<probability>_ks`, the largest distance of its two
    distributions over the questions (modalities weighed alike), and `<probability>_ks_p`, how
    often it is as large if each person's answers of the two models may be swapped. Raises DataError
    unless both hold the same questions about the sets' people.
    """
    about = {name: people for name, people in sets.items() if name in FORGET_SETS}
    asked = frozenset(person for people in about.values() for person in people)
    then, now = ([s for s in side if s.individual in asked] for side in (never_knew, answers))
    pairing = pair_by_question(then, now)
    measurements = []
    for name, people in about.items():
        inside = pairing.where([score.individual in people for score in pairing.before])
        for modality in (*MODALITIES, ALL):
            rows = inside.where([modality in (ALL, s.modality) for s in inside.before])
            reason = missing_modality(rows.before, modality)
            measurements += [
                measurement(
                    measure,
                    rows.before,
                    Estimate(None, reason=reason) if reason else found,
                    of_set=name,
                    modality=modality,
                )
                for measure, found in _rows(rows, margin)
            ]
    return measurements


def _rows(pairing: Pairing, margin: float) -> Iterator[tuple[str, Estimate]]:
    outside, few, tested = [], "", False
    for reading in READINGS:
        gaps = gaps_between(pairing, reading)
        if not gaps.values:
            continue
        gap = equivalence_gap(gaps)
        yield f"{reading}_from_never_knew", gap
        if gap.low is None:
            few = gap.reason
            yield f"{reading}_equivalent", Estimate(None, reason=few)
            continue
        tested, within = True, is_within(gap, margin)
        outside += [] if within else [reading]
        yield f"{reading}_equivalent", Estimate(float(within), reason=f"within {margin:.0%}")
    told = f"not within {margin:.0%}: {', '.join(outside)}" if outside else f"within {margin:.0%}"
    yield (
        LIKE_NEVER_KNOWN,
        Estimate(float(not outside), reason=told) if tested else Estimate(None, reason=few),
    )
    for name in PROBABILITIES:
        distance, p_value = ks_test(pairing, name)
        if distance.value is not None:
            yield f"{name}_ks", distance
            yield f"{name}_ks_p", p_value


def ks_test(pairing: Pairing, measure: str) -> tuple[Estimate, Estimate]:
    """Return the Kolmogorov-Smirnov distance of a measure on both sides, and its p-value.

    The distance is the largest one of the two distribution functions, each the mean of the
    modalities'. Questions about one person rise and fall together and the same ones were asked
    twice, so under the null hypothesis a person's two sets of answers are swapped as a whole
    (`sign_flip`); with two independent samples' p-value the test would reject too often or never.
    """
    function = MEASURES.get(measure)
    rows = [
        (one, was, now)
        for one, other in zip(pairing.before, pairing.after, strict=True)
        if (was := function(one)) is not None and (now := function(other)) is not None
    ]
    if not rows:
        return Estimate(None, reason="not asked"), Estimate(None, reason="not asked")
    scores = [score for score, _, _ in rows]
    design = Design.of([cluster_of(score) for score in scores], strata_of(scores))
    steps = _steps(design, *(np.array(side) for side in zip(*(r[1:] for r in rows), strict=True)))
    distance = min(float(np.abs(steps.sum(axis=0)).max()), 1.0)
    lacking = len(pairing.before) - len(rows)
    note = f"without {lacking} questions that lack it" if lacking else ""
    few = few_clusters(design.people)
    if design.people < MIN_INDIVIDUALS:
        return Estimate(distance, reason=join_reasons(note)), Estimate(None, reason=few)
    p_value = sign_flip(steps, permutations=PERMUTATIONS)
    return Estimate(distance, reason=note), Estimate(p_value, reason=join_reasons(few, note))


def _steps(design: Design, was: FloatArray, now: FloatArray) -> FloatArray:
    """Return each person's share of F_now - F_was at every value seen, (people, values)."""
    values, place = np.unique(np.concatenate([was, now]), return_inverse=True)
    jumps = np.zeros((design.people, len(values)))
    for rows, sign in ((place[: len(was)], -1.0), (place[len(was) :], 1.0)):
        np.add.at(jumps, (design.cluster, rows), sign * design.weights)
    return np.asarray(jumps.cumsum(axis=1))
