"""Questions to examples: the scored form, the form for stop rules, and the trained forms.

The three never mix. The scored picture and the scored option order are neither trained on nor
looked at by a stop rule. A two-option question has a single other order, which training and stop
rules must share.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence
from typing import Literal

from pulse_unlearn.data.prompts import render, render_short_answer
from pulse_unlearn.records import Example, Individual, Option, Picture, Question, ShortAnswer

Forms = Literal["multiple_choice", "short_answer", "both"]


def scored(questions: Iterable[Question], *, profile: str) -> list[Example]:
    """Return the reported form: the file's option order and the scored picture."""
    return [
        _example(question, question.options, question.picture, profile=profile, mark="scored")
        for question in questions
    ]


def circular(questions: Iterable[Question], *, profile: str) -> list[Example]:
    """Return every rotation of the options; letters stay in place while the texts move."""
    return [
        _example(
            question,
            _relettered(question, _rotated(question.options, rotation)),
            question.picture,
            profile=profile,
            mark=f"rotation{rotation}",
            rotation=rotation,
        )
        for question in questions
        for rotation in range(len(question.options))
    ]


def other_view(individuals: Iterable[Individual], *, profile: str) -> list[Example]:
    """Return the form for stop rules and selection: another picture, another option order.

    A person without other pictures is shown in a training picture, or else in the scored one.
    """
    return [
        _example(
            question,
            _other_order(question),
            _picture(question, person.other_pictures or person.training_pictures, turn=0),
            profile=profile,
            mark="other",
        )
        for person in individuals
        for question in person.questions
    ]


def training(
    individuals: Iterable[Individual], *, profile: str, seed: int, epoch: int, forms: Forms
) -> list[Example]:
    """Return one epoch of training examples: training pictures in turn, new option orders.

    `both` gives each multiple-choice question once and as many short answers, drawn anew.
    """
    made: list[Example] = []
    for person in individuals:
        if forms != "short_answer":
            made += _multiple_choice(person, profile=profile, seed=seed, epoch=epoch)
        if forms != "multiple_choice":
            made += _short_answers(person, profile=profile, seed=seed, epoch=epoch)
    return made


def general_training(
    questions: Iterable[Question], *, profile: str, seed: int, epoch: int
) -> list[Example]:
    """Return one epoch of general training questions in new option orders."""
    made = []
    for question in questions:
        order = list(question.options)
        random.Random(f"{seed}:{epoch}:{question.id}").shuffle(order)
        options = _relettered(question, order)
        made.append(
            _example(question, options, question.picture, profile=profile, mark=f"epoch{epoch}")
        )
    return made


def _multiple_choice(person: Individual, *, profile: str, seed: int, epoch: int) -> list[Example]:
    return [
        _example(
            question,
            _trained_order(question, random.Random(f"{seed}:{epoch}:{question.id}")),
            _picture(question, person.training_pictures, turn=epoch + number),
            profile=profile,
            mark=f"epoch{epoch}",
        )
        for number, question in enumerate(person.questions)
    ]


def _short_answers(person: Individual, *, profile: str, seed: int, epoch: int) -> list[Example]:
    """Draw as many short answers as there are questions, from all phrasings."""
    draw = random.Random(f"{seed}:{epoch}:{person.id}:short")
    count = min(len(person.questions), len(person.short_answers))
    return [
        _short(item, person, profile=profile, turn=epoch + number, mark=f"epoch{epoch}")
        for number, item in enumerate(draw.sample(person.short_answers, count))
    ]


def _short(item: ShortAnswer, person: Individual, *, profile: str, turn: int, mark: str) -> Example:
    pictures = person.training_pictures
    shown = pictures[turn % len(pictures)] if item.modality == "multimodal" and pictures else None
    return Example(
        id=f"{item.id}/{mark}",
        question_id=item.id,
        modality=item.modality,
        prompt=render_short_answer(profile, item.question),
        answer=item.answer,
        individual=person.id,
        picture=shown,
    )


def _example(
    question: Question,
    options: Sequence[Option],
    picture: Picture | None,
    *,
    profile: str,
    mark: str,
    rotation: int = 0,
) -> Example:
    answer = next(option.letter for option in options if option.text == question.truth)
    return Example(
        id=f"{question.id}/{mark}",
        question_id=question.id,
        modality=question.modality,
        prompt=render(profile, question.question, hint=question.hint, options=options),
        answer=answer,
        options=tuple(options),
        individual=question.individual,
        category=question.category,
        rotation=rotation,
        picture=picture,
    )


def _picture(question: Question, pictures: Sequence[Picture], *, turn: int) -> Picture | None:
    if question.picture is None:
        return None
    return pictures[turn % len(pictures)] if pictures else question.picture


def _relettered(question: Question, order: Sequence[Option]) -> tuple[Option, ...]:
    """Put texts in a new order under the letters the question has."""
    letters = [option.letter for option in question.options]
    return tuple(Option(letter, option.text) for letter, option in zip(letters, order, strict=True))


def _rotated(options: Sequence[Option], rotation: int) -> list[Option]:
    return [*options[rotation:], *options[:rotation]]


def _other_order(question: Question) -> tuple[Option, ...]:
    """Return the one option order of stop rules, the same in every run: not the scored one."""
    orders = [list(order) for order in itertools.permutations(question.options)][1:]
    chosen = random.Random(f"other:{question.id}").choice(orders)
    return _relettered(question, chosen)


def _trained_order(question: Question, draw: random.Random) -> tuple[Option, ...]:
    """Return an option order that is neither the scored one nor, if avoidable, the stop rules'."""
    taken = {question.options, _other_order(question)}
    orders = (_relettered(question, order) for order in itertools.permutations(question.options))
    free = [order for order in orders if order not in taken]
    return draw.choice(free) if free else _other_order(question)
