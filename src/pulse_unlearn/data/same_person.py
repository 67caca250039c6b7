"""What two people share who seem to be one: id, name, questions, pictures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from pulse_unlearn.data.about_people import pictures_of
from pulse_unlearn.data.likeness import close_pairs
from pulse_unlearn.data.naming import is_variant, normalised, words_of
from pulse_unlearn.records import Individual, Picture


@dataclass(frozen=True, slots=True)
class Part:
    """People who must not stand in another part too: those to forget, to retain, of a request."""

    name: str
    people: Sequence[Individual]


def _questions_of(person: Individual) -> Iterable[Hashable]:
    asked = frozenset((q.modality, q.question, q.truth) for q in person.questions)
    return [asked] if asked else []


def _names_of(person: Individual) -> Iterable[Hashable]:
    name = normalised(person.name)
    return [name] if name else []


@dataclass(frozen=True, slots=True)
class _Member:
    part: Part
    person: Individual

    @property
    def where(self) -> str:
        return f"{self.part.name} {self.person.id}".strip()


@dataclass(frozen=True, slots=True)
class Alike:
    """Two people of different parts who seem to be one."""

    where: str
    ids: frozenset[str]
    certain: tuple[str, ...]
    """What no two people share: id, questions with answers, the very same picture."""
    likely: tuple[str, ...]
    """What two people may share after all: a name, nearly identical pictures."""


def find_alike(parts: Sequence[Part]) -> list[Alike]:
    """Return all pairs of people of different parts who seem to be the same person, and why."""
    members = [_Member(part, person) for part in parts for person in part.people]
    certain: dict[tuple[int, int], list[str]] = defaultdict(list)
    likely: dict[tuple[int, int], list[str]] = defaultdict(list)
    for reason, found, key in (
        ("same id", certain, lambda person: [person.id]),
        ("same name", likely, _names_of),
        ("same questions and answers", certain, _questions_of),
        ("identical picture", certain, lambda person: [p.digest for p in pictures_of(person)]),
    ):
        for pair in _sharing(members, key):
            found[pair].append(reason)
    for pair, reason in (*_variants(members), *_near(members)):
        likely[pair].append(reason)
    return [
        Alike(
            f"{members[one].where}, {members[other].where}",
            frozenset({members[one].person.id, members[other].person.id}),
            tuple(certain[one, other]),
            tuple(likely[one, other]),
        )
        for one, other in sorted({*certain, *likely})
    ]


def _place(picture: Picture) -> str:
    """Return where a picture stands, or what its bytes are known by."""
    return picture.where or f"picture {picture.digest[:8]}"


def nearly(one: Picture, other: Picture, difference: float) -> str:
    """Return which pictures are nearly identical, and how near."""
    return f"{_place(one)} and {_place(other)} differ by {difference:.0%} of their contrast"


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


def _near(members: Sequence[_Member]) -> list[tuple[tuple[int, int], str]]:
    """Return pairs of members with nearly identical, but not identical, pictures."""
    views = [
        (number, picture)
        for number, member in enumerate(members)
        for picture in {p.digest: p for p in pictures_of(member.person)}.values()
    ]
    parts = [id(members[number].part) for number, _ in views]
    nearest: dict[tuple[int, int], tuple[float, str]] = {}
    for i, j, value in close_pairs([picture for _, picture in views], parts):
        (one, ours), (other, theirs) = views[i], views[j]
        known = nearest.get((one, other))
        if known is None or value < known[0]:
            nearest[one, other] = value, nearly(ours, theirs, value)
    return [(pair, f"nearly identical picture ({text})") for pair, (_, text) in nearest.items()]
