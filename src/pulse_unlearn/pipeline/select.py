"""Choosing the individuals a model knows from pre-training, by its answers alone (PULSE, 3.2)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.measures import (
    accuracy,
    correct_probability,
    rotated_accuracy,
    rotated_probability,
)
from pulse_unlearn.records import QuestionScore


@dataclass(frozen=True, slots=True)
class Known:
    """How well one individual is known, and whether it was chosen."""

    id: str
    accuracy: float
    multimodal: float | None
    text_only: float | None
    probability: float
    """Mean probability of the true option; ranks those whose accuracies are equal."""
    chosen: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen individuals and the evidence for all candidates."""

    forget: tuple[str, ...]
    retain: tuple[str, ...]
    unseen: tuple[str, ...]
    """The best known of those left; in no scenario's forget or retain set."""
    candidates: tuple[Known, ...]

    @property
    def perfect(self) -> int:
        """Candidates with every answer right, among whom accuracy cannot choose."""
        return sum(person.accuracy == 1.0 for person in self.candidates)


def select_known(
    scores: Sequence[QuestionScore],
    candidates: Collection[str],
    *,
    forget: int,
    retain: int,
    unseen: int,
    seed: int,
    decides: str,
) -> Selection:
    """Take the `forget + retain` best-known candidates and split them at random.

    Rank: accuracy over both modalities, then the mean probability of the true option, then id.
    `decides` names the reading; unless it is `rotated`, the scores' own parser has judged already.
    The next `unseen` of the ranking, or as many as there are, are set aside. Raises DataError if
    too few candidates were asked anything.
    """
    by_person: dict[str, list[QuestionScore]] = defaultdict(list)
    for score in scores:
        if score.individual in candidates:
            by_person[score.individual].append(score)
    if len(by_person) < forget + retain:
        raise DataError(
            Problem(
                "too few candidates to choose from",
                got=f"{len(by_person)} with answers",
                allowed=f"at least {forget + retain}",
            )
        )
    turned = decides == "rotated"
    right = rotated_accuracy if turned else accuracy
    sure = rotated_probability if turned else correct_probability
    known = sorted(
        (_known(identity, rows, right, sure) for identity, rows in by_person.items()),
        key=lambda person: (-person.accuracy, -person.probability, person.id),
    )
    ranked = [person.id for person in known]
    best, next_best = ranked[: forget + retain], ranked[forget + retain :][:unseen]
    random.Random(seed).shuffle(best)
    marked = tuple(replace(person, chosen=person.id in best) for person in known)
    return Selection(tuple(best[:forget]), tuple(best[forget:]), tuple(next_best), marked)


def _known(
    identity: str,
    rows: Sequence[QuestionScore],
    right: Callable[[QuestionScore], float | None],
    sure: Callable[[QuestionScore], float | None],
) -> Known:
    def accuracy_of(modality: str) -> float | None:
        hits = [right(row) or 0.0 for row in rows if row.modality == modality]
        return fmean(hits) if hits else None

    return Known(
        id=identity,
        accuracy=fmean(right(row) or 0.0 for row in rows),
        multimodal=accuracy_of("multimodal"),
        text_only=accuracy_of("text_only"),
        probability=fmean(sure(row) or 0.0 for row in rows),
        chosen=False,
    )
