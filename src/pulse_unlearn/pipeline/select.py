"""Choosing the individuals a model knows from pre-training, by its answers alone (PULSE, 3.2)."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Score


@dataclass(frozen=True, slots=True)
class Known:
    """How well one individual is known, and whether it was chosen."""

    id: str
    accuracy: float
    multimodal: float | None
    text_only: float | None
    letter_probability: float
    chosen: bool


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen individuals and the evidence for all candidates."""

    forget: tuple[str, ...]
    retain: tuple[str, ...]
    candidates: tuple[Known, ...]


def select_known(
    scores: Sequence[Score], candidates: Collection[str], *, forget: int, retain: int, seed: int
) -> Selection:
    """Take the `forget + retain` best-known candidates and split them at random.

    Rank: accuracy over both modalities, then the mean probability of the true letter, then id.
    Raises DataError if too few candidates were asked anything.
    """
    by_person: dict[str, list[Score]] = defaultdict(list)
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
    known = sorted(
        (_known(identity, rows) for identity, rows in by_person.items()),
        key=lambda person: (-person.accuracy, -person.letter_probability, person.id),
    )
    best = [person.id for person in known[: forget + retain]]
    random.Random(seed).shuffle(best)
    chosen = set(best)
    marked = tuple(Known(**{**asdict(person), "chosen": person.id in chosen}) for person in known)
    return Selection(tuple(best[:forget]), tuple(best[forget:]), marked)


def _known(identity: str, rows: Sequence[Score]) -> Known:
    def accuracy(modality: str) -> float | None:
        hits = [row.verdict == "correct" for row in rows if row.modality == modality]
        return fmean(hits) if hits else None

    return Known(
        id=identity,
        accuracy=fmean(row.verdict == "correct" for row in rows),
        multimodal=accuracy("multimodal"),
        text_only=accuracy("text_only"),
        letter_probability=fmean(row.letter_probability for row in rows),
        chosen=False,
    )
