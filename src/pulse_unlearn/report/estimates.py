"""Looks numbers up by where they belong and brings the seeds of one cell together."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import groupby
from operator import attrgetter
from statistics import fmean

from pulse_unlearn.records import PLAIN, Cell, Result
from pulse_unlearn.report.extras import OverKey, OverSeeds
from pulse_unlearn.report.paper import METHODS, paper_method

MAIN_SCOPE = "projector+llm"
"""The paper's main runs update projector and language model; so does ours where it can choose."""

PAPERS_SEQUENCE = "sustainability"
SCENARIOS = ("finetuned", "pretrained", PAPERS_SEQUENCE)
SETS = ("forget", "retain", "unseen", "unseen_fictional", "general")

LATENT = "latent_accuracy"
"""The highest of the readings; its remark names which one."""

LIKE_NEVER_KNOWN = "like_never_known"
TRUTHS = frozenset({"below_chance", "one_letter", "remembered", LIKE_NEVER_KNOWN})
"""Measures that are true (1) or false (0) in a seed."""

RETAIN_MODEL, RELEARNED = "retain_model", "relearned"
"""Conditions of the retain model, and of models after a relearning attack (`relearned:STEP`)."""

ON_THE_WAY = "step"
"""Condition of models on the way of an operation: `step:STEP`."""

_BY = re.compile(r"by (\w+)")
_LETTER = re.compile(r"letter (\w+)")


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A cell of the experiment over all of its seeds."""

    scenario: str
    method: str
    scope: str
    request: int
    condition: str = PLAIN

    def at(self, request: int) -> Place:
        """Return the same method after another request; 0 is before unlearning."""
        return replace(self, request=request)

    def relearned(self, step: int, *, control: bool = False) -> Place:
        """Return this model, or its control, the retain model, after steps of relearning."""
        before = f"{RETAIN_MODEL}+" if control else ""
        return replace(self, condition=f"{before}{RELEARNED}:{step}")

    def on_the_way(self, step: int) -> Place:
        """Return this model's operation after so many of its steps."""
        return replace(self, condition=f"{ON_THE_WAY}:{step}")

    @property
    def is_retain_model(self) -> bool:
        """Whether this is the model that was made without D_unlearn."""
        return self.condition == RETAIN_MODEL


@dataclass(frozen=True, slots=True)
class Estimate:
    """One number over the seeds of a cell.

    With one seed: the run's own value and interval, which does not cover what another seed would
    give. With several: their mean, the t interval for it, and the standard deviation between them.
    """

    value: float | None
    low: float | None
    high: float | None
    spread: float | None
    """Standard deviation between seeds; None with one."""
    seeds: tuple[tuple[int, float | None], ...]
    questions: int
    reason: str


@dataclass(frozen=True, slots=True)
class HowOften:
    """In how many seeds something is true; never averaged, as there is no half a truth."""

    true: int
    seeds: int


_fields = attrgetter(*(one.name for one in fields(Place)))


