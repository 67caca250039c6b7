"""Questions in the forms the model sees them: views, option orders, and in words.

Order and view are functions of (seed, epoch, question id) alone, by hash: the same on every
machine, whatever the order of the list or the version of a random generator. The orders of a
question's options fall into cycles: those that turn into one another by moving every text up.

* the *scored* cycle is that of the file's order, with the scored picture;
* one *reserved* cycle, never the scored one, is shown by `other_view` (stop rules, selection);
* all the rest is for training, so that a letter learned by heart is of no use when scored.

With four options or more the three never meet. Three options have one other cycle, of which one
order is reserved and two are trained on. Two options have one cycle and one order beside the
file's: training and `other_view` share it, and the file's order stays untouched.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Literal, NamedTuple

from pulse_unlearn.data.images import scored_pictures
from pulse_unlearn.data.options import obstacle, orders_of
from pulse_unlearn.data.prompts import PROFILES, option_texts, render, render_short_answer
from pulse_unlearn.records import (
    MODALITIES,
    Example,
    Individual,
    Option,
    Picture,
    Question,
    ShortAnswer,
)

Forms = Literal["multiple_choice", "short_answer", "both"]


class Turned(NamedTuple):
    """An example whose options stand in an order of their own."""

    example: Example
    order: tuple[int, ...]
    """Of the options of the example that was turned: their places under A, B, ..."""


def scored(questions: Sequence[Question], *, profile: str) -> list[Example]:
    """Return each question as the data set holds it: original order, scored picture."""
    return [
        _choice(question, range(len(question.options)), profile=profile, view="scored")
        for question in questions
    ]


def circular(questions: Sequence[Question], *, profile: str) -> list[Example]:
    """Return each question in every order of `orders_of`: letters stay, texts move.

    Rotation 0 comes first and equals what `scored` asks (MMBench, arXiv 2307.06281, CircularEval).
    """
    return [
        _choice(
            question,
            order,
            profile=profile,
            view="scored" if turn == 0 else f"rotation{turn}",
            rotation=turn,
        )
        for question in questions
        for turn, order in enumerate(orders_of(question))
    ]


def in_words(questions: Sequence[Question], *, profile: str) -> list[Example]:
    """Return each question bare, to be answered in words; its options are tried as answers.

    Questions that need their options to be seen are left out; `data.options.obstacle` says why.
    """
    return [_bare(question, profile) for question in questions if not obstacle(question)]


def turned(example: Example, question: Question, *, profile: str) -> list[Turned]:
    """Return a training example in every cyclic order of its options, its own first.

    Whatever is about the other options stays in its place, as in `orders_of`. With four options or
    more these are orders for training alone; with three or two they meet the reserved or the scored
    ones. Where the options are not shown, the order is the example's own.
    """
    shown = replace(question, options=example.options, answer=example.letter, orders=())
    first, *others = orders_of(shown)
    if example.option_texts:
        return [Turned(example, first)]
    view = example.example_id.removeprefix(f"{question.id}/")
    found = [
        _choice(
            shown,
            order,
            profile=profile,
            view=f"{view}+{turn}",
            rotation=turn,
            picture=example.picture,
        )
        for turn, order in enumerate(others, start=1)
    ]
    return [Turned(*one) for one in zip((example, *found), (first, *others), strict=True)]


def bare(example: Example, question: Question, *, profile: str) -> Example | None:
    """Return a training example's question bare, on the same picture, its options as answers.

    None where it cannot be asked so, or is already.
    """
    if example.option_texts or obstacle(question):
        return None
    # In the example's own order, so that options are found by their places.
    shown = replace(question, options=example.options, answer=example.letter)
    return replace(_bare(shown, profile), picture=example.picture)


def other_view(
    individuals: Sequence[Individual], *, profile: str, seed: int, turned: bool = False
) -> list[Example]:
    """Return each question in its reserved order, on a picture neither scored nor trained on.

    For stop rules and for choosing individuals: never reported, so no number is fitted to. `seed`
    turns the choice of the picture. Of a person with a single picture that picture is shown.
    `turned` shows every order of the reserved cycle, for the reading `rotated`.
    """
    return [
        _choice(
            question,
            [*order[turn:], *order[:turn]],
            profile=profile,
            view=f"other{turn}" if turn else "other",
            rotation=turn,
            picture=_turned(person.other_pictures, seed, question.id) or question.picture,
        )
        for person in individuals
        for question in person.questions
        for order in [_order(len(question.options), *_reserved(question))]
        for turn in (range(len(order)) if turned else range(1))
    ]


def training(
    individuals: Sequence[Individual], *, profile: str, seed: int, epoch: int, forms: Forms
) -> list[Example]:
    """Return one epoch of training examples about these individuals.

    A person's multimodal questions show one training picture an epoch, the next in the next;
    option orders are drawn anew for each epoch. A person of whom the data set has one picture only
    is trained on that picture, as in the paper; `leaks.find_trained_on_scored` names them.

    Short answers are drawn anew for each epoch, as many in each modality as there are multiple-
    choice questions, so that `both` means half and half however many phrasings a data set has.
    """
    examples: list[Example] = []
    for person in individuals:
        views = person.training_pictures or tuple(scored_pictures(person).values())
        picture = _turned(views, epoch, f"{seed}:{person.id}")
        if forms in ("multiple_choice", "both"):
            examples += [
                _choice(
                    question,
                    _training_order(question, seed=seed, epoch=epoch),
                    profile=profile,
                    view=f"train{epoch}",
                    picture=picture,
                )
                for question in person.questions
            ]
        if forms in ("short_answer", "both"):
            examples += [
                _in_words(answer, picture, profile, f"train{epoch}")
                for answer in _drawn(person, seed=seed, epoch=epoch)
            ]
    return examples


def training_count(individuals: Sequence[Individual], forms: Forms) -> int:
    """Return how many examples `training` gives in an epoch, without making them."""
    count = 0
    for person in individuals:
        asked = Counter(question.modality for question in person.questions)
        if forms in ("multiple_choice", "both"):
            count += len(person.questions)
        if forms in ("short_answer", "both"):
            answers = Counter(answer.modality for answer in person.short_answers)
            count += sum(min(asked[modality], answers[modality]) for modality in MODALITIES)
    return count


def general_training(
    questions: Sequence[Question], *, profile: str, seed: int, epoch: int
) -> list[Example]:
    """Return general questions for replay and retain batches, options in a drawn order.

    These questions are never scored, so every order may appear.
    """
    return [
        _choice(
            question,
            _unrank(
                _hash("general", seed, epoch, question.id) % math.factorial(len(question.options)),
                len(question.options),
            ),
            profile=profile,
            view=f"train{epoch}",
        )
        for question in questions
    ]


def _bare(question: Question, profile: str) -> Example:
    return Example(
        example_id=f"{question.id}/words",
        question_id=question.id,
        modality=question.modality,
        prompt=render_short_answer(profile, question.question, hint=question.hint),
        answer=question.truth,
        options=question.options,
        option_texts=tuple(option.text for option in question.options),
        individual=question.individual,
        category=question.category,
        picture=question.picture if question.modality == "multimodal" else None,
        system=PROFILES.get(profile).system,
        asked_as="words",
    )


def _choice(
    question: Question,
    order: Sequence[int],
    *,
    profile: str,
    view: str,
    rotation: int = 0,
    picture: Picture | None = None,
) -> Example:
    """Put the options' texts in `order` under the letters as they stand."""
    texts = [question.options[place].text for place in order]
    letters = [option.letter for option in question.options]
    options = tuple(Option(*pair) for pair in zip(letters, texts, strict=True))
    true_place = list(order).index(letters.index(question.answer))
    texts_of_options = option_texts(profile, options)
    return Example(
        example_id=f"{question.id}/{view}",
        question_id=question.id,
        modality=question.modality,
        prompt=render(profile, question.question, options=options, hint=question.hint),
        answer=(texts_of_options or letters)[true_place],
        options=options,
        option_texts=texts_of_options,
        individual=question.individual,
        category=question.category,
        rotation=rotation,
        picture=(picture or question.picture) if question.modality == "multimodal" else None,
        system=PROFILES.get(profile).system,
    )


