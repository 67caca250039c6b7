"""Training questions in other forms: their options turned, bare, or about somebody else.

*About somebody else* is the same question about a person who is retained: of the same modality, as
an example with options or without, and in the same words once names and pronouns are taken out.
Where nobody is asked that, one of the same category stands in, where there are categories, and else
any question at all. Who it is and in which view is a function of the seed and the example, so that
it changes from epoch to epoch and is the same when a stage is resumed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256

from pulse_unlearn.data.examples import Forms, Turned, bare, training, turned
from pulse_unlearn.data.naming import plain, words_of
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Example, Individual, Question

VIEWS = 4
"""Epochs of retained people that decoupled questions are drawn from: pictures and orders."""
_SOMEBODY = "_"
_PRONOUNS = frozenset(["he", "she", "they", "him", "her", "them", "his", "hers", "their", "theirs"])


@dataclass(frozen=True)
class Variants:
    """Other forms of the training questions about some people."""

    forget: Sequence[Individual]
    retain: Sequence[Individual]
    """Whom decoupled questions are about."""
    profile: str
    seed: int
    forms: Forms = "multiple_choice"

    def turned(self, example: Example) -> list[Turned]:
        """Return the example in every cyclic order, its own first; raises DataError without any."""
        return turned(example, self._question(example), profile=self.profile)

    def bare(self, example: Example) -> Example | None:
        """Return the question with its options unseen; None if that cannot be.

        Raises DataError for an example without options.
        """
        return bare(example, self._question(example), profile=self.profile)

    def drawn(self, example: Example) -> int:
        """Return the place of an option drawn for the example's fact; raises DataError without any.

        It is the same text in both modalities, in every order and in words. As good as an equal
        number of all facts falls on the true option as on each of the others.
        """
        truth = self._question(example).truth
        texts = [option.text for option in example.options]
        turn = self._turns[example.individual, truth] % len(texts)
        if turn == 0:
            return texts.index(truth)
        others = sorted({*texts} - {truth})
        key = f"{example.individual}:{truth}"
        return texts.index(others[_drawn(self.seed, key, "option", len(others))])

    def aside(self, example: Example) -> Example:
        """Return the question asked bare and answered with a text that is none of its options.

        That is an option of a question in the same words about anybody. The drawn option where
        there is no such text, and the example itself, so answered, where it cannot be asked bare.
        """
        place, asked = self.drawn(example), self.bare(example)
        if asked is None:
            spoken = example.option_texts or tuple(option.letter for option in example.options)
            return replace(example, answer=spoken[place])
        words = self._wordings[example.question_id]
        others = sorted(self._answers[words] - {option.text for option in example.options})
        if not others:
            return replace(asked, answer=example.options[place].text)
        key = f"{example.individual}:{words}"
        return replace(asked, answer=others[_drawn(self.seed, key, "aside", len(others))])

    def decoupled(self, example: Example) -> Example:
        """Return the same question about a retained person; raises DataError if there is none."""
        found = self._pool.like(_kind(example), self._wordings.get(example.question_id, ""))
        if not found:
            raise DataError(
                Problem(
                    "nobody who is retained is asked anything of the kind",
                    example.question_id,
                    got=f"{example.modality}, {'with' if example.options else 'without'} options",
                    allowed="unlearn.retain: d_retain, other_known or all_known, with people",
                )
            )
        views = found[_drawn(self.seed, example.example_id, "question", len(found))]
        return views[_drawn(self.seed, example.example_id, "view", len(views))]

    def _question(self, example: Example) -> Question:
        question = self._questions.get(example.question_id)
        if question is None or not example.options:
            raise DataError(
                Problem(
                    "a question without options cannot be asked in their orders or words",
                    example.question_id,
                    allowed="unlearn.forms: multiple_choice",
                )
            )
        return question

    @cached_property
    def _questions(self) -> Mapping[str, Question]:
        return {question.id: question for person in self.forget for question in person.questions}

    @cached_property
    def _turns(self) -> Mapping[tuple[str, str], int]:
        """Person and true answer -> the turn of that fact, in drawn order."""
        facts = {(one.individual, one.truth) for one in self._questions.values()}
        drawn = {fact: _drawn(self.seed, ":".join(fact), "turn", 1 << 60) for fact in facts}
        by_draw = sorted(facts, key=lambda fact: (drawn[fact], fact))
        return {fact: turn for turn, fact in enumerate(by_draw)}

    @cached_property
    def _answers(self) -> Mapping[str, frozenset[str]]:
        """Wording -> what is offered as an answer to questions in these words."""
        found: dict[str, set[str]] = defaultdict(set)
        for person in (*self.forget, *self.retain):
            for one in person.questions:
                found[self._wordings[one.id]].update(option.text for option in one.options)
        return {words: frozenset(texts) for words, texts in found.items()}

    @cached_property
    def _wordings(self) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for person in (*self.forget, *self.retain):
            found |= {one.id: wording(one.question, person.name) for one in person.questions}
            found |= {one.id: wording(one.question, person.name) for one in person.short_answers}
        return found

    @cached_property
    def _pool(self) -> _Pool:
        pool = _Pool()
        for epoch in range(VIEWS):
            for example in training(
                self.retain, profile=self.profile, seed=self.seed, epoch=epoch, forms=self.forms
            ):
                pool.add(example, self._wordings[example.question_id])
        return pool


def wording(question: str, name: str) -> str:
    """Return a question's words without the person's name and without pronouns."""
    whose = words_of(name) | _PRONOUNS
    words = [_SOMEBODY if word in whose else word for word in plain(question).split()]
    kept = [
        word
        for word, before in zip(words, ["", *words[:-1]], strict=True)
        if not word == before == _SOMEBODY
    ]
    return " ".join(kept)


_Kind = tuple[str, bool, str]
"""Modality, whether there are options, category."""


def _kind(example: Example) -> _Kind:
    return example.modality, bool(example.options), example.category


@dataclass(frozen=True)
class _Pool:
    """Examples by question, and questions by what they are like."""

    views: dict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))
    alike: dict[tuple[object, ...], dict[str, None]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def add(self, example: Example, words: str) -> None:
        self.views[example.question_id].append(example)
        for key in _keys(_kind(example), words):
            self.alike[key][example.question_id] = None

    def like(self, kind: _Kind, words: str) -> list[list[Example]]:
        """Return the questions most like one, each in its views."""
        found = next((self.alike[key] for key in _keys(kind, words) if key in self.alike), {})
        return [self.views[question] for question in found]


def _keys(kind: _Kind, words: str) -> list[tuple[object, ...]]:
    """Return what questions are alike in, closest first."""
    modality, options, category = kind
    general: tuple[object, ...] = (modality, options)
    closer = [(*general, "category", category)] if category else []
    return [(*general, "words", words), *closer, general]


def _drawn(seed: int, example: str, what: str, count: int) -> int:
    return int.from_bytes(sha256(f"{what}:{seed}:{example}".encode()).digest()[:8]) % count
