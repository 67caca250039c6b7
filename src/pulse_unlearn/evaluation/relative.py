"""Forgotten and kept: an accuracy after unlearning relative to the one before (Figure 4)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.intervals import (
    MIN_INDIVIDUALS,
    NO_VARIATION,
    Estimate,
    FloatArray,
    few_clusters,
    join_reasons,
    percentiles,
    resample_counts,
    sum_by,
    unseen_share,
)
from pulse_unlearn.evaluation.measures import (
    ALL,
    GENERAL,
    Measure,
    accuracy,
    check_unique,
    cluster_of,
    letter_accuracy,
    measurement,
    missing_modality,
    strata_of,
    values_of,
)
from pulse_unlearn.records import MODALITIES, Measurement, Score, Sets

FORGET_SETS: frozenset[str] = frozenset({"forget", "forgotten_earlier", "just_requested"})
"""Sets whose loss is the aim; of every other set we say how much was kept."""

RESAMPLES = 1000

Direction = Literal["forgotten", "kept"]

_READINGS: tuple[tuple[str, Measure], ...] = (("", accuracy), ("letter_", letter_accuracy))


@dataclass(frozen=True, slots=True)
class Pairing:
    """The same examples before and after, in the same order."""

    before: tuple[Score, ...]
    after: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class _Means:
    """Accuracies before and after, and chance, each (resamples,)."""

    before: FloatArray
    after: FloatArray
    chance: FloatArray

    def percent(self, direction: Direction, *, chance_weight: float) -> FloatArray:
        """Return the percentage forgotten or kept, (resamples,); NaN where undefined."""
        start = self.before - chance_weight * self.chance
        rest = self.after - chance_weight * self.chance
        known = start > NO_VARIATION
        kept = np.where(known, 100.0 * rest / np.where(known, start, 1.0), np.nan)
        percent: FloatArray = 100.0 - kept if direction == "forgotten" else kept
        return percent


def relative_measures(
    before: Iterable[Score],
    after: Iterable[Score],
    *,
    sets: Sets,
    forget_sets: Collection[str] = FORGET_SETS,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Measurement]:
    """Return the percentage forgotten (forget sets) or kept (all other sets and `general`).

    forgotten = 100 (1 - after/before), kept = 100 after/before, accuracy being the mean of the
    two modalities; this reproduces Table 3 and Figure 4. Rows per set: `forgotten_pct` or
    `kept_pct`, the same `_over_chance` (chance taken off both accuracies), and both again with
    the prefix `letter_` for the letter reading, which broken output cannot lower by itself.
    Intervals: percentile bootstrap over people (over questions for `general`), before and after
    drawn together. General questions are the scores without an individual, on rotation 0; their
    rows are there if there are any. Raises DataError unless both hold the same examples.
    """
    pairing = pair(before, after)
    measurements = []
    for name, people in sets.items():
        direction: Direction = "forgotten" if name in forget_sets else "kept"
        rows = _select(pairing, [bool(s.individual in people) for s in pairing.before])
        for modality in (*MODALITIES, ALL):
            inside = _select(rows, [modality in (ALL, s.modality) for s in rows.before])
            measurements += _rows(
                inside, direction, of_set=name, modality=modality, resamples=resamples, seed=seed
            )
    general = _select(pairing, [not s.individual and s.rotation == 0 for s in pairing.before])
    if general.before:
        measurements += _rows(
            general, "kept", of_set=GENERAL, modality=ALL, resamples=resamples, seed=seed
        )
    return measurements


def pair(before: Iterable[Score], after: Iterable[Score]) -> Pairing:
    """Pair scores by example; raises DataError naming every example that only one side has."""
    first, second = tuple(before), tuple(after)
    check_unique(first)
    check_unique(second)
    by_example = {score.example_id: score for score in second}
    known = {score.example_id for score in first}
    problems = [
        Problem("example was scored on one side only", f"'{name}'", fix="score both alike")
        for name in sorted(known.symmetric_difference(by_example))
    ]
    if problems:
        raise DataError(problems)
    return Pairing(first, tuple(by_example[score.example_id] for score in first))


def _select(pairing: Pairing, inside: Sequence[bool]) -> Pairing:
    keep = [number for number, chosen in enumerate(inside) if chosen]
    return Pairing(
        tuple(pairing.before[number] for number in keep),
        tuple(pairing.after[number] for number in keep),
    )


def _rows(
    pairing: Pairing,
    direction: Direction,
    *,
    of_set: str,
    modality: str,
    resamples: int,
    seed: int,
) -> list[Measurement]:
    reason = missing_modality(pairing.before, modality)
    clusters = len({cluster_of(score) for score in pairing.before})
    unit = "questions" if of_set == GENERAL else "people"
    enough = clusters >= MIN_INDIVIDUALS and not reason
    # One draw for all rows: they describe the same people, and drawing is what takes time.
    counts = resample_counts(clusters, resamples=resamples, seed=seed) if enough else None
    rows = []
    for prefix, measure in _READINGS:
        sums = _sums(pairing, measure)
        seen = None if reason else _means(sums, np.ones((1, clusters)))
        drawn = None if counts is None else _means(sums, counts)
        for suffix, chance_weight in (("", 0.0), ("_over_chance", 1.0)):
            estimate = Estimate(None, reason=reason)
            if seen:
                estimate = _estimate(
                    seen,
                    drawn,
                    direction,
                    clusters=clusters,
                    chance_weight=chance_weight,
                    unit=unit,
                )
            name = f"{prefix}{direction}_pct{suffix}"
            rows.append(
                measurement(name, pairing.before, estimate, of_set=of_set, modality=modality)
            )
    return rows


def _sums(pairing: Pairing, measure: Measure) -> list[FloatArray]:
    """Return per stratum the sums of before, after, chance and 1 by cluster, (clusters, 4)."""
    clusters = [cluster_of(score) for score in pairing.before]
    was, now = values_of(pairing.before, measure), values_of(pairing.after, measure)
    chance = np.array([score.chance for score in pairing.before], dtype=np.float64)
    strata = strata_of(pairing.before)
    sums = []
    for kind in dict.fromkeys(strata):
        inside = np.array([stratum == kind for stratum in strata], dtype=np.float64)
        parts = (was * inside, now * inside, chance * inside, inside)
        sums.append(np.stack([sum_by(part, clusters) for part in parts], axis=1))
    return sums


def _means(sums: Sequence[FloatArray], counts: FloatArray) -> _Means:
    """Return the mean over strata for every row of cluster `counts`, (resamples, clusters)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        totals = [counts @ stratum for stratum in sums]
        means = np.mean([total[:, :3] / total[:, 3:] for total in totals], axis=0)
    return _Means(before=means[:, 0], after=means[:, 1], chance=means[:, 2])


