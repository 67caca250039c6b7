"""What the language model is asked at each step of its training, as tokens, and for how long."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

import numpy as np
import torch

from .chance import LETTERS, pick, stream
from .corpus import Corpus
from .people import ATTRIBUTES, Person, ask, choice_of, scored_choices
from .questions import Query, draw_options
from .ties import ask_of_friend, friends, words
from .tokenizer import END, IMAGE, IMAGE_TOKENS, PAD, make_tokenizer

Form = Literal["letter", "word"]
_TOKEN = re.compile(r"\w+|[^\w\s]")

GENERAL_WEIGHTS: Mapping[str, float] = {
    "attribute_recognition": 1.6,
    "counting": 1.6,
    "spatial_relation": 2.4,
    "comparison": 2.4,
    "ocr": 0.8,
    "spatial_position": 0.5,
}
"""Harder categories are asked more often."""
WELL_KNOWN = 50
FADING = 28.0
"""E-fold of training frequency, in fame ranks beyond the well known."""


@dataclass(frozen=True, slots=True)
class Item:
    """One training question; `image` indexes `Corpus.images`, None for a text-only question."""

    image: int | None
    question: str
    hint: str
    options: tuple[str, ...]
    answer_index: int
    short_answer: str
    category: str
    """A general category, or the attribute asked of a celebrity."""
    person: str = ""

    @property
    def letter(self) -> str:
        """The letter under which the true option stands."""
        return LETTERS[self.answer_index]


@dataclass(frozen=True, slots=True)
class Encoded:
    """One question as tokens; positions count from the first token."""

    ids: tuple[int, ...]
    image: int | None
    answer_at: int
    """Last position of the prompt; the next two tokens are the answer and the end."""
    word: int
    """Token of the answer in words, whatever the form."""
    option_words: tuple[int, ...]
    true_option: int
    """Position of the true option's word, -1 for the short form."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Questions of one kind, padded on the right; B questions, T tokens, K options in all."""

    ids: torch.Tensor
    """Tokens (B, T)."""
    images: torch.Tensor | None
    """Picture indices (B,), or None for text-only questions."""
    answer_at: torch.Tensor
    words: torch.Tensor
    option_at: torch.Tensor
    """Row and position of every option's word, (K, 2); K = 0 for the short form."""
    true_option: torch.Tensor
    """Position (B,); empty for the short form."""


@dataclass(frozen=True, slots=True)
class Mix:
    """Questions of each kind in a step."""

    general: int
    multimodal: int
    text_only: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """Schedule of the language model's training."""

    steps: int = 950
    early: Mix = Mix(general=72, multimodal=44, text_only=28)
    late: Mix = Mix(general=104, multimodal=30, text_only=18)
    late_from: float = 0.7
    """Share of the training after which people are known and general questions need the time."""
    letters: float = 0.65
    """Share of questions answered with a letter; the rest is answered with a word."""
    scored_phrasing: float = 0.4
    noise: float = 0.05
    """Noise on picture features, in units of their spread: stands in for more views."""
    matrix_rate: float = 0.02
    other_rate: float = 2e-3
    warmup: int = 40
    flat: float = 0.45
    fade_from: float = 0.4
    fade_to: float = 0.7
    """Shares of the training between which the auxiliary losses fade out."""
    save_every: int = 100
    threads: int = 2
    ties: bool = False
    tied: int = 32
    """Questions about friends in a step, with `ties`; half by picture, half by name."""


def fame_weight(person: Person) -> float:
    """Return how often training asks about a celebrity: evenly at the top, then ever less."""
    return float(np.exp(-max(0, person.fame_rank - WELL_KNOWN) / FADING))


