"""Random streams of the world, each named so that adding one never shifts another; and options."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

LETTERS = ("A", "B", "C", "D")
T = TypeVar("T")


def stream(seed: int, *labels: object) -> np.random.Generator:
    """Return the generator that belongs to `seed` and `labels`, equal in every process."""
    text = "/".join([str(seed), *(str(label) for label in labels)])
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def pick(rng: np.random.Generator, values: Sequence[T]) -> T:
    """Draw one value; unlike `Generator.choice` it keeps the Python type."""
    return values[int(rng.integers(len(values)))]


def sample(rng: np.random.Generator, values: Sequence[T], count: int) -> list[T]:
    """Draw `count` different positions of `values`, in random order."""
    return [values[int(index)] for index in rng.permutation(len(values))[:count]]


def shuffled(rng: np.random.Generator, values: Sequence[T]) -> list[T]:
    """Return the values in random order."""
    return sample(rng, values, len(values))


def spread(rng: np.random.Generator, values: Sequence[T], count: int) -> list[T]:
    """Draw `count` values in random order so that their frequencies differ by at most one."""
    whole, rest = divmod(count, len(values))
    return shuffled(rng, [*(list(values) * whole), *sample(rng, values, rest)])


@dataclass(frozen=True, slots=True)
class Choice:
    """Options of a multiple-choice question and the place of the truth among them."""

    options: tuple[str, ...]
    answer_index: int


def draw_choice(
    rng: np.random.Generator, truth: str, wrong: Sequence[str], *, place: int
) -> Choice:
    """Put the truth at `place` among three of the wrong values."""
    options = sample(rng, wrong, len(LETTERS) - 1)
    options.insert(place, truth)
    return Choice(tuple(options), place)
