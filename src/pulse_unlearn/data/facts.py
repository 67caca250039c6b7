"""A person's facts in two halves, for attacks that teach one and ask for the other."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from pulse_unlearn.records import Facts, Individual


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
