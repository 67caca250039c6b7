"""Overlaps that make an unlearning result mean nothing, found before anything is trained.

If a person stands on the forget and on the retain side, forgetting and retaining pull at the same
knowledge (Thaker et al., arXiv 2410.02879). People are compared by id, name, questions and
pictures; pictures by their bytes, and by what they show, so that a copy is found that was saved
anew, cropped or made brighter (`likeness`).

General questions that name or show people of a run would measure what was forgotten: about 40
questions of MMBench's dev file ask who is pictured, some of them celebrities of MLLMU-Bench. Such
questions are left out for every method alike, before anything is scored.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from pulse_unlearn.data.images import pictures_of, scored_pictures
from pulse_unlearn.data.likeness import close_pairs, own_copies
from pulse_unlearn.data.naming import is_variant, normalised, plain, variant_pairs, words_of
from pulse_unlearn.errors import Problem
from pulse_unlearn.records import Individual, Picture, Question
from pulse_unlearn.registry import did_you_mean

About = Literal["named", "pictured"]
WHY: dict[About, str] = {"named": "says a person's name", "pictured": "shows a person's picture"}
_FIX = (
    "take one of the two out, or allow it with --allow-overlap same_person "
    "(data.allow_overlap: [same_person]), which the report will say"
)
_OTHER_PICTURES = (
    "add further pictures to train on (people: training_images), score further poses (MLLMU-Bench: "
    "data.people.scored_picture: other_pose), or allow it with --allow-overlap trained_on_scored, "
    "which the report will say"
)
_DECLARE = "; if they are two people, data.different_people: [[ID, ID]] says so"

Different = Iterable[tuple[str, str]]
"""Ids of people, two by two, that are declared to be different people."""


@dataclass(frozen=True, slots=True)
class Part:
    """People who must not stand in another part too: those to forget, to retain, of a request."""

    name: str
    people: Sequence[Individual]


def find_overlaps(parts: Sequence[Part], *, different: Different = ()) -> list[Problem]:
    """Return every way in which someone of one part also stands in another one.

    Same id, same name whatever its spelling, a variant of the name, same questions with the same
    answers, identical or nearly identical pictures. One problem for each pair of people, naming
    all the ways. Of a pair in `different` neither names nor nearly identical pictures are told;
    the same id, the same answers or the very same picture are, whatever was declared.
    """
    declared = {frozenset(pair) for pair in different}
    return [
        Problem(
            "the same person stands on both sides",
            pair.where,
            got="; ".join(reasons),
            allowed="people who differ in id, name, questions and pictures",
            fix=_FIX if pair.certain else _FIX + _DECLARE,
        )
        for pair in _find_alike(parts)
        if (reasons := pair.certain + (() if pair.ids in declared else pair.likely))
    ]


def find_declared(parts: Sequence[Part], different: Different) -> list[str]:
    """Return what `find_overlaps` did not tell because the two were declared different."""
    declared = {frozenset(pair) for pair in different}
    if not declared:
        return []
    return [
        f"{pair.where}: {'; '.join(pair.likely)}"
        for pair in _find_alike(parts)
        if pair.ids in declared and pair.likely
    ]


def find_duplicates(people: Sequence[Individual], *, different: Different = ()) -> list[Problem]:
    """Return everybody who seems to stand in a data set twice, in the ways of `find_overlaps`."""
    return find_overlaps([Part("", [person]) for person in people], different=different)


def unknown_people(
    ids: Iterable[str], people: Collection[str], *, where: str = "data.different_people"
) -> list[Problem]:
    """Return a problem for each id in the settings that nobody has."""
    wanted = dict.fromkeys(ids)
    return [
        Problem(
            "nobody has this id",
            where,
            got=identity,
            allowed="ids of people in the data set",
            fix=did_you_mean(identity, list(people)),
        )
        for identity in wanted
        if identity not in people
    ]


def refused(leaks: Mapping[str, Sequence[Problem]], allowed: Collection[str]) -> list[Problem]:
    """Return the leaks of every kind that is not allowed."""
    return [problem for kind, of in leaks.items() if kind not in allowed for problem in of]


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
    asked = {_asked(question): question.id for question in general}
    return _scored_and_trained(individuals) + [
        Problem(
            "a scored general question is trained on",
            f"training question {question.id}",
            got=f"scored question {asked[_asked(question)]}",
            fix="take it out of the training file",
        )
        for question in general_training
        if _asked(question) in asked
    ]


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
    saying: dict[str, list[int]] = defaultdict(list)
    for number, (_, text) in enumerate(said):
        for word in set(text.split()):
            saying[word].append(number)
    found: dict[str, dict[About, str]] = {}
    for person in people:
        for digest in sorted({picture.digest for picture in pictures_of(person)} & shown.keys()):
            for place in shown[digest]:
                found.setdefault(place, {}).setdefault("pictured", person.id)
        name = plain(person.name) if len(words_of(person.name)) > 1 else ""
        rarest = min((saying.get(word, []) for word in name.split()), key=len, default=[])
        for place, text in (said[number] for number in rarest):
            if name in text:
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


@dataclass(frozen=True, slots=True)
class _Member:
    part: Part
    person: Individual

    @property
    def where(self) -> str:
        return f"{self.part.name} {self.person.id}".strip()


@dataclass(frozen=True, slots=True)
class _Alike:
    """Two people of different parts who seem to be one."""

    where: str
    ids: frozenset[str]
    certain: tuple[str, ...]
    """What no two people share: id, questions with answers, the very same picture."""
    likely: tuple[str, ...]
    """What two people may share after all: a name, nearly identical pictures."""


def _find_alike(parts: Sequence[Part]) -> list[_Alike]:
    """Return all pairs of people of different parts who seem to be the same person, and why."""
    members = [_Member(part, person) for part in parts for person in part.people]
    certain: dict[tuple[int, int], list[str]] = defaultdict(list)
    likely: dict[tuple[int, int], list[str]] = defaultdict(list)
    for reason, found, key in (
        ("same id", certain, lambda person: [person.id]),
        ("same name", likely, lambda person: [normalised(person.name)]),
        ("same questions and answers", certain, _answers_of),
        ("identical picture", certain, lambda person: [p.digest for p in pictures_of(person)]),
    ):
        for pair in _sharing(members, key):
            found[pair].append(reason)
    for pair, reason in (*_variants(members), *_near(members)):
        likely[pair].append(reason)
    return [
        _Alike(
            f"{members[one].where}, {members[other].where}",
            frozenset({members[one].person.id, members[other].person.id}),
            tuple(certain[one, other]),
            tuple(likely[one, other]),
        )
        for one, other in sorted({*certain, *likely})
    ]


def _answers_of(person: Individual) -> Iterable[Hashable]:
    return [frozenset((q.modality, q.question, q.truth) for q in person.questions)]


def _nearly(one: Picture, other: Picture, difference: float) -> str:
    """Return which pictures are nearly identical, and how near."""
    places = [shown.where or f"picture {shown.digest[:8]}" for shown in (one, other)]
    return f"{' and '.join(places)} differ by {difference:.0%} of their contrast"


def _sharing(
    members: Sequence[_Member], key: Callable[[Individual], Iterable[Hashable]]
) -> set[tuple[int, int]]:
    """Return the pairs of members, of different parts, that share a key which says anything."""
    holders: dict[Hashable, list[int]] = defaultdict(list)
    for number, member in enumerate(members):
        for value in filter(None, set(key(member.person))):
            holders[value].append(number)
    return {
        pair
        for same in holders.values()
        for pair in combinations(same, 2)
        if members[pair[0]].part is not members[pair[1]].part
    }


def _variants(members: Sequence[_Member]) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield pairs of whom one's name is the other's with words left out or initials."""
    for one, other in sorted(variant_pairs([member.person.name for member in members])):
        if members[one].part is members[other].part:
            continue
        names = members[one].person.name, members[other].person.name
        if is_variant(*names):
            yield (one, other), f"variant of a name ({names[0]}, {names[1]})"


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
            nearest[one, other] = value, _nearly(ours, theirs, value)
    return [(pair, f"nearly identical picture ({text})") for pair, (_, text) in nearest.items()]


