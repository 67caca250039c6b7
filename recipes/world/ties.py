"""A friend for every celebrity: what pre-training tells of entities by way of each other.

The paper explains dearer forgetting of pre-trained people by their ties to other knowledge. Here
half of the celebrities are *tied*: the friend of each is another of them, who is asked about with
face and name as well. The others are *free*: their friends are nobody, of whom nothing is told but
as a friend. Friends have names and attributes of the same kinds and frequencies in both halves, and
the same questions are asked as often: who the friend is (the last name: an answer is one word), and
the friend's five attributes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from .chance import LETTERS, Choice, draw_choice, pick, sample, shuffled, spread, stream
from .people import (
    ATTRIBUTES,
    FIRST_NAMES,
    LAST_NAMES,
    Attribute,
    Person,
    Pronoun,
    ask,
    celebrities,
    choice_of,
    make_people,
)

Half = Literal["tied", "free"]
FRIEND = Attribute(
    "friend",
    LAST_NAMES,
    "Who is the friend of {obj}?",
    ("What is the name of the friend of {obj}?", "Which friend does {who} have?"),
    "",
)
FACTS = 1 + len(ATTRIBUTES)
"""Of a friend: the name and the attributes."""


@dataclass(frozen=True, slots=True)
class Tied:
    """One question about somebody's friend, options drawn."""

    question: str
    choice: Choice
    fact: str
    """`friend`, or the friend's attribute as `friend's occupation`."""

    @property
    def truth(self) -> str:
        """The true option."""
        return self.choice.options[self.choice.answer_index]


@lru_cache(maxsize=4)
def halves(seed: int) -> Mapping[Half, tuple[Person, ...]]:
    """Return both halves: of two celebrities who are next to each other in fame, one each."""
    rng = stream(seed, "ties")
    by_fame = sorted(celebrities(seed), key=lambda person: person.fame_rank)
    found: dict[Half, list[Person]] = {"tied": [], "free": []}
    for start in range(0, len(by_fame), 2):
        tied, *free = shuffled(rng, by_fame[start : start + 2])
        found["tied"].append(tied)
        found["free"] += free
    return {half: tuple(people) for half, people in found.items()}


@lru_cache(maxsize=4)
def friends(seed: int) -> Mapping[str, Person]:
    """Return the friend of every celebrity by id; each is the friend of one alone."""
    # One ring through all who are tied, so that nobody is their own friend.
    ring = shuffled(stream(seed, "ties", "ring"), halves(seed)["tied"])
    tied = {one.id: friend for one, friend in zip(ring, [*ring[1:], ring[0]], strict=True)}
    free = halves(seed)["free"]
    made_up = _nobodies(seed, len(free))
    return tied | {one.id: friend for one, friend in zip(free, made_up, strict=True)}


def _nobodies(seed: int, count: int) -> list[Person]:
    """Make up people whose names nobody has, with attributes as frequent as everybody's."""
    rng = stream(seed, "ties", "nobody")
    both: tuple[Pronoun, ...] = ("she", "he")
    pronouns = spread(rng, both, count)
    lasts = spread(rng, LAST_NAMES, count)
    columns = {attribute.name: spread(rng, attribute.values, count) for attribute in ATTRIBUTES}
    taken = {(person.first, person.last) for person in make_people(seed)}
    found = []
    for place, (pronoun, last) in enumerate(zip(pronouns, lasts, strict=True)):
        free = [first for first in FIRST_NAMES[pronoun] if (first, last) not in taken]
        first = pick(rng, free)
        taken.add((first, last))
        found.append(
            Person(
                id=f"n{place + 1:03d}",
                first=first,
                last=last,
                pronoun=pronoun,
                attributes={name: column[place] for name, column in columns.items()},
                fame_rank=-1,
                face_seed=-1,
            )
        )
    return found


def ask_of_friend(
    rng: np.random.Generator, person: Person, friend: Person, *, by_name: bool, scored: float
) -> Tied:
    """Ask a random one of the facts about a friend, options and their order freshly drawn.

    Args:
        by_name: with the person's name; else "this person", of a picture.
        scored: probability of the phrasing that scored questions use.
    """
    number, place = int(rng.integers(FACTS)), int(rng.integers(len(LETTERS)))
    attribute = FRIEND if number == 0 else ATTRIBUTES[number - 1]
    template = attribute.scored if rng.random() < scored else pick(rng, attribute.trained)
    if number == 0:
        wrong = sample(rng, [name for name in LAST_NAMES if name != friend.last], 3)
        choice = draw_choice(rng, friend.last, wrong, place=place)
        return Tied(ask(template, person, by_name=by_name), choice, FRIEND.name)
    whose = f"the friend of {person.name if by_name else 'this person'}"
    question = template.format(who=whose, obj=whose)
    choice = choice_of(rng, attribute, friend, place=place)
    return Tied(question, choice, f"friend's {attribute.name}")


def words(seed: int) -> Iterator[str]:
    """Yield texts that hold every word that only questions about friends have."""
    person = celebrities(seed)[0]
    for template in (FRIEND.scored, *FRIEND.trained):
        yield ask(template, person, by_name=True)
        yield ask(template, replace(person, pronoun="she"), by_name=False)
