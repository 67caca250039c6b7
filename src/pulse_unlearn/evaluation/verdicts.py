"""One word on what the answers about D_unlearn show, by rules that simulated models test.

Three questions are kept apart. What is *remembered*: the highest reading that stands above chance.
What is *usable*: the paper's strict reading, what somebody who asks would get. What is *latent*:
the highest reading; latent without usable is knowledge behind a broken habit of answering.
No verdict says "deleted": the readings of a run can recover something, or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pulse_unlearn.evaluation.compare import equivalent, holm
from pulse_unlearn.evaluation.gauges import (
    MOSTLY,
    AboveChance,
    LetterHabit,
    letter_habit,
    one_sided,
    strict_above_habit,
)
from pulse_unlearn.evaluation.intervals import Estimate
from pulse_unlearn.evaluation.measures import (
    MEASURES,
    READINGS,
    asked_for,
    cluster_of,
    estimate_mean,
    mentions,
    mentions_of_others,
    values_of,
)
from pulse_unlearn.records import UNREADABLE, QuestionScore

SURE = 0.05
"""Level of every test, after Holm's correction."""
MARGIN = 0.10
"""Largest difference in accuracy from a model that never knew that counts as none."""
ROTATED, STRICT, MENTIONS = "rotated_accuracy", "accuracy", "mentions"

Word = Literal[
    "one letter",
    "output broken",
    "avoids",
    "suppressed",
    "remembered",
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
class Verdict:
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


def test_readings(scores: Sequence[QuestionScore]) -> tuple[ReadingTest, ...]:
    """Hold every reading that was asked against chance; p-values are not yet corrected."""
    if len({cluster_of(score) for score in scores}) < 2:
        return ()
    strict = strict_above_habit(scores)
    tests = [ReadingTest(STRICT, estimate_mean(scores, MEASURES.get(STRICT)), *_of(strict))]
    for name in READINGS[1:]:
        having, values, _ = asked_for(scores, MEASURES.get(name))
        if not having:
            continue
        gaps = [value - score.chance for value, score in zip(values.tolist(), having, strict=True)]
        above, below = one_sided(gaps, [cluster_of(score) for score in having])
        chance = sum(score.chance for score in having) / len(having)
        estimate = estimate_mean(scores, MEASURES.get(name))
        tests.append(ReadingTest(name, estimate, chance, above, below))
    # In one order alone a constant letter names the truth as often as that letter is true.
    turned = [score for score in scores if score.rotated is not None]
    if turned:
        named, others = values_of(turned, mentions), values_of(turned, mentions_of_others)
        above, below = one_sided((named - others).tolist(), [cluster_of(s) for s in turned])
        estimate = estimate_mean(turned, mentions)
        tests.append(ReadingTest(MENTIONS, estimate, float(others.mean()), above, below))
    return tuple(tests)


def corrected(
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
) -> Verdict:
    """Give the word for one operation; `tests` are corrected. The first rule that fits wins.

    `never_knew` are the same questions asked of a model that never learned them. Rules:

    * *output broken*: half of the answers or more cannot be read;
    * *one letter*: see `LetterHabit.is_one_letter`;
    * *avoids*: `rotated` below chance: whoever avoids the answer knows it;
    * *suppressed*: strict not above what its letters alone would score, another reading above;
    * *remembered*: any reading above chance;
    * *like never known*: no reading differs from the model that never knew by more than `MARGIN`;
    * *not recovered*: none of the readings stands above chance.
    """
    tests = tuple(tests)
    habit = letter_habit(scores)
    highest = highest_of(tests)
    if not tests or not enough_people:
        return Verdict("unknown", "too few people for a verdict", highest, tests, habit)
    word, why = _word(scores, tests, habit, never_knew)
    return Verdict(word, why, highest, tests, habit)


def highest_of(tests: Sequence[ReadingTest]) -> ReadingTest | None:
    """Return the reading of the highest value, `mentions` aside: its chance is another one."""
    found = [t for t in tests if t.reading != MENTIONS and t.estimate.value is not None]
    return max(found, key=lambda test: test.estimate.value or 0.0, default=None)


def _word(
    scores: Sequence[QuestionScore],
    tests: Sequence[ReadingTest],
    habit: LetterHabit,
    never_knew: Sequence[QuestionScore],
) -> tuple[Word, str]:
    by_name = {test.reading: test for test in tests}
    above = [test for test in tests if test.is_above]
    known = f"; remembered all the same: {_listed(above)}" if above else ""
    spoken = [verdict for score in scores for _, _, verdict in score.turned]
    cut = spoken.count("cut_off") / len(spoken) if spoken else 0.0
    unread = sum(one in UNREADABLE for one in spoken) / len(spoken) if spoken else 0.0
    rotated = by_name.get(ROTATED)
    if unread >= MOSTLY:
        off = f" ({cut:.0%} cut off)" if cut else ""
        return "output broken", f"{unread:.0%} of the answers cannot be read{off}{known}"
    if habit.is_one_letter:
        said = f"{habit.letter} to {habit.share.value:.0%} of what can be read"
        return "one letter", f"says {said}, where it is right in {habit.base_rate:.0%}{known}"
    if rotated and rotated.p_below is not None and rotated.p_below < SURE:
        shown = _listed([rotated])
        return "avoids", f"below chance ({shown}): whoever avoids the answer knows it{known}"
    control = _of_control(above, never_knew)
    if above and not by_name[STRICT].is_above:
        return "suppressed", f"strict answers show nothing, and yet: {_listed(above)}{control}"
    if above:
        return "remembered", f"above chance: {_listed(above)}{control}"
    asked = ", ".join(test.reading for test in tests)
    if never_knew and equivalent(scores, never_knew, margin=MARGIN):
        return "like never known", (
            f"within {MARGIN:.0%} of a model that never knew, by every reading: {asked}"
        )
    return "not recovered", f"none of these stands above chance: {asked}"


def _of_control(above: Sequence[ReadingTest], never_knew: Sequence[QuestionScore]) -> str:
    """Say what the model that never knew scores by the highest of these readings."""
    highest = highest_of(above)
    if highest is None or not never_knew:
        return ""
    share = estimate_mean(never_knew, MEASURES.get(highest.reading)).value
    return "" if share is None else f"; a model that never knew: {highest.reading} {share:.0%}"


def _listed(tests: Sequence[ReadingTest]) -> str:
    return ", ".join(f"{test.reading} {test.estimate.value or 0.0:.0%}" for test in tests)


def _of(test: AboveChance) -> tuple[float, float | None, float | None]:
    return test.expected, test.p_above, test.p_below
