"""Confidence intervals that know what the independent unit is.

Questions about one person rise and fall together: over 25 people with 8 questions each and strong
clustering, a 95 % Wilson interval over questions covers 64 %, the clustered t interval 94.5 %.
People are therefore the unit everywhere; only general-ability questions are independent.

Near 0 and 1 a symmetric interval fails as well: the t interval of an accuracy of 2 to 10 % covers
83 to 94 %. Accuracies and their ratios therefore get score intervals, whose width goes with the
candidate value instead of the value seen. `tests/test_evaluation_coverage.py` measures coverage.
Sources: Miller 2024 (arXiv 2411.00640); Wilson 1927; Liang and Zeger 1986; Kish 1965 and Korn and
Graubard 1998 (effective number of answers).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

LEVEL = 0.95
MIN_INDIVIDUALS = 10
"""Below this many people no interval is given: none is trustworthy."""
ENOUGH_INDIVIDUALS = 20
"""Below this many people the interval is given with a note."""

_SINGULAR = {"people": "person", "questions": "question"}

NO_VARIATION = 1e-9
"""Standard errors and widths below this are rounding."""

ASSUMED_ANSWERS = 0.2
"""Weight, in answers of the rarer kind, of the assumption that a person knows all or nothing.

With few such answers the variance between people is as good as unknown, and mostly too low: this
widens the interval then. Accuracies of 2 to 98 % are covered in 93 to 98 % of cases up to an
intra-person correlation of 0.3, in 91 to 98 % up to 0.8.
"""

ASSUMED_CHANGES = 1.0
"""The same weight for differences between paired answers, in answers that changed.

Of 3 % that change with a correlation of 0.3 within a person, plain t intervals cover 87 to 88 %,
these 92 to 100; with a correlation of 0.6, 83 and 87.
"""

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval; `value` is None where it is undefined, and `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """The mean of one number over independent runs, with its interval; None without a run."""

    value: float | None
    low: float | None
    high: float | None
    spread: float | None
    """Standard deviation between the runs, divisor S - 1; None for fewer than two."""
    count: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Design:
    """Person and stratum of n answers by number, and the answers' weights in the mean, all (n,)."""

    cluster: IndexArray
    stratum: IndexArray
    weights: FloatArray
    """1 / (strata times answers of the stratum); they sum to 1."""
    sizes: FloatArray
    """Answers per stratum, (strata,)."""
    people: int

    @classmethod
    def of(cls, clusters: Sequence[Hashable], strata: Sequence[Hashable] | None = None) -> Design:
        """Return the design; no `strata` are one stratum."""
        cluster = _numbered(clusters)
        stratum = np.zeros(len(cluster), dtype=np.intp) if strata is None else _numbered(strata)
        sizes = np.bincount(stratum).astype(np.float64)
        weights = np.asarray(1.0 / (len(sizes) * sizes[stratum]))
        return cls(cluster, stratum, weights, sizes, int(cluster.max()) + 1)

    def means(self, values: FloatArray) -> FloatArray:
        """Return the mean of `values`, (n,), in every stratum, (strata,)."""
        return np.asarray(np.bincount(self.stratum, weights=values) / self.sizes)

    def per_person(self, values: FloatArray) -> FloatArray:
        """Return the sum of `values`, (n,), of every person, (people,)."""
        return np.bincount(self.cluster, weights=values).astype(np.float64)

    def residuals(self, values: FloatArray) -> FloatArray:
        """Return the weighted distances of `values` from their stratum's mean, (n,)."""
        return np.asarray(self.weights * (values - self.means(values)[self.stratum]))

    def variance(self, residuals: FloatArray) -> float:
        """Return the cluster-robust variance of the mean: G/(G-1) sum_g u_g^2, G people."""
        sums = self.per_person(residuals)
        return self.people / (self.people - 1) * float(sums @ sums)

    def effective_answers(self, residuals: FloatArray, *, spread: float, rarity: float) -> float:
        """Return how many independent answers would give the mean its (widened) variance.

        `spread` over that variance. Where people do not differ at all, as many answers are
        independent as there are people (Kish's 1 / sum_g W_g^2, W_g the weight of person g).
        """
        if self.variance(residuals) < NO_VARIATION**2:
            shares = self.per_person(self.weights)
            return 1.0 / float(shares @ shares)
        return spread / self.widened(
            residuals, spread=spread, rarity=rarity, assumed=ASSUMED_ANSWERS
        )

    def widened(
        self, residuals: FloatArray, *, spread: float, rarity: float, assumed: float
    ) -> float:
        """Return the variance of the mean, widened where answers of one kind are rare.

        (x V + k W) / (x + k): V the cluster-robust variance; W the one if all answers of a person
        were alike; k = `assumed`; x = `rarity` (share of the rarer answers) times the number of
        independent answers, `spread` (variance of one answer) over the variance of their mean.
        Probabilities vary less than right and wrong do, and count as more answers.
        """
        seen, independent = self.variance(residuals), float(residuals @ residuals)
        shares = self.per_person(self.weights)
        alike = independent * float(shares @ shares) / float(self.weights @ self.weights)
        rarer = rarity * spread / independent
        return (rarer * seen + assumed * alike) / (rarer + assumed)


