"""What a run decides by answers alone: whom a model knows, and whether a stop rule is met."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.evaluation.measures import (
    Measure,
    accuracy,
    correct_probability,
    rotated_accuracy,
    rotated_probability,
)
from pulse_unlearn.evaluation.metrics import MAJORITY, letter_habit, verdict_share
from pulse_unlearn.evaluation.scoring import by_question, read_likelihood, score_all
from pulse_unlearn.records import UNREADABLE, Prediction, QuestionScore

# --- choosing the individuals a model knows from pre-training (PULSE, 3.2)


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
    others: tuple[str, ...]
    """The candidates in none of these sets, best known first."""
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
    `decides` names the reading; unless it is `rotated`, the scores' parser has decided already.
    The next `unseen` of the ranking, or as many as there are, are set aside. Raises DataError if
    too few candidates were asked anything.
    """
    by_person: dict[str, list[QuestionScore]] = defaultdict(list)
    for score in scores:
        if score.individual in candidates:
            by_person[score.individual].append(score)
    if len(by_person) < forget + retain:
        got, allowed = f"{len(by_person)} with answers", f"at least {forget + retain}"
        raise DataError(Problem("too few candidates to choose from", got=got, allowed=allowed))
    turned = decides == "rotated"
    right = rotated_accuracy if turned else accuracy
    sure = rotated_probability if turned else correct_probability
    known = sorted(
        (_known(identity, rows, right, sure) for identity, rows in by_person.items()),
        key=lambda person: (-person.accuracy, -person.probability, person.id),
    )
    ranked = [person.id for person in known]
    best, rest = ranked[: forget + retain], ranked[forget + retain :]
    random.Random(seed).shuffle(best)
    marked = tuple(replace(person, chosen=person.id in best) for person in known)
    return Selection(
        forget=tuple(best[:forget]),
        retain=tuple(best[forget:]),
        unseen=tuple(rest[:unseen]),
        others=tuple(rest[unseen:]),
        candidates=marked,
    )


def _known(
    identity: str,
    rows: Sequence[QuestionScore],
    right: Measure,
    sure: Measure,
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


# --- stop rules


def accuracy_of(
    predictions: Sequence[Prediction], examples: Collection[str], *, decides: str
) -> float:
    """Return the accuracy on these examples as `evaluation.predict` measures it for stop rules.

    `strict` there means that greedy decoding gives exactly the true answer. Raises KeyError for
    examples that were not asked.
    """
    found = {one.example_id: one for one in predictions}
    asked = [found[example] for example in sorted(examples)]
    if decides == "rotated":
        return fmean(q.rotated or 0.0 for q in by_question(asked, score_all(asked)))
    if decides == "likelihood":
        return fmean(read_likelihood(one).letter == one.answer for one in asked)
    return fmean(one.text == _exact_answer(one) for one in asked)


def _exact_answer(one: Prediction) -> str:
    if not one.option_tokens:
        return one.answer
    return next(option.text for option in one.options if option.letter == one.answer)


@dataclass(frozen=True, slots=True)
class Habits:
    """How the questions of a stop rule were answered when it was reached."""

    unreadable: float
    """Share of answers that cannot be read."""
    letter: str
    """The one said most beyond its base rate."""
    letter_share: float | None
    one_letter: bool

    @property
    def flag(self) -> str:
        """Name of what makes the reached target doubtful; empty for nothing."""
        if self.unreadable >= MAJORITY:
            return "target_reached_by_unreadable_answers"
        return "target_reached_by_one_letter" if self.one_letter else ""

    @property
    def why(self) -> str:
        """What the flag rests on."""
        if self.unreadable >= MAJORITY:
            return f"{self.unreadable:.0%} of the answers could not be read"
        return f"{self.letter} was said in {self.letter_share or 0.0:.0%} of the answers"


def habits_of(predictions: Sequence[Prediction]) -> Habits:
    """Read answers strictly and describe how they were given."""
    scores = by_question(predictions, score_all(predictions))
    habit = letter_habit(scores)
    return Habits(
        unreadable=verdict_share(scores, UNREADABLE),
        letter=habit.letter,
        letter_share=habit.share.value,
        one_letter=habit.is_one_letter,
    )
