"""The same person on both sides, or a scored picture among trained ones: refused before training.

A person who is asked to be forgotten and to be kept makes every number misleading (Thaker et al.
2024, arXiv 2410.02879).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pulse_unlearn.data.images import decode
from pulse_unlearn.errors import Problem
from pulse_unlearn.records import Individual, Picture

NEAR_IDENTICAL = 1.0
"""Mean absolute difference of two pictures, in grey levels of 255 at 32 x 32 pixels, below which
they are taken for the same one: re-encoding stays below it, another face does not."""
_SIDE = 32
_FIX = "put the person on one side only, or set data.allow_overlap=true (recorded in the report)"


def find_overlaps(forget: Sequence[Individual], retain: Sequence[Individual]) -> list[Problem]:
    """Return every person who seems to stand on both sides, and scored pictures that are trained.

    Compared: id, name (case, accents, punctuation and word order aside), questions, pictures
    (identical, or near-identical after scaling).
    """
    problems = [
        problem for person in (*forget, *retain) for problem in trained_scored_pictures(person)
    ]
    problems += _shared(forget, retain, "id", lambda person: {person.id})
    problems += _shared(forget, retain, "name", lambda person: {plain_name(person.name)})
    problems += _shared(forget, retain, "picture", lambda person: {p.digest for p in _all(person)})
    problems += _near_pictures(forget, retain)
    return problems


def trained_scored_pictures(person: Individual) -> list[Problem]:
    """Return a problem if a picture scored for this person may also be trained on.

    A person with a single picture, as in MLLMU-Bench, has no choice and is let pass.
    """
    held_out = {picture.digest for picture in person.training_pictures}
    shown = {question.picture.digest for question in person.questions if question.picture}
    both = held_out & shown
    if not both or len(held_out) == 1:
        return []
    return [Problem("a scored picture is among the trained ones", person.id, f"{len(both)}")]


def plain_name(name: str) -> str:
    """Return a name without case, accents, punctuation and word order."""
    letters = unicodedata.normalize("NFKD", name.casefold())
    kept = "".join(c if c.isalnum() else " " for c in letters if not unicodedata.combining(c))
    return " ".join(sorted(kept.split()))


def _shared(
    forget: Sequence[Individual],
    retain: Sequence[Individual],
    what: str,
    marks: Callable[[Individual], set[str]],
) -> list[Problem]:
    owners = {mark: person for person in retain for mark in marks(person) if mark}
    return [
        Problem(
            f"the same {what} stands in D_unlearn and D_retain",
            f"{person.id} and {owners[mark].id}",
            got=f"{person.name} and {owners[mark].name}",
            fix=_FIX,
        )
        for person in forget
        for mark in sorted(marks(person))
        if mark in owners
    ]


def _near_pictures(forget: Sequence[Individual], retain: Sequence[Individual]) -> list[Problem]:
    left, right = _thumbnails(forget), _thumbnails(retain)
    if not left or not right:
        return []
    stacked = np.stack([thumbnail for _, _, thumbnail in right])
    problems = []
    for person, picture, thumbnail in left:
        distances = np.abs(stacked - thumbnail).mean(axis=(1, 2, 3))
        for index in np.flatnonzero(distances < NEAR_IDENTICAL):
            other, other_picture, _ = right[int(index)]
            if other_picture.digest != picture.digest:
                problems.append(
                    Problem(
                        "nearly the same picture stands in D_unlearn and D_retain",
                        f"{person.id} and {other.id}",
                        got=f"{picture.where} and {other_picture.where}",
                        fix=_FIX,
                    )
                )
    return problems


def _thumbnails(
    people: Sequence[Individual],
) -> list[tuple[Individual, Picture, NDArray[np.float32]]]:
    """Return the scored pictures, scaled down; views of one person need not all be compared."""
    found = []
    for person in people:
        scored = {q.picture.digest: q.picture for q in person.questions if q.picture}
        for picture in scored.values():
            small = decode(picture).resize((_SIDE, _SIDE))
            found.append((person, picture, np.asarray(small, dtype=np.float32)))
    return found


def _all(person: Individual) -> list[Picture]:
    scored = [question.picture for question in person.questions if question.picture]
    return [*scored, *person.training_pictures, *person.other_pictures]
