"""Scores to measures: what was remembered, by whom, in which modality, and how surely.

Every function returns tidy `Measurement`s. What can't be measured has value None and a reason; no
number is ever NaN.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from pulse_unlearn.evaluation.intervals import Estimate, clustered_mean, join_reasons, wilson
from pulse_unlearn.evaluation.measures import (
    ALL,
    GENERAL,
    MEASURES,
    Measure,
    accuracy,
    check_unique,
    estimate_mean,
    histogram_measures,
    letter_accuracy,
    measurement,
    missing_modality,
    of_modality,
    strata_of,
    values_of,
)
from pulse_unlearn.records import MODALITIES, Measurement, Score, Sets


def people_measures(scores: Iterable[Score], *, sets: Sets) -> list[Measurement]:
    """Return every measure for each set x modality (multimodal, text_only, all).

    `all` is the mean of the two modalities, whatever their numbers of questions. Beside the
    entries of `MEASURES`: `chance` (mean of 1 / options; fixed by the questions, no interval),
    `below_chance` (1 if the letter accuracy lies below chance with its whole interval: the model
    avoids the right answer, so it still knows it) and `chosen:<letter>`, the letter histogram.
    Raises DataError if an example was scored twice.
    """
    scores = tuple(scores)
    check_unique(scores)
    by_person: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_person[score.individual].append(score)
    measurements = []
    for name, people in sets.items():
        rows = [score for person in sorted(people) for score in by_person.get(person, ())]
        missing = sum(person not in by_person for person in people)
        note = f"{missing} of {len(people)} people have no scores" if missing else ""
        for modality in (*MODALITIES, ALL):
            measurements += _people_rows(name, modality, of_modality(rows, modality), note=note)
    return measurements


def general_measures(
    scores: Iterable[Score], *, l2_categories: Mapping[str, str] | None = None
) -> list[Measurement]:
    """Return the measures of the general questions: set `general`, modality `all`.

    On the file's option order (rotation 0), with Wilson intervals, questions being independent:
    the entries of `MEASURES` (`accuracy` is MMBench's vanilla score), `accuracy:<category>`,
    `chance`, `chosen:<letter>`. Over all rotations: `circular_accuracy` (a question counts only
    if every rotation is right; also `circular_accuracy:<category>`), `rotation_flip_rate` (share
    of questions for which not every readable rotation names the same option) and `letter_bias`
    (standard deviation of the recall over the true letters, Zheng et al. 2024, arXiv 2309.03882,
    RStd; 0 is unbiased). `l2_categories` says the wider category of a question by its id, and
    yields `l2_accuracy:<l2-category>` and `l2_circular_accuracy:<l2-category>`.
    Raises DataError if an example was scored twice.
    """
    scores = tuple(scores)
    check_unique(scores)
    by_question: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_question[score.question_id].append(score)
    base = [score for score in scores if score.rotation == 0]
    absent = len(by_question) - len({score.question_id for score in base})
    note = f"{absent} of {len(by_question)} questions lack the file's option order"
    note = note if absent else ""
    rows = [
        _general_row(name, measure, base, note=note)
        for name, measure in [*MEASURES, *histogram_measures(base)]
    ]
    groups = list(by_question.values())
    rows += _by_category("", groups, lambda score: score.category)
    wider = l2_categories or {}
    rows += _by_category("l2_", groups, lambda score: wider.get(score.question_id, ""))
    behind: Sequence[Score]
    for name, behind, estimate in (
        ("chance", base, _chance(base)),
        ("circular_accuracy", scores, _circular(groups)),
        ("rotation_flip_rate", scores, _flip_rate(groups)),
        ("letter_bias", scores, _letter_bias(scores)),
    ):
        rows.append(measurement(name, behind, estimate, of_set=GENERAL, modality=ALL))
    return rows


def _by_category(
    prefix: str, questions: Sequence[Sequence[Score]], category_of: Callable[[Score], str]
) -> list[Measurement]:
    """Return vanilla and circular accuracy of each category that questions are of."""
    inside: dict[str, list[Sequence[Score]]] = defaultdict(list)
    for turned in questions:
        inside[category_of(turned[0])].append(turned)
    rows = []
    for category in sorted(set(inside) - {""}):
        behind = [score for turned in inside[category] for score in turned]
        base = [score for score in behind if score.rotation == 0]
        if base:
            rows.append(_general_row(f"{prefix}accuracy:{category}", accuracy, base))
            name, estimate = f"{prefix}circular_accuracy:{category}", _circular(inside[category])
            rows.append(measurement(name, behind, estimate, of_set=GENERAL, modality=ALL))
    return rows


def _people_rows(
    of_set: str, modality: str, scores: Sequence[Score], *, note: str
) -> list[Measurement]:
    reason = missing_modality(scores, modality)
    estimates: list[tuple[str, Estimate]] = []
    for name, measure in [*MEASURES, *histogram_measures(scores)]:
        estimates.append((name, Estimate(None) if reason else estimate_mean(scores, measure)))
    estimates.append(("chance", Estimate(None) if reason else _chance(scores)))
    estimates.append(("below_chance", Estimate(None) if reason else _below_chance(scores)))
    note = join_reasons(reason, note)
    return [
        measurement(name, scores, estimate, of_set=of_set, modality=modality, note=note)
        for name, estimate in estimates
    ]


def _general_row(
    name: str, measure: Measure, scores: Sequence[Score], *, note: str = ""
) -> Measurement:
    values = values_of(scores, measure)
    if set(values.tolist()) <= {0.0, 1.0}:
        right = float(values.sum())
        ends = wilson(right, len(scores))
        value = right / len(scores) if scores else None
        estimate = Estimate(value, ends.low, ends.high, ends.reason)
    else:
        questions = [score.question_id for score in scores]
        estimate = clustered_mean(values, questions, unit="questions")
    return measurement(name, scores, estimate, of_set=GENERAL, modality=ALL, note=note)


def _chance(scores: Sequence[Score]) -> Estimate:
    """Return the mean of 1 / options over the modality means; no interval, nothing is sampled."""
    if not scores:
        return Estimate(None, reason="no questions")
    by_stratum: dict[str, list[float]] = defaultdict(list)
    for stratum, score in zip(strata_of(scores), scores, strict=True):
        by_stratum[stratum].append(score.chance)
    return Estimate(float(np.mean([np.mean(values) for values in by_stratum.values()])))


def _below_chance(scores: Sequence[Score]) -> Estimate:
    """Return 1 if the interval of the letter accuracy lies below the mean chance, else 0.

    The letter reading, because generated accuracy also falls below chance when output breaks.
    """
    letters, chance = estimate_mean(scores, letter_accuracy), _chance(scores).value
    if letters.high is None or chance is None:
        return Estimate(None, reason=letters.reason)
    return Estimate(float(letters.high < chance), reason=letters.reason)


def _circular(groups: Sequence[Sequence[Score]]) -> Estimate:
    """Return the share of questions answered rightly in every rotation, with Wilson's interval."""
    reason = _incomplete(groups)
    if reason:
        return Estimate(None, reason=reason)
    right = sum(all(score.verdict == "correct" for score in group) for group in groups)
    ends = wilson(right, len(groups))
    return Estimate(right / len(groups), ends.low, ends.high, ends.reason)


def _flip_rate(groups: Sequence[Sequence[Score]]) -> Estimate:
    """Return the share of questions whose readable rotations name different options."""
    reason = _incomplete(groups)
    if reason:
        return Estimate(None, reason=reason)
    flips = []
    for group in groups:
        letters = sorted({score.answer for score in group})
        # Rotating moves all options alike, so the distance to the true one tells which it is.
        offsets = [
            (letters.index(score.choice) - letters.index(score.answer)) % len(letters)
            for score in group
            if score.choice
        ]
        if len(offsets) > 1:
            flips.append(len(set(offsets)) > 1)
    if not flips:
        return Estimate(None, reason="no question has two readable rotations")
    ends = wilson(sum(flips), len(flips))
    unread = len(groups) - len(flips)
    note = f"without {unread} questions that have fewer than two readable rotations"
    return Estimate(sum(flips) / len(flips), ends.low, ends.high, note if unread else "")


def _letter_bias(scores: Sequence[Score]) -> Estimate:
    """Return the standard deviation over letters of P(right | true letter).

    Among questions with the most common number of options: with fewer options, chance is higher
    for the first letters only, which would look like a bias.
    """
    if not scores:
        return Estimate(None, reason="no questions")
    usual = Counter(score.chance for score in scores).most_common(1)[0][0]
    by_letter: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        if score.chance == usual:
            by_letter[score.answer].append(accuracy(score))
    if len(by_letter) < 2:
        return Estimate(None, reason="the true answer always has the same letter")
    return Estimate(float(np.std([np.mean(values) for values in by_letter.values()])))


def _incomplete(groups: Sequence[Sequence[Score]]) -> str:
    """Return why circular numbers can't be had; empty if every rotation of every question is there.

    All rotations are there if the true option stood under as many letters as there are options.
    """
    if not groups:
        return "no questions"
    if all(len(group) == 1 for group in groups):
        return "only one option order was scored"
    lacking = sum(
        len({score.answer for score in group}) != round(1 / group[0].chance)
        or len(group) != round(1 / group[0].chance)
        for group in groups
    )
    return f"{lacking} of {len(groups)} questions lack rotations" if lacking else ""
