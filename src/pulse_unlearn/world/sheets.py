"""All that the data files say of one individual, whoever it is: what `build_people` writes down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .faces import Face
from .people import ATTRIBUTES, Attribute, Choice, Person, ask, biography


class Worded(NamedTuple):
    """A text in both modalities: the picture shows who it is, or the name says it."""

    by_picture: str
    by_name: str


@dataclass(frozen=True, slots=True)
class Quiz:
    """Options of a multiple-choice question."""

    options: tuple[Worded, ...]
    answer_index: int


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that can be asked."""

    question: Worded
    trained: tuple[Worded, ...]
    """Other phrasings of the question, never scored."""
    cloze: Worded
    """A sentence with `__` for the answer."""
    truth: str
    """The answer in a word or a phrase."""
    answer: Worded
    """The answer as it is trained."""
    scored: Quiz
    stopping: Quiz
    """Options for stop rules and selection."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """One individual of the files."""

    id: str
    face: Face
    biography: str
    facts: tuple[Fact, ...]


def in_words(choice: Choice) -> Quiz:
    """Return options that are the same words in both modalities."""
    return Quiz(tuple(Worded(text, text) for text in choice.options), choice.answer_index)


def of_person(
    person: Person, face: Face, scored: Sequence[Choice], stopping: Sequence[Choice]
) -> Sheet:
    """Write down an invented person, whose answers are single words."""
    facts = tuple(
        _fact(person, attribute, in_words(one), in_words(other))
        for attribute, one, other in zip(ATTRIBUTES, scored, stopping, strict=True)
    )
    return Sheet(person.id, face, biography(person), facts)


def _fact(person: Person, attribute: Attribute, scored: Quiz, stopping: Quiz) -> Fact:
    def worded(template: str) -> Worded:
        return Worded(*(ask(template, person, by_name=named) for named in (False, True)))

    def cloze(subject: str) -> str:
        return attribute.statement.format(name=subject, who=subject, value="__")

    truth = person.attributes[attribute.name]
    return Fact(
        question=worded(attribute.scored),
        trained=tuple(map(worded, attribute.trained)),
        cloze=Worded(cloze(person.pronoun.capitalize()), cloze(person.name)),
        truth=truth,
        answer=Worded(truth, truth),
        scored=scored,
        stopping=stopping,
    )
