"""Relearning at its worst: over what is taught, learning rates and steps, and at equal teaching."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pulse_unlearn.evaluation.relearned import Equally, Taught, taught_equally, where_taught
from pulse_unlearn.report.drawing import MUTED, Drawing, colour, finish, gold, marker, quiet, style
from pulse_unlearn.report.estimates import RETAIN_MODEL, Estimate, Numbers, Place
from pulse_unlearn.report.marks import explain_marks
from pulse_unlearn.report.tables import Notes, Row, Shown, Table, seed_count, shown
from pulse_unlearn.report.trajectory import over_seeds
from pulse_unlearn.report.words import (
    MISSING,
    interval,
    method_title,
    model_heads,
    points,
    scenario_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CONDITION = re.compile(r"(relearned(?:_\w+)?)(?:@([^:]+))?:(\d+)")
TAUGHT = {
    "relearned": "half of the facts",
    "relearned_retain": "D_retain",
    "relearned_general": "general questions",
}
"""Condition, in front of rate and step -> what is taught."""
_READINGS = ("rotated_accuracy", "accuracy")


@dataclass(frozen=True, slots=True)
class Curve:
    """One attack on a model with one learning rate."""

    place: Place
    """The model, as it is asked plainly."""
    teach: str
    rate: str
    """A further learning rate; empty for the one of the attack's optimiser."""
    steps: tuple[int, ...]

    def at(self, step: int, *, control: bool = False) -> Place:
        """Return the model, or the retain model, after so many steps of this attack."""
        before = f"{RETAIN_MODEL}+" if control else ""
        rate = f"@{self.rate}" if self.rate else ""
        return replace(self.place, condition=f"{before}{self.teach}{rate}:{step}")

    def told(self, step: int | None = None) -> str:
        """Say which point it is, as `step 20, rate 0.003`."""
        parts = ("" if step is None else f"step {step}", f"rate {self.rate}" if self.rate else "")
        return ", ".join(filter(None, parts))


def curves(numbers: Numbers, place: Place) -> list[Curve]:
    """Return every relearning curve of a model, what is taught in the order of `TAUGHT`."""
    found: dict[tuple[str, str], list[int]] = {}
    for condition in numbers.conditions(place):
        if (match := _CONDITION.fullmatch(condition)) and match[1] in TAUGHT:
            found.setdefault((match[1], match[2] or ""), []).append(int(match[3]))
    ordered = sorted(found, key=lambda key: ([*TAUGHT].index(key[0]), key[1]))
    return [Curve(place, *key, tuple(sorted(found[key]))) for key in ordered]


def worst_table(numbers: Numbers) -> Table | None:
    """Build the table of the point of all curves that brings most back beyond the retain model.

    A row for each model and what was taught; None where there is but one curve of one step.
    """
    notes, rows, several = Notes(), [], False
    for scenario in numbers.scenarios():
        for teach, title in TAUGHT.items():
            for place in numbers.finals(scenario):
                mine = [one for one in curves(numbers, place) if one.teach == teach]
                several |= len(mine) > 1 or (bool(mine) and teach != "relearned")
                if cells := _worst(numbers, mine, notes):
                    rows.append(Row((scenario_title(scenario), title, *model_heads(place)), cells))
    if not several:
        return None
    columns = ("step 0", "most found", "retain model there", "points more")
    heads = ("Scenario", "Taught again", "Method", "Updated")
    return Table("Relearning at its worst", heads, columns, tuple(rows), tuple(notes.items()))


def _worst(numbers: Numbers, mine: Sequence[Curve], notes: Notes) -> tuple[Shown, ...]:
    """Return the cells of one row; nothing where no curve has numbers."""
    reading = _reading(numbers, mine)
    if not reading:
        return ()
    found = [
        (back, one, step)
        for one in mine
        for step in one.steps
        if step and (back := _back(numbers, one, step, reading)) is not None
    ]
    if not found:
        return ()
    _, one, step = max(found, key=lambda each: each[0])
    seeds = seed_count(numbers)

    def cell(place: Place, *beside: str) -> Shown:
        estimate = numbers.get(place, "forget", "all", reading)
        return shown(estimate, reading, notes, seeds=seeds, beside=beside)

    more = _more(numbers, one, step, reading)
    difference = Shown(MISSING)
    if more is not None and more.value is not None:
        mark = notes.mark(more.reason)
        difference = Shown(points(more.value), interval(more), mark, estimate=more)
    return (
        cell(one.at(0)),
        cell(one.at(step), one.told(step)),
        cell(one.at(step, control=True)),
        difference,
    )


