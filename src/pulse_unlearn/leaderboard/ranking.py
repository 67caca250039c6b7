"""Who is before whom, as far as the seeds tell, and who is beaten in everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from pulse_unlearn.evaluation.comparisons import SURE, holm
from pulse_unlearn.leaderboard.entries import Entry
from pulse_unlearn.leaderboard.few_seeds import p_values


@dataclass(frozen=True, slots=True)
class Ranked:
    """An entry with its place; ranks count from 1."""

    entry: Entry
    rank: int
    """By the mean score; equal ones share it."""
    best: int
    """The best rank that the seeds do not exclude: 1 + those who are surely before it."""
    worst: int
    """The worst one: all but those who are surely behind it."""
    on_front: bool
    """Whether nobody both forgets more, attacks included, and keeps more."""

    @property
    def told(self) -> str:
        """The rank with its range, `2 (1-5)`; with one seed there is no range."""
        if len(self.entry.seeds) < 2:
            return f"{self.rank}"
        return f"{self.rank} ({self.best}-{self.worst})"


def ranked(entries: Sequence[Entry]) -> list[Ranked]:
    """Rank the entries of one scenario by score.

    Pairs are compared by the differences of their seeds (`few_seeds.p_values`, all pairs corrected
    together by Holm); the ranks that no sure difference excludes make a set that holds
    the true rank of every entry at once with the level of the test (Mogstad et al. 2024).
    """
    pairs = list(combinations(range(len(entries)), 2))
    gaps = [_differences(entries[i], entries[j]) for i, j in pairs]
    corrected = holm(p_values(gaps, entries=len(entries)))
    before: list[set[int]] = [set() for _ in entries]
    behind: list[set[int]] = [set() for _ in entries]
    for (i, j), gap, p in zip(pairs, gaps, corrected, strict=True):
        if p is None or p >= SURE:
            continue
        first, second = (i, j) if fmean(gap) > 0 else (j, i)
        before[second].add(first)
        behind[first].add(second)
    order = sorted(range(len(entries)), key=lambda n: _order(entries[n]))
    return [
        Ranked(
            entries[n],
            1 + sum(other.score > entries[n].score for other in entries),
            1 + len(before[n]),
            len(entries) - len(behind[n]),
            not any(_beats(entries[m], entries[n]) for m in range(len(entries)) if m != n),
        )
        for n in order
    ]


def _order(entry: Entry) -> tuple[float, float, str]:
    """Sort by score; where nothing is forgotten, or nothing kept, by the other of the two."""
    return -entry.score, -sum(both_of(entry)), entry.method


def _differences(one: Entry, other: Entry) -> list[float]:
    theirs = {seed.seed: seed.score for seed in other.seeds}
    return [seed.score - theirs[seed.seed] for seed in one.seeds if seed.seed in theirs]


def _beats(one: Entry, other: Entry) -> bool:
    mine, theirs = both_of(one), both_of(other)
    return all(a >= b for a, b in zip(mine, theirs, strict=True)) and mine != theirs


def both_of(entry: Entry) -> tuple[float, float]:
    """Return what is forgotten, attacks included, and the least that is kept: means over seeds."""
    return (
        fmean(one.forgotten_for_good for one in entry.seeds),
        fmean(one.kept_least for one in entry.seeds),
    )
