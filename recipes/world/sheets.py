"""All that the data files say of one individual, invented or real: what `build` writes down.

Of the larger world's individuals options and answers are sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from .chance import Choice
from .faces import Face
from .people import ATTRIBUTES, Attribute, Person, ask, biography
from .subjects import TRAITS, Subject, Trait, sentence


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


def _same(text: str) -> Worded:
    return Worded(text, text)


def _quiz(choice: Choice, say: Callable[[str], Worded]) -> Quiz:
    """Word each option; `say` turns a value into what stands for it in both modalities."""
    return Quiz(tuple(map(say, choice.options)), choice.answer_index)


def of_person(
    person: Person, face: Face, scored: Sequence[Choice], stopping: Sequence[Choice]
) -> Sheet:
    """Write down an invented person, whose answers are single words."""
    facts = tuple(
        _fact(person, attribute, _quiz(one, _same), _quiz(other, _same))
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
        answer=_same(truth),
        scored=scored,
        stopping=stopping,
    )


def of_subject(
    subject: Subject, face: Face, scored: Sequence[Choice], stopping: Sequence[Choice]
) -> Sheet:
    """Write down a real person or country."""
    traits = TRAITS[subject.kind]
    facts = tuple(
        _real_fact(subject, trait, one, other)
        for trait, one, other in zip(traits, scored, stopping, strict=True)
    )
    told = [sentence(trait, subject.name, subject.values[trait.name]) for trait in traits]
    return Sheet(subject.id, face, " ".join(told), facts)


def _real_fact(subject: Subject, trait: Trait, scored: Choice, stopping: Choice) -> Fact:
    def worded(template: str) -> Worded:
        return Worded(*(template.format(who=subject.who(by_name=named)) for named in (False, True)))

    def say(value: str) -> Worded:
        return Worded(
            *(sentence(trait, subject.who(by_name=named), value) for named in (False, True))
        )

    truth = subject.values[trait.name]
    return Fact(
        question=worded(trait.scored),
        trained=tuple(map(worded, trait.trained)),
        cloze=say("__"),
        truth=truth,
        answer=say(truth),
        scored=_quiz(scored, say),
        stopping=_quiz(stopping, say),
    )


def in_sentences(sheet: Sheet) -> Sheet:
    """Turn the one-word options and answers of an invented person into sentences."""
    return replace(sheet, facts=tuple(map(_completed, sheet.facts)))


def _completed(fact: Fact) -> Fact:
    def say(words: Worded) -> Worded:
        pairs = zip(fact.cloze, words, strict=True)
        return Worded(*(cloze.replace("__", word) for cloze, word in pairs))

    def quiz(asked: Quiz) -> Quiz:
        return Quiz(tuple(map(say, asked.options)), asked.answer_index)

    return replace(
        fact, answer=say(fact.answer), scored=quiz(fact.scored), stopping=quiz(fact.stopping)
    )
