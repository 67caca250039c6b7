"""Comparing methods and models: paired differences, families of tests, what a design can detect."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pulse_unlearn.evaluation.intervals import (
    LEVEL,
    FloatArray,
    clustered_mean,
    stratified_weights,
    sum_by,
)
from pulse_unlearn.evaluation.measures import (
    ALL,
    MEASURES,
    READINGS,
    cluster_of,
    missing_modality,
    of_modality,
    strata_of,
    values_of,
)
from pulse_unlearn.evaluation.relative import pair
from pulse_unlearn.records import MODALITIES, QuestionScore

EXACT_INDIVIDUALS = 14
"""Up to this many people all 2^people sign flips are tried; above, a seeded sample of them."""
PERMUTATIONS = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of a - b over the same examples; None where undefined, and `reason` says why."""

    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    """Two-sided, of the sign-flip permutation over people; not yet corrected for a family."""
    questions: int
    individuals: int
    reason: str = ""


def paired_difference(
    a: Iterable[QuestionScore],
    b: Iterable[QuestionScore],
    *,
    measure: str = "accuracy",
    modality: str = ALL,
    level: float = LEVEL,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Difference:
    """Return how much higher `measure` is in `a` than in `b`, paired by question.

    Both must hold the same questions (DataError names those that don't match): pass one set of
    people, or the general questions. Interval: t, clustered by individual. p: see `sign_flip`.
    General questions are their own clusters, and `all` asks for both modalities of people only.
    """
    pairing = pair(a, b)
    first, second = of_modality(pairing.before, modality), of_modality(pairing.after, modality)
    function = MEASURES.get(measure)
    gaps = values_of(first, function) - values_of(second, function)
    there = ~np.isnan(gaps)
    having = [score for score, has in zip(first, there, strict=True) if has]
    questions = len(having)
    individuals = len({score.individual for score in having} - {""})
    reason = missing_modality(having, modality)
    if reason:
        return Difference(None, None, None, None, questions, individuals, reason)
    clusters, strata = [cluster_of(score) for score in having], strata_of(having)
    unit = "people" if individuals else "questions"
    mean = clustered_mean(
        gaps[there], clusters, strata=strata, bounds=(-1.0, 1.0), unit=unit, level=level
    )
    sums = sum_by(gaps[there] * stratified_weights(strata), clusters)
    p_value = sign_flip(sums, permutations=permutations, seed=seed)
    return Difference(mean.value, mean.low, mean.high, p_value, questions, individuals, mean.reason)


def equivalent(
    a: Iterable[QuestionScore],
    b: Iterable[QuestionScore],
    *,
    margin: float,
    measures: Sequence[str] = READINGS,
) -> bool:
    """Tell whether no measure that both were asked differs by `margin` or more (accuracy).

    Two one-sided tests at 5 % each: the 90 % interval of the paired difference lies within the
    margin (Schuirmann 1987). All measures must pass, so no correction is needed; with too few
    people for an interval the answer is no.
    """
    first, second = tuple(a), tuple(b)
    found = [gap for name in measures for gap in _gaps_of(first, second, name)]
    return bool(found) and all(
        gap.low is not None and gap.high is not None and -margin < gap.low and gap.high < margin
        for gap in found
    )


def _gaps_of(
    first: Sequence[QuestionScore], second: Sequence[QuestionScore], name: str
) -> list[Difference]:
    """Return the 90 % gap of a measure over both modalities, or of the one that was asked so."""
    for modalities in ((ALL,), MODALITIES):
        found = [
            paired_difference(first, second, measure=name, modality=one, level=0.9, permutations=1)
            for one in modalities
        ]
        asked = [gap for gap in found if gap.value is not None]
        if asked:
            return asked
    return []


def holm(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Return Holm's adjusted p-values, in the order given; None stays None and isn't counted.

    The i-th smallest of m is multiplied by m - i + 1, never falls below the one before it and
    never exceeds 1: rejecting those below 0.05 holds the chance of any false alarm at 5 %.
    """
    known = sorted((value, place) for place, value in enumerate(p_values) if value is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (value, place) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        adjusted[place] = highest
    return tuple(adjusted)


RHO = 0.3
"""Correlation of a person's answers that is assumed until answers are there to measure it by."""


def detectable_difference(
    individuals: int,
    questions: int,
    *,
    rho: float = RHO,
    power: float = 0.8,
    level: float = LEVEL,
    discordance: float = 0.5,
) -> float:
    """Return the smallest difference in accuracy that a paired comparison finds with `power`.

    (t_(1+level)/2 + t_power) sqrt(discordance (1 + (m - 1) rho) / questions), t with people - 1
    degrees of freedom, m = questions / individuals, `questions` counting all people's together.
    `rho` is the correlation of the paired differences within a person; `discordance` the share
    of questions on which the two differ, 0.5 being two unrelated methods at 50 %. 1 says that no
    difference can be told from chance, as with fewer than two people. For general questions give
    individuals = questions. Source: Miller 2024 (arXiv 2411.00640), section 5.
    """
    if individuals < 2 or questions < 1:
        return 1.0
    design = 1.0 + (max(questions / individuals, 1.0) - 1.0) * rho
    error = math.sqrt(discordance * design / questions)
    freedom = individuals - 1
    quantiles = special.stdtrit(freedom, (1 + level) / 2) + special.stdtrit(freedom, power)
    return min(1.0, float(quantiles) * error)


def sign_flip(sums: FloatArray, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """Return the two-sided p-value of sum(sums), (clusters,), under random signs of its terms.

    Exact up to `EXACT_INDIVIDUALS` clusters, else (1 + as extreme) / (1 + permutations).
    """
    observed = abs(float(sums.sum()))
    # Sums of the same terms in another order may differ by rounding and still be as extreme.
    threshold = observed - 1e-12
    if sums.size <= EXACT_INDIVIDUALS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=sums.size)))
        return float(np.mean(np.abs(signs @ sums) >= threshold))
    generator = np.random.Generator(np.random.PCG64(seed))
    signs = generator.integers(0, 2, size=(permutations, sums.size)) * 2.0 - 1.0
    extreme = int(np.count_nonzero(np.abs(signs @ sums) >= threshold))
    return (1 + extreme) / (1 + permutations)
