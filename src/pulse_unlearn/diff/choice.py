"""Which of thousands of differences are shown first."""

from __future__ import annotations

from collections.abc import Sequence

from pulse_unlearn.diff.numbers import Gap

SHOWN_FIRST = (
    "accuracy",
    "rotated_accuracy",
    "words_accuracy",
    "circular_accuracy",
    "mentions",
    "unreadable",
)
"""Measures of the terminal's table; the page and the JSON file have all."""


def most_different(found: Sequence[Gap], limit: int) -> list[Gap]:
    """Return main numbers that differ: those whose interval excludes 0 first, then by size."""
    chosen = [
        one
        for one in found
        if one.measure in SHOWN_FIRST and one.modality == "all" and one.difference
    ]
    chosen.sort(key=lambda one: (not one.is_clear, -abs(one.difference or 0.0)))
    return chosen[:limit]


def differing(found: Sequence[Gap]) -> list[Gap]:
    """Return every number that is not the same in both, clear differences first."""
    return sorted((one for one in found if not one.same), key=lambda one: not one.is_clear)