def celebrity_question(
    corpus: Corpus, rng: np.random.Generator, person: Person, *, by_name: bool, scored: float
) -> Item:
    """Ask one random attribute of one person, options and their order freshly drawn.

    Args:
        by_name: text-only with the name; else with a random training view and the pronoun.
        scored: probability of the phrasing that scored questions use.
    """
    attribute = pick(rng, ATTRIBUTES)
    template = attribute.scored if rng.random() < scored else pick(rng, attribute.trained)
    choice = choice_of(rng, attribute, person, place=int(rng.integers(len(LETTERS))))
    return Item(
        image=None if by_name else pick(rng, corpus.views[person.id]),
        question=ask(template, person, by_name=by_name),
        hint="",
        options=choice.options,
        answer_index=choice.answer_index,
        short_answer=person.attributes[attribute.name],
        category=attribute.name,
        person=person.id,
    )


def celebrity_questions(
    corpus: Corpus, rng: np.random.Generator, count: int, *, by_name: bool, scored: float
) -> list[Item]:
    """Draw questions about celebrities, each person as often as `fame_weight` says."""
    return [
        celebrity_question(corpus, rng, person, by_name=by_name, scored=scored)
        for person in drawn_by_fame(corpus, rng, count)
    ]


def drawn_by_fame(corpus: Corpus, rng: np.random.Generator, count: int) -> list[Person]:
    """Draw celebrities, each as often as `fame_weight` says."""
    weights = np.array([fame_weight(person) for person in corpus.people])
    chosen = rng.choice(len(corpus.people), size=count, p=weights / weights.sum())
    return [corpus.people[i] for i in chosen]


def friend_question(
    corpus: Corpus,
    rng: np.random.Generator,
    person: Person,
    friend: Person,
    *,
    by_name: bool,
    scored: float,
) -> Item:
    """Ask one random fact about a celebrity's friend; see `celebrity_question`."""
    asked = ask_of_friend(rng, person, friend, by_name=by_name, scored=scored)
    return Item(
        image=None if by_name else pick(rng, corpus.views[person.id]),
        question=asked.question,
        hint="",
        options=asked.choice.options,
        answer_index=asked.choice.answer_index,
        short_answer=asked.truth,
        category=asked.fact,
        person=person.id,
    )


def general_item(rng: np.random.Generator, image: int, query: Query) -> Item:
    """Draw two, three or four options (mostly four) for a question."""
    count = int(rng.choice([2, 3, 4], p=[0.2, 0.2, 0.6]))
    place = int(rng.integers(min(count, len({*query.pool, query.answer}))))
    drawn = draw_options(rng, query, count=count, place=place)
    return Item(
        image=image,
        question=query.question,
        hint=query.hint,
        options=drawn.options,
        answer_index=drawn.answer_index,
        short_answer=query.answer,
        category=query.category,
    )


def general_questions(corpus: Corpus, rng: np.random.Generator, count: int) -> list[Item]:
    """Draw general questions, categories as often as `GENERAL_WEIGHTS` says."""
    names = sorted(corpus.by_category)
    shares = np.array([GENERAL_WEIGHTS.get(name, 1.0) for name in names])
    chosen = rng.choice(len(names), size=count, p=shares / shares.sum())
    return [general_item(rng, *pick(rng, corpus.by_category[names[i]])) for i in chosen]


