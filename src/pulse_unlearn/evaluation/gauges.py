"""Gauges of how a model answers, apart from what it knows: one letter to everything, and the like.

A model that says one letter to everything is right in that letter's base rate of the questions,
which looks like chance, like avoidance, or like lost ability, and is none of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from pulse_unlearn.evaluation.intervals import LEVEL, Estimate, clustered_mean
from pulse_unlearn.evaluation.measures import accuracy, cluster_of
from pulse_unlearn.records import QuestionScore

MOSTLY = 0.5
"""Share from which answers are mostly so: unreadable, or more one letter than the truth asks."""


@dataclass(frozen=True, slots=True)
class LetterHabit:
    """How answers that can be read are spread over the letters, in all orders that were asked."""

    letter: str
    """The one furthest above its base rate; empty where nothing can be read."""
    share: Estimate
    """Of that letter among answers that can be read."""
    base_rate: float
    """Of that letter among the true letters of the same answers: what knowing all would say."""
    above_base_rate: bool
    """Whether the share lies above the base rate with 95 % simultaneous confidence."""
    entropy: float | None
    """Of the letters said, over the logarithm of how many are said or true: 0 (one letter) to 1
    (all alike); None where that is one."""
    readable: float
    """Share of all answers that can be read."""

    @property
    def excess(self) -> float:
        """What of the way from the base rate to this letter alone was gone, 1 at most."""
        if self.share.value is None or self.base_rate >= 1:
            return 0.0
        return (self.share.value - self.base_rate) / (1 - self.base_rate)

    @property
    def is_one_letter(self) -> bool:
        """Whether the model says one letter to everything, or to most of what it should not."""
        return self.above_base_rate and self.excess >= MOSTLY and self.readable >= MOSTLY


def letter_habit(scores: Sequence[QuestionScore], *, level: float = LEVEL) -> LetterHabit:
    """Measure the preference for a letter over all orders asked, clustered by individual.

    All answers count alike, whatever their modality. For every letter the share said minus the
    share true is tested against 0 with a t interval, Bonferroni over the letters; the letter of
    the largest such difference is told, the last one of equals.
    """
    said = [
        (cluster_of(score), choice, truth)
        for score in scores
        for truth, choice, _ in score.turned
        if choice
    ]
    asked = sum(len(score.turned) for score in scores)
    if not said:
        return LetterHabit("", Estimate(None, reason="no readable answers"), 0.0, False, None, 0.0)
    letters = sorted({letter for _, choice, truth in said for letter in (choice, truth)})
    clusters = [cluster for cluster, _, _ in said]
    people = any(score.individual for score in scores)
    chosen = Counter(choice for _, choice, _ in said)
    true = Counter(truth for _, _, truth in said)
    letter = max(letters, key=lambda one: (chosen[one] - true[one], one))
    excess = [float(choice == letter) - float(truth == letter) for _, choice, truth in said]
    gap = clustered_mean(excess, clusters, bounds=(-1.0, 1.0), level=1 - (1 - level) / len(letters))
    share = clustered_mean(
        [float(choice == letter) for _, choice, _ in said],
        clusters,
        level=level,
        unit="people" if people else "questions",
    )
    return LetterHabit(
        letter=letter,
        share=share,
        base_rate=true[letter] / len(said),
        above_base_rate=gap.low is not None and gap.low > 0,
        entropy=_entropy([chosen[one] for one in letters]),
        readable=len(said) / asked,
    )


def letter_bias(scores: Sequence[QuestionScore]) -> Estimate:
    """Return the standard deviation over letters of P(right | true letter), in all orders asked.

    RStd of Zheng et al. 2024 (arXiv 2309.03882); 0 is unbiased. Among questions with the most
    common number of options: with fewer options, chance is higher for the first letters only,
    which would look like a bias. What cannot be read counts as wrong; the spread is that of the
    population of letters.
    """
    if not scores:
        return Estimate(None, reason="no questions")
    usual = Counter(score.chance for score in scores).most_common(1)[0][0]
    right: dict[str, list[float]] = {}
    for score in scores:
        for truth, _, verdict in score.turned if score.chance == usual else ():
            right.setdefault(truth, []).append(float(verdict == "correct"))
    if len(right) < 2:
        return Estimate(None, reason="the true answer always has the same letter")
    return Estimate(float(np.std([np.mean(values) for values in right.values()])))


@dataclass(frozen=True, slots=True)
class AboveChance:
    """A one-sided test of a mean against what somebody who knows nothing would score."""

    value: float | None
    expected: float
    """Without knowledge."""
    p_above: float | None
    p_below: float | None


def strict_above_habit(scores: Sequence[QuestionScore]) -> AboveChance:
    """Test the strict accuracy in the file's order against what its letters alone would score.

    Somebody who says letter l in a share p_l of the answers, whatever the question, is right in
    sum_l p_l q_l of them, q_l being the share of questions whose truth is l (Cohen 1960). That
    varies with the sample, too, so each question counts with its projection
    [choice = truth] - q(choice) - p(truth) + sum_l p_l q_l: a constant letter gives exactly 0.
    All among questions with as many options: fewer options favour the first letters on both sides.
    """
    kinds: dict[float, list[QuestionScore]] = {}
    for score in scores:
        kinds.setdefault(score.chance, []).append(score)
    parts = [_habit_gaps(alike) for alike in kinds.values()]
    gaps = [gap for part, _ in parts for gap in part]
    ordered = [score for alike in kinds.values() for score in alike]
    expected = math.fsum(part * len(found) for found, part in parts) / len(scores)
    value = math.fsum(accuracy(score) or 0.0 for score in scores) / len(scores)
    above, below = one_sided(gaps, [cluster_of(score) for score in ordered])
    return AboveChance(value, expected, above, below)


def _habit_gaps(scores: Sequence[QuestionScore]) -> tuple[list[float], float]:
    """Return each question's projection and sum_l p_l q_l, among questions of as many options."""
    chosen = Counter(score.choice for score in scores if score.choice)
    true = Counter(score.answer for score in scores)
    count = len(scores)
    expected = sum(chosen[letter] * true[letter] for letter in true) / count**2
    gaps = [
        (accuracy(score) or 0.0)
        - (true[score.choice] / count if score.choice else 0.0)
        - chosen[score.answer] / count
        + expected
        for score in scores
    ]
    return gaps, expected


def one_sided(gaps: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """Return the p-values of a mean above and below 0: t test over the clusters' sums.

    With G clusters t has G - 1 degrees of freedom. Where no cluster differs from another the sign
    decides, and a mean of 0 speaks for neither side.
    """
    sums: dict[str, float] = {}
    counts: Counter[str] = Counter(clusters)
    for gap, cluster in zip(gaps, clusters, strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + gap
    mean = math.fsum(gaps) / len(gaps)
    residuals = np.array([sums[cluster] - counts[cluster] * mean for cluster in sums])
    groups = len(sums)
    error = math.sqrt(groups / max(groups - 1, 1) * float(residuals @ residuals)) / len(gaps)
    if groups < 2 or error < 1e-12:
        sure = 0.0 if groups > 1 else 1.0
        return (sure, 1.0) if mean > 1e-12 else (1.0, sure) if mean < -1e-12 else (1.0, 1.0)
    above = float(special.stdtr(groups - 1, -mean / error))
    return above, 1.0 - above


def _entropy(counts: Sequence[int]) -> float | None:
    total = sum(counts)
    if len(counts) < 2 or total == 0:
        return None
    shares = [count / total for count in counts if count]
    return max(0.0, -math.fsum(share * math.log(share) for share in shares) / math.log(len(counts)))
