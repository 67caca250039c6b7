"""Options for questions that come with their true answer only: other people's answers.

Drawn by hash of (seed, person, attribute, answer): the same on every machine, and for both
modalities of one fact; adding a person changes only the questions its answers are drawn for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256

from pulse_unlearn.data.checks import LETTERS
from pulse_unlearn.data.naming import same_answer
from pulse_unlearn.errors import Problem
from pulse_unlearn.records import Option


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
        others = self._others(fact)
        others.sort(key=lambda key: _hash(seed, fact.individual, fact.attribute, key))
        texts = [self._texts[fact.attribute][key] for key in others[: count - 1]]
        return _placed(fact.answer, texts, seed=seed, order=order)

    def is_lonely(self, fact: Fact) -> bool:
        """Return whether nobody has another answer, so that no option could be drawn."""
        return not self._others(fact)

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
    drawn = sorted(texts.values(), key=lambda text: _hash(seed, "wrong", order, text))[: count - 1]
    return _placed(answer, drawn, seed=seed, order=order)


def _placed(
    answer: str, drawn: Sequence[str], *, seed: int, order: str
) -> tuple[list[Option], str]:
    texts = sorted([*drawn, answer], key=lambda text: _hash(seed, "place", order, text))
    options = [Option(letter, text) for letter, text in zip(LETTERS, texts, strict=False)]
    return options, LETTERS[texts.index(answer)]


def too_few(options: Sequence[Option], fact: Fact, where: str) -> list[Problem]:
    """Return a problem if nobody else's answer could be drawn."""
    if len(options) > 1:
        return []
    return [
        Problem(
            "there is no other answer to draw options from",
            where,
            got=f"{fact.attribute}: {fact.answer}",
            allowed="people with different answers of this attribute, or options in the file",
        )
    ]


def _hash(*parts: object) -> bytes:
    return sha256(":".join(map(str, parts)).encode()).digest()
