"""Comparing methods and seeds: paired differences, families of tests, what a design can detect."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pulse_unlearn.evaluation.intervals import (
    LEVEL,
    MIN_INDIVIDUALS,
    NO_VARIATION,
    FloatArray,
    Interval,
    clustered_mean,
    few_clusters,
    join_reasons,
    percentiles,
    resample_counts,
    stratified_weights,
    sum_by,
    without_variation,
)
from pulse_unlearn.evaluation.measures import (
    ALL,
    MEASURES,
    check_unique,
    cluster_of,
    missing_modality,
    of_modality,
    strata_of,
    values_of,
)
from pulse_unlearn.evaluation.relative import pair
from pulse_unlearn.records import Score

EXACT_INDIVIDUALS = 14
"""Up to this many people all 2^people sign flips are tried; above, a seeded sample of them."""
PERMUTATIONS = 10_000
RESAMPLES = 1000


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


@dataclass(frozen=True, slots=True)
class _Sums:
    """One seed's sum of values and number of answers per person, each (people,)."""

    total: FloatArray
    count: FloatArray


@dataclass(frozen=True, slots=True)
class AcrossSeeds:
    """One measure over several runs that differ in the seed only."""

    value: float | None
    """Mean over the seeds."""
    low: float | None
    high: float | None
    spread: float | None
    """Standard deviation between seeds; None for a single seed."""
    by_seed: Mapping[int, float]
    individuals: int
    reason: str = ""


def paired_difference(
    a: Iterable[Score],
    b: Iterable[Score],
    *,
    measure: str = "accuracy",
    modality: str = ALL,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Difference:
    """Return how much higher `measure` is in `a` than in `b`, paired by example.

    Both must hold the same examples (DataError names those that don't match): pass one set of
    people, or the general questions on rotation 0. Interval: t, clustered by individual. p: the
    signs of whole people are flipped (as likely either way if a and b do not differ), exactly up
    to `EXACT_INDIVIDUALS`, else (1 + as extreme) / (1 + permutations). General questions are
    their own clusters, and `all` asks for both modalities of people only.
    """
    pairing = pair(a, b)
    keep = [modality in (ALL, score.modality) for score in pairing.before]
    first = [score for score, kept in zip(pairing.before, keep, strict=True) if kept]
    second = [score for score, kept in zip(pairing.after, keep, strict=True) if kept]
    questions = len({score.question_id for score in first})
    individuals = len({score.individual for score in first} - {""})
    reason = missing_modality(first, modality)
    if reason:
        return Difference(None, None, None, None, questions, individuals, reason)
    function = MEASURES.get(measure)
    gaps = values_of(first, function) - values_of(second, function)
    clusters, strata = [cluster_of(score) for score in first], strata_of(first)
    unit = "people" if individuals else "questions"
    mean = clustered_mean(gaps, clusters, strata=strata, bounds=(-1.0, 1.0), unit=unit)
    sums = sum_by(gaps * stratified_weights(strata), clusters)
    p_value = _sign_flip(sums, permutations=permutations, seed=seed)
    return Difference(mean.value, mean.low, mean.high, p_value, questions, individuals, mean.reason)


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


def detectable_difference(
    individuals: int,
    questions: int,
    *,
    rho: float = 0.3,
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


def across_seeds(
    by_seed: Mapping[int, Iterable[Score]],
    *,
    measure: str = "accuracy",
    modality: str = ALL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> AcrossSeeds:
    """Return the mean of `measure` over seeds with a hierarchical bootstrap interval.

    Seeds are drawn, and people are drawn; a person drawn counts in every seed drawn, because the
    same people are asked in each of them (Owen 2007, doi 10.1214/07-AOAS122). Questions are not
    drawn again within a person: the spread between people already holds their noise. With few
    seeds the interval is on the narrow side, so `spread` and `by_seed` belong beside it.
    """
    scores = {key: of_modality(tuple(rows), modality) for key, rows in by_seed.items()}
    people = sorted({cluster_of(row) for rows in scores.values() for row in rows})
    individuals = len({row.individual for rows in scores.values() for row in rows} - {""})
    why = {key: missing_modality(rows, modality) for key, rows in scores.items()}
    reason = join_reasons(*(f"seed {key}: {text}" for key, text in why.items() if text))
    if reason or not scores:
        return AcrossSeeds(None, None, None, None, {}, individuals, reason or "no seeds")
    sums = [_person_sums(rows, people, measure) for rows in scores.values()]
    values = np.array([_means(part, np.ones((1, len(people))))[0] for part in sums])
    unit = "people" if individuals else "questions"
    ends = _seed_interval(sums, len(people), unit=unit, resamples=resamples, seed=seed)
    return AcrossSeeds(
        value=float(values.mean()),
        low=ends.low,
        high=ends.high,
        spread=float(np.std(values, ddof=1)) if len(values) > 1 else None,
        by_seed=dict(zip(scores, values.tolist(), strict=True)),
        individuals=individuals,
        reason=join_reasons("single seed" if len(values) == 1 else "", ends.reason),
    )


def _sign_flip(sums: FloatArray, *, permutations: int, seed: int) -> float:
    """Return the two-sided p-value of sum(sums) under random signs of its terms."""
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


def _person_sums(scores: Sequence[Score], people: Sequence[str], measure: str) -> list[_Sums]:
    """Return sums and counts per person for every stratum of one seed."""
    check_unique(scores)
    place = {person: number for number, person in enumerate(people)}
    index = np.array([place[cluster_of(score)] for score in scores])
    values = values_of(scores, MEASURES.get(measure))
    strata = np.array(strata_of(scores))
    sums = []
    for kind in dict.fromkeys(strata.tolist()):
        inside = (strata == kind).astype(np.float64)
        total, count = (
            np.bincount(index, weights=part, minlength=len(people)).astype(np.float64)
            for part in (values * inside, inside)
        )
        sums.append(_Sums(total, count))
    return sums


def _means(sums: Sequence[_Sums], counts: FloatArray) -> FloatArray:
    """Return the mean of stratum means for every row of person `counts`, (resamples,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [counts @ part.total / (counts @ part.count) for part in sums]
    means: FloatArray = np.mean(parts, axis=0)
    return means


def _seed_interval(
    sums: Sequence[Sequence[_Sums]], people: int, *, unit: str, resamples: int, seed: int
) -> Interval:
    note = few_clusters(people, unit)
    if people < MIN_INDIVIDUALS:
        return Interval(reason=note)
    counts = resample_counts(people, resamples=resamples, seed=seed)
    drawn = np.stack([_means(part, counts) for part in sums], axis=1)
    # Another stream than the people's, so that the two draws are independent.
    shares = resample_counts(len(sums), resamples=resamples, seed=seed, stream=1) / len(sums)
    values = (drawn * shares).sum(axis=1)
    if not np.isfinite(values).all():
        return Interval(reason=join_reasons("no interval: too few people with scores", note))
    low, high = percentiles(values)
    if high - low < NO_VARIATION:
        return without_variation(low, people, bounds=(0.0, 1.0), note=note)
    return Interval(low, high, note)