def _in_words(answer: ShortAnswer, picture: Picture | None, profile: str, view: str) -> Example:
    return Example(
        example_id=f"{answer.id}/{view}",
        question_id=answer.id,
        modality=answer.modality,
        prompt=render_short_answer(profile, answer.question),
        answer=answer.answer,
        individual=answer.individual,
        picture=picture if answer.modality == "multimodal" else None,
        system=PROFILES.get(profile).system,
    )


def _drawn(person: Individual, *, seed: int, epoch: int) -> list[ShortAnswer]:
    """Return this epoch's share of the person's short answers."""
    drawn: list[ShortAnswer] = []
    for modality in MODALITIES:
        count = sum(question.modality == modality for question in person.questions)
        answers = [answer for answer in person.short_answers if answer.modality == modality]
        answers.sort(key=lambda answer: _hash("short", seed, epoch, answer.id))
        drawn += answers[:count]
    return drawn


def _turned(pictures: Sequence[Picture], turn: int, key: str) -> Picture | None:
    """Return the picture whose turn it is; keys start at different ones."""
    if not pictures:
        return None
    return pictures[(_hash("picture", key) + turn) % len(pictures)]


def _reserved(question: Question) -> tuple[int, int]:
    """Return cycle and turn of the question's reserved order; depends on nothing but its id."""
    count, drawn = len(question.options), _hash("reserved", question.id)
    if count == 2:
        return 0, 1
    drawn, turn = divmod(drawn, count)
    return 1 + drawn % (math.factorial(count - 1) - 1), turn


def _training_order(question: Question, *, seed: int, epoch: int) -> list[int]:
    """Draw among the orders of neither the scored nor the reserved cycle."""
    count = len(question.options)
    drawn, turn = divmod(_hash("training", seed, epoch, question.id), count)
    cycle, reserved = _reserved(question)
    others = math.factorial(count - 1) - 2
    if others > 0:
        number = 1 + drawn % others
        return _order(count, number + (number >= cycle), turn)
    # Three options: the reserved cycle's two other orders; two options: the one order not scored.
    return _order(count, cycle, reserved if count == 2 else reserved + 1 + drawn % 2)


def _order(count: int, cycle: int, turn: int) -> list[int]:
    """Return a cycle's order with the texts moved up by `turn` places; cycle 0 is the file's."""
    order = [0, *(place + 1 for place in _unrank(cycle, count - 1))]
    turn %= count
    return [*order[turn:], *order[:turn]]


def _unrank(rank: int, count: int) -> list[int]:
    """Return the permutation of that lexicographic rank; 0 is the order of the file."""
    left = list(range(count))
    order = []
    for remaining in range(count, 0, -1):
        place, rank = divmod(rank, math.factorial(remaining - 1))
        order.append(left.pop(place))
    return order


def _hash(*parts: object) -> int:
    """Return 64 bits that depend on the parts alone."""
    return int.from_bytes(sha256(":".join(map(str, parts)).encode()).digest()[:8], "big")
