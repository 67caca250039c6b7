"""What `results.json` holds beside its rows: verdicts, findings, and numbers over seeds.

Read tolerantly: what is missing or not well formed is left out and said, never guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pulse_unlearn.errors import Problem
from pulse_unlearn.records import PLAIN

OverKey = tuple[str, str, str, int, str, str, str, str]
"""Scenario, method, scope, request, condition, set, modality, measure."""

_RESULTS = "results.json"
_PARTS = ("over_seeds", "verdicts", "paper_findings", "comparisons", "selections")
_Entry = TypeVar("_Entry")
_OVER_KEY = ("scenario", "method", "scope", "request", "set", "modality", "measure")


@dataclass(frozen=True, slots=True)
class OverSeeds:
    """A mean over seeds, its t interval, and the standard deviation between seeds."""

    value: float | None
    low: float | None
    high: float | None
    spread: float | None


@dataclass(frozen=True, slots=True)
class ReadingTest:
    """One reading of D_unlearn held against chance."""

    reading: str
    value: float | None
    low: float | None
    high: float | None
    chance: float | None
    p_above: float | None
    """One-sided, after Holm's correction; None if it was not tested."""
    is_above: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """The word for one operation in one seed, and why."""

    scenario: str
    method: str
    scope: str
    seed: int
    request: int
    word: str
    why: str
    is_remembered: bool
    tests: tuple[ReadingTest, ...]


@dataclass(frozen=True, slots=True)
class SeedGap:
    """A contrast in one seed."""

    seed: int
    value: float
    low: float | None
    high: float | None
    p_value: float | None
    """Paired permutation test, after Holm's correction."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """A difference in accuracy, as fractions: over seeds, and in each of them."""

    label: str
    settled: str
    over: OverSeeds
    by_seed: tuple[SeedGap, ...]


@dataclass(frozen=True, slots=True)
class PaperFinding:
    """One finding of the paper in one reading; contrasts are positive as the paper has it."""

    name: str
    reading: str
    settled: str
    contrasts: tuple[Contrast, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two methods against each other after their last request: first minus second."""

    scenario: str
    of_set: str
    reading: str
    contrast: Contrast


@dataclass(frozen=True, slots=True)
class Selection:
    """How many candidates are known, and how many of them were chosen."""

    stage: str
    candidates: int
    forget: int
    retain: int
    unseen: int
    perfect: int
    """Candidates with every answer right, among whom accuracy cannot choose."""
    lowest_chosen: float | None
    decides: str = ""
    """The reading by which an answer counted as right."""
    questions: str = ""
    """`other_view` or `scored`: the views on which they were asked."""


@dataclass(frozen=True, slots=True)
class Extras:
    """Everything that was read."""

    over_seeds: Mapping[OverKey, OverSeeds]
    verdicts: tuple[Verdict, ...]
    findings: tuple[PaperFinding, ...]
    comparisons: tuple[Comparison, ...]
    selections: tuple[Selection, ...]


def read_extras(content: Mapping[str, Any], problems: list[Problem]) -> Extras:
    """Read the parts; add to `problems` what is missing or cannot be used."""
    missing = [name for name in _PARTS if not isinstance(content.get(name), list)]
    if content and missing:
        problems.append(
            Problem(
                "parts are missing, so the report cannot show them",
                where=_RESULTS,
                got=", ".join(missing),
                fix="`pulse score RUN` writes them from the stored answers",
            )
        )

    def read(name: str, one: Callable[[Mapping[str, Any]], _Entry | None]) -> tuple[_Entry, ...]:
        entries = _list(content.get(name))
        if name == "verdicts":
            entries = [entry for entry in entries if _condition(entry) == PLAIN]
        found = [one(entry) if isinstance(entry, dict) else None for entry in entries]
        kept = tuple(entry for entry in found if entry is not None)
        if len(kept) < len(found):
            lost = f"{len(found) - len(kept)} of {len(found)}"
            where = f"{_RESULTS}: {name}"
            problems.append(Problem("entries are not well formed", where=where, got=lost))
        return kept

    return Extras(
        over_seeds=dict(read("over_seeds", _over_entry)),
        verdicts=read("verdicts", _verdict),
        findings=read("paper_findings", _finding),
        comparisons=read("comparisons", _comparison),
        selections=read("selections", _selection),
    )


