"""Random streams of the embedded world, each named so that adding one never shifts another."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

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
