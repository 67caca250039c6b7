"""Question scores to measures: what was remembered, by whom, in which modality, and how surely.

Every function returns tidy `Measurement`s. What can't be measured has value None and a reason; no
number is ever NaN.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pulse_unlearn.evaluation.intervals import (
    LEVEL,
    Estimate,
    clustered_mean,
    join_reasons,
    wilson,
)
from pulse_unlearn.evaluation.measures import (
    ALL,
    GENERAL,
    MEASURES,
    READINGS,
    Measure,
    chance_of,
    cluster_of,
    drop_missing,
    estimate_mean,
    measurement,
    missing_modality,
    of_modality,
    unit_of,
)
from pulse_unlearn.records import MODALITIES, Measurement, QuestionScore, Sets

LATENT = "latent_accuracy"
"""The highest of `READINGS`: knowledge that is there, however it is asked for."""


def people_measures(scores: Iterable[QuestionScore], *, sets: Sets) -> list[Measurement]:
    """Return every measure for each set x modality (multimodal, text_only, all).

    `all` is the mean of the two modalities, whatever their numbers of questions. Beside the
    entries of `MEASURES`:

    * `latent_accuracy`: the highest of `READINGS`, with that reading's interval;
    * `chance`: mean of 1 / options; fixed by the questions, no interval;
    * `below_chance`: 1 if `rotated_accuracy` lies below chance with its whole interval: the model
      avoids the right answer, so it still knows it;
    * `chosen:<letter>`: how often a letter was read, in the file's order;
    * `letter_share`, `letter_entropy`, `one_letter`: see `LetterHabit`; in all orders, and
      in `all` over the answers of both modalities together;
    * `letter_bias`: spread of recall over the letters, in all orders.
    """
    by_person: dict[str, list[QuestionScore]] = defaultdict(list)
    for score in scores:
        by_person[score.individual].append(score)
    measurements = []
    for name, people in sets.items():
        rows = [score for person in sorted(people) for score in by_person.get(person, ())]
        missing = sum(person not in by_person for person in people)
        note = f"{missing} of {len(people)} people have no scores" if missing else ""
        for modality in (*MODALITIES, ALL):
            chosen = of_modality(rows, modality)
            measurements += _set_measures(chosen, of_set=name, modality=modality, note=note)
    return measurements


def request_measures(scores: Iterable[QuestionScore], sets: Sets) -> list[Measurement]:
    """Return `accuracy` and `latent_accuracy` of each request's people.

    In modality `all` alone: who of 25 requests lost what after which is hundreds of numbers as it
    is.
    """
    scores = tuple(scores)
    measurements = []
    for name_of_set, people in sets.items():
        about = [score for score in scores if score.individual in people]
        found = {name: estimate(about, MEASURES.get(name)) for name in READINGS}
        found = {"accuracy": found["accuracy"], LATENT: _latent(found)}
        measurements += [
            measurement(name, about, one, of_set=name_of_set, modality=ALL)
            for name, one in found.items()
        ]
    return measurements


def general_measures(
    scores: Iterable[QuestionScore], *, l2_categories: Mapping[str, str] | None = None
) -> list[Measurement]:
    """Return the measures of the general questions: set `general`, modality `all`.

    As those of people, with Wilson intervals where a question is right or wrong, questions being
    independent; `accuracy` is MMBench's vanilla score. Beside them `accuracy:<category>` and
    `circular_accuracy:<category>`. `l2_categories` says the wider category of a question by its
    id, and yields `l2_accuracy:<l2-category>` and `l2_circular_accuracy:<l2-category>`.
    """
    scores = tuple(scores)
    absent = sum(score.verdict is None for score in scores)
    note = f"{absent} of {len(scores)} questions lack the file's option order" if absent else ""
    rows = _set_measures(scores, of_set=GENERAL, modality=ALL, note=note)
    rows += _by_category("", scores, lambda score: score.category)
    wider = l2_categories or {}
    rows += _by_category("l2_", scores, lambda score: wider.get(score.question_id, ""))
    return rows


def attribute_measures(
    scores: Iterable[QuestionScore], *, of_set: str, attributes: Mapping[str, str]
) -> list[Measurement]:
    """Return the strict and the highest reading of each attribute of people, in each modality.

    `attributes` says what a question asks after by its id, and yields `accuracy:<attribute>` and
    `latent_accuracy:<attribute>`.
    """
    inside: dict[tuple[str, str], list[QuestionScore]] = defaultdict(list)
    for score in scores:
        if attribute := attributes.get(score.question_id):
            inside[attribute, score.modality].append(score)
    measurements = []
    for (attribute, modality), chosen in sorted(inside.items()):
        read = {name: estimate(chosen, MEASURES.get(name), modality) for name in READINGS}
        measurements += [
            measurement(f"{name}:{attribute}", chosen, found, of_set=of_set, modality=modality)
            for name, found in (("accuracy", read["accuracy"]), (LATENT, _latent(read)))
        ]
    return measurements


def _set_measures(
    scores: Sequence[QuestionScore], *, of_set: str, modality: str, note: str = ""
) -> list[Measurement]:
    """Return every measure of one set in one modality."""
    reason = missing_modality(scores, modality)
    estimates = {
        name: Estimate(None, reason=reason) if reason else estimate(scores, measure, modality)
        for name, measure in [*MEASURES, *_histogram(scores)]
    }
    estimates[LATENT] = _latent(estimates)
    estimates["chance"] = Estimate(chance_of(scores), reason=reason)
    estimates["below_chance"] = _below(estimates["rotated_accuracy"], chance_of(scores))
    estimates |= _habits(scores)
    return [
        measurement(name, scores, found, of_set=of_set, modality=modality, note=note)
        for name, found in estimates.items()
    ]


def estimate(scores: Sequence[QuestionScore], measure: Measure, modality: str = ALL) -> Estimate:
    """Return one measure with its interval; Wilson's for general questions, right or wrong."""
    having, values, note = drop_missing(scores, measure)
    reason = missing_modality(having, modality) if having else note
    if reason:
        return Estimate(None, reason=join_reasons(reason, note))
    if unit_of(having) == "people" or not set(values.tolist()) <= {0.0, 1.0}:
        return estimate_mean(scores, measure)
    return replace(wilson(float(values.sum()), len(values)), reason=note)


