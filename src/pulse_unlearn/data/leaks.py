"""Overlaps that make an unlearning result mean nothing, found before anything is trained.

If a person stands on the forget and on the retain side, forgetting and retaining pull at the same
knowledge (Thaker et al., arXiv 2410.02879). People are compared by id, name, questions and
pictures; pictures by their bytes, and by their pixels, so that a re-encoded copy is found too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_unlearn.data.images import decode
from pulse_unlearn.data.naming import normalised
from pulse_unlearn.errors import Problem
from pulse_unlearn.records import Individual, Picture, Question

GRID = 8
"""Side of the reduced RGB picture on which near-identity is judged."""
NEAR = 0.15
"""Largest difference of two copies, as a share of their contrast.

Root mean square difference over the larger standard deviation, of the reduced pictures. On the
embedded world's 48-pixel avatars, copies that were rescaled or saved as JPEG (quality 75) come to
0.13 at most, different people to 0.42 at least; other poses of the same person lie in between.
"""

_FIX = "take one of the two out, or set data.allow_overlap: true, which the report will say"
Reduced = npt.NDArray[np.float32]


def find_overlaps(forget: Sequence[Individual], retain: Sequence[Individual]) -> list[Problem]:
    """Return every way in which someone to forget also stands on the retain side.

    Same id, same name whatever its spelling, same questions with the same answers, identical or
    nearly identical pictures. One problem for each pair of people, naming all the ways.
    """
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for reason, key in _KEYS:
        for pair in _sharing(forget, retain, key):
            found[pair].append(reason)
    for pair, reason in _alike(forget, retain):
        found[pair].append(reason)
    return [
        Problem(
            "the same person stands on both sides",
            f"forget {pair[0]}, retain {pair[1]}",
            got="; ".join(reasons),
            allowed="people who differ in id, name, questions and pictures",
            fix=_FIX,
        )
        for pair, reasons in sorted(found.items())
    ]


def find_trained_on_scored(
    individuals: Sequence[Individual],
    *,
    general: Sequence[Question] = (),
    general_training: Sequence[Question] = (),
) -> list[Problem]:
    """Return scored material that is trained on as well: pictures of people, general questions.

    Also names people whose pictures stand among the general questions.

    MLLMU-Bench has one picture of most people, so there this is a property of the data, to be
    reported beside the numbers rather than refused.
    """
    problems = []
    for person in individuals:
        scored = {question.picture.digest for question in person.questions if question.picture}
        trained = {picture.digest for picture in person.training_pictures}
        if scored and (not trained or trained & scored):
            problems.append(
                Problem(
                    "the scored picture is trained on",
                    f"person {person.id}",
                    got="no other picture" if trained <= scored else "among others",
                    fix="add further pictures of the person to ft_Data",
                )
            )
    problems += _people_among(individuals, [*general, *general_training])
    asked = {_asked(question): question.id for question in general}
    for question in general_training:
        if _asked(question) in asked:
            problems.append(
                Problem(
                    "a scored general question is trained on",
                    f"training question {question.id}",
                    got=f"scored question {asked[_asked(question)]}",
                    fix="take it out of the training file",
                )
            )
    return problems


def _people_among(individuals: Sequence[Individual], general: Sequence[Question]) -> list[Problem]:
    """Return people whose pictures are shown by general questions."""
    shown = {question.picture.digest: question.id for question in general if question.picture}
    return [
        Problem(
            "a general question shows a person's picture",
            f"general question {shown[picture.digest]}",
            got=f"person {person.id}",
            fix="take the question out",
        )
        for person in individuals
        for picture in {p.digest: p for p in _pictures_of(person)}.values()
        if picture.digest in shown
    ]


def _questions_of(person: Individual) -> Iterable[Hashable]:
    asked = frozenset((q.modality, q.question, q.truth) for q in person.questions)
    return [asked] if asked else []


def _names_of(person: Individual) -> Iterable[Hashable]:
    name = normalised(person.name)
    return [name] if name else []


_KEYS: tuple[tuple[str, Callable[[Individual], Iterable[Hashable]]], ...] = (
    ("same id", lambda person: [person.id]),
    ("same name", _names_of),
    ("same questions and answers", _questions_of),
    ("identical picture", lambda person: [picture.digest for picture in _pictures_of(person)]),
)


def _sharing(
    forget: Sequence[Individual],
    retain: Sequence[Individual],
    key: Callable[[Individual], Iterable[Hashable]],
) -> set[tuple[str, str]]:
    """Return the pairs of ids that share a key."""
    holders: dict[Hashable, set[str]] = defaultdict(set)
    for person in forget:
        for value in key(person):
            holders[value].add(person.id)
    return {
        (other, person.id)
        for person in retain
        for value in key(person)
        for other in holders.get(value, ())
    }


@dataclass(frozen=True, slots=True)
class _Gallery:
    """All pictures of a side, reduced: owners[i] is whose picture row i is."""

    owners: tuple[str, ...]
    digests: tuple[str, ...]
    reduced: Reduced
    """[P, GRID * GRID * 3], 0 to 255."""


def _alike(
    forget: Sequence[Individual], retain: Sequence[Individual]
) -> list[tuple[tuple[str, str], str]]:
    """Return pairs of people with nearly identical, but not identical, pictures."""
    ours, theirs = _gallery(forget), _gallery(retain)
    if not ours.owners or not theirs.owners:
        return []
    distance = _differences(ours.reduced, theirs.reduced)
    nearest: dict[tuple[str, str], float] = {}
    for i, j in np.argwhere(distance <= NEAR):
        if ours.digests[i] != theirs.digests[j]:
            pair = (ours.owners[i], theirs.owners[j])
            nearest[pair] = min(nearest.get(pair, NEAR), float(distance[i, j]))
    return [
        (pair, f"nearly identical picture (differs by {value:.0%} of its contrast)")
        for pair, value in nearest.items()
    ]


def _gallery(people: Sequence[Individual]) -> _Gallery:
    unique = {(person.id, p.digest): p for person in people for p in _pictures_of(person)}
    reduced = [_reduce(picture) for picture in unique.values()]
    stacked = np.stack(reduced) if reduced else np.zeros((0, GRID * GRID * 3), np.float32)
    return _Gallery(
        tuple(owner for owner, _ in unique), tuple(digest for _, digest in unique), stacked
    )


def _reduce(picture: Picture) -> Reduced:
    small = decode(picture).resize((GRID, GRID), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32).reshape(-1)


def _differences(ours: Reduced, theirs: Reduced) -> npt.NDArray[np.float64]:
    """Return differences [P, Q] of pictures [P, D] and [Q, D], in shares of their contrast."""
    a, b = ours.astype(np.float64), theirs.astype(np.float64)
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    apart = np.sqrt(np.maximum(squares, 0) / a.shape[1])
    # One grey level at least: two blank pictures of different greys are no copies.
    contrast = np.maximum(np.maximum.outer(a.std(1), b.std(1)), 1.0)
    result: npt.NDArray[np.float64] = apart / contrast
    return result


def _pictures_of(person: Individual) -> Iterable[Picture]:
    yield from (question.picture for question in person.questions if question.picture)
    yield from person.training_pictures
    yield from person.other_pictures


def _asked(question: Question) -> Hashable:
    """Return what a general question shows: its picture and its words."""
    return (question.picture.digest if question.picture else "", question.hint, question.question)