def _condition(entry: object) -> str:
    return str(entry.get("condition", PLAIN)) if isinstance(entry, dict) else PLAIN


def _over_entry(entry: Mapping[str, Any]) -> tuple[OverKey, OverSeeds] | None:
    request = _whole(entry.get("request"))
    if request is None or not all(name in entry for name in _OVER_KEY):
        return None
    scenario, method, scope, _, of_set, modality, measure = (str(entry[n]) for n in _OVER_KEY)
    place = (scenario, method, scope, request, _condition(entry))
    return (*place, of_set, modality, measure), _over(entry)


def _over(entry: Mapping[str, Any]) -> OverSeeds:
    value, low, high, spread = (
        _number(entry.get(name)) for name in ("value", "low", "high", "spread")
    )
    return OverSeeds(value, low, high, spread)


def _verdict(entry: Mapping[str, Any]) -> Verdict | None:
    seed, request = _whole(entry.get("seed")), _whole(entry.get("request"))
    if seed is None or request is None or not entry.get("scenario") or not entry.get("word"):
        return None
    scenario, method, scope, word, why = (
        str(entry.get(name, "")) for name in ("scenario", "method", "scope", "word", "why")
    )
    return Verdict(
        scenario=scenario,
        method=method,
        scope=scope,
        seed=seed,
        request=request,
        word=word,
        why=why,
        is_remembered=entry.get("remembered") is True,
        tests=tuple(_test(one) for one in _list(entry.get("readings")) if isinstance(one, dict)),
    )


def _test(entry: Mapping[str, Any]) -> ReadingTest:
    value, low, high, chance, p_above = (
        _number(entry.get(name)) for name in ("value", "low", "high", "chance", "p_above")
    )
    is_above = entry.get("above_chance") is True
    return ReadingTest(
        str(entry.get("reading", "")), value, low, high, chance, p_above, is_above=is_above
    )


def _finding(entry: Mapping[str, Any]) -> PaperFinding | None:
    name, reading, settled = (entry.get(key) for key in ("name", "reading", "settled"))
    if not name or not reading or not settled:
        return None
    found = [_contrast(one) for one in _list(entry.get("contrasts")) if isinstance(one, dict)]
    return PaperFinding(str(name), str(reading), str(settled), tuple(found))


def _comparison(entry: Mapping[str, Any]) -> Comparison | None:
    scenario, of_set, reading = (entry.get(key) for key in ("scenario", "set", "measure"))
    if not scenario or not of_set or not reading:
        return None
    return Comparison(str(scenario), str(of_set), str(reading), _contrast(entry))


def _contrast(entry: Mapping[str, Any]) -> Contrast:
    gaps = [_gap(one) for one in _list(entry.get("by_seed")) if isinstance(one, dict)]
    return Contrast(
        str(entry.get("label", "")),
        str(entry.get("settled", "not tested")),
        _over(entry),
        tuple(gap for gap in gaps if gap is not None),
    )


def _gap(entry: Mapping[str, Any]) -> SeedGap | None:
    seed, value = _whole(entry.get("seed")), _number(entry.get("value"))
    if seed is None or value is None:
        return None
    low, high, p_value = (_number(entry.get(name)) for name in ("low", "high", "p_value"))
    return SeedGap(seed, value, low, high, p_value)


def _selection(entry: Mapping[str, Any]) -> Selection | None:
    counts = [
        count
        for name in ("candidates", "forget", "retain", "unseen", "perfect")
        if (count := _whole(entry.get(name))) is not None
    ]
    if len(counts) < 5:
        return None
    candidates, forget, retain, unseen, perfect = counts
    lowest = _number(entry.get("lowest_chosen"))
    stage = str(entry.get("stage", ""))
    how = {name: str(entry.get(name, "")) for name in ("decides", "questions")}
    return Selection(stage, candidates, forget, retain, unseen, perfect, lowest, **how)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