def _reading(numbers: Numbers, mine: Sequence[Curve]) -> str:
    """Return the reading that the section rests on: rotated or, where not asked, strict."""
    return next(
        (
            reading
            for reading in _READINGS
            for one in mine
            for step in one.steps
            if numbers.value(one.at(step), "forget", "all", reading) is not None
        ),
        "",
    )


def _more(numbers: Numbers, one: Curve, step: int, reading: str) -> Estimate | None:
    return numbers.get(one.at(step), "forget", "all", f"{reading}_from_never_knew")


def _back(numbers: Numbers, one: Curve, step: int, reading: str) -> float | None:
    """Return what is found beyond the retain model or, without one, beyond step 0."""
    more = _more(numbers, one, step, reading)
    if more is not None:
        return more.value
    now, then = (numbers.value(one.at(s), "forget", "all", reading) for s in (step, 0))
    return None if now is None or then is None else now - then


def equally_table(numbers: Numbers) -> Table | None:
    """Build the table of each model beside the retain model where as much was taught to both.

    Models that have none are compared with each other, where all of a scenario were taught as much.
    """
    notes, rows = Notes(), []
    for scenario in numbers.scenarios():
        alone = []
        for place in numbers.finals(scenario):
            if chosen := _worst_equally(numbers, place):
                one, by_seed = chosen
                cells = _equal_cells(numbers, one, by_seed, notes)
                rows.append(Row((scenario_title(scenario), *model_heads(place)), cells))
            else:
                alone.append(place)
        for place, cells in _among_themselves(numbers, alone, notes):
            rows.append(Row((scenario_title(scenario), *model_heads(place)), cells))
    if not rows:
        return None
    columns = ("taught half", "other half", "retain model’s other half", "points more")
    heads = ("Scenario", "Method", "Updated")
    return Table("As much taught", heads, columns, tuple(rows), tuple(notes.items()))


def _worst_equally(numbers: Numbers, place: Place) -> tuple[Curve, dict[int, Equally]] | None:
    """Return the curve that tells most at equal teaching, with what it tells in each seed."""
    found = []
    for one in curves(numbers, place):
        by_seed = {
            seed: equally
            for seed in sorted(numbers.seeds(place))
            if (equally := taught_equally(*_pair(numbers, one, seed)))
        }
        if by_seed:
            found.append((fmean(each.more for each in by_seed.values()), one, by_seed))
    if not found:
        return None
    _, one, by_seed = max(found, key=lambda each: each[0])
    return one, by_seed


def _among_themselves(
    numbers: Numbers, places: Sequence[Place], notes: Notes
) -> Iterator[tuple[Place, tuple[Shown, ...]]]:
    """Yield the cells of models that no retain model stands beside, at one level for all.

    It is the highest that each reaches in every seed; of several curves the one that tells most.
    """
    reached = {
        one: {seed: _pair(numbers, one, seed)[0] for seed in sorted(numbers.seeds(place))}
        for place in places
        for one in curves(numbers, place)
    }
    reached = {one: by_seed for one, by_seed in reached.items() if all(by_seed.values())}
    if len({one.place for one in reached}) < 2:
        return
    level = min(
        max(point.taught for point in points)
        for by_seed in reached.values()
        for points in by_seed.values()
    )
    seeds = seed_count(numbers)
    for place in places:
        told = []
        for one in (one for one in reached if one.place == place):
            asked = {seed: where_taught(of, level) for seed, of in reached[one].items()}
            known = {seed: value for seed, value in asked.items() if value is not None}
            told.append((fmean(known.values()), one, known))
        if not told:
            continue
        _, one, known = max(told, key=lambda each: each[0])
        reading, beside = _reading(numbers, [one]), tuple(filter(None, [one.told()]))
        cells = [
            shown(over_seeds(values), reading, notes, seeds=seeds, beside=more)
            for values, more in ((dict.fromkeys(known, level), beside), (known, ()))
        ]
        yield place, (*cells, Shown(MISSING), Shown(MISSING))


