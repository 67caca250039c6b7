"""Everything that differs between two finished runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pulse_unlearn.api import Evaluated, LoadedRun
from pulse_unlearn.diff.answers import Flips, Shared, flipped, shared_questions
from pulse_unlearn.diff.numbers import Gap, GapOverSeeds, Key, by_key, gaps, over_seeds
from pulse_unlearn.diff.settings import Change, changes
from pulse_unlearn.errors import PulseError
from pulse_unlearn.records import PLAIN, Cell

VERSION = 1
_DATA = ("people/", "general/", "general_training/")
"""What names of data files begin with; the other digests are those of models."""


@dataclass(frozen=True, slots=True)
class Diff:
    """Two runs, A and B; differences are B minus A."""

    a: LoadedRun
    b: LoadedRun
    flips: tuple[Flips, ...]
    """By model, those that several cells share once; models without a flip too."""
    settings: tuple[Change, ...]
    environment: tuple[Change, ...]
    not_comparable: tuple[str, ...]
    """What was asked of other data, other people or other questions: a sentence each."""
    gaps: tuple[Gap, ...]
    """Every number both have."""
    over_seeds: tuple[GapOverSeeds, ...]
    only_a: tuple[Key, ...]
    only_b: tuple[Key, ...]
    """Rows that one of them has alone."""
    questions: Mapping[str, str]
    """Text of the questions in `flips`; empty where the data are not there any more."""

    @property
    def is_same(self) -> bool:
        """Whether every number of A stands in B, the same."""
        return not self.only_a and all(gap.same for gap in self.gaps)


def compare_runs(a: LoadedRun, b: LoadedRun) -> Diff:
    """Compare two finished runs; raises StoreError for answers that cannot be read."""
    pairs = {one.cell: one for one in a.evaluations}
    both = [(pairs[one.cell], one) for one in b.evaluations if one.cell in pairs]
    shared = {ones[0].cell: shared_questions(a, b, ones) for ones in both}
    found = gaps(a, b, shared)
    first, second = by_key(a), by_key(b)
    flips = tuple(flipped(a, b, ones, shared[ones[0].cell]) for ones in _each_model_once(both))
    return Diff(
        a,
        b,
        flips,
        changes(_settings(a), _settings(b)),
        changes(a.environment, b.environment),
        tuple(_not_comparable(a, b, shared.values())),
        tuple(found),
        tuple(over_seeds(found)),
        tuple(key for key in first if key not in second),
        tuple(key for key in second if key not in first),
        _question_texts(a, flips),
    )


def _each_model_once(
    both: Sequence[tuple[Evaluated, Evaluated]],
) -> list[tuple[Evaluated, Evaluated]]:
    """Leave out cells whose answers are those of an earlier one: the model before is shared."""
    first: dict[tuple[str, str], tuple[Evaluated, Evaluated]] = {}
    for ones in both:
        first.setdefault((ones[0].scores, ones[1].scores), ones)
    return list(first.values())


def _settings(run: LoadedRun) -> dict[str, Any]:
    """Return the experiment, and the models' digests, which no setting tells."""
    models = {name: value for name, value in run.data.items() if not name.startswith(_DATA)}
    return {**run.experiment, "SHA-256 of": models}


def _not_comparable(a: LoadedRun, b: LoadedRun, shared: Iterable[Shared]) -> Iterator[str]:
    for name in dict.fromkeys((*a.data, *b.data)):
        was, now = a.data.get(name), b.data.get(name)
        if name.startswith(_DATA) and was != now:
            only = " (only B has it)" if was is None else " (only A has it)" if now is None else ""
            yield f"data: {name} is not the same file{only}"
    yield from _people(a, b)
    told: set[tuple[int, int, int]] = set()
    for one in shared:
        yield from _questions(one, told)


def _people(a: LoadedRun, b: LoadedRun) -> Iterator[str]:
    for place in (place for place in a.sets if place in b.sets):
        for name in a.sets[place]:
            was, now = (set(map(str, run.sets[place].get(name, ()))) for run in (a, b))
            if was != now and name != "requests":
                yield (
                    f"people: {name} of {place} has {len(was - now)} people only in A, "
                    f"{len(now - was)} only in B, {len(was & now)} in both"
                )
            elif name == "requests" and a.sets[place][name] != b.sets[place].get(name):
                yield f"people: the requests of {place} are not the same"


def _questions(one: Shared, told: set[tuple[int, int, int]]) -> Iterator[str]:
    """Say how many questions of a model cannot be compared, the same counts once."""
    here = {score.question_id for score in one.a}
    there = {score.question_id for score in one.b}
    counts = (len(here - there), len(there - here), len(one.altered))
    if any(counts) and counts not in told:
        told.add(counts)
        yield (
            f"questions, {cell_title(one.cell)} and alike: {counts[0]} only in A, {counts[1]} only "
            f"in B, {counts[2]} with other options, {len(one.alike)} the same"
        )


def _question_texts(run: LoadedRun, flips: Sequence[Flips]) -> dict[str, str]:
    """Return what the flipped questions ask, as far as the run's data can still be read."""
    names = {flip.question_id for one in flips for flip in one.flips}
    try:
        return {name: run.question(name).question for name in sorted(names)}
    except PulseError:  # moved, changed, or on the hub: the ids and true options tell enough
        return {}


def cell_title(cell: Cell) -> str:
    """Return a cell's name on one line: `finetuned ga projector+llm request 1 seed 0`."""
    return f"{model_title(cell)} seed {cell.seed}"


def model_title(cell: Cell) -> str:
    """Return a cell's name for all of its seeds."""
    asked = "" if cell.condition == PLAIN else f" {cell.condition}"
    after = f"{cell.method} {cell.scope} request {cell.request}" if cell.request else "before"
    return f"{cell.scenario} {after}{asked}"


def as_json(diff: Diff) -> dict[str, Any]:
    """Return all of it as plain data, for `--json`."""
    return {
        "version": VERSION,
        "a": str(diff.a.path),
        "b": str(diff.b.path),
        "same": diff.is_same,
        "flips": [
            {
                **asdict(one.cell),
                "asked": one.asked,
                "reworded": one.reworded,
                "flipped": [
                    {
                        "question_id": flip.question_id,
                        "individual": flip.individual,
                        "modality": flip.modality,
                        "question": diff.questions.get(flip.question_id),
                        "truth": flip.truth,
                        "a": asdict(flip.a),
                        "b": asdict(flip.b),
                    }
                    for flip in one.flips
                ],
            }
            for one in diff.flips
        ],
        "settings": [asdict(one) for one in diff.settings],
        "environment": [asdict(one) for one in diff.environment],
        "not_comparable": list(diff.not_comparable),
        "numbers": [_number(one) for one in diff.gaps],
        "over_seeds": [
            {**_key((one.cell, one.set, one.modality, one.measure)), **asdict(one.over)}
            for one in diff.over_seeds
        ],
        "only_a": [_key(key) for key in diff.only_a],
        "only_b": [_key(key) for key in diff.only_b],
    }


def _number(one: Gap) -> dict[str, Any]:
    return {
        **_key((one.cell, one.set, one.modality, one.measure)),
        "a": one.a.value,
        "b": one.b.value,
        "difference": one.difference,
        "low": one.low,
        "high": one.high,
        "shared_questions": one.shared,
        "same": one.same,
        "reason": one.reason,
    }


def _key(key: Key) -> dict[str, Any]:
    cell, of_set, modality, measure = key
    return {**asdict(cell), "set": of_set, "modality": modality, "measure": measure}
