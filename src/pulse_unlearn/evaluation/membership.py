"""Membership: are the forgotten told from people whom the same model never learned?

What was learned is likelier. A person's text is the true answers in words; the LOSS attack (Yeom et
al., arXiv 1709.01604) scores it by the mean log-likelihood per token, Min-K % (Shi et al., arXiv
2310.16789) by that of its least likely tokens alone. Answers are stored whole, so a token counts
with the mean of its answer: exactly its own where answers are one token, as in the embedded world,
and closer to LOSS the longer they are.
"""

from __future__ import annotations

import math
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
LEAST_LIKELY = 0.2
"""Share of a text's tokens that Min-K % looks at, as the paper does."""

Answers = Sequence[tuple[float, int]]
"""Log-likelihood per token and number of tokens of each answer of a text; at least one."""


def membership_measures(
    answers: Iterable[QuestionScore], never_learned: Iterable[QuestionScore], *, of_set: str
) -> list[Measurement]:
    """Return how well one model tells a set's people from people it never learned.

    In each modality and in both, people scored by the mean over their modalities:

    * `membership_auc`: the chance that somebody of the set has likelier answers than somebody never
      learned, ties counting half. 1 is a model that knows, 0.5 one that never knew; below it,
      answers were pushed under those of people nobody ever taught, which tells them as well;
    * `membership_p`: two-sided, how often it is as far from 0.5 if people swap sides;
    * `membership_mink_auc`, `membership_mink_p`: the same by Min-K %.
    """
    mine, theirs = tuple(answers), tuple(never_learned)
    measurements = []
    for modality in (*MODALITIES, ALL):
        chosen, others = of_modality(mine, modality), of_modality(theirs, modality)
        reason = missing_modality(chosen, modality) or missing_modality(others, modality)
        for name, scored_by in (("membership", mean_likelihood), ("membership_mink", min_k)):
            found = p_value = Estimate(None, reason=reason)
            if not reason:
                sides = (_by_person(side, scored_by) for side in (chosen, others))
                found, p_value = told_apart(*sides)
            measurements += [
                measurement(f"{name}_{kind}", chosen, one, of_set=of_set, modality=modality)
                for kind, one in (("auc", found), ("p", p_value))
            ]
    return measurements


def mean_likelihood(answers: Answers) -> float:
    """Return the mean of the answers' log-likelihoods per token: LOSS."""
    return fmean(value for value, _ in answers)


def min_k(answers: Answers) -> float:
    """Return the mean log-likelihood of the least likely tokens: Min-K %, one token at least."""
    wanted = left = max(1, math.ceil(LEAST_LIKELY * sum(tokens for _, tokens in answers)))
    total = 0.0
    for value, tokens in sorted(answers):
        taken = min(tokens, left)
        total, left = total + taken * value, left - taken
    return total / wanted


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


def _by_person(
    scores: Sequence[QuestionScore], scored_by: Callable[[Answers], float]
) -> list[float]:
    """Return each person's mean over the modalities that were asked in words, a text in each."""
    texts: dict[str, dict[str, list[tuple[float, int]]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        if score.words_log_likelihood is not None:
            answer = (score.words_log_likelihood, score.words_tokens or 1)
            texts[score.individual][score.modality].append(answer)
    return [fmean(scored_by(text) for text in of.values()) for of in texts.values()]


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
