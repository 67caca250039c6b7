"""Confidence intervals that know what the independent unit is.

Questions about one person rise and fall together: over 25 people with 8 questions each and strong
clustering, a 95 % Wilson interval over questions covers 64 %, the clustered t interval 94.5 %.
People are therefore the unit everywhere; only general-ability questions are independent.
Sources: Miller 2024 (arXiv 2411.00640); Wilson 1927; Liang and Zeger 1986.
"""

from __future__ import annotations

import math
from collections import Counter
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

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """A two-sided interval; both ends are None where there is none, and `reason` says why."""

    low: float | None = None
    high: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval; `value` is None where it is undefined, and `reason` says why."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def wilson(successes: float, total: int, *, level: float = LEVEL) -> Interval:
    """Return the Wilson score interval of a proportion; for independent answers only.

    With n answers, k right, z the normal quantile: centre (k + z^2/2) / (n + z^2), half width
    z sqrt(k (n - k) / n + z^2/4) / (n + z^2).
    """
    if total <= 0:
        return Interval(reason="no questions")
    z = float(special.ndtri((1 + level) / 2))
    centre = (successes + z * z / 2) / (total + z * z)
    spread = successes * (total - successes) / total + z * z / 4
    half = z * math.sqrt(max(spread, 0.0)) / (total + z * z)
    # At 0 and n the ends are 0 and 1 exactly; rounding must not move them past the value.
    low = 0.0 if successes <= 0 else max(0.0, centre - half)
    high = 1.0 if successes >= total else min(1.0, centre + half)
    return Interval(low, high)


def clustered_mean(
    values: ArrayLike,
    clusters: Sequence[Hashable],
    *,
    strata: Sequence[Hashable] | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    level: float = LEVEL,
    unit: str = "people",
) -> Estimate:
    """Return the mean of `values` with a t interval clustered by individual.

    With `strata` (modalities) the value is the mean of the stratum means, as in Figure 4. The
    variance is the cluster-robust one, G/(G-1) sum_g u_g^2, where u_g sums the weighted
    residuals of cluster g; the t distribution has G - 1 degrees of freedom. The interval is cut
    at `bounds`. Where no cluster differs from any other (all right, all wrong) that variance is
    0 and says nothing: see `without_variation`.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        return Estimate(None, reason="no questions")
    labels = strata if strata is not None else [""] * array.size
    means = sum_by(array, labels) / sum_by(np.ones_like(array), labels)
    value = float(means.mean())
    place = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    residuals = array - means[[place[label] for label in labels]]
    sums = sum_by(stratified_weights(labels) * residuals, clusters)
    count = len(sums)
    note = few_clusters(count, unit)
    if count < MIN_INDIVIDUALS:
        return Estimate(value, reason=note)
    error = math.sqrt(count / (count - 1) * float(sums @ sums))
    if error < NO_VARIATION:
        ends = without_variation(value, count, bounds=bounds, level=level, note=note)
        return Estimate(value, ends.low, ends.high, ends.reason)
    half = float(special.stdtrit(count - 1, (1 + level) / 2)) * error
    return Estimate(value, max(value - half, bounds[0]), min(value + half, bounds[1]), note)


def without_variation(
    value: float,
    count: int,
    *,
    bounds: tuple[float, float],
    level: float = LEVEL,
    note: str = "",
) -> Interval:
    """Return an interval where none of `count` people differs from another, so none can vary.

    At most a share h of all people differs from those seen, h being Wilson's upper end for 0 of
    `count`; they may lie anywhere in `bounds`. For 0 of 50 that is [0, 0.071].
    """
    share = unseen_share(count, level=level)
    low = value - share * (value - bounds[0])
    return Interval(
        low, value + share * (bounds[1] - value), join_reasons("no variation seen", note)
    )


def unseen_share(count: int, *, level: float = LEVEL) -> float:
    """Return Wilson's upper end for 0 of `count`: z^2 / (count + z^2)."""
    squared = float(special.ndtri((1 + level) / 2)) ** 2
    return squared / (count + squared)


def few_clusters(count: int, unit: str = "people") -> str:
    """Return the note that goes with `count` independent units; empty from 20 up."""
    if count < MIN_INDIVIDUALS:
        return f"n/a ({count} {_SINGULAR.get(unit, unit) if count == 1 else unit})"
    if count < ENOUGH_INDIVIDUALS:
        return f"only {count} {unit}: read the interval with care"
    return ""


def sum_by(values: FloatArray, clusters: Sequence[Hashable]) -> FloatArray:
    """Return the sum of `values` in every cluster, clusters in order of first appearance."""
    order = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    index = np.fromiter((order[cluster] for cluster in clusters), dtype=np.intp)
    return np.bincount(index, weights=values, minlength=len(order)).astype(np.float64)


def resample_counts(count: int, *, resamples: int, seed: int, stream: int = 0) -> FloatArray:
    """Return how often each of `count` clusters is drawn, (resamples, count), rows sum to count.

    Different `stream`s of one seed are independent.
    """
    generator = np.random.Generator(np.random.PCG64([seed, stream]))
    shares = np.full(count, 1.0 / count)
    return generator.multinomial(count, shares, size=resamples).astype(np.float64)


def percentiles(values: FloatArray, *, level: float = LEVEL) -> tuple[float, float]:
    """Return the ends of the central `level` of `values`, which must be finite."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def join_reasons(*reasons: str) -> str:
    """Join the reasons that say something, each once."""
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))


def stratified_weights(strata: Sequence[Hashable]) -> FloatArray:
    """Return each value's weight in the mean of the stratum means; the weights sum to 1."""
    sizes = Counter(strata)
    weights = [1.0 / (len(sizes) * sizes[label]) for label in strata]
    return np.array(weights, dtype=np.float64)
