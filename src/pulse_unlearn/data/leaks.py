"""Overlaps that make an unlearning result mean nothing, found before anything is trained.

If a person stands on the forget and on the retain side, forgetting and retaining pull at the same
knowledge (Thaker et al., arXiv 2410.02879). People are compared by id, name, questions and
pictures; pictures by their bytes, and by their pixels, so that a re-encoded copy is found too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_unlearn.data.about_people import pictures_of
from pulse_unlearn.data.images import decode
from pulse_unlearn.data.naming import is_variant, normalised, words_of
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

_BLOCK = 256
"""Pictures compared with all others at a time; bounds the table of differences."""

_FIX = (
    "take one of the two out, or allow it with --allow-overlap same_person "
    "(data.allow_overlap: [same_person]), which the report will say"
)
Reduced = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Part:
    """People who must not stand in another part too: those to forget, to retain, of a request."""

    name: str
    people: Sequence[Individual]


def find_overlaps(parts: Sequence[Part]) -> list[Problem]:
    """Return every way in which someone of one part also stands in another one.

    Same id, same name whatever its spelling, a variant of the name, same questions with the same
    answers, identical or nearly identical pictures. One problem for each pair of people, naming
    all the ways.
    """
    members = [_Member(part, person) for part in parts for person in part.people]
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for reason, key in _KEYS:
        for pair in _sharing(members, key):
            found[pair].append(reason)
    for pair, reason in (*_variants(members), *_alike(members)):
        found[pair].append(reason)
    return [
        Problem(
            "the same person stands on both sides",
            f"{members[one].where}, {members[other].where}",
            got="; ".join(reasons),
            allowed="people who differ in id, name, questions and pictures",
            fix=_FIX,
        )
        for (one, other), reasons in sorted(found.items())
    ]


def find_duplicates(people: Sequence[Individual]) -> list[Problem]:
    """Return everybody who seems to stand in a data set twice, in the ways of `find_overlaps`."""
    return find_overlaps([Part("", [person]) for person in people])


def find_trained_on_scored(
    individuals: Sequence[Individual],
    *,
    general: Sequence[Question] = (),
    general_training: Sequence[Question] = (),
) -> list[Problem]:
    """Return scored material that is trained on as well: pictures of people, general questions.

    A scored picture also is trained on if the person has no other one, as in MLLMU-Bench for most
    people, or if a training picture is a nearly identical copy of it.
    """
    problems = _scored_and_trained(individuals)
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


def _scored_and_trained(individuals: Sequence[Individual]) -> list[Problem]:
    owner = {
        question.picture.digest: person.id
        for person in individuals
        for question in person.questions
        if question.picture
    }
    problems = []
    for person in individuals:
        pictures = (question.picture for question in person.questions)
        scored = list({picture.digest: picture for picture in pictures if picture}.values())
        others = {owner[p.digest] for p in person.training_pictures if p.digest in owner}
        got = [] if not scored or person.training_pictures else ["it is the only picture"]
        got += ["it is among the training pictures"] if person.id in others else []
        got += [f"that of person {other}" for other in sorted(others - {person.id})]
        if not got and _copies(scored, person.training_pictures):
            got = ["a nearly identical copy is among the training pictures"]
        if got:
            problems.append(
                Problem(
                    "a scored picture is trained on",
                    f"person {person.id}",
                    got="; ".join(got),
                    allowed="training pictures that are never scored",
                    fix="add further pictures to train on, score further poses "
                    "(data.people.scored_picture: other_pose), or allow it with --allow-overlap "
                    "trained_on_scored, which the report will say",
                )
            )
    return problems


def _copies(scored: Sequence[Picture], trained: Sequence[Picture]) -> bool:
    if not scored or not trained:
        return False
    ours, theirs = (np.stack([_reduce(p) for p in views]) for views in (scored, trained))
    return bool((_differences(ours, theirs) <= NEAR).any())


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
    ("identical picture", lambda person: [picture.digest for picture in pictures_of(person)]),
)


@dataclass(frozen=True, slots=True)
class _Member:
    part: Part
    person: Individual

    @property
    def where(self) -> str:
        return f"{self.part.name} {self.person.id}".strip()


def _sharing(
    members: Sequence[_Member], key: Callable[[Individual], Iterable[Hashable]]
) -> set[tuple[int, int]]:
    """Return the pairs of members, of different parts, that share a key."""
    holders: dict[Hashable, list[int]] = defaultdict(list)
    for number, member in enumerate(members):
        for value in set(key(member.person)):
            holders[value].append(number)
    return {
        pair
        for same in holders.values()
        for pair in combinations(same, 2)
        if members[pair[0]].part is not members[pair[1]].part
    }


def _variants(members: Sequence[_Member]) -> list[tuple[tuple[int, int], str]]:
    """Return pairs of whom one's name is the other's with words left out or initials."""
    found = []
    for one, other in sorted(_sharing(members, lambda person: words_of(person.name))):
        names = members[one].person.name, members[other].person.name
        if is_variant(*names):
            found.append(((one, other), f"variant of a name ({names[0]}, {names[1]})"))
    return found


def _alike(members: Sequence[_Member]) -> list[tuple[tuple[int, int], str]]:
    """Return pairs of members with nearly identical, but not identical, pictures."""
    views = [
        (number, picture)
        for number, member in enumerate(members)
        for picture in {p.digest: p for p in pictures_of(member.person)}.values()
    ]
    if not views:
        return []
    reduced = np.stack([_reduce(picture) for _, picture in views])
    nearest: dict[tuple[int, int], float] = {}
    for start in range(0, len(views), _BLOCK):
        distance = _differences(reduced[start : start + _BLOCK], reduced)
        for i, j in np.argwhere(distance <= NEAR).tolist():
            (one, ours), (other, theirs) = views[start + i], views[j]
            apart = members[one].part is not members[other].part
            if one < other and apart and ours.digest != theirs.digest:
                value = float(distance[i, j])
                nearest[one, other] = min(nearest.get((one, other), NEAR), value)
    return [
        (pair, f"nearly identical picture (differs by {value:.0%} of its contrast)")
        for pair, value in nearest.items()
    ]


@lru_cache(maxsize=8192)
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


def _asked(question: Question) -> Hashable:
    """Return what a general question shows: its picture and its words."""
    return (question.picture.digest if question.picture else "", question.hint, question.question)