def wilson(successes: float, total: int, *, level: float = LEVEL) -> Estimate:
    """Return a proportion with its Wilson score interval; for independent answers only.

    With n answers, k right, z the normal quantile: centre (k + z^2/2) / (n + z^2), half width
    z sqrt(k (n - k) / n + z^2/4) / (n + z^2).
    """
    if total <= 0:
        return Estimate(None, reason="no questions")
    ends = wilson_ends(successes, total, float(special.ndtri((1 + level) / 2)))
    return Estimate(successes / total, *ends)


def clustered_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    strata: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = LEVEL,
    unit: str = "people",
) -> Estimate:
    """Return the mean of `values` with an interval clustered by individual.

    With `strata` (modalities) the value is the mean of the stratum means, as in Figure 4. The
    variance is the cluster-robust one, G/(G-1) sum_g u_g^2, where u_g sums the weighted
    residuals of cluster g; the t distribution has G - 1 degrees of freedom.

    Shares and probabilities, `bounds` (0, 1): Wilson's score interval with t for z and the
    effective number of answers for n, v (1 - v) / variance. Differences of such, any other bounds:
    value +- t sqrt(variance), cut at the bounds. The variance is widened where answers of one
    kind, or changes, are rare (`ASSUMED_ANSWERS`, `ASSUMED_CHANGES`). Where no cluster differs
    from any other (all right, all wrong) it is 0 and says nothing: see `unseen_share`.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return Estimate(None, reason="no questions")
    design = Design.of(clusters, strata)
    value = float(design.means(array).mean())
    note = few_clusters(design.people, unit)
    if design.people < MIN_INDIVIDUALS:
        return Estimate(value, reason=note)
    residuals = design.residuals(array)
    error = math.sqrt(design.variance(residuals))
    if error < NO_VARIATION:
        share = unseen_share(design.people, level=level)
        low, high = value - share * (value - bounds[0]), value + share * (bounds[1] - value)
        return Estimate(value, low, high, join_reasons("no variation seen", note))
    quantile = float(special.stdtrit(design.people - 1, (1 + level) / 2))
    if bounds == (0.0, 1.0):
        rarity = min(value, 1 - value)
        number = design.effective_answers(residuals, spread=value * (1 - value), rarity=rarity)
        return Estimate(value, *wilson_ends(value * number, number, quantile), note)
    changed = float(np.abs(array).mean())
    spread, rarity = float(np.mean(array**2)) - value**2, min(changed, 1 - changed)
    variance = design.widened(residuals, spread=spread, rarity=rarity, assumed=ASSUMED_CHANGES)
    half = quantile * math.sqrt(max(variance, error**2))
    return Estimate(value, max(value - half, bounds[0]), min(value + half, bounds[1]), note)


def mean_over_seeds(
    values: Sequence[float],
    *,
    sampling: Sequence[float] | None = None,
    bounds: tuple[float, float],
    same_people: bool = False,
    level: float = LEVEL,
) -> OverSeeds:
    """Return the mean of `values`, one per independent run, with the interval of that mean.

    Each of the S runs draws people, data order and initialisation anew, so that the spread
    between runs, sd, holds all of it: mean +- t sd / sqrt(S), t with S - 1 degrees of freedom,
    cut at `bounds`. One run has no interval: its people say nothing about training again.
    `sampling` are the half widths of the runs' own intervals. If sd is 0 (all runs at 0 or 1), the
    widest takes its place: mean +- max(sampling) / sqrt(S). With `same_people` in every run sd
    holds training alone, and other people would move all runs alike: the half width is
    sqrt(t^2 sd^2 / S + mean(sampling)^2).
    """
    count = len(values)
    if count < 2:
        value = float(values[0]) if count else None
        return OverSeeds(value, None, None, None, count, "one run" if count else "no runs")
    value, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(special.stdtrit(count - 1, (1 + level) / 2)) * spread / math.sqrt(count)
    constant = spread < NO_VARIATION
    reason = "no variation between runs" if constant else ""
    if same_people or constant:
        if not sampling:
            reason = join_reasons(reason, "no run has an interval of its own")
            return OverSeeds(value, None, None, spread, count, reason)
        people = float(np.mean(sampling))
        half = math.hypot(half, people) if same_people else max(sampling) / math.sqrt(count)
    low, high = max(value - half, bounds[0]), min(value + half, bounds[1])
    return OverSeeds(value, low, high, spread, count, reason)


def wilson_ends(successes: float, total: float, quantile: float) -> tuple[float, float]:
    """Return the ends of Wilson's interval; neither number need be whole."""
    squared = quantile * quantile
    centre = (successes + squared / 2) / (total + squared)
    spread = successes * (total - successes) / total + squared / 4
    half = quantile * math.sqrt(max(spread, 0.0)) / (total + squared)
    # At 0 and n the ends are 0 and 1 exactly; rounding must not move them past the value.
    low = 0.0 if successes <= 0 else max(0.0, centre - half)
    high = 1.0 if successes >= total else min(1.0, centre + half)
    return low, high


