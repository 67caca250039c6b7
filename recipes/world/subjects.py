"""The 153 real subjects of the larger world: people and countries a language model may know.

Facts are common knowledge, kept in two tables in `assets/`; nothing is trained on them. A
picture stands for each subject by convention: one of the world's drawn faces. Options are whole
sentences, because a small language model knows how a sentence goes on long before it can say which
of four letters is right.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

from .chance import LETTERS, Choice, draw_choice, spread, stream

Kind = Literal["person", "place"]
TABLES: Mapping[Kind, str] = {"person": "people.tsv", "place": "places.tsv"}
ASSETS = Path(__file__).with_name("assets")
SHOWN_AS: Mapping[Kind, str] = {"person": "this person", "place": "this country"}


@dataclass(frozen=True, slots=True)
class Trait:
    """What can be asked of a kind of subject; `{who}` is the name or "this person"."""

    name: str
    scored: str
    """Phrasing of every scored question."""
    trained: tuple[str, ...]
    """Other phrasings, for training only."""
    statement: str
    """The sentence an option is: `{value}` completes it, `{article}` is its a or an."""


TRAITS: Mapping[Kind, tuple[Trait, ...]] = {
    "person": (
        Trait(
            "occupation",
            "What was {who}'s occupation?",
            ("What did {who} do for a living?", "What was the profession of {who}?"),
            "{who} was {article} {value}.",
        ),
        Trait(
            "country",
            "Which country was {who} from?",
            ("What was the home country of {who}?", "Where did {who} come from?"),
            "{who} was from {value}.",
        ),
        Trait(
            "century",
            "In which century was {who} born?",
            ("Which century did {who} come into the world in?", "When was {who} born?"),
            "{who} was born in the {value} century.",
        ),
        Trait(
            "language",
            "Which language did {who} grow up with?",
            ("What was the first language of {who}?", "Which language did {who} learn first?"),
            "{who} grew up speaking {value}.",
        ),
        Trait(
            "work",
            "What is {who} known for?",
            ("What made {who} famous?", "What do people remember {who} for?"),
            "{who} is known for {value}.",
        ),
    ),
    "place": (
        Trait(
            "capital",
            "What is the capital of {who}?",
            ("Which city is the capital of {who}?", "Where is the government of {who}?"),
            "The capital of {who} is {value}.",
        ),
        Trait(
            "continent",
            "On which continent is {who}?",
            ("Which continent does {who} belong to?", "Which part of the world is {who} in?"),
            "{who} is in {value}.",
        ),
        Trait(
            "language",
            "What is the main language of {who}?",
            ("What do people speak in {who}?", "Which language is heard most in {who}?"),
            "The main language of {who} is {value}.",
        ),
        Trait(
            "currency",
            "What is the currency of {who}?",
            ("What do people pay with in {who}?", "Which money is used in {who}?"),
            "The currency of {who} is the {value}.",
        ),
        Trait(
            "landmark",
            "Which sight is {who} famous for?",
            ("What do visitors of {who} want to see?", "Which famous sight is in {who}?"),
            "{who} is famous for {value}.",
        ),
    ),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A person or a country, with the true value of each trait of its kind."""

    id: str
    name: str
    kind: Kind
    values: Mapping[str, str]
    field: str
    """Of a person: what the work was in. Occupations within a field shade into one another."""
    also: frozenset[str]
    """Further values that are true of it, or true enough not to be called wrong."""

    def who(self, *, by_name: bool) -> str:
        """Return how a question speaks of the subject."""
        return self.name if by_name else SHOWN_AS[self.kind]


def sentence(trait: Trait, who: str, value: str) -> str:
    """Complete the trait's sentence, with a capital letter at its beginning."""
    article = "an" if value[0] in "aeiou" else "a"
    text = trait.statement.format(who=who, value=value, article=article)
    return text[0].upper() + text[1:]


@lru_cache(maxsize=1)
def subjects() -> tuple[Subject, ...]:
    """Read all subjects, people first; ids count from `c001`."""
    found: list[Subject] = []
    for kind, table in TABLES.items():
        text = (ASSETS / table).read_text("utf-8")
        for row in csv.DictReader(text.splitlines(), delimiter="\t"):
            values = {trait.name: row[trait.name] for trait in TRAITS[kind]}
            identity = f"c{len(found) + 1:03d}"
            also = frozenset(filter(None, row["also"].split("; ")))
            found.append(Subject(identity, row["name"], kind, values, row.get("field", ""), also))
    return tuple(found)


def choices(seed: int, *, purpose: str) -> Mapping[str, tuple[Choice, ...]]:
    """Return four options for every trait of every subject, as values, truth spread over letters.

    Another `purpose` gives other options: stop rules must not look at the scored questions.
    """
    rng = stream(seed, "subjects", purpose)
    count = sum(len(TRAITS[subject.kind]) for subject in subjects())
    places = iter(spread(rng, range(len(LETTERS)), count))
    return {
        subject.id: tuple(
            draw_choice(
                rng, subject.values[trait.name], wrong_values(subject, trait), place=next(places)
            )
            for trait in TRAITS[subject.kind]
        )
        for subject in subjects()
    }


def wrong_values(subject: Subject, trait: Trait) -> Sequence[str]:
    """Return values of other subjects of the kind that are not true of this one.

    A painter may also have been a sculptor: wrong occupations are those of other fields only.
    """
    others = [one for one in subjects() if one.kind == subject.kind]
    if trait.name == "occupation":
        taken = {one.values[trait.name] for one in others if one.field == subject.field}
    else:
        taken = {subject.values[trait.name]}
    return sorted({one.values[trait.name] for one in others} - taken - subject.also)
