"""General questions that name or show people of a run: they would measure what was forgotten.

About 40 questions of MMBench's dev file ask who is pictured, and some name celebrities that
MLLMU-Bench keeps. Such questions are left out for every method alike, before anything is scored.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal

from pulse_unlearn.data.naming import plain, words_of
from pulse_unlearn.records import Individual, Picture, Question

About = Literal["named", "pictured"]
WHY: dict[About, str] = {"named": "says a person's name", "pictured": "shows a person's picture"}


def about_people(
    people: Sequence[Individual], general: Sequence[Question]
) -> dict[str, dict[About, str]]:
    """Return ids of questions that say a person's whole name or show a person's picture.

    With each, which of the two, and who. Names of a single word are not looked for: they may be a
    word of any question.
    """
    shown: dict[str, list[str]] = {}
    for question in general:
        if question.picture:
            shown.setdefault(question.picture.digest, []).append(question.id)
    said = [(question.id, plain(text)) for question in general for text in _texts_of(question)]
    found: dict[str, dict[About, str]] = {}
    for person in people:
        for digest in sorted({picture.digest for picture in pictures_of(person)} & shown.keys()):
            for place in shown[digest]:
                found.setdefault(place, {}).setdefault("pictured", person.id)
        name = plain(person.name) if len(words_of(person.name)) > 1 else ""
        for place, text in said:
            if name and name in text:
                found.setdefault(place, {}).setdefault("named", person.id)
    return found


def left_out(
    people: Sequence[Individual], general: Sequence[Question], *, allowed: Collection[str]
) -> tuple[tuple[Question, ...], tuple[str, ...]]:
    """Return the questions that remain, and a note for each that does not or only by permission.

    `allowed` are the kinds (`named`, `pictured`) whose questions stay.
    """
    found = about_people(people, general)
    notes, gone = [], set()
    for place, ways in found.items():
        told = ", ".join(f"{WHY[kind]} ({who})" for kind, who in sorted(ways.items()))
        stays = {*ways} <= {*allowed}
        notes.append(f"general question {place} {'stays' if stays else 'is left out'}: it {told}")
        gone |= set() if stays else {place}
    return tuple(question for question in general if question.id not in gone), tuple(notes)


def pictures_of(person: Individual) -> tuple[Picture, ...]:
    """Return every picture of a person, in whatever role."""
    scored = tuple(question.picture for question in person.questions if question.picture)
    return (*scored, *person.training_pictures, *person.other_pictures)


def _texts_of(question: Question) -> tuple[str, ...]:
    return (question.hint, question.question, *(option.text for option in question.options))