def unseen_share(count: int, *, level: float = LEVEL) -> float:
    """Return the largest share of all people who may differ where none of `count` does.

    Wilson's upper end for 0 of `count`, z^2 / (count + z^2); those people may lie anywhere in the
    bounds. For 0 of 50 that gives [0, 0.071]: as many answers as people. `clustered_mean`'s
    formula gives the same for none of the rarer kind (0.075, with t for z). One right of 500 gives
    less, [0, 0.024]: standing alone among its person's ten it speaks against people who know all
    or nothing; none does not.
    """
    squared = float(special.ndtri((1 + level) / 2)) ** 2
    return squared / (count + squared)


def few_clusters(count: int, unit: str = "people") -> str:
    """Return the note that goes with `count` independent units; empty from 20 up."""
    if count < MIN_INDIVIDUALS:
        return f"n/a ({count} {_SINGULAR.get(unit, unit) if count == 1 else unit})"
    if count < ENOUGH_INDIVIDUALS:
        return f"only {count} {unit}: read the interval with care"
    return ""


def intraclass_correlation(values: ArrayLike, clusters: Sequence[Hashable]) -> float | None:
    """Return the correlation of two answers about one person, 0 at least; None if undefined.

    (MSB - MSW) / (MSB + (m - 1) MSW), mean squares between and within people of the one-way
    analysis of variance, m = (n - sum_g n_g^2 / n) / (people - 1). Source: Donner and Koval 1980.
    """
    array, cluster = np.asarray(values, dtype=np.float64), _numbered(clusters)
    counts = np.bincount(cluster).astype(np.float64)
    people, total = len(counts), float(array.size)
    if people < 2 or total <= people:
        return None
    means = np.bincount(cluster, weights=array) / counts
    between = float(counts @ (means - array.mean()) ** 2) / (people - 1)
    within = float(np.sum((array - means[cluster]) ** 2)) / (total - people)
    size = (total - float(counts @ counts) / total) / (people - 1)
    whole = between + (size - 1) * within
    return max(0.0, (between - within) / whole) if whole > NO_VARIATION else None


def mean_of_strata(values: ArrayLike, strata: Sequence[Hashable]) -> float:
    """Return the mean of the stratum means of `values`, one or more."""
    return float(Design.of(strata, strata).means(np.asarray(values, dtype=np.float64)).mean())


def join_reasons(*reasons: str) -> str:
    """Join the reasons that say something, each once."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def _numbered(labels: Sequence[Hashable]) -> IndexArray:
    """Return the number of every label, in order of first appearance."""
    order: dict[Hashable, int] = {}
    return np.array([order.setdefault(label, len(order)) for label in labels], dtype=np.intp)
