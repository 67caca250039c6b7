"""Forgotten and kept: an accuracy after unlearning relative to the one before (Figure 4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.intervals import Estimate, FloatArray, join_reasons
from pulse_unlearn.evaluation.measures import (
    ALL,
    GENERAL,
    MEASURES,
    READINGS,
    cluster_of,
    measurement,
    missing_modality,
    strata_of,
    values_of,
)
from pulse_unlearn.evaluation.ratios import ratio_interval
from pulse_unlearn.records import MODALITIES, Measurement, QuestionScore, Sets

FORGET_SETS: frozenset[str] = frozenset({"forget", "forgotten_earlier", "just_requested"})
"""Sets whose loss is the aim; of every other set we say how much was kept."""

Direction = Literal["forgotten", "kept"]

_ROWS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("", "", ("accuracy",)),
    ("", "_over_chance", ("accuracy",)),
    ("rotated_", "", ("rotated_accuracy",)),
    ("latent_", "", READINGS),
    ("latent_", "_over_chance", READINGS),
)
"""Prefix and suffix of a row's name, and the readings of which the highest counts."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """The same questions before and after, in the same order."""

    before: tuple[QuestionScore, ...]
    after: tuple[QuestionScore, ...]

    def where(self, inside: Sequence[bool]) -> Pairing:
        """Return the pairs that are inside."""
        keep = [number for number, chosen in enumerate(inside) if chosen]
        return Pairing(
            tuple(self.before[number] for number in keep),
            tuple(self.after[number] for number in keep),
        )


def relative_measures(
    before: Iterable[QuestionScore],
    after: Iterable[QuestionScore],
    *,
    sets: Sets,
    forget_sets: Collection[str] = FORGET_SETS,
) -> list[Measurement]:
    """Return the percentage forgotten (forget sets) or kept (all other sets and `general`).

    forgotten = 100 (1 - after/before), kept = 100 after/before, accuracy being the mean of the
    two modalities; this reproduces Table 3 and Figure 4. Rows per set: `forgotten_pct` or
    `kept_pct` in the paper's reading; with the prefix `rotated_` by that reading, and `latent_`
    by the highest reading before and the highest after, which are seldom the same one; the first
    and the last also `_over_chance`, chance taken off both accuracies. General questions are the
    scores without an individual; their rows are there if there are any. Raises DataError unless
    both hold the same questions.
    """
    pairing = pair(before, after)
    measurements = []
    for name, people in sets.items():
        direction: Direction = "forgotten" if name in forget_sets else "kept"
        rows = pairing.where([bool(s.individual in people) for s in pairing.before])
        for modality in (*MODALITIES, ALL):
            inside = rows.where([modality in (ALL, s.modality) for s in rows.before])
            measurements += _rows(inside, direction, of_set=name, modality=modality)
    general = pairing.where([not score.individual for score in pairing.before])
    if general.before:
        measurements += _rows(general, "kept", of_set=GENERAL, modality=ALL)
    return measurements


def pair(before: Iterable[QuestionScore], after: Iterable[QuestionScore]) -> Pairing:
    """Pair scores by question; raises DataError naming every question that one side lacks."""
    first, second = tuple(before), tuple(after)
    by_question = {score.question_id: score for score in second}
    known = {score.question_id for score in first}
    problems = [
        Problem("question was scored on one side only", f"'{name}'", fix="score both alike")
        for name in sorted(known.symmetric_difference(by_question))
    ]
    if problems:
        raise DataError(problems)
    return Pairing(first, tuple(by_question[score.question_id] for score in first))


def _rows(
    pairing: Pairing, direction: Direction, *, of_set: str, modality: str
) -> list[Measurement]:
    reason = missing_modality(pairing.before, modality)
    rows = []
    for prefix, suffix, readings in _ROWS:
        found = Estimate(None, reason=reason)
        if not reason:
            found = _percent(pairing, readings, direction, with_chance=bool(suffix))
        name = f"{prefix}{direction}_pct{suffix}"
        rows.append(measurement(name, pairing.before, found, of_set=of_set, modality=modality))
    return rows


def _percent(
    pairing: Pairing, readings: Sequence[str], direction: Direction, *, with_chance: bool
) -> Estimate:
    """Return 100 after/before, or 100 (1 - after/before), by the highest of these readings."""
    was, by_then = _highest(pairing.before, readings, pairing.after)
    now, by_now = _highest(pairing.after, readings, pairing.before)
    there = ~(np.isnan(was) | np.isnan(now))
    having = [score for score, has in zip(pairing.before, there, strict=True) if has]
    if not having:
        return Estimate(None, reason="not asked")
    chance = np.array([score.chance for score in having]) if with_chance else None
    kept = ratio_interval(
        was[there],
        now[there],
        [cluster_of(score) for score in having],
        strata=strata_of(having),
        chance=chance,
        unit="people" if any(score.individual for score in having) else "questions",
    )
    lacking = len(pairing.before) - len(having)
    note = f"without {lacking} questions that lack it" if lacking else ""
    which = f"{by_then} before, {by_now} after" if len(readings) > 1 else ""
    reason = join_reasons(which, kept.reason, note)
    if kept.value is None:
        return Estimate(None, reason=reason)
    low, high = (None if end is None else 100 * end for end in (kept.low, kept.high))
    if direction == "kept":
        return Estimate(100 * kept.value, low, high, reason)
    ends = (None if high is None else 100 - high, None if low is None else 100 - low)
    return Estimate(100 - 100 * kept.value, *ends, reason)


def _highest(
    scores: Sequence[QuestionScore], readings: Sequence[str], others: Sequence[QuestionScore]
) -> tuple[FloatArray, str]:
    """Return the values of the reading of the highest mean of modality means, and its name.

    Over the questions that both `scores` and `others` were asked so; NaN for the rest, and all are
    NaN if no reading was asked in every modality.
    """
    best, values, name = -np.inf, np.full(len(scores), np.nan), readings[0]
    kinds = np.array(strata_of(scores))
    for reading in readings:
        found, other = (values_of(side, MEASURES.get(reading)) for side in (scores, others))
        found = np.where(np.isnan(other), np.nan, found)
        there = ~np.isnan(found)
        strata = [found[there & (kinds == kind)] for kind in dict.fromkeys(kinds.tolist())]
        if any(part.size == 0 for part in strata):
            continue
        mean = float(np.mean([part.mean() for part in strata]))
        if mean > best:
            best, values, name = mean, found, reading
    return values, name