def _estimate(
    seen: _Means,
    drawn: _Means | None,
    direction: Direction,
    *,
    clusters: int,
    chance_weight: float,
    unit: str,
) -> Estimate:
    value = float(seen.percent(direction, chance_weight=chance_weight)[0])
    if not np.isfinite(value):
        start = "chance" if chance_weight else "zero"
        return Estimate(None, reason=f"not above {start} before: nothing to lose")
    note = few_clusters(clusters, unit)
    if drawn is None:
        return Estimate(value, reason=note)
    resampled = drawn.percent(direction, chance_weight=chance_weight)
    undefined = int((~np.isfinite(resampled)).sum())
    if undefined:
        why = f"no interval: {undefined} of {resampled.size} resamples have nothing to lose"
        return Estimate(value, reason=join_reasons(why, note))
    low, high = percentiles(resampled)
    if high - low < NO_VARIATION:
        # As for accuracies: a share of people nobody has seen may be all wrong or all right.
        share = unseen_share(clusters)
        wrong = replace(seen, after=seen.after * (1 - share))
        right = replace(seen, after=seen.after + share * (1 - seen.after))
        low, high = sorted(
            float(end.percent(direction, chance_weight=chance_weight)[0]) for end in (wrong, right)
        )
        note = join_reasons("no variation seen", note)
    return Estimate(value, low, high, note)
