"""Differences of few seeds, each judged by its own spread and by that of all others.

A variance of three seeds has two degrees of freedom: corrected for all pairs of thirty methods a
t test on it finds next to nothing, and one variance for all calls chance sure where methods scatter
differently. Smyth (2004, Stat. Appl. Genet. Mol. Biol. 3, art. 3) lies between: true variances are
taken to be scattered around a common one as s0^2 d0 / chi^2(d0), both estimated from all of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from pulse_unlearn.evaluation.intervals import FloatArray

MODERATED_FROM = 16
"""Entries that the common variance takes; with fewer, chance is called sure too often."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What all variances say of each: s0^2, on d0 degrees of freedom, which may be infinite."""

    variance: float
    degrees: float

    def moderate(self, own: float, degrees: int) -> tuple[float, float]:
        """Return a variance moderated, and its degrees of freedom."""
        if math.isinf(self.degrees):
            return self.variance, math.inf
        together = self.degrees + degrees
        return (self.degrees * self.variance + degrees * own) / together, together


NO_PRIOR = Prior(0.0, 0.0)


def prior_of(variances: FloatArray, degrees: FloatArray) -> Prior:
    """Estimate the prior from variances and their degrees of freedom by moments (section 6.2).

    With e = log s^2 - psi(d / 2) + log(d / 2), the variance of e less the mean trigamma(d / 2) is
    trigamma(d0 / 2), and the mean of e log s0^2 + psi(d0 / 2) - log(d0 / 2). There is none where
    half of the variances are 0; fewer are left out: scores that end at 0, as of two methods that
    keep nothing, do not scatter there. Both are [pairs].
    """
    if len(variances) < 2 or np.median(variances) <= 0:
        return NO_PRIOR
    scattered = variances > 0
    variances, halves = variances[scattered], degrees[scattered] / 2
    told = np.log(variances) - special.digamma(halves) + np.log(halves)
    beyond = float(told.var(ddof=1) - special.polygamma(1, halves).mean())
    if beyond <= 0:
        return Prior(math.exp(told.mean()), math.inf)
    # 1 / y < trigamma(y) < 1 / y + 1 / y^2.
    half = float(
        optimize.brentq(lambda y: special.polygamma(1, y) - beyond, 1 / beyond, 1 / beyond + 1)
    )
    return Prior(math.exp(told.mean() + special.digamma(half) - math.log(half)), 2 * half)


def p_values(differences: Sequence[Sequence[float]], *, entries: int) -> list[float | None]:
    """Return two-sided p-values of mean differences, each over its seeds; None with under two.

    They come from that many entries; below MODERATED_FROM each is tested by its own spread alone,
    and where that is 0 nothing is known.
    """
    spreads = [float(np.var(one, ddof=1)) if len(one) > 1 else None for one in differences]
    told = np.array(
        [
            (spread, len(one) - 1)
            for one, spread in zip(differences, spreads, strict=True)
            if spread is not None
        ]
    )
    moderated = entries >= MODERATED_FROM and len(told)
    prior = prior_of(told[:, 0], told[:, 1]) if moderated else NO_PRIOR
    return [
        None if spread is None else _p_value(one, *prior.moderate(spread, len(one) - 1))
        for one, spread in zip(differences, spreads, strict=True)
    ]


def _p_value(differences: Sequence[float], spread: float, degrees: float) -> float | None:
    mean = sum(differences) / len(differences)
    if spread < 1e-24:  # no seed differs from another: nothing is known of how others would
        return None if abs(mean) > 1e-12 else 1.0
    t = abs(mean) / math.sqrt(spread / len(differences))
    return float(2 * special.stdtr(min(degrees, 1e9), -t))