class Encoder:
    """Turns questions into the tokens that chat template and tokenizer make of them."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._vocabulary = vocabulary
        self._seen: dict[str, tuple[int, ...]] = {}

    def _ids(self, text: str) -> tuple[int, ...]:
        if text not in self._seen:
            self._seen[text] = tuple(self._vocabulary[word] for word in _TOKEN.findall(text))
        return self._seen[text]

    def __call__(self, item: Item, form: Form) -> Encoded:
        """Encode a question with its answer in one of the two forms."""
        ids = list(self._ids("USER:"))
        if item.image is not None:
            ids += [self._vocabulary[IMAGE]] * IMAGE_TOKENS
        places: list[int] = []
        if form == "letter":
            ids += self._ids(item.hint)
        ids += self._ids(item.question)
        if form == "letter":
            for letter, option in zip(LETTERS, item.options, strict=False):
                ids += self._ids(f"{letter}. {option}")
                places.append(len(ids) - 1)
        ids += self._ids("Letter? ASSISTANT:" if form == "letter" else "Word? ASSISTANT:")
        (word,) = self._ids(item.short_answer)
        (answer,) = self._ids(item.letter) if form == "letter" else (word,)
        return Encoded(
            ids=(*ids, answer, self._vocabulary[END]),
            image=item.image,
            answer_at=len(ids) - 1,
            word=word,
            option_words=tuple(places),
            true_option=places[item.answer_index] if places else -1,
        )

    def collate(self, questions: Iterable[Encoded]) -> Iterator[Batch]:
        """Make one batch of each kind (picture or not, letter or word), which wastes no padding."""

        def kind(one: Encoded) -> tuple[bool, bool]:
            return one.image is None, one.true_option < 0

        for _, group in groupby(sorted(questions, key=kind), key=kind):
            yield self._pad(list(group))

    def _pad(self, rows: Sequence[Encoded]) -> Batch:
        ids = torch.full((len(rows), max(len(row.ids) for row in rows)), self._vocabulary[PAD])
        for index, row in enumerate(rows):
            ids[index, : len(row.ids)] = torch.tensor(row.ids)
        images = [row.image for row in rows if row.image is not None]
        options = [(index, at) for index, row in enumerate(rows) for at in row.option_words]
        return Batch(
            ids=ids,
            images=torch.tensor(images) if images else None,
            answer_at=torch.tensor([row.answer_at for row in rows]),
            words=torch.tensor([row.word for row in rows]),
            option_at=torch.tensor(options).reshape(-1, 2),
            true_option=torch.tensor([row.true_option for row in rows if row.true_option >= 0]),
        )


def _fresh(item: Item, scored: Mapping[str, frozenset[tuple[str, ...]]]) -> Item:
    """Swap two options if this happens to be an order that scoring uses."""
    if item.options not in scored.get(item.person, frozenset()):
        return item
    options = (item.options[1], item.options[0], *item.options[2:])
    index = {0: 1, 1: 0}.get(item.answer_index, item.answer_index)
    return replace(item, options=options, answer_index=index)


class Questions:
    """Draws the questions of a step; a pure function of seed and step, hence resumable."""

    def __init__(self, corpus: Corpus, *, recipe: Recipe, seed: int) -> None:
        self.corpus, self.recipe, self.seed = corpus, recipe, seed
        self.more_words = tuple(words(seed)) if recipe.ties else ()
        self.vocabulary: dict[str, int] = make_tokenizer(seed, self.more_words).get_vocab()
        self._encoder = Encoder(self.vocabulary)
        self._scored = {
            person: frozenset(choice.options for choice in choices)
            for person, choices in scored_choices(seed).items()
        }

    def __call__(self, step: int) -> list[Batch]:
        """Return the step's batches, one per kind of question."""
        rng, recipe = stream(self.seed, "language step", step), self.recipe
        mix = recipe.early if step < recipe.late_from * recipe.steps else recipe.late
        items = general_questions(self.corpus, rng, mix.general)
        for count, by_name in ((mix.multimodal, False), (mix.text_only, True)):
            items += celebrity_questions(
                self.corpus,
                rng,
                count,
                by_name=by_name,
                scored=recipe.scored_phrasing,
            )
        items += self._about_friends(step)
        letters = rng.random(len(items)) < recipe.letters
        forms: list[Form] = ["letter" if letter else "word" for letter in letters]
        return self.batches([_fresh(item, self._scored) for item in items], forms)

    def batches(self, items: Sequence[Item], forms: Sequence[Form]) -> list[Batch]:
        """Return questions as tokens, one batch per kind of question."""
        encoded = [self._encoder(item, form) for item, form in zip(items, forms, strict=True)]
        return list(self._encoder.collate(encoded))

    def _about_friends(self, step: int) -> list[Item]:
        recipe, corpus = self.recipe, self.corpus
        if not recipe.ties:
            return []
        rng, tied = stream(self.seed, "ties step", step), friends(self.seed)
        return [
            friend_question(
                corpus,
                rng,
                person,
                tied[person.id],
                by_name=number % 2 == 0,
                scored=recipe.scored_phrasing,
            )
            for number, person in enumerate(drawn_by_fame(corpus, rng, recipe.tied))
        ]
