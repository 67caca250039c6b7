"""Overlaps that make an unlearning result mean nothing, found before anything is trained.

If a person stands on the forget and on the retain side, forgetting and retaining pull at the same
knowledge (Thaker et al., arXiv 2410.02879). People are compared by id, name, questions and
pictures; pictures by their bytes, and by what they show, so that a copy is found that was saved
anew, cropped or made brighter (`likeness`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

from pulse_unlearn.data.likeness import own_copies
from pulse_unlearn.data.same_person import Part, find_alike, nearly
from pulse_unlearn.errors import Problem
from pulse_unlearn.records import Individual, Picture, Question
from pulse_unlearn.registry import did_you_mean

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
        for pair in find_alike(parts)
        if (reasons := pair.certain + (() if pair.ids in declared else pair.likely))
    ]


def find_declared(parts: Sequence[Part], different: Different) -> list[str]:
    """Return what `find_overlaps` did not tell because the two were declared different."""
    declared = {frozenset(pair) for pair in different}
    if not declared:
        return []
    return [
        f"{pair.where}: {'; '.join(pair.likely)}"
        for pair in find_alike(parts)
        if pair.ids in declared and pair.likely
    ]


def find_duplicates(people: Sequence[Individual], *, different: Different = ()) -> list[Problem]:
    """Return everybody who seems to stand in a data set twice, in the ways of `find_overlaps`."""
    return find_overlaps([Part("", [person]) for person in people], different=different)


def unknown_people(pairs: Different, people: Collection[str]) -> list[Problem]:
    """Return a problem for each id of a pair of different people that nobody has."""
    wanted = dict.fromkeys(identity for pair in pairs for identity in pair)
    return [
        Problem(
            "nobody has this id",
            "data.different_people",
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
    scored = {person.id: _scored(person) for person in individuals}
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
            problems.append(
                Problem(
                    "a scored picture is trained on",
                    f"person {person.id}",
                    got="; ".join(got),
                    allowed="training pictures that are never scored",
                    fix=_OTHER_PICTURES,
                )
            )
    return problems


def _scored(person: Individual) -> dict[str, Picture]:
    shown = (question.picture for question in person.questions)
    return {picture.digest: picture for picture in shown if picture}


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
            found[identity].append(f"a nearly identical copy: {nearly(trained, shown, value)}")
    return found


def _asked(question: Question) -> Hashable:
    """Return what a general question shows: its picture and its words."""
    return (question.picture.digest if question.picture else "", question.hint, question.question)
