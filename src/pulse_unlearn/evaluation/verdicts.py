"""One word on what the answers about D_unlearn show, by rules that simulated models test.

Three questions are kept apart. What is *remembered*: the highest reading that stands above chance.
What is *usable*: the paper's strict reading, what somebody who asks would get. What is *latent*:
the highest reading; latent without usable is knowledge behind a broken habit of answering.
No verdict says "deleted": the readings of a run can recover something, or not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from pulse_unlearn.evaluation.comparisons import SURE, equivalent, holm
from pulse_unlearn.evaluation.intervals import Design, Estimate
from pulse_unlearn.evaluation.measures import (
    MEASURES,
    READINGS,
    accuracy,
    cluster_of,
    drop_missing,
    estimate_mean,
    mentions,
    mentions_of_others,
    values_of,
)
from pulse_unlearn.evaluation.metrics import MAJORITY, LetterHabit, letter_habit, verdict_share
from pulse_unlearn.records import UNREADABLE, QuestionScore

MARGIN = 0.10
"""Largest difference in accuracy from a model that never knew that counts as none, unless told."""
ROTATED, STRICT, MENTIONS = "rotated_accuracy", "accuracy", "mentions"

Word = Literal[
    "one letter",
    "output broken",
    "avoids",
    "suppressed",
    "remembered",
    "hidden",
    "like never known",
    "not recovered",
    "unknown",
]


@dataclass(frozen=True, slots=True)
class ReadingTest:
    """One reading of D_unlearn held against chance."""

    reading: str
    estimate: Estimate
    chance: float
    """What knowing nothing would score: 1 / options, for `accuracy` that of the letters said, for
    `mentions` how often other options are named."""
    p_above: float | None
    """One-sided; None with too few people, or not asked."""
    p_below: float | None

    @property
    def is_above(self) -> bool:
        """Whether the reading stands above chance."""
        return self.p_above is not None and self.p_above < SURE


@dataclass(frozen=True, slots=True)
class ForgettingVerdict:
    """The word for one operation, why, and the readings behind it."""

    word: Word
    why: str
    highest: ReadingTest | None
    """The highest reading; None if none could be taken."""
    tests: tuple[ReadingTest, ...]
    habit: LetterHabit

    @property
    def is_remembered(self) -> bool:
        """Whether any reading stands above chance, whatever the word; `avoids` stands below it."""
        return any(test.is_above for test in self.tests)


def readings_against_chance(scores: Sequence[QuestionScore]) -> tuple[ReadingTest, ...]:
    """Test every reading that was asked against chance; p-values are not yet corrected."""
    if len({cluster_of(score) for score in scores}) < 2:
        return ()
    tests = [strict_against_chance(scores)]
    for name in READINGS[1:]:
        having, values, _ = drop_missing(scores, MEASURES.get(name))
        if having:
            chances = np.array([score.chance for score in having])
            tests.append(_against_chance(name, having, values - chances, float(chances.mean())))
    # In one order alone a constant letter names the truth as often as that letter is true.
    turned = [score for score in scores if score.rotated is not None]
    if turned:
        named, others = values_of(turned, mentions), values_of(turned, mentions_of_others)
        tests.append(_against_chance(MENTIONS, turned, named - others, float(others.mean())))
    return tuple(tests)


def _against_chance(
    reading: str, scores: Sequence[QuestionScore], gaps: ArrayLike, chance: float
) -> ReadingTest:
    """Test a reading of these questions by their distances from chance, (scores,)."""
    above, below = one_sided(gaps, [cluster_of(score) for score in scores])
    estimate = estimate_mean(scores, MEASURES.get(reading))
    return ReadingTest(reading, estimate, chance, above, below)


def strict_against_chance(scores: Sequence[QuestionScore]) -> ReadingTest:
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
    gaps, expected = [], 0.0
    for alike in kinds.values():
        count = len(alike)
        chosen = Counter(score.choice for score in alike if score.choice)
        true = Counter(score.answer for score in alike)
        by_letters = sum(chosen[letter] * true[letter] for letter in true) / count**2
        expected += by_letters * count / len(scores)
        gaps += [
            (accuracy(score) or 0.0)
            - (true[score.choice] + chosen[score.answer]) / count
            + by_letters
            for score in alike
        ]
    ordered = [score for alike in kinds.values() for score in alike]
    return _against_chance(STRICT, ordered, gaps, expected)


def one_sided(gaps: ArrayLike, clusters: Sequence[str]) -> tuple[float, float]:
    """Return the p-values of a mean above and below 0: t test over the clusters' sums.

    With G clusters t has G - 1 degrees of freedom. Where no cluster differs from another the sign
    decides, and a mean of 0 speaks for neither side.
    """
    values, design = np.asarray(gaps, dtype=np.float64), Design.of(clusters)
    groups, mean = design.people, math.fsum(values) / len(values)
    error = math.sqrt(design.variance(design.residuals(values))) if groups > 1 else 0.0
    if error < 1e-12:
        sure = 0.0 if groups > 1 else 1.0
        return (sure, 1.0) if mean > 1e-12 else (1.0, sure) if mean < -1e-12 else (1.0, 1.0)
    above = float(special.stdtr(groups - 1, -mean / error))
    return above, 1.0 - above


def correct_tests(
    families: Mapping[str, Sequence[ReadingTest]],
) -> dict[str, tuple[ReadingTest, ...]]:
    """Correct the tests of several methods together, all readings of all of them (Holm).

    Above and below chance are two families: the readings of one method, and those of all methods
    compared, may each be above chance by luck.
    """
    tests = [(name, test) for name, family in families.items() for test in family]
    above = holm([test.p_above for _, test in tests])
    below = holm([test.p_below for _, test in tests])
    found: dict[str, list[ReadingTest]] = {name: [] for name in families}
    for (name, test), high, low in zip(tests, above, below, strict=True):
        found[name].append(replace(test, p_above=high, p_below=low))
    return {name: tuple(family) for name, family in found.items()}


def judge(
    scores: Sequence[QuestionScore],
    tests: Sequence[ReadingTest],
    *,
    enough_people: bool,
    never_knew: Sequence[QuestionScore] = (),
    margin: float = MARGIN,
    served: bool = False,
) -> ForgettingVerdict:
    """Give the word for one operation; `tests` are corrected. The first rule that fits wins.

    `never_knew` are the same questions asked of a model that never learned them; `served` says
    that a router or guard stands around weights that have not changed. Rules:

    * *output broken*: half of the answers or more cannot be read;
    * *one letter*: see `LetterHabit.is_one_letter`;
    * *avoids*: `rotated` below chance: whoever avoids the answer knows it;
    * *suppressed*: strict not above what its letters alone would score, another reading above;
    * *remembered*: any reading above chance;
    * *hidden*: none above chance as it is served, by weights that know what they knew before;
    * *like never known*: no reading differs from the model that never knew by `margin` or more;
    * *not recovered*: none of the readings stands above chance.
    """
    tests = tuple(tests)
    habit = letter_habit(scores)
    highest = highest_of(tests)
    if not tests or not enough_people:
        return ForgettingVerdict("unknown", "too few people for a verdict", highest, tests, habit)
    word, why = _apply_rules(scores, tests, habit, never_knew, margin)
    if served and word in ("like never known", "not recovered"):
        word = "hidden"
        why += "; the weights beneath know what they knew: without its router or guard it is back"
    return ForgettingVerdict(word, why, highest, tests, habit)


def highest_of(tests: Sequence[ReadingTest]) -> ReadingTest | None:
    """Return the reading of the highest value, `mentions` aside: its chance is another one."""
    found = [t for t in tests if t.reading != MENTIONS and t.estimate.value is not None]
    return max(found, key=lambda test: test.estimate.value or 0.0, default=None)


def _apply_rules(
    scores: Sequence[QuestionScore],
    tests: Sequence[ReadingTest],
    habit: LetterHabit,
    never_knew: Sequence[QuestionScore],
    margin: float,
) -> tuple[Word, str]:
    by_name = {test.reading: test for test in tests}
    above = [test for test in tests if test.is_above]
    known = f"; remembered all the same: {_listed(above)}" if above else ""
    unread, cut = verdict_share(scores, UNREADABLE), verdict_share(scores, ["cut_off"])
    rotated = by_name.get(ROTATED)
    if unread >= MAJORITY:
        off = f" ({cut:.0%} cut off)" if cut else ""
        return "output broken", f"{unread:.0%} of the answers cannot be read{off}{known}"
    if habit.is_one_letter:
        said = f"{habit.letter} to {habit.share.value:.0%} of what can be read"
        return "one letter", f"says {said}, where it is right in {habit.base_rate:.0%}{known}"
    if rotated and rotated.p_below is not None and rotated.p_below < SURE:
        shown = _listed([rotated])
        return "avoids", f"below chance ({shown}): whoever avoids the answer knows it{known}"
    control = _by_control(above, never_knew)
    if above and not by_name[STRICT].is_above:
        return "suppressed", f"strict answers show nothing, and yet: {_listed(above)}{control}"
    if above:
        return "remembered", f"above chance: {_listed(above)}{control}"
    asked = ", ".join(test.reading for test in tests)
    if never_knew and equivalent(scores, never_knew, margin=margin):
        return "like never known", (
            f"within {margin:.0%} of a model that never knew, by every reading: {asked}"
        )
    return "not recovered", f"none of these stands above chance: {asked}"


def _by_control(above: Sequence[ReadingTest], never_knew: Sequence[QuestionScore]) -> str:
    """Say what the model that never knew scores by the highest of these readings."""
    highest = highest_of(above)
    if highest is None or not never_knew:
        return ""
    share = estimate_mean(never_knew, MEASURES.get(highest.reading)).value
    return "" if share is None else f"; a model that never knew: {highest.reading} {share:.0%}"


def _listed(tests: Sequence[ReadingTest]) -> str:
    return ", ".join(f"{test.reading} {test.estimate.value or 0.0:.0%}" for test in tests)
