"""Numbers of two runs matched row by row, and their differences paired by question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from pulse_unlearn.api import LoadedRun
from pulse_unlearn.diff.answers import Shared
from pulse_unlearn.evaluation.comparisons import Gaps, Pairing, gaps_between
from pulse_unlearn.evaluation.intervals import OverSeeds, clustered_mean, mean_over_seeds
from pulse_unlearn.evaluation.measures import ALL, GENERAL, MEASURES
from pulse_unlearn.records import Cell, Measurement, QuestionScore

Key = tuple[Cell, str, str, str]
"""Cell, set, modality, measure."""


@dataclass(frozen=True, slots=True)
class Gap:
    """One number in both runs, and B minus A."""

    cell: Cell
    set: str
    modality: str
    measure: str
    a: Measurement
    b: Measurement
    difference: float | None
    """Over the questions that both asked; None where there are none, or no value."""
    low: float | None
    high: float | None
    shared: int
    """Questions the difference is taken over."""
    reason: str = ""
    """Why there is no difference or no interval, or what the difference is taken over."""

    @property
    def same(self) -> bool:
        """Whether the row is the same in both, interval and counts included."""
        return replace(self.a, reason="") == replace(self.b, reason="")

    @property
    def is_clear(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True)
class GapOverSeeds:
    """The mean difference of one number over the seeds that both runs have."""

    cell: Cell
    """Its seed says nothing."""
    set: str
    modality: str
    measure: str
    over: OverSeeds


def by_key(run: LoadedRun) -> dict[Key, Measurement]:
    """Return the rows of `results.csv` by what they are about."""
    return {
        (row.cell, row.measurement.set, row.measurement.modality, row.measurement.measure): (
            row.measurement
        )
        for row in run.rows
    }


def gaps(a: LoadedRun, b: LoadedRun, shared: Mapping[Cell, Shared]) -> list[Gap]:
    """Return every number that both runs have, in the order of A."""
    first, second = by_key(a), by_key(b)
    matched = {key: (first[key], second[key]) for key in first if key in second}
    found: list[Gap] = []
    pairings: dict[tuple[Cell, str, str], tuple[Pairing, str]] = {}
    for key, (was, now) in matched.items():
        place = key[:3]
        if place not in pairings:
            pairings[place] = _pairing(a, b, shared.get(key[0]), place)
        pairing, note = pairings[place]
        found.append(_gap(key, (was, now), pairing, note))
    return found


def over_seeds(found: Iterable[Gap]) -> list[GapOverSeeds]:
    """Return the mean of each paired difference over two seeds or more, with its interval."""
    groups: dict[Key, list[Gap]] = {}
    for one in found:
        if one.difference is not None and _base(one.measure) in MEASURES.names():
            anywhere = replace(one.cell, seed=0)
            key = (anywhere, one.set, one.modality, one.measure)
            groups.setdefault(key, []).append(one)
    return [GapOverSeeds(*key, _mean(same)) for key, same in groups.items() if len(same) > 1]


def _mean(same: Sequence[Gap]) -> OverSeeds:
    values = [one.difference for one in same if one.difference is not None]
    halves = [(o.high - o.low) / 2 for o in same if o.high is not None and o.low is not None]
    return mean_over_seeds(values, sampling=halves, bounds=(-1.0, 1.0))


def _pairing(
    a: LoadedRun, b: LoadedRun, shared: Shared | None, place: tuple[Cell, str, str]
) -> tuple[Pairing, str]:
    """Return the questions behind a number that both runs asked, and what is left out."""
    cell, of_set, modality = place
    if shared is None:
        return Pairing((), ()), "the answers of one run are not there"
    people = (a.people(cell, of_set), b.people(cell, of_set))

    def counts(score: QuestionScore, among: frozenset[str]) -> bool:
        return score.individual in among and modality in (ALL, score.modality)

    pairing = shared.pairing(lambda score: counts(score, people[0] & people[1]))
    asked = [
        {score.question_id for score in scores if counts(score, among)}
        for scores, among in zip((shared.a, shared.b), people, strict=True)
    ]
    count, whole = len(pairing.before), len(asked[0] | asked[1])
    if count == whole:
        return pairing, ""
    if not count:
        return pairing, "the runs share no question of this set"
    return pairing, f"over {count} shared of {whole} questions"


def _gap(key: Key, rows: tuple[Measurement, Measurement], pairing: Pairing, note: str) -> Gap:
    cell, of_set, modality, measure = key
    was, now = rows
    blank = Gap(cell, of_set, modality, measure, was, now, None, None, None, len(pairing.before))
    if was.value is None or now.value is None:
        return replace(blank, reason=was.reason or now.reason or "undefined")
    if not pairing.before:
        return replace(blank, reason=note or "the runs share no question of this set")
    base, _, category = measure.partition(":")
    if base in MEASURES.names() and (not category or of_set == GENERAL):
        inside = pairing.where([category in ("", one.category) for one in pairing.before])
        return _paired(blank, gaps_between(inside, base), note)
    if note:
        return replace(blank, reason=f"{note}; not a mean over questions")
    gap = now.value - was.value
    return replace(blank, difference=gap, reason="no interval: not a mean over questions")


def _paired(blank: Gap, values: Gaps, note: str) -> Gap:
    if not values.values:
        return replace(blank, shared=0, reason=note or "no shared question was asked so")
    unit = "questions" if blank.set == GENERAL else "people"
    found = clustered_mean(
        values.values, values.clusters, strata=values.strata, bounds=(-1.0, 1.0), unit=unit
    )
    reason = "; ".join(part for part in (found.reason, note) if part)
    return replace(
        blank,
        difference=found.value,
        low=found.low,
        high=found.high,
        shared=len(values.values),
        reason=reason,
    )


def _base(measure: str) -> str:
    return measure.partition(":")[0]
