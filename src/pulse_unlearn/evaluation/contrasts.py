"""A difference judged in every seed: paired, corrected, and called a finding only if it repeats.

One run says little: between-seed standard deviations of 3 to 20 points were measured where printed
half-widths are 3 to 6. So a contrast needs `ENOUGH_SEEDS` runs, and counts as seen only if each of
them shows it on its own, in the same direction, after Holm's correction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pulse_unlearn.evaluation.compare import holm, sign_flip
from pulse_unlearn.evaluation.intervals import (
    OverSeeds,
    clustered_mean,
    stratified_weights,
    sum_by,
    t_over_seeds,
)

ENOUGH_SEEDS = 3
SURE = 0.05

Settled = Literal["seen", "opposite", "not settled", "too few runs", "not tested"]


@dataclass(frozen=True, slots=True)
class Gaps:
    """One number a question, positive where the contrast holds, and what it belongs to."""

    values: tuple[float, ...]
    clusters: tuple[str, ...]
    strata: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SeedGap:
    """A contrast in one run: mean difference in accuracy, interval, p-value of the family."""

    value: float
    low: float | None
    high: float | None
    p_value: float
    """Two-sided sign-flip permutation over people or questions; after `settle`, Holm's."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A difference over all seeds."""

    label: str
    by_seed: Mapping[int, SeedGap]
    over_seeds: OverSeeds

    @property
    def settled(self) -> Settled:
        """Say whether the difference repeats; with fewer than three seeds nothing is said."""
        if not self.by_seed:
            return "not tested"
        if len(self.by_seed) < ENOUGH_SEEDS:
            return "too few runs"
        gaps = self.by_seed.values()
        if all(gap.p_value < SURE and gap.value > 0 for gap in gaps):
            return "seen"
        if all(gap.p_value < SURE and gap.value < 0 for gap in gaps):
            return "opposite"
        return "not settled"


def contrast(label: str, by_seed: Mapping[int, Gaps]) -> Contrast:
    """Measure a contrast in every seed and over all of them; p-values are not yet corrected."""
    found = {seed: _measured(gaps) for seed, gaps in sorted(by_seed.items()) if gaps.values}
    values = [gap.value for gap in found.values()]
    halves = [
        (gap.high - gap.low) / 2
        for gap in found.values()
        if gap.high is not None and gap.low is not None
    ]
    over = t_over_seeds(values, sampling=halves, bounds=(-1.0, 1.0))
    return Contrast(label, found, over)


def settle(family: Sequence[Contrast]) -> tuple[Contrast, ...]:
    """Correct the p-values of contrasts that are looked at together, seed by seed (Holm)."""
    seeds = sorted({seed for one in family for seed in one.by_seed})
    adjusted: dict[tuple[int, int], float] = {}
    for seed in seeds:
        there = [
            (place, one.by_seed[seed]) for place, one in enumerate(family) if seed in one.by_seed
        ]
        values = holm([gap.p_value for _, gap in there])
        for (place, gap), value in zip(there, values, strict=True):
            adjusted[place, seed] = gap.p_value if value is None else value
    return tuple(
        replace(
            one,
            by_seed={
                seed: replace(gap, p_value=adjusted[place, seed])
                for seed, gap in one.by_seed.items()
            },
        )
        for place, one in enumerate(family)
    )


def together(family: Sequence[Contrast]) -> Settled:
    """Say what contrasts show together: the same if all do, else nothing is settled."""
    said = {one.settled for one in family if one.settled != "not tested"}
    if not said:
        return "not tested"
    return said.pop() if len(said) == 1 else "not settled"


def _measured(gaps: Gaps) -> SeedGap:
    values = np.array(gaps.values)
    mean = clustered_mean(values, gaps.clusters, strata=gaps.strata, bounds=(-1.0, 1.0))
    sums = sum_by(values * stratified_weights(gaps.strata), gaps.clusters)
    return SeedGap(mean.value or 0.0, mean.low, mean.high, sign_flip(sums))
