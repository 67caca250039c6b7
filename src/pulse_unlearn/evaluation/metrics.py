"""Question scores to measures: what was remembered, by whom, in which modality, and how surely.

Every function returns tidy `Measurement`s. What can't be measured has value None and a reason; no
number is ever NaN.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from pulse_unlearn.evaluation.gauges import LetterHabit, letter_bias, letter_habit
from pulse_unlearn.evaluation.intervals import Estimate, join_reasons, wilson
from pulse_unlearn.evaluation.measures import (
    ALL,
    GENERAL,
    MEASURES,
    READINGS,
    Measure,
    asked_for,
    chance_of,
    estimate_mean,
    measurement,
    missing_modality,
    of_modality,
    rotated_accuracy,
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
    * `letter_share`, `letter_entropy`, `one_letter`: see `gauges.LetterHabit`; in all orders, and
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
            measurements += set_measures(chosen, of_set=name, modality=modality, note=note)
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
    rows = set_measures(scores, of_set=GENERAL, modality=ALL, note=note)
    rows += _by_category("", scores, lambda score: score.category)
    wider = l2_categories or {}
    rows += _by_category("l2_", scores, lambda score: wider.get(score.question_id, ""))
    return rows


def set_measures(
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
    estimates["below_chance"] = (
        Estimate(None, reason=reason) if reason else _below_chance(scores, modality)
    )
    estimates |= _habits(scores)
    return [
        measurement(name, scores, found, of_set=of_set, modality=modality, note=note)
        for name, found in estimates.items()
    ]


def estimate(scores: Sequence[QuestionScore], measure: Measure, modality: str = ALL) -> Estimate:
    """Return one measure with its interval; Wilson's for general questions, right or wrong."""
    having, values, note = asked_for(scores, measure)
    reason = missing_modality(having, modality) if having else note
    if reason:
        return Estimate(None, reason=join_reasons(reason, note))
    if any(score.individual for score in having) or not set(values.tolist()) <= {0.0, 1.0}:
        return estimate_mean(scores, measure)
    ends = wilson(float(values.sum()), len(values))
    return Estimate(float(values.mean()), ends.low, ends.high, join_reasons(ends.reason, note))


def _latent(estimates: Mapping[str, Estimate]) -> Estimate:
    found = [(name, estimates[name]) for name in READINGS if estimates[name].value is not None]
    if not found:
        return Estimate(None, reason=estimates[READINGS[0]].reason)
    name, best = max(found, key=lambda pair: pair[1].value or 0.0)
    return Estimate(best.value, best.low, best.high, join_reasons(f"by {name}", best.reason))


def _below_chance(scores: Sequence[QuestionScore], modality: str) -> Estimate:
    found, chance = estimate(scores, rotated_accuracy, modality), chance_of(scores)
    if found.high is None or chance is None:
        return Estimate(None, reason=found.reason)
    return Estimate(float(found.high < chance), reason=found.reason)


def _one_letter(habit: LetterHabit, told: str) -> Estimate:
    """Return whether the model says one letter; None where too few people were asked to tell."""
    if habit.share.low is None:
        return Estimate(None, reason=join_reasons(told, habit.share.reason))
    return Estimate(float(habit.is_one_letter), reason=told)


def _habits(scores: Sequence[QuestionScore]) -> dict[str, Estimate]:
    habit = letter_habit(scores)
    share, bias = habit.share, letter_bias(scores)
    if not habit.letter:
        nothing = Estimate(None, reason=share.reason)
        one = Estimate(0.0, reason=share.reason) if scores else nothing
        found = (nothing, nothing, one, bias)
    else:
        told = f"letter {habit.letter}, true in {habit.base_rate:.0%}"
        even = "" if habit.entropy is not None else "one letter is all that is said or true"
        found = (
            Estimate(share.value, share.low, share.high, join_reasons(told, share.reason)),
            Estimate(habit.entropy, reason=even),
            _one_letter(habit, told),
            bias,
        )
    return dict(
        zip(("letter_share", "letter_entropy", "one_letter", "letter_bias"), found, strict=True)
    )


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
