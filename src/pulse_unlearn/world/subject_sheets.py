"""What the larger world's files say of its individuals: options and answers are sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from .faces import Face
from .people import Choice
from .sheets import Fact, Quiz, Sheet, Worded
from .subjects import TRAITS, Subject, Trait, sentence

Say = Callable[[str], Worded]
"""A value -> the sentence that holds it, in both modalities."""


def of_subject(
    subject: Subject, face: Face, scored: Sequence[Choice], stopping: Sequence[Choice]
) -> Sheet:
    """Write down a real person or country."""
    traits = TRAITS[subject.kind]
    facts = tuple(
        _fact(subject, trait, one, other)
        for trait, one, other in zip(traits, scored, stopping, strict=True)
    )
    told = [sentence(trait, subject.name, subject.values[trait.name]) for trait in traits]
    return Sheet(subject.id, face, " ".join(told), facts)


def _fact(subject: Subject, trait: Trait, scored: Choice, stopping: Choice) -> Fact:
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
        scored=_said(scored, say),
        stopping=_said(stopping, say),
    )


def _said(choice: Choice, say: Say) -> Quiz:
    return Quiz(tuple(map(say, choice.options)), choice.answer_index)


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
