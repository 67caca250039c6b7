"""Membership: are the forgotten told from people whom the same model never learned?

The LOSS attack (Yeom et al., arXiv 1709.01604): what was learned is likelier. A person's score is
the mean log-likelihood per token of the true answers in words. Min-K % would need the likelihood of
single tokens, which answers do not hold.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean

import numpy as np
from scipy import special

from pulse_unlearn.evaluation.intervals import (
    LEVEL,
    MIN_INDIVIDUALS,
    Estimate,
    FloatArray,
    few_clusters,
)
from pulse_unlearn.evaluation.measures import ALL, measurement, missing_modality, of_modality
from pulse_unlearn.records import MODALITIES, Measurement, QuestionScore

PERMUTATIONS = 2_000


def membership_measures(
    answers: Iterable[QuestionScore], never_learned: Iterable[QuestionScore], *, of_set: str
) -> list[Measurement]:
    """Return how well one model tells a set's people from people it never learned.

    In each modality and in both, people scored by the mean of their modalities' means:

    * `membership_auc`: the chance that somebody of the set has likelier answers than somebody never
      learned, ties counting half. 1 is a model that knows, 0.5 one that never knew; below it,
      answers were pushed under those of people nobody ever taught, which tells them as well;
    * `membership_p`: two-sided, how often it is as far from 0.5 if people swap sides.
    """
    mine, theirs = tuple(answers), tuple(never_learned)
    measurements = []
    for modality in (*MODALITIES, ALL):
        chosen, others = of_modality(mine, modality), of_modality(theirs, modality)
        reason = missing_modality(chosen, modality) or missing_modality(others, modality)
        found = p_value = Estimate(None, reason=reason)
        if not reason:
            found, p_value = told_apart(_by_person(chosen), _by_person(others))
        measurements += [
            measurement(name, chosen, one, of_set=of_set, modality=modality)
            for name, one in (("membership_auc", found), ("membership_p", p_value))
        ]
    return measurements


def told_apart(members: Sequence[float], others: Sequence[float]) -> tuple[Estimate, Estimate]:
    """Return the AUC of two groups of scores, a person each, with its interval and p-value.

    The interval is Newcombe's fifth (2006, Statistics in Medicine 25), which holds near 0 and 1;
    the p-value comes from permutations of who is in which group.
    """
    if not members or not others:
        nothing = Estimate(None, reason="not asked in words")
        return nothing, nothing
    few = min(len(members), len(others))
    ranks = _ranks(np.array([*members, *others]))
    value = _auc(ranks[: len(members)].sum(), len(members), len(others))
    if few < MIN_INDIVIDUALS:
        return Estimate(value, reason=few_clusters(few)), Estimate(None, reason=few_clusters(few))
    low, high = auc_ends(value, len(members), len(others))
    note = few_clusters(few)
    p_value = Estimate(_permuted(ranks, len(members)), reason=note)
    return Estimate(value, low, high, note), p_value


def auc_ends(
    value: float, members: int, others: int, *, level: float = LEVEL
) -> tuple[float, float]:
    """Return the ends of an AUC's interval: where (value - end)^2 = z^2 V(end).

    V(a) = a (1 - a) (1 + (n - 1) (1 - a) / (2 - a) + (n - 1) a / (1 + a)) / (members x others),
    the variance of Hanley and McNeil (1982) with n, the mean of the two numbers, for both.
    """
    z, each = float(special.ndtri((1 + level) / 2)), (members + others) / 2 - 1

    def outside(end: float) -> bool:
        spread = 1 + each * (1 - end) / (2 - end) + each * end / (1 + end)
        return (value - end) ** 2 > z**2 * end * (1 - end) * spread / (members * others)

    return _edge(0.0, value, outside), _edge(1.0, value, outside)


def _edge(far: float, near: float, outside: Callable[[float], bool]) -> float:
    """Return where a point between an end of the scale and the value ceases to be outside."""
    for _ in range(60):
        middle = (far + near) / 2
        far, near = (middle, near) if outside(middle) else (far, middle)
    return near


def _by_person(scores: Sequence[QuestionScore]) -> list[float]:
    """Return each person's mean of the means of the modalities that were asked in words."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        if score.words_log_likelihood is not None:
            values[score.individual][score.modality].append(score.words_log_likelihood)
    return [fmean(fmean(found) for found in of.values()) for of in values.values()]


def _ranks(values: FloatArray) -> FloatArray:
    """Return the ranks from 1, equal values sharing theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[place])


def _auc(rank_sum: float, members: int, others: int) -> float:
    return float((rank_sum - members * (members + 1) / 2) / (members * others))


def _permuted(ranks: FloatArray, members: int) -> float:
    """Return (1 + as far from even) / (1 + permutations)."""
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = generator.permuted(np.tile(ranks, (PERMUTATIONS, 1)), axis=1)[:, :members].sum(axis=1)
    even = members * (len(ranks) + 1) / 2
    threshold = abs(float(ranks[:members].sum()) - even) - 1e-9
    return (1 + int(np.count_nonzero(np.abs(drawn - even) >= threshold))) / (1 + PERMUTATIONS)
