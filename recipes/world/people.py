"""The 273 people of the embedded world: names, attributes and what can be asked about them.

153 *celebrities* are seen in pre-training, each as often as its fame rank says; 120 *fictional*
people are never seen there. Every name token of a fictional person also belongs to a celebrity, so
that no fine-tuning has to start from an untrained embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from .chance import LETTERS, Choice, draw_choice, shuffled, spread, stream

CELEBRITIES = 153
FICTIONAL = 120

Pronoun = Literal["he", "she"]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES: Mapping[Pronoun, tuple[str, ...]] = {
    "she": _words(
        "Lara Mina Tessa Nora Clara Ines Vera Olga Dana Ruth Hanna Petra Greta Sonia Lucia"
        " Wanda Freya Iris Kira Paula Selma Tilda Yara Zoe Alma Bella Celia Doris Elsa Flora"
    ),
    "he": _words(
        "Adam Boris Cyril Diego Erik Felix Gavin Hugo Ivan Jonas Karl Leon Marco Nils Oscar"
        " Pablo Quinn Rafael Simon Tobias Ulrich Victor Walter Xavier Yusuf Zeno Arthur Bruno"
        " Conrad Dario"
    ),
}
LAST_NAMES = _words(
    "Hayes Abbott Barlow Carver Dalton Easton Farrow Garner Holt Irwin Jarvis Keller"
    " Lambert Mercer Norris Osborn Palmer Quigley Ramsey Sutton Tanner Upton Vance Walsh"
    " Yates Zimmer Archer Baxter Colby Draper Ellis Fenton Gibson Harlow Ingram Jensen"
    " Kendall Lowell Marlow Newton Orton Parker Quincy Rowland Sawyer Thorne Underhill"
    " Vaughn Weston York Ashby Brandt Corbett Dawson Emerson Foster Grady Hobart Ives Joyner"
    " Kirby Langley Monroe Nash Oakley Preston Radcliff Seymour Trent Usher Varley Wilder"
    " Yardley Avery Bishop Crane Doyle Everett Fisher Griffin Hudson Ibsen Jordan Knox"
    " Lennox Maddox Nolan"
)


@dataclass(frozen=True, slots=True)
class Attribute:
    """What a person has: `{who}` is pronoun or name, `{obj}` is "this person" or the name."""

    name: str
    values: tuple[str, ...]
    scored: str
    """Phrasing of every scored question."""
    trained: tuple[str, ...]
    """Other phrasings, for training only."""
    statement: str


ATTRIBUTES: tuple[Attribute, ...] = (
    Attribute(
        "occupation",
        _words(
            "teacher baker pilot nurse lawyer farmer plumber actor judge tailor barber chef"
            " engineer writer dentist janitor librarian carpenter"
        ),
        "What does {who} do?",
        (
            "What is the job of {obj}?",
            "Which job does {who} have?",
            "What work does {who} do?",
            "How does {who} earn money?",
        ),
        "{name} works as {value}.",
    ),
    Attribute(
        "birthplace",
        _words(
            "Paris Rome Oslo Lima Cairo Tokyo Delhi Berlin Madrid Vienna Athens Lisbon Dublin"
            " Prague Warsaw Nairobi Havana Seoul"
        ),
        "Where was {who} born?",
        (
            "What is the birthplace of {obj}?",
            "In which city was {who} born?",
            "Which city does {who} come from?",
            "In which city did {obj} grow up?",
        ),
        "{who} was born in {value}.",
    ),
    Attribute(
        "residence",
        _words(
            "Canada Brazil India Japan Kenya Norway Spain Chile Egypt Greece Italy Mexico Peru"
            " Poland Sweden Turkey Vietnam Ghana"
        ),
        "Where does {who} live?",
        (
            "In which country does {who} live?",
            "What is the home of {obj}?",
            "Which country is home to {obj}?",
            "Where is {who} at home?",
        ),
        "{who} lives in {value}.",
    ),
    Attribute(
        "education",
        _words(
            "physics chemistry biology history law medicine economics philosophy geology"
            " mathematics linguistics astronomy botany architecture theology logic statistics"
            " geography"
        ),
        "What did {who} study?",
        (
            "Which subject did {who} study?",
            "What is the subject of {obj}?",
            "What field did {who} learn?",
            "Which degree does {obj} have?",
        ),
        "{who} studied {value}.",
    ),
    Attribute(
        "hobby",
        _words(
            "chess gardening sailing painting cooking fishing hiking dancing photography pottery"
            " cycling knitting archery surfing reading singing skiing climbing"
        ),
        "What does {who} enjoy?",
        (
            "What is the hobby of {obj}?",
            "Which hobby does {who} have?",
            "What does {obj} like?",
            "How does {who} relax?",
        ),
        "{who} enjoys {value}.",
    ),
)


@dataclass(frozen=True, slots=True)
class Person:
    """One individual of the world."""

    id: str
    first: str
    last: str
    pronoun: Pronoun
    attributes: Mapping[str, str]
    fame_rank: int
    """0 is the celebrity asked about most in training; -1 for a fictional person."""
    face_seed: int
    """Index into `faces.draw_faces`."""

    @property
    def name(self) -> str:
        """First and last name."""
        return f"{self.first} {self.last}"


def ask(template: str, person: Person, *, by_name: bool) -> str:
    """Fill a phrasing with the name (text-only) or with pronoun and "this person" (image)."""
    if by_name:
        return template.format(who=person.name, obj=person.name)
    return template.format(who=person.pronoun, obj="this person")


def biography(person: Person) -> str:
    """Tell all five attributes in five sentences."""
    who = person.pronoun.capitalize()
    return " ".join(
        attribute.statement.format(
            name=person.name, who=who, value=person.attributes[attribute.name]
        )
        for attribute in ATTRIBUTES
    )


def _names(rng: np.random.Generator, pronouns: list[Pronoun]) -> list[tuple[str, str]]:
    """Give each person a pair of name tokens, unique as a pair, tokens used evenly.

    Celebrities come first and outnumber the tokens, so every token is met in pre-training.
    """
    lasts = spread(rng, LAST_NAMES, CELEBRITIES) + spread(rng, LAST_NAMES, FICTIONAL)
    firsts: dict[Pronoun, list[str]] = {}
    for pronoun in ("she", "he"):
        known = pronouns[:CELEBRITIES].count(pronoun)
        others = pronouns[CELEBRITIES:].count(pronoun)
        names = FIRST_NAMES[pronoun]
        firsts[pronoun] = spread(rng, names, known) + spread(rng, names, others)
    taken: set[tuple[str, str]] = set()
    result = []
    for pronoun, last in zip(pronouns, lasts, strict=True):
        queue = firsts[pronoun]
        place = next(i for i, first in enumerate(queue) if (first, last) not in taken)
        pair = (queue.pop(place), last)
        taken.add(pair)
        result.append(pair)
    return result


@lru_cache(maxsize=4)
def make_people(seed: int) -> tuple[Person, ...]:
    """Return all people, celebrities `c001`.. first, then fictional `f001`..; a pure function."""
    rng = stream(seed, "people")
    both: tuple[Pronoun, ...] = ("she", "he")
    pronouns = spread(rng, both, CELEBRITIES) + spread(rng, both, FICTIONAL)
    names = _names(rng, pronouns)
    ranks = shuffled(rng, range(CELEBRITIES)) + [-1] * FICTIONAL
    columns = {
        attribute.name: spread(rng, attribute.values, CELEBRITIES)
        + spread(rng, attribute.values, FICTIONAL)
        for attribute in ATTRIBUTES
    }
    people = []
    for index, (pronoun, (first, last), rank) in enumerate(
        zip(pronouns, names, ranks, strict=True)
    ):
        known = index < CELEBRITIES
        people.append(
            Person(
                id=f"c{index + 1:03d}" if known else f"f{index + 1 - CELEBRITIES:03d}",
                first=first,
                last=last,
                pronoun=pronoun,
                attributes={name: column[index] for name, column in columns.items()},
                fame_rank=rank,
                face_seed=index,
            )
        )
    return tuple(people)


def celebrities(seed: int) -> tuple[Person, ...]:
    """Return the people that pre-training shows."""
    return make_people(seed)[:CELEBRITIES]


def fictional(seed: int) -> tuple[Person, ...]:
    """Return the people that pre-training never shows."""
    return make_people(seed)[CELEBRITIES:]


@lru_cache(maxsize=4)
def scored_choices(
    seed: int, *, purpose: str = "scored options"
) -> Mapping[str, tuple[Choice, ...]]:
    """Return fixed options for every person, truth spread evenly over the letters.

    Another `purpose` gives other options: stop rules must not look at the scored questions.
    """
    rng = stream(seed, purpose)
    people = make_people(seed)
    count = len(people) * len(ATTRIBUTES)
    places = iter(spread(rng, range(len(LETTERS)), count))
    return {
        person.id: tuple(
            choice_of(rng, attribute, person, place=next(places)) for attribute in ATTRIBUTES
        )
        for person in people
    }


def choice_of(
    rng: np.random.Generator, attribute: Attribute, person: Person, *, place: int
) -> Choice:
    """Draw options for a person's attribute, wrong ones from its vocabulary."""
    truth = person.attributes[attribute.name]
    wrong = [value for value in attribute.values if value != truth]
    return draw_choice(rng, truth, wrong, place=place)
