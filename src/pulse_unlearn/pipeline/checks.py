"""What stop rules read off stored answers: the target model's accuracy, and how a model answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from statistics import fmean

from pulse_unlearn.evaluation.gauges import MOSTLY, letter_habit
from pulse_unlearn.evaluation.readings import by_question
from pulse_unlearn.evaluation.scoring import read_likelihood, score_all
from pulse_unlearn.records import UNREADABLE, Prediction


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
        by_id: dict[str, list[Prediction]] = defaultdict(list)
        for one in asked:
            by_id[one.question_id].append(one)
        turned = [one for group in by_id.values() for one in group]
        return fmean(q.rotated or 0.0 for q in by_question(turned, score_all(turned)))
    if decides == "likelihood":
        return fmean(read_likelihood(one).letter == one.answer for one in asked)
    return fmean(one.text == _answer(one) for one in asked)


def _answer(one: Prediction) -> str:
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
        if self.unreadable >= MOSTLY:
            return "target_reached_by_unreadable_answers"
        return "target_reached_by_one_letter" if self.one_letter else ""


def habits_of(predictions: Sequence[Prediction]) -> Habits:
    """Read answers strictly and tell how they were given."""
    scores = by_question(predictions, score_all(predictions))
    habit = letter_habit(scores)
    spoken = [verdict for score in scores for _, _, verdict in score.turned]
    return Habits(
        unreadable=sum(one in UNREADABLE for one in spoken) / len(spoken),
        letter=habit.letter,
        letter_share=habit.share.value,
        one_letter=habit.is_one_letter,
    )
