"""Comparing methods and models: paired by question, corrected for families, judged over seeds.

One run says little: between-seed standard deviations of 3 to 20 points were measured where printed
half-widths are 3 to 6. So a contrast needs `ENOUGH_SEEDS` runs, and counts as seen only if each of
them shows it on its own, in the same direction, after Holm's correction.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import special

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.intervals import (
    LEVEL,
    Design,
    Estimate,
    FloatArray,
    OverSeeds,
    clustered_mean,
    mean_over_seeds,
)
from pulse_unlearn.evaluation.measures import MEASURES, READINGS, cluster_of, strata_of
from pulse_unlearn.records import QuestionScore

EXACT_INDIVIDUALS = 14
"""Up to this many people all 2^people sign flips are tried; above, a seeded sample of them."""
PERMUTATIONS = 10_000
ENOUGH_SEEDS = 3
SURE = 0.05
"""Level of every test, after Holm's correction."""
RHO = 0.3
"""Correlation of a person's answers that is assumed until answers are there to measure it by."""

Settled = Literal["seen", "opposite", "not settled", "too few runs", "not tested"]


# --- one run


@dataclass(frozen=True, slots=True)
class Pairing:
    """The same questions before and after, in the same order."""

    before: tuple[QuestionScore, ...]
    after: tuple[QuestionScore, ...]

    def where(self, inside: Sequence[bool]) -> Pairing:
        """Return the pairs that are inside."""
        return Pairing(
            tuple(itertools.compress(self.before, inside)),
            tuple(itertools.compress(self.after, inside)),
        )


def pair_by_question(before: Iterable[QuestionScore], after: Iterable[QuestionScore]) -> Pairing:
    """Pair scores by question; raises DataError naming every question that one side lacks."""
    first = tuple(before)
    second = {score.question_id: score for score in after}
    problems = [
        Problem("question was scored on one side only", f"'{name}'", fix="score both alike")
        for name in sorted({score.question_id for score in first}.symmetric_difference(second))
    ]
    if problems:
        raise DataError(problems)
    return Pairing(first, tuple(second[score.question_id] for score in first))


@dataclass(frozen=True, slots=True)
class Gaps:
    """One number a question, positive where a contrast holds, and what it belongs to."""

    values: tuple[float, ...]
    clusters: tuple[str, ...]
    strata: tuple[str, ...]
    questions: tuple[str, ...] = ()


def gaps_between(
    pairing: Pairing, measure: str, *, before: float = -1.0, after: float = 1.0
) -> Gaps:
    """Return before x (value before) + after x (value after) of questions measured both times."""
    function = MEASURES.get(measure)
    rows = [
        (one, before * was + after * now)
        for one, other in zip(pairing.before, pairing.after, strict=True)
        if (was := function(one)) is not None and (now := function(other)) is not None
    ]
    scores = [score for score, _ in rows]
    return Gaps(
        tuple(value for _, value in rows),
        tuple(map(cluster_of, scores)),
        tuple(strata_of(scores)),
        tuple(score.question_id for score in scores),
    )


@dataclass(frozen=True, slots=True)
class SeedGap:
    """A contrast in one run: mean difference in accuracy, interval, p-value of the family."""

    value: float
    low: float | None
    high: float | None
    p_value: float
    """Two-sided sign-flip permutation over people or questions; corrected by `correct_family`."""


def mean_gap(gaps: Gaps, *, level: float = LEVEL, permutations: int = PERMUTATIONS) -> SeedGap:
    """Return the mean of one or more gaps: t interval clustered by individual, p of `sign_flip`."""
    values, design = np.array(gaps.values), Design.of(gaps.clusters, gaps.strata)
    mean = clustered_mean(
        values, gaps.clusters, strata=gaps.strata, bounds=(-1.0, 1.0), level=level
    )
    sums = design.per_person(values * design.weights)
    p_value = sign_flip(sums, permutations=permutations)
    return SeedGap(mean.value or 0.0, mean.low, mean.high, p_value)


def equivalent(
    a: Iterable[QuestionScore],
    b: Iterable[QuestionScore],
    *,
    margin: float,
) -> bool:
    """Tell whether no reading that both were asked differs by `margin` or more (accuracy).

    All readings must pass, so no correction is needed; with too few people for an interval the
    answer is no.
    """
    pairing = pair_by_question(a, b)
    asked = [gaps for name in READINGS if (gaps := gaps_between(pairing, name)).values]
    return bool(asked) and all(is_within(equivalence_gap(gaps), margin) for gaps in asked)