def _scored_and_trained(individuals: Sequence[Individual]) -> list[Problem]:
    scored = {person.id: scored_pictures(person) for person in individuals}
    owner = {digest: identity for identity, shown in scored.items() for digest in shown}
    copies = _copies(individuals, scored)
    problems = []
    for person in individuals:
        others = {owner[p.digest] for p in person.training_pictures if p.digest in owner}
        lone = scored[person.id] and not person.training_pictures
        got = ["it is the only picture"] if lone else []
        got += ["it is among the training pictures"] if person.id in others else []
        got += [f"that of person {other}" for other in sorted(others - {person.id})]
        got = got or copies.get(person.id, [])
        if got:
            what, where = "a scored picture is trained on", f"person {person.id}"
            allowed = "training pictures that are never scored"
            problems.append(Problem(what, where, "; ".join(got), allowed, _OTHER_PICTURES))
    return problems


def _copies(
    individuals: Sequence[Individual], scored: Mapping[str, Mapping[str, Picture]]
) -> dict[str, list[str]]:
    """Return by person which training pictures are copies of a scored one of theirs."""
    pairs = [
        (person.id, shown, trained)
        for person in individuals
        for shown in scored[person.id].values()
        for trained in person.training_pictures
    ]
    found: dict[str, list[str]] = defaultdict(list)
    apart = own_copies([(shown, trained) for _, shown, trained in pairs])
    for (identity, shown, trained), value in zip(pairs, apart, strict=True):
        if value is not None:
            found[identity].append(f"a nearly identical copy: {_nearly(trained, shown, value)}")
    return found


def _asked(question: Question) -> Hashable:
    """Return what a general question shows: its picture and its words."""
    return (question.picture.digest if question.picture else "", question.hint, question.question)


def _texts_of(question: Question) -> tuple[str, ...]:
    return (question.hint, question.question, *(option.text for option in question.options))
