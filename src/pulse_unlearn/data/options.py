"""Options of a question: drawn where there is only a true answer, turned when asked, done without.

* *Drawn* by hash of (seed, person, attribute, answer): the same on every machine, and for both
  modalities of one fact; adding a person changes only questions that its answers are drawn for.
* *Orders* are those of a file's circular copies where it has them, as MMBench has. Elsewhere every
  option moves up by one place at a time, but for those about the others: `None of these` stays
  last, as in MMBench's own copies, and where options name letters (`both A and B`) no order but
  the file's keeps the question's meaning.
* *In words* a question is asked bare, its options unseen, unless it needs them to be seen.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import permutations

from pulse_unlearn.data.checks import LETTERS
from pulse_unlearn.data.naming import same_answer
from pulse_unlearn.records import Option, Question

POINTS_AT_OPTIONS = "its words point at the options"
NAMES_OPTIONS = "an option is about the other options"
EQUAL_TEXTS = "two options are equal up to case"
BEGINS_ANOTHER = "an option is the beginning of another one"
"""Summed over its tokens, the shorter text could never be less likely than the longer one."""

_POINTING = re.compile(
    r"\b(?:following|which (?:one|option|choice|statement)s?|(?:the|these) (?:options?|choices?)"
    r"|(?:shown|listed|given) (?:above|below)|which of (?:these|the|them))\b"
    r"|下列|以下|哪个选项|哪一个选项|哪一项|选项中",
    re.IGNORECASE,
)
_ABOUT_OPTIONS = re.compile(
    r"\b(?:all|none|both|neither|either|any|two) of (?:the )?"
    r"(?:above|these|them|others?|options?)\b"
    r"|以上(?:都|皆|全)|都不(?:是|对)",
    re.IGNORECASE,
)
_TWO_LETTERS = re.compile(r"(?<!\w)\(?([A-Z])\)? (?:and|or|nor|&) \(?([A-Z])\)?(?!\w)")


@dataclass(frozen=True, slots=True)
class Fact:
    """What is true of someone: the answer to every question about one attribute of a person."""

    individual: str
    attribute: str
    answer: str


class Pool:
    """All answers by attribute, and who gave them."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._texts: dict[str, dict[str, str]] = defaultdict(dict)
        self._true: dict[tuple[str, str], set[str]] = defaultdict(set)
        for fact in facts:
            key = same_answer(fact.answer)
            # Of several spellings the first in sorted order is shown, whatever the file's order.
            known = self._texts[fact.attribute].get(key, fact.answer)
            self._texts[fact.attribute][key] = min(known, fact.answer)
            self._true[fact.individual, fact.attribute].add(key)

    def draw(self, fact: Fact, *, count: int, seed: int, order: str) -> tuple[list[Option], str]:
        """Return `count` options, fewer if there are fewer answers, and the true one's letter.

        No option says what is true of the person, in whatever spelling. `order` is what the places
        are drawn by, such as the question's id.
        """
        others = sorted(self._others(fact), key=_drawn_by(seed, fact.individual, fact.attribute))
        texts = [self._texts[fact.attribute][key] for key in others[: count - 1]]
        return _placed(fact.answer, texts, seed=seed, order=order)

    def is_lonely(self, fact: Fact) -> bool:
        """Return whether nobody has another answer, so that no option could be drawn."""
        true, given = self._true[fact.individual, fact.attribute], self._texts[fact.attribute]
        return len(given) == sum(key in given for key in true)

    def _others(self, fact: Fact) -> list[str]:
        true = self._true[fact.individual, fact.attribute]
        return [key for key in self._texts[fact.attribute] if key not in true]


def choose(
    answer: str, wrong: Iterable[str], *, count: int, seed: int, order: str
) -> tuple[list[Option], str]:
    """Return `count` options for an answer that comes with its own wrong ones, and its letter.

    Fewer if there are fewer that differ from one another and from the answer. `order` is what all
    is drawn by, such as the question's id.
    """
    texts = {same_answer(text): text for text in wrong}
    texts.pop(same_answer(answer), None)
    texts.pop("", None)
    drawn = sorted(texts.values(), key=_drawn_by(seed, "wrong", order))[: count - 1]
    return _placed(answer, drawn, seed=seed, order=order)


def orders_of(question: Question) -> tuple[tuple[int, ...], ...]:
    """Return every order that is asked: places of the options under A, B, ...; the file's first."""
    places = range(len(question.options))
    if question.orders:
        return question.orders
    if names_letters(question.options):
        return (tuple(places),)
    fixed = staying(question.options)
    moving = [place for place in places if place not in fixed]
    orders = []
    for turn in range(max(len(moving), 1)):
        moved = dict(zip(moving, moving[turn:] + moving[:turn], strict=True))
        orders.append(tuple(moved.get(place, place) for place in places))
    return tuple(orders)


def staying(options: Sequence[Option]) -> frozenset[int]:
    """Return the places of the options that are about the other ones."""
    letters = {option.letter for option in options}
    return frozenset(
        place
        for place, option in enumerate(options)
        if _ABOUT_OPTIONS.search(option.text) or _names(option.text, letters)
    )


def names_letters(options: Sequence[Option]) -> bool:
    """Tell whether an option names other options by their letters."""
    letters = {option.letter for option in options}
    return any(_names(option.text, letters) for option in options)


def obstacle(question: Question) -> str:
    """Return why a question cannot be asked in words; empty if it can."""
    texts = [" ".join(option.text.casefold().split()) for option in question.options]
    if _POINTING.search(question.question):
        return POINTS_AT_OPTIONS
    if staying(question.options):
        return NAMES_OPTIONS
    if len(set(texts)) < len(texts):
        return EQUAL_TEXTS
    if any(longer.startswith(shorter + " ") for shorter, longer in permutations(texts, 2)):
        return BEGINS_ANOTHER
    return ""


def obstacles(questions: Iterable[Question]) -> Counter[str]:
    """Count the questions that cannot be asked in words, by reason."""
    return Counter(reason for question in questions if (reason := obstacle(question)))


def _placed(
    answer: str, drawn: Sequence[str], *, seed: int, order: str
) -> tuple[list[Option], str]:
    texts = sorted([*drawn, answer], key=_drawn_by(seed, "place", order))
    options = [Option(letter, text) for letter, text in zip(LETTERS, texts, strict=False)]
    return options, LETTERS[texts.index(answer)]


def _drawn_by(*parts: object) -> Callable[[str], bytes]:
    """Return the hash that texts are put into order by."""
    before = ":".join(map(str, parts))
    return lambda text: sha256(f"{before}:{text}".encode()).digest()


def _names(text: str, letters: set[str]) -> bool:
    return any(letters >= set(found.groups()) for found in _TWO_LETTERS.finditer(text))