def equivalence_gap(gaps: Gaps) -> Estimate:
    """Return the mean gap with its 90 % interval: two one-sided tests at 5 % (Schuirmann 1987)."""
    return clustered_mean(
        gaps.values, gaps.clusters, strata=gaps.strata, bounds=(-1.0, 1.0), level=0.9
    )


def is_within(gap: Estimate, margin: float) -> bool:
    """Tell whether the whole interval lies within the margin on both sides; no without one."""
    if gap.low is None or gap.high is None:
        return False
    return -margin < gap.low and gap.high < margin


def sign_flip(sums: FloatArray, *, permutations: int = PERMUTATIONS) -> float:
    """Return the two-sided p-value of sum(sums), (clusters,), under random signs of its terms.

    Of several sums side by side, (clusters, sums), the largest counts, each time. Exact up to
    `EXACT_INDIVIDUALS` clusters, else (1 + as extreme) / (1 + permutations).
    """
    sums = sums.reshape(len(sums), -1)
    # Sums of the same terms in another order may differ by rounding and still be as extreme.
    threshold = float(np.abs(sums.sum(axis=0)).max()) - 1e-12
    if len(sums) <= EXACT_INDIVIDUALS:
        every = np.array(list(itertools.product((-1.0, 1.0), repeat=len(sums))))
        return _as_extreme(every, sums, threshold) / len(every)
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = generator.integers(0, 2, size=(permutations, len(sums)))
    signs = np.asarray(drawn * 2.0 - 1.0, dtype=np.float64)
    return (1 + _as_extreme(signs, sums, threshold)) / (1 + permutations)


def _as_extreme(signs: FloatArray, sums: FloatArray, threshold: float) -> int:
    """Count the rows of signs whose largest sum reaches the threshold, a part at a time."""
    parts = np.array_split(signs, max(1, signs.shape[0] * sums.shape[1] // 1_000_000))
    return sum(int(np.count_nonzero(np.abs(p @ sums).max(axis=1) >= threshold)) for p in parts)


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


# --- several runs, several contrasts


@dataclass(frozen=True, slots=True)
class Contrast:
    """A difference over all seeds."""

    label: str
    by_seed: Mapping[int, SeedGap]
    over_seeds: OverSeeds

    @property
    def settled(self) -> Settled:
        """Say whether the difference repeats; with fewer than three seeds nothing is said."""
        if not self.by_seed:
            return "not tested"
        if len(self.by_seed) < ENOUGH_SEEDS:
            return "too few runs"
        gaps = self.by_seed.values()
        if all(gap.p_value < SURE and gap.value > 0 for gap in gaps):
            return "seen"
        if all(gap.p_value < SURE and gap.value < 0 for gap in gaps):
            return "opposite"
        return "not settled"


def contrast(label: str, by_seed: Mapping[int, Gaps]) -> Contrast:
    """Measure a contrast in every seed and over all of them; p-values are not yet corrected."""
    found = {seed: mean_gap(gaps) for seed, gaps in sorted(by_seed.items()) if gaps.values}
    halves = [
        (gap.high - gap.low) / 2
        for gap in found.values()
        if gap.high is not None and gap.low is not None
    ]
    values = [gap.value for gap in found.values()]
    over = mean_over_seeds(values, sampling=halves, bounds=(-1.0, 1.0))
    return Contrast(label, found, over)


def correct_family(family: Sequence[Contrast]) -> tuple[Contrast, ...]:
    """Correct the p-values of contrasts that are looked at together, seed by seed (Holm)."""
    adjusted = {
        seed: holm([gap.p_value if (gap := one.by_seed.get(seed)) else None for one in family])
        for seed in {seed for one in family for seed in one.by_seed}
    }
    return tuple(
        replace(
            one,
            by_seed={
                seed: replace(gap, p_value=adjusted[seed][place] or 0.0)
                for seed, gap in one.by_seed.items()
            },
        )
        for place, one in enumerate(family)
    )


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


def agreement(family: Sequence[Contrast]) -> Settled:
    """Say what contrasts show together: the same if all do, else nothing is settled."""
    outcomes = {one.settled for one in family if one.settled != "not tested"}
    if not outcomes:
        return "not tested"
    return outcomes.pop() if len(outcomes) == 1 else "not settled"