class Numbers:
    """All results of a run, by place, set, modality and measure."""

    def __init__(
        self,
        results: Iterable[Result],
        labels: Mapping[str, str] | None = None,
        over_seeds: Mapping[OverKey, OverSeeds] | None = None,
    ) -> None:
        """`labels` maps the experiment's method labels to registered methods where they differ."""
        self._labels = labels or {}
        self._over = over_seeds or {}
        self._at: dict[Place, dict[tuple[str, str, str], list[Result]]] = {}
        self._places: dict[Place, set[int]] = defaultdict(set)
        for cell, found in groupby(results, key=attrgetter("cell")):
            place = _place(cell)
            self._places[place].add(cell.seed)
            by_key = self._at.setdefault(place, {})
            for result in found:
                number = result.measurement
                by_key.setdefault((number.set, number.modality, number.measure), []).append(result)
        self._starts: dict[tuple[str, str], list[Place]] = defaultdict(list)
        for place in sorted(self._places):
            if place.request == 0:
                self._starts[place.scenario, place.condition].append(place)
        self._sets = {place: {key[0] for key in keys} for place, keys in self._at.items()}
        plain = (seeds for place, seeds in self._places.items() if place.condition == PLAIN)
        self._all_seeds = tuple(sorted({seed for seeds in plain for seed in seeds}))
        self._looks = {name: look for look, name in enumerate(self._methods())}

    def get(self, place: Place, name: str, modality: str, measure: str) -> Estimate | None:
        """Return the estimate, or None if the run holds no such number (yet).

        Raises ValueError for one of `TRUTHS`: ask `how_often`.
        """
        if measure in TRUTHS:
            raise ValueError(f"{measure} is true or false in each seed and has no mean")
        candidate, found = self._find(place, name, modality, measure)
        if not found:
            return None
        return combine(found, self._over.get((*_fields(candidate), name, modality, measure)))

    def how_often(self, place: Place, name: str, modality: str, measure: str) -> HowOften:
        """Return in how many seeds one of `TRUTHS` holds, of those in which it was judged."""
        _, found = self._find(place, name, modality, measure)
        judged = [r.measurement.value for r in found if r.measurement.value is not None]
        return HowOften(sum(value > 0 for value in judged), len(judged))

    def told(self, place: Place, name: str, modality: str, measure: str) -> tuple[str, ...]:
        """Return what stands beside a number in `results.json`, each remark once, by seed."""
        _, found = self._find(place, name, modality, measure)
        ordered = sorted(found, key=lambda result: result.cell.seed)
        return tuple(dict.fromkeys(r.measurement.reason for r in ordered if r.measurement.reason))

    def highest(self, place: Place, name: str, modality: str = "all") -> tuple[str, ...]:
        """Return the measures behind `latent_accuracy`, one if it is the same in every seed."""
        found = (_BY.match(text) for text in self.told(place, name, modality, LATENT))
        return tuple(dict.fromkeys(match[1] for match in found if match))

    def letters(self, place: Place, name: str, modality: str = "all") -> tuple[str, ...]:
        """Return the letters behind `letter_share`, one if it is the same in every seed."""
        found = (_LETTER.match(text) for text in self.told(place, name, modality, "letter_share"))
        return tuple(dict.fromkeys(match[1] for match in found if match))

    def asked_beyond_strict(self, place: Place, name: str) -> bool:
        """Return whether any reading but the paper's was taken, so that latent says more."""
        readings = ("rotated_accuracy", "words_accuracy")
        return any(self.value(place, name, "all", reading) is not None for reading in readings)

    def look(self, method: str) -> int:
        """Return the position of a method's colour and marker, the same in every figure."""
        return self._looks.get(method, len(self._looks))

    def value(self, place: Place, name: str, modality: str, measure: str) -> float | None:
        """Return only the value; None if absent or undefined."""
        found = self.get(place, name, modality, measure)
        return found.value if found else None

    def in_seed(self, seed: int, place: Place | None, name: str, measure: str) -> float | None:
        """Return the value of one seed, over both modalities; None if absent or undefined."""
        found = self.get(place, name, "all", measure) if place else None
        return dict(found.seeds).get(seed) if found else None

    def remembered(self, seed: int, place: Place | None, name: str = "forget") -> float | None:
        """Return a seed's accuracy on a set by the highest reading, or the strict one alone."""
        latent = self.in_seed(seed, place, name, LATENT)
        return latent if latent is not None else self.in_seed(seed, place, name, "accuracy")

    def seeds(self, place: Place) -> frozenset[int]:
        """Return the seeds that have numbers at this place."""
        return frozenset(self._places.get(place, ()))

    def all_seeds(self) -> tuple[int, ...]:
        """Return every seed of the run, sorted."""
        return self._all_seeds

    def places(self, scenario: str = "") -> list[Place]:
        """Return the places after unlearning, methods of the paper first, main scope first."""
        found = [
            place
            for place in self._places
            if place.request > 0 and place.condition == PLAIN and scenario in ("", place.scenario)
        ]
        return sorted(found, key=self.order)

    def models(self, scenario: str) -> list[Place]:
        """Return the model before, the retain model if there is one, and each method's last."""
        finals = self.finals(scenario)
        start = (finals[0] if finals else Place(scenario, "", "", 0)).at(0)
        retain_model = self.retain_model(scenario)
        return [start, *([retain_model] if retain_model else []), *finals]

    def retain_model(self, scenario: str, request: int = 0) -> Place | None:
        """Return where the numbers of the scenario's retain model stand; None without one.

        Of one that a request has of its own under that request, else at 0.
        """
        found = (
            place
            for place in self._places
            if place.is_retain_model and (place.scenario, place.request) == (scenario, request)
        )
        return min(found, default=None)

    def conditions(self, place: Place) -> list[str]:
        """Return the conditions under which a model was asked besides, its retain model's too."""
        found = {p.condition for p in self._places if replace(p, condition=PLAIN) == place}
        return sorted(found - {PLAIN})

    def relearning_steps(self, scenario: str) -> list[int]:
        """Return the steps at which relearning was measured; empty without the attack."""
        return self._steps(scenario, RELEARNED)

    def steps_on_the_way(self, scenario: str) -> list[int]:
        """Return the steps at which operations were measured on their way; empty if none was."""
        return self._steps(scenario, ON_THE_WAY)

    def sequences(self) -> list[str]:
        """Return the scenarios with several requests, in the paper's order."""
        return [name for name in self.scenarios() if any(p.request > 1 for p in self.finals(name))]

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

    def sequence(self) -> str:
        """Return the scenario whose requests follow one another, the paper's if it was run."""
        several = {place.scenario for place in self.finals() if place.request > 1}
        return PAPERS_SEQUENCE if PAPERS_SEQUENCE in several or not several else min(several)

    def kind(self, place: Place) -> str:
        """Return the registered method behind a label, in the paper's spelling if it has one."""
        name = self._labels.get(place.method, place.method)
        return paper_method(name) or name

    def paper(self, place: Place) -> str | None:
        """Return the paper's method to compare with, None if there is none."""
        return paper_method(self.kind(place))

    def scenarios(self) -> list[str]:
        """Return the scenarios that have numbers, in the paper's order."""
        names = {place.scenario for place in self._places if place.condition == PLAIN}
        return sorted(names, key=lambda name: (_position(name, SCENARIOS), name))

    def sets(self, place: Place) -> list[str]:
        """Return the sets scored at this place, the paper's first."""
        names = {name for one in self._candidates(place) for name in self._sets.get(one, ())}
        return sorted(names, key=lambda name: (_position(name, SETS), name))

    def parts(self, measure: str, *, of: str = "general") -> list[str]:
        """Return what follows `measure:` among the measures of a set, sorted."""
        names = {key[2] for keys in self._at.values() for key in keys if key[0] == of}
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

    def _steps(self, scenario: str, condition: str) -> list[int]:
        names = {place.condition for place in self._places if place.scenario == scenario}
        found = (re.fullmatch(rf"{condition}:(\d+)", name) for name in names)
        return sorted({int(match[1]) for match in found if match})

    def _find(
        self, place: Place, name: str, modality: str, measure: str
    ) -> tuple[Place, list[Result]]:
        for candidate in self._candidates(place):
            found = self._at.get(candidate, {}).get((name, modality, measure))
            if found:
                return candidate, found
        return place, []

    def _methods(self) -> list[str]:
        """Return every label: the paper's methods first, labels of another scope last."""
        first: dict[str, tuple[int, int, str]] = {}
        for place in self._places:
            if place.request > 0 and place.condition == PLAIN:
                _, position, scope, *_ = self.order(place)
                rank = (scope, position, place.method)
                first[place.method] = min(first.get(place.method, rank), rank)
        return sorted(first, key=lambda name: first[name])

    def _candidates(self, place: Place) -> list[Place]:
        """Before unlearning all methods share one model (and one retain model): any row will do."""
        if place.request != 0:
            return [place]
        others = self._starts.get((place.scenario, place.condition), ())
        return [place, *(other for other in others if other != place)]


def combine(results: Sequence[Result], over: OverSeeds | None = None) -> Estimate:
    """Bring the seeds of one number together; see Estimate for the interval.

    Several seeds without their row over seeds get a mean and no interval: one made of the seeds'
    own intervals would cover neither the people nor the seeds.
    """
    ordered = sorted(results, key=lambda result: result.cell.seed)
    numbers = [result.measurement for result in ordered]
    values = [number.value for number in numbers if number.value is not None]
    one = numbers[0]
    if len(numbers) > 1:
        over = over or OverSeeds(None, None, None, None)
    else:
        over = OverSeeds(one.value, one.low, one.high, None)
    return Estimate(
        value=fmean(values) if values else None,
        low=over.low,
        high=over.high,
        spread=over.spread,
        seeds=tuple((result.cell.seed, result.measurement.value) for result in ordered),
        questions=max(number.questions for number in numbers),
        reason=next((number.reason for number in numbers if number.reason), ""),
    )


def _place(cell: Cell) -> Place:
    return Place(cell.scenario, cell.method, cell.scope, cell.request, cell.condition)


def _position(name: str, known: Sequence[str]) -> int:
    return known.index(name) if name in known else len(known)
