"""What `results.json` holds: numbers over seeds, verdicts, findings, flags.

Read tolerantly: what is missing or not well formed is left out and reported, never guessed.
Dataclass fields are named as in the file; numbers that are not finite count as missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache, partial
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from pulse_unlearn.errors import Problem
from pulse_unlearn.records import PLAIN

OverKey = tuple[str, str, str, int, str, str, str, str]
"""Scenario, method, scope, request, condition, set, modality, measure."""

_RESULTS = "results.json"
_PARTS = ("over_seeds", "verdicts", "paper_findings", "comparisons", "selections")
_Kind = TypeVar("_Kind")


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
    above_chance: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The word for one operation in one seed, and why."""

    scenario: str
    method: str = ""
    scope: str = ""
    seed: int
    request: int
    word: str
    why: str = ""
    remembered: bool
    readings: tuple[ReadingTest, ...]


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

    over: OverSeeds
    by_seed: tuple[SeedGap, ...]
    label: str = ""
    settled: str = "not tested"


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
    set: str
    measure: str
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
class ArmContrast:
    """One number of a method, of one arm of a checkpoint minus that of the other."""

    arms: tuple[str, ...]
    kind: str
    """`before`, `forgotten`, `kept`, or `kept_matched`: where as much is forgotten."""
    set: str
    measure: str
    contrast: Contrast
    method: str = ""
    scope: str = ""
    update: str = ""
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Match:
    """How alike the people are whom a match paired; two numbers are those of either arm."""

    stage: str
    forget: int
    retain: int
    caliper: float
    at_least: float
    apart: float
    """Difference within a pair of D_unlearn, on average."""
    furthest: float
    arms: tuple[str, ...]
    mean: tuple[float, ...]
    everybody: tuple[float, ...]
    """Of all candidates, before anybody was paired."""
    decides: str = ""


@dataclass(frozen=True, slots=True)
class Flag:
    """A warning about one cell, such as `collapsed`."""

    scenario: str = ""
    method: str = ""
    scope: str = ""
    seed: str = ""
    request: str = ""
    flag: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Extras:
    """Everything that was read."""

    over_seeds: Mapping[OverKey, OverSeeds]
    verdicts: tuple[Verdict, ...]
    findings: tuple[PaperFinding, ...]
    comparisons: tuple[Comparison, ...]
    selections: tuple[Selection, ...]
    flags: tuple[Flag, ...] = ()
    arms: tuple[ArmContrast, ...] = ()
    matches: tuple[Match, ...] = ()


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

    def read(name: str, kind: type[_Kind]) -> tuple[_Kind, ...]:
        entries = _list(content.get(name))
        if kind is Verdict:
            entries = [entry for entry in entries if _condition(entry) == PLAIN]
        found = [one for entry in entries if (one := _read(kind, entry)) is not None]
        if len(found) < len(entries):
            lost = f"{len(entries) - len(found)} of {len(entries)}"
            where = f"{_RESULTS}: {name}"
            problems.append(Problem("entries are not well formed", where=where, got=lost))
        return tuple(found)

    return Extras(
        over_seeds={one.key: one.over for one in read("over_seeds", _OverEntry)},
        verdicts=read("verdicts", Verdict),
        findings=read("paper_findings", PaperFinding),
        comparisons=read("comparisons", Comparison),
        selections=read("selections", Selection),
        flags=read("flags", Flag),
        arms=read("arms", ArmContrast),
        matches=read("matches", Match),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _OverEntry:
    scenario: str
    method: str = ""
    scope: str = ""
    request: int
    condition: str = PLAIN
    set: str
    modality: str
    measure: str
    over: OverSeeds

    @property
    def key(self) -> OverKey:
        place = (self.scenario, self.method, self.scope, self.request, self.condition)
        return (*place, self.set, self.modality, self.measure)


def _condition(entry: object) -> str:
    return str(entry.get("condition", PLAIN)) if isinstance(entry, dict) else PLAIN


class _Field(NamedTuple):
    """How one field of a dataclass is read."""

    name: str
    read: Callable[[Mapping[str, Any]], object]
    is_plain: bool
    """A text, a whole number or a float, which must be there if it has no default."""
    has_default: bool


@cache
def _fields(kind: type) -> tuple[_Field, ...]:
    hints = get_type_hints(kind)
    return tuple(
        _Field(
            f.name,
            partial(_reader(hints[f.name]), f.name),
            hints[f.name] in (str, int, float),
            f.default is not MISSING,
        )
        for f in fields(kind)
    )


def _read(kind: type[_Kind], entry: object) -> _Kind | None:
    """Make a dataclass of an entry; None if a text, whole number or float that it needs is not."""
    if not isinstance(entry, dict):
        return None
    values: dict[str, Any] = {}
    for name, read, is_plain, has_default in _fields(kind):  # type: ignore[arg-type]
        value = read(entry)
        if value is not None and value != "":
            values[name] = value
        elif not is_plain:
            values[name] = None
        elif not has_default:
            return None
    return kind(**values)


def _reader(hint: Any) -> Callable[[str, Mapping[str, Any]], object]:
    """Return what reads a field of this type; parts without a name stand in the same entry."""
    if is_dataclass(hint):
        return lambda name, entry: _read(hint, entry)  # type: ignore[arg-type]
    if get_origin(hint) is tuple:
        return partial(_several, get_args(hint)[0])
    named: dict[Any, Callable[[str, Mapping[str, Any]], object]] = {
        str: _text,
        bool: lambda name, entry: entry.get(name) is True,
        int: _whole,
    }
    return named.get(hint, _finite)


def _several(kind: type, name: str, entry: Mapping[str, Any]) -> tuple[object, ...]:
    """Read a list of parts, or of texts or numbers; what cannot be read is left out."""
    read = partial(_read, kind) if is_dataclass(kind) else partial(_alone, kind)
    return tuple(one for part in _list(entry.get(name)) if (one := read(part)) is not None)


def _alone(kind: type, value: object) -> object:
    return _text("", {"": value}) if kind is str else _finite("", {"": value})


def _text(name: str, entry: Mapping[str, Any]) -> str:
    found = entry.get(name)
    return "" if found is None else str(found)


def _whole(name: str, entry: Mapping[str, Any]) -> int | None:
    found = entry.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _finite(name: str, entry: Mapping[str, Any]) -> float | None:
    found = entry.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if math.isfinite(found) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []
