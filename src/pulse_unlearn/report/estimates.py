"""Looks numbers up by where they belong and brings the seeds of one cell together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from pulse_unlearn.records import Cell, Result
from pulse_unlearn.report.paper import METHODS, paper_method

MAIN_SCOPE = "projector+llm"
"""The paper's main runs update projector and language model; so does ours where it can choose."""

SCENARIOS = ("finetuned", "pretrained", "sustainability")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A cell of the experiment over all of its seeds."""

    scenario: str
    method: str
    scope: str
    request: int

    def at(self, request: int) -> Place:
        """Return the same method after another request; 0 is before unlearning."""
        return replace(self, request=request)


@dataclass(frozen=True, slots=True)
class Estimate:
    """One number over the seeds of a cell.

    `value` is the mean of the seeds. With several seeds the interval reaches from the lowest lower
    limit to the highest upper limit of the seeds' own intervals, so that it covers the people and
    the spread between seeds; it is absent if any seed has none.
    """

    value: float | None
    low: float | None
    high: float | None
    seeds: tuple[tuple[int, float | None], ...]
    questions: int
    individuals: int
    reason: str


class Numbers:
    """All results of a run, by place, set, modality and measure."""

    def __init__(self, results: Iterable[Result], labels: Mapping[str, str] | None = None) -> None:
        """`labels` maps the experiment's method labels to registered methods where they differ."""
        self._labels = labels or {}
        self._by_key: dict[tuple[Place, str, str, str], list[Result]] = defaultdict(list)
        self._places: dict[Place, set[int]] = defaultdict(set)
        for result in results:
            place = _place(result.cell)
            number = result.measurement
            self._by_key[place, number.set, number.modality, number.measure].append(result)
            self._places[place].add(result.cell.seed)

    def get(self, place: Place, name: str, modality: str, measure: str) -> Estimate | None:
        """Return the estimate, or None if the run holds no such number (yet)."""
        for candidate in self._candidates(place):
            found = self._by_key.get((candidate, name, modality, measure))
            if found:
                return combine(found)
        return None

    def value(self, place: Place, name: str, modality: str, measure: str) -> float | None:
        """Return only the value; None if absent or undefined."""
        found = self.get(place, name, modality, measure)
        return found.value if found else None

    def seeds(self, place: Place) -> frozenset[int]:
        """Return the seeds that have numbers at this place."""
        return frozenset(self._places.get(place, ()))

    def all_seeds(self) -> tuple[int, ...]:
        """Return every seed of the run, sorted."""
        return tuple(sorted({seed for seeds in self._places.values() for seed in seeds}))

    def places(self, scenario: str = "") -> list[Place]:
        """Return the places after unlearning, methods of the paper first, main scope first."""
        found = [
            place
            for place in self._places
            if place.request > 0 and scenario in ("", place.scenario)
        ]
        return sorted(found, key=self.order)

    def finals(self, scenario: str = "") -> list[Place]:
        """Return each method's place after its last request that has numbers."""
        last: dict[tuple[str, str, str], Place] = {}
        for place in self.places(scenario):
            last[place.scenario, place.method, place.scope] = place
        return sorted(last.values(), key=self.order)

    def mains(self, scenario: str) -> list[Place]:
        """Return one final place per label, without scopes that only vary a main-scope method."""
        finals = self.finals(scenario)
        main = {self.kind(place) for place in finals if place.scope == MAIN_SCOPE}
        chosen: dict[str, Place] = {}
        for place in finals:
            if place.scope == MAIN_SCOPE or self.kind(place) not in main:
                chosen.setdefault(place.method, place)
        return list(chosen.values())

    def kind(self, place: Place) -> str:
        """Return the registered method behind a label, in the paper's spelling if it has one."""
        name = self._labels.get(place.method, place.method)
        return paper_method(name) or name

    def paper(self, place: Place) -> str | None:
        """Return the paper's method to compare with, None if there is none."""
        return paper_method(self.kind(place))

    def scenarios(self) -> list[str]:
        """Return the scenarios that have numbers, in the paper's order."""
        names = {place.scenario for place in self._places}
        return sorted(names, key=lambda name: (_position(name, SCENARIOS), name))

    def sets(self, place: Place) -> list[str]:
        """Return the sets scored at this place, the paper's first."""
        places = set(self._candidates(place))
        names = {key[1] for key in self._by_key if key[0] in places}
        known = ("forget", "retain", "general")
        return sorted(names, key=lambda name: (_position(name, known), name))

    def parts(self, measure: str) -> list[str]:
        """Return what follows `measure:` among the general questions' measures, sorted."""
        names = {key[3] for key in self._by_key if key[1] == "general"}
        return sorted(name.partition(":")[2] for name in names if name.startswith(f"{measure}:"))

    def order(self, place: Place) -> tuple[int, int, int, str, str, int]:
        """Sort key: scenario, method in the paper's order, main scope first, request."""
        return (
            _position(place.scenario, SCENARIOS),
            _position(self.paper(place) or "", METHODS),
            _position(place.scope, (MAIN_SCOPE,)),
            place.method,
            place.scope,
            place.request,
        )

    def _candidates(self, place: Place) -> list[Place]:
        """Before unlearning all methods share one model, so any row of the scenario will do."""
        if place.request != 0:
            return [place]
        others = [
            other
            for other in self._places
            if other.request == 0 and other.scenario == place.scenario and other != place
        ]
        return [place, *sorted(others)]


def combine(results: Sequence[Result]) -> Estimate:
    """Bring the seeds of one number together; see Estimate for the interval."""
    ordered = sorted(results, key=lambda result: result.cell.seed)
    numbers = [result.measurement for result in ordered]
    values = [number.value for number in numbers if number.value is not None]
    lows = [number.low for number in numbers if number.low is not None]
    highs = [number.high for number in numbers if number.high is not None]
    whole = bool(numbers) and len(lows) == len(highs) == len(numbers)
    return Estimate(
        value=fmean(values) if values else None,
        low=min(lows) if whole else None,
        high=max(highs) if whole else None,
        seeds=tuple((result.cell.seed, result.measurement.value) for result in ordered),
        questions=max(number.questions for number in numbers),
        individuals=max(number.individuals for number in numbers),
        reason=next((number.reason for number in numbers if number.reason), ""),
    )


def _place(cell: Cell) -> Place:
    return Place(cell.scenario, cell.method, cell.scope, cell.request)


def _position(name: str, known: Sequence[str]) -> int:
    return known.index(name) if name in known else len(known)