def _latent(estimates: Mapping[str, Estimate]) -> Estimate:
    found = [(name, estimates[name]) for name in READINGS if estimates[name].value is not None]
    if not found:
        return Estimate(None, reason=estimates[READINGS[0]].reason)
    name, best = max(found, key=lambda pair: pair[1].value or 0.0)
    return replace(best, reason=join_reasons(f"by {name}", best.reason))


def _below(found: Estimate, chance: float | None) -> Estimate:
    below = None if found.high is None or chance is None else float(found.high < chance)
    return Estimate(below, reason=found.reason)


def _habits(scores: Sequence[QuestionScore]) -> dict[str, Estimate]:
    habit, share = letter_habit(scores), Estimate(None)
    told, even, one = habit.share.reason, habit.share.reason, 0.0 if scores else None
    if habit.letter:
        share = habit.share
        told = f"letter {habit.letter}, true in {habit.base_rate:.0%}"
        even = "" if habit.entropy is not None else "one letter is all that is said or true"
        # With too few people for an interval nothing is said.
        one = None if share.low is None else float(habit.is_one_letter)
    because = join_reasons(told, share.reason)
    return {
        "letter_share": replace(share, reason=because),
        "letter_entropy": Estimate(habit.entropy, reason=even),
        "one_letter": Estimate(one, reason=because if one is None else told),
        "letter_bias": letter_bias(scores),
    }


def _histogram(scores: Sequence[QuestionScore]) -> list[tuple[str, Measure]]:
    """Return one measure `chosen:<letter>` for every letter that is an answer or was chosen."""
    letters = {score.answer for score in scores} | {score.choice for score in scores}

    def chosen(letter: str) -> Measure:
        return lambda score: None if score.verdict is None else float(score.choice == letter)

    return [(f"chosen:{letter}", chosen(letter)) for letter in sorted(letters - {""})]


def _by_category(
    prefix: str,
    scores: Sequence[QuestionScore],
    category_of: Callable[[QuestionScore], str],
) -> list[Measurement]:
    """Return vanilla and circular accuracy of each category that questions are of."""
    inside: dict[str, list[QuestionScore]] = defaultdict(list)
    for score in scores:
        inside[category_of(score)].append(score)
    return [
        measurement(
            f"{prefix}{name}:{category}",
            inside[category],
            estimate(inside[category], MEASURES.get(name)),
            of_set=GENERAL,
            modality=ALL,
        )
        for category in sorted(set(inside) - {""})
        for name in ("accuracy", "circular_accuracy")
    ]


# --- one letter to everything

MAJORITY = 0.5
"""Share from which answers are mostly so: unreadable, or more one letter than the truth asks."""


@dataclass(frozen=True, slots=True)
class LetterHabit:
    """How readable answers are spread over the letters, in all orders that were asked."""

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
        """How far the share is from the base rate towards this letter alone, 1 at most."""
        if self.share.value is None or self.base_rate >= 1:
            return 0.0
        return (self.share.value - self.base_rate) / (1 - self.base_rate)

    @property
    def is_one_letter(self) -> bool:
        """Whether the model answers everything, or most of what it should not, with one letter."""
        return self.above_base_rate and self.excess >= MAJORITY and self.readable >= MAJORITY


def letter_habit(scores: Sequence[QuestionScore], *, level: float = LEVEL) -> LetterHabit:
    """Measure the preference for a letter over all orders asked, clustered by individual.

    All answers count alike, whatever their modality. For every letter the share said minus the
    share true is tested against 0 with a t interval, Bonferroni over the letters; the letter with
    the largest difference is reported, the last one of equals.
    """
    asked = [(cluster_of(score), *answer) for score in scores for answer in score.turned]
    read = [(cluster, truth, choice) for cluster, truth, choice, _ in asked if choice]
    if not read:
        return LetterHabit("", Estimate(None, reason="no readable answers"), 0.0, False, None, 0.0)
    clusters = [cluster for cluster, _, _ in read]
    true = Counter(truth for _, truth, _ in read)
    chosen = Counter(choice for _, _, choice in read)
    letters = sorted({*true, *chosen})
    letter = max(letters, key=lambda one: (chosen[one] - true[one], one))
    excess = [float(choice == letter) - float(truth == letter) for _, truth, choice in read]
    gap = clustered_mean(excess, clusters, bounds=(-1.0, 1.0), level=1 - (1 - level) / len(letters))
    hits = [float(choice == letter) for _, _, choice in read]
    return LetterHabit(
        letter=letter,
        share=clustered_mean(hits, clusters, level=level, unit=unit_of(scores)),
        base_rate=true[letter] / len(read),
        above_base_rate=gap.low is not None and gap.low > 0,
        entropy=_entropy([chosen[one] for one in letters]),
        readable=len(read) / len(asked),
    )


def verdict_share(scores: Iterable[QuestionScore], verdicts: Collection[str]) -> float:
    """Return the share of answers, in all orders asked, with one of these verdicts; 0 of none."""
    found = [verdict for score in scores for _, _, verdict in score.turned]
    return sum(one in verdicts for one in found) / max(len(found), 1)


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


def _entropy(counts: Sequence[int]) -> float | None:
    total = sum(counts)
    if len(counts) < 2 or total == 0:
        return None
    shares = [count / total for count in counts if count]
    return max(0.0, -math.fsum(share * math.log(share) for share in shares) / math.log(len(counts)))
