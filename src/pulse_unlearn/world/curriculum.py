"""What the language model is asked at each step of its training, and for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from .chance import stream
from .corpus import Corpus, Item, celebrity_questions, general_questions
from .language import Batch, Encoder, Form
from .people import Person, scored_choices
from .tokenizer import make_processor

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


def fame_weight(person: Person) -> float:
    """Return how often training asks about a celebrity: evenly at the top, then ever less."""
    return float(np.exp(-max(0, person.fame_rank - WELL_KNOWN) / FADING))


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
        self._corpus, self._recipe, self._seed = corpus, recipe, seed
        tokenizer = make_processor(seed).tokenizer
        self.vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._encoder = Encoder(self.vocabulary)
        self._scored = {
            person: frozenset(choice.options for choice in choices)
            for person, choices in scored_choices(seed).items()
        }

    def __call__(self, step: int) -> list[Batch]:
        """Return the step's batches, one per kind of question."""
        rng, recipe = stream(self._seed, "language step", step), self._recipe
        mix = recipe.early if step < recipe.late_from * recipe.steps else recipe.late
        items = general_questions(self._corpus, rng, mix.general, weights=GENERAL_WEIGHTS)
        for count, by_name in ((mix.multimodal, False), (mix.text_only, True)):
            items += celebrity_questions(
                self._corpus,
                rng,
                count,
                by_name=by_name,
                scored=recipe.scored_phrasing,
                weight=fame_weight,
            )
        letters = rng.random(len(items)) < recipe.letters
        forms: list[Form] = ["letter" if letter else "word" for letter in letters]
        encoded = [
            self._encoder(_fresh(item, self._scored), form)
            for item, form in zip(items, forms, strict=True)
        ]
        return list(self._encoder.collate(encoded))