def _pair(numbers: Numbers, one: Curve, seed: int) -> tuple[list[Taught], list[Taught]]:
    """Return a seed's curve and the retain model's; empty where the taught half was not asked."""
    reading = _reading(numbers, [one])

    def points_of(*, control: bool) -> Iterator[Taught]:
        for step in one.steps:
            place = one.at(step, control=control)
            taught = numbers.in_seed(seed, place, "taught", reading)
            asked = numbers.in_seed(seed, place, "forget", reading)
            if taught is not None and asked is not None:
                yield Taught(taught, asked)

    return [*points_of(control=False)], [*points_of(control=True)]


def _equal_cells(
    numbers: Numbers, one: Curve, by_seed: Mapping[int, Equally], notes: Notes
) -> tuple[Shown, ...]:
    reading, seeds = _reading(numbers, [one]), seed_count(numbers)

    def cell(name: str, *beside: str) -> Shown:
        values = {seed: getattr(each, name) for seed, each in by_seed.items()}
        return shown(over_seeds(values), reading, notes, seeds=seeds, beside=beside)

    more = over_seeds({seed: each.more for seed, each in by_seed.items()}, bounds=(-1.0, 1.0))
    told = Shown(MISSING)
    if more is not None:
        told = Shown(points(more.value), interval(more), estimate=more)
    beside = filter(None, [one.told()])
    return (cell("level", *beside), cell("asked"), cell("control"), told)


def draw_equally(numbers: Numbers) -> Drawing | None:
    """Draw the other half against the taught half: a column a scenario, a line a model.

    Of several learning rates the worst of each model; gold is the retain model with each.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines = {
        scenario: [
            chosen[0]
            for place in numbers.mains(scenario)
            if (chosen := _worst_equally(numbers, place))
        ]
        for scenario in numbers.scenarios()
    }
    lines = {scenario: of for scenario, of in lines.items() if of}
    if not lines:
        return None
    with style():
        figure = Figure(figsize=(10, 3.7), layout=ConstrainedLayoutEngine(wspace=0.06))
        (row,) = figure.subplots(1, max(len(lines), 2), sharey=True, squeeze=False)
        for axes, (scenario, found) in zip(row, lines.items(), strict=False):
            axes.set_title(scenario_title(scenario))
            axes.set_xlabel("taught half, % right")
            for one in {(each.teach, each.rate): each for each in found}.values():
                _line(axes, numbers, one, control=True, **gold())
            for one in found:
                look = numbers.look(one.place.method)
                mark = {"color": colour(look), "marker": marker(look), "ms": 5, "lw": 1.8}
                _line(axes, numbers, one, control=False, **mark)
            axes.plot([0, 100], [0, 100], color=MUTED, lw=0.8, zorder=0)
            axes.set_xlim(-3, 103)
            axes.set_ylim(-3, 103)
            quiet(axes, grid="y")
        row[0].set_ylabel("other half, % right")
        for axes in row[len(lines) :]:
            axes.set_axis_off()
        places = [one.place for of in lines.values() for one in of]
        looks = {numbers.look(place.method): method_title(place.method) for place in places}
        methods = sorted(looks.items())
        explain_marks(figure, methods, with_paper=False, with_gold=True, with_intervals=False)
        return finish(
            figure,
            "relearning-taught",
            title="Relearning: where as much was taught",
            description="Accuracy on the half of the facts about D_unlearn that was not taught "
            "against that on the half that was. On the grey line both come back alike. The same "
            "numbers are in the table below.",
        )


def _line(axes: Axes, numbers: Numbers, one: Curve, *, control: bool, **look: Any) -> None:
    """Draw one curve, the mean over its seeds at each step."""
    reading = _reading(numbers, [one])
    found = [
        tuple(
            numbers.value(one.at(step, control=control), name, "all", reading)
            for name in ("taught", "forget")
        )
        for step in one.steps
    ]
    there = [(100 * x, 100 * y) for x, y in found if x is not None and y is not None]
    if there:
        axes.plot([x for x, _ in there], [y for _, y in there], **look)
