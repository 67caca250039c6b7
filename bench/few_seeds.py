"""How ranks of few seeds are told apart, on simulated boards: `bench/few_seeds.py [BOARDS]`.

Scores of a board: a method's own, a shift of the seed and a scatter whose size differs between
methods (log-normal around 0.05). For each way of estimating the variance of a difference it prints
how often a board of equal methods has a pair called different, and what share of the pairs is told
apart where scores run evenly from 0 to 0.8; all pairs corrected together (Holm), 5 % level.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
from scipy import special

from pulse_unlearn.evaluation.comparisons import SURE, holm
from pulse_unlearn.evaluation.intervals import FloatArray
from pulse_unlearn.leaderboard.few_seeds import MODERATED_FROM, p_values

SCATTER, SPREAD, HIGHEST = 0.05, (0.7, 1.2), 0.8
SIZES, SEEDS = (4, 8, 16, 36), (3, 5)


def boards(
    count: int, means: FloatArray, seeds: int, spread: float, generator: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield simulated boards, methods x seeds."""
    for _ in range(count):
        own = np.exp(generator.normal(np.log(SCATTER), spread, (len(means), 1)))
        shift = generator.normal(0, SCATTER, (1, seeds))
        yield means[:, None] + shift + own * generator.normal(size=(len(means), seeds))


def of_pairs(board: FloatArray) -> FloatArray:
    """Return the differences of all pairs, pairs x seeds."""
    return np.array([one - other for one, other in combinations(board, 2)])


def plain(board: FloatArray) -> list[float | None]:
    """Test each pair by its own spread."""
    return p_values(of_pairs(board).tolist(), entries=2)


def moderated(board: FloatArray) -> list[float | None]:
    """Test each pair by its own spread and that of all others."""
    return p_values(of_pairs(board).tolist(), entries=MODERATED_FROM)


def pooled(board: FloatArray) -> list[float | None]:
    """Test all pairs by one variance, that of a two-way layout."""
    rest = board - board.mean(1, keepdims=True) - board.mean(0, keepdims=True) + board.mean()
    methods, seeds = board.shape
    degrees = (methods - 1) * (seeds - 1)
    error = np.sqrt(2 * (rest**2).sum() / degrees / seeds)
    values = 2 * special.stdtr(degrees, -np.abs(of_pairs(board).mean(1)) / error)
    return [float(value) for value in values]


WAYS: dict[str, Callable[[FloatArray], list[float | None]]] = {
    "own": plain,
    "moderated": moderated,
    "one for all": pooled,
}


def sure(p: list[float | None]) -> FloatArray:
    """Return 1 for each pair that is told apart, all corrected together."""
    return np.array([float(one is not None and one < SURE) for one in holm(p)])


def main(count: int) -> None:
    """Print the table."""
    print("| methods | seeds | spread of scatter | variance | equal: wrong boards | pairs found |")
    print("|---|---|---|---|---|---|")
    for methods in SIZES:
        for seeds in SEEDS:
            for spread in SPREAD:
                generator = np.random.default_rng(0)
                equal = [*boards(count, np.zeros(methods), seeds, spread, generator)]
                apart = np.linspace(0, HIGHEST, methods)
                unequal = [*boards(count, apart, seeds, spread, generator)]
                for name, way in WAYS.items():
                    wrong = np.mean([sure(way(board)).any() for board in equal])
                    found = np.mean([sure(way(board)).mean() for board in unequal])
                    line = f"{methods} | {seeds} | {spread} | {name} | {wrong:.1%} | {found:.0%}"
                    print(f"| {line} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
