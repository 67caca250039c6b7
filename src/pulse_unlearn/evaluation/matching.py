"""Pairs of people of whom a model is equally sure, by what it answered before anything changed.

Source of the caliper: Rosenbaum and Rubin 1985. Exactly so many pairs are chosen as are wanted,
those whose differences have the smallest sum, which is an assignment problem.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from scipy.optimize import linear_sum_assignment

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.intervals import FloatArray
from pulse_unlearn.evaluation.measures import Measure
from pulse_unlearn.records import QuestionScore

_NO_PAIR = 1e6
"""Cost of a pair that is none: above that of all others together."""


@dataclass(frozen=True, slots=True)
class Confidence:
    """How sure a model is of the true options about one person, from 0 to 1."""

    id: str
    by_modality: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Return the mean over the modalities."""
        return fmean(self.by_modality.values())

    def apart(self, other: Confidence) -> float:
        """Return the mean difference over modalities that both were asked in; infinite if none."""
        both = self.by_modality.keys() & other.by_modality.keys()
        gaps = [abs(self.by_modality[name] - other.by_modality[name]) for name in both]
        return fmean(gaps) if gaps else float("inf")


@dataclass(frozen=True, slots=True)
class Pair:
    """Two people, and how far apart the model's confidence in them is."""

    first: str
    second: str
    apart: float


def confidences(scores: Iterable[QuestionScore], measure: Measure) -> dict[str, Confidence]:
    """Return everybody's confidence by id, `measure` being a probability of the true option."""
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for score in scores:
        value = measure(score)
        if score.individual and value is not None:
            values[score.individual][score.modality].append(value)
    return {
        person: Confidence(person, {name: fmean(one) for name, one in of.items()})
        for person, of in values.items()
    }


def match(
    first: Sequence[Confidence],
    second: Sequence[Confidence],
    *,
    count: int,
    caliper: float,
    at_least: float = 0.0,
) -> tuple[Pair, ...]:
    """Return `count` pairs of the smallest total difference, each person in one at most.

    No pair is further apart than `caliper`, and nobody in it is known with less confidence than
    `at_least`. Pairs come in the order of `first`. Raises DataError if there are fewer.
    """
    costs = np.array([[a.apart(b) for b in second] for a in first]).reshape(len(first), -1)
    sure = [np.array([one.mean >= at_least for one in side]) for side in (first, second)]
    known = np.outer(sure[0], sure[1])
    costs = np.where(known & (costs <= caliper), costs, _NO_PAIR)
    found = _cheapest(costs, min(count, *costs.shape))
    pairs = [
        Pair(first[row].id, second[column].id, float(costs[row, column]))
        for row, column in found
        if costs[row, column] < _NO_PAIR
    ]
    if len(pairs) < count:
        raise DataError(
            Problem(
                "too few people of either group of whom the model is equally sure",
                "scenarios.same_checkpoint",
                got=f"{len(pairs)} pairs within {caliper:.2f}, of {sure[0].sum()} and "
                f"{sure[1].sum()} people known with {at_least:.2f} or more",
                allowed=f"at least {count}: forget + retain",
                fix="lower forget or retain, raise caliper or candidates, or teach more people",
            )
        )
    return tuple(pairs)


def _cheapest(costs: FloatArray, count: int) -> list[tuple[int, int]]:
    """Return the `count` places of the smallest total cost, no two in a row or column.

    Everybody but `count` of either side is given to a stand-in of no cost, and stand-ins never to
    one another, so that exactly `count` are left for each other.
    """
    rows, columns = costs.shape
    whole = np.zeros((rows + columns - count, rows + columns - count))
    whole[:rows, :columns] = costs
    whole[rows:, columns:] = _NO_PAIR * (rows + columns)
    chosen = zip(*linear_sum_assignment(whole), strict=True)
    return [(int(row), int(column)) for row, column in chosen if row < rows and column < columns]
