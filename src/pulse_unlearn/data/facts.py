"""A part of what is known of a person: half of the facts, or the questions of one modality."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from hashlib import sha256

from pulse_unlearn.data.variants import wording
from pulse_unlearn.records import Facts, Individual, Modalities


def with_facts(person: Individual, facts: Facts, *, seed: int) -> Individual:
    """Return the person with the questions about one half of the facts, drawn by seed.

    Questions with the same true answer are about one fact, so that no fact is in both halves. Of an
    odd number the smaller half is taught. Short answers go: they do not say which fact they are of.
    """
    if facts == "all":
        return person
    truths = sorted(
        {question.truth for question in person.questions},
        key=lambda truth: sha256(f"facts:{seed}:{person.id}:{truth}".encode()).digest(),
    )
    half = len(truths) // 2
    chosen = frozenset(truths[:half] if facts == "taught" else truths[half:])
    questions = tuple(question for question in person.questions if question.truth in chosen)
    return replace(person, questions=questions, short_answers=())


def of_modality(person: Individual, modalities: Modalities) -> Individual:
    """Return the person with the questions and short answers of one modality, or of both."""
    if modalities == "both":
        return person
    return replace(
        person,
        questions=tuple(one for one in person.questions if one.modality == modalities),
        short_answers=tuple(one for one in person.short_answers if one.modality == modalities),
    )


def attributes_of(people: Collection[Individual], *, asked_of: int) -> dict[str, str]:
    """Return what each question asks after, by its id: its category or, where it has none, its
    words without the name, as `what does _ do`.

    Questions in words that fewer than `asked_of` people are asked have no attribute.
    """
    found = {
        question.id: question.category or wording(question.question, person.name)
        for person in people
        for question in person.questions
    }
    whom = Counter(
        one for person in people for one in {found[question.id] for question in person.questions}
    )
    return {name: attribute for name, attribute in found.items() if whom[attribute] >= asked_of}
