"""A linear probe: letters of true options read off hidden states, by ridge regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pulse_unlearn.evaluation.intervals import FloatArray

PENALTY = 0.25
"""Of the squared weights, by example: states are standardised, so it is the same for all models."""
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True)
class LetterProbe:
    """What was fitted: standardisation of the states, and weights with a constant behind them."""

    letters: tuple[str, ...]
    mean: FloatArray
    """Of each state, (states,)."""
    scale: FloatArray
    """Standard deviation of each state, (states,)."""
    weights: FloatArray
    """(states + 1, letters)."""

    @classmethod
    def fit(cls, states: FloatArray, letters: Sequence[str]) -> LetterProbe:
        """Fit true letters, one an example, to states, (examples, states)."""
        known = tuple(sorted(set(letters)))
        mean, scale = states.mean(axis=0), np.maximum(states.std(axis=0), _SMALLEST)
        inputs = _with_constant((states - mean) / scale)
        target = np.array([[letter == one for one in known] for letter in letters], dtype=float)
        penalty = PENALTY * len(letters) * np.eye(inputs.shape[1])
        penalty[-1, -1] = 0.0
        weights = np.linalg.solve(inputs.T @ inputs + penalty, inputs.T @ target)
        return cls(known, mean, scale, weights)

    def log_scores(self, states: FloatArray, letters: Sequence[str]) -> tuple[float, ...]:
        """Return the letters' scores at one example's states, (states,), as log-probabilities.

        A softmax of the regression, so only their order says anything. A letter that was never
        true scores lowest of all.
        """
        found = (_with_constant(((states - self.mean) / self.scale)[None]) @ self.weights)[0]
        by_letter = dict(zip(self.letters, found.tolist(), strict=True))
        lowest = float(found.min())
        scores = np.array([by_letter.get(letter, lowest) for letter in letters])
        shifted = scores - scores.max()
        return tuple((shifted - np.log(np.exp(shifted).sum())).tolist())


def _with_constant(inputs: FloatArray) -> FloatArray:
    return np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
