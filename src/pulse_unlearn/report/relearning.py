"""The relearning attack: half of the facts about D_unlearn taught again, the other half asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pulse_unlearn.report.drawing import Drawing, finish, gold, quiet, style
from pulse_unlearn.report.estimates import Estimate, Numbers, Place
from pulse_unlearn.report.marks import (
    BAND,
    GOLD_TOLD,
    dodged,
    draw_chance,
    draw_path,
    explain_marks,
    shows_seeds,
)
from pulse_unlearn.report.tables import Notes, Row, Shown, Table, seed_count, shown
from pulse_unlearn.report.words import (
    MISSING,
    THE_RETAIN_MODEL,
    method_title,
    model_heads,
    percent,
    scenario_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_READINGS = (("rotated_accuracy", "Rotated accuracy, %"), ("accuracy", "Strict accuracy, %"))
_DODGE, _MOST_DODGE = 0.012, 0.06
"""Distance of two methods' intervals, and of the first from the last, as shares of the axis."""
_MOST_LABELS = 14


def draw_relearning(numbers: Numbers) -> Drawing | None:
    """Draw accuracy on the half that was not taught by step: a column a scenario, a row a reading.

    The control, the retain model under the same attack, is the gold line.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    scenarios = [name for name in numbers.scenarios() if numbers.relearning_steps(name)]
    places = [place for scenario in scenarios for place in numbers.mains(scenario)]
    readings = [
        (measure, title)
        for measure, title in _READINGS
        if any(_path(numbers, place, measure) for place in places)
    ]
    if not readings:
        return None
    with style():
        figure = Figure(
            figsize=(10, 0.8 + 2.7 * len(readings)),
            layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.06),
        )
        grid = figure.subplots(len(readings), max(len(scenarios), 2), sharey=True, squeeze=False)
        for axes, scenario in zip(grid[0], scenarios, strict=False):
            axes.set_title(scenario_title(scenario))
        for row, (measure, title) in zip(grid, readings, strict=True):
            for axes, scenario in zip(row, scenarios, strict=False):
                _panel(axes, numbers, scenario, measure)
            row[0].set_ylabel(title)
            for axes in row[len(scenarios) :]:
                axes.set_axis_off()
        for axes in grid[-1][: len(scenarios)]:
            axes.set_xlabel("optimiser steps of relearning")
        has_gold = any(_control(numbers, scenario) for scenario in scenarios)
        looks = {numbers.look(place.method): method_title(place.method) for place in places}
        explain_marks(
            figure,
            sorted(looks.items()),
            with_paper=False,
            with_gold=has_gold,
            with_seeds=any(shows_seeds(numbers, numbers.mains(name)) for name in scenarios),
        )
        return finish(
            figure,
            "relearning",
            title="Relearning: what comes back",
            description="Accuracy on the facts about D_unlearn that were not taught again, by "
            f"steps of training on the others. {GOLD_TOLD if has_gold else ''}"
            "The same numbers are in the table below.",
        )


def relearning_table(numbers: Numbers) -> Table | None:
    """Build the numbers behind the figure: a row for each model, a column for each step."""
    steps = sorted({s for name in numbers.scenarios() for s in numbers.relearning_steps(name)})
    notes, rows = Notes(), []
    for scenario in numbers.scenarios():
        finals = numbers.finals(scenario)
        models = [(model_heads(place), _along(place, steps)) for place in finals]
        if control := _control(numbers, scenario):
            models.insert(0, ((THE_RETAIN_MODEL, ""), _along(control, steps, control=True)))
        for names, path in models:
            cells = tuple(_cell(numbers, place, notes) for place in path)
            if any(cell.value != MISSING or cell.mark for cell in cells):
                rows.append(Row((scenario_title(scenario), *names), cells))
    if not rows:
        return None
    columns = tuple(f"step {step}" for step in steps)
    heads = ("Scenario", "Method", "Updated")
    return Table("Relearning in numbers", heads, columns, tuple(rows), tuple(notes.items()))


def _along(place: Place, steps: Sequence[int], *, control: bool = False) -> list[Place]:
    return [place.relearned(step, control=control) for step in steps]


def _control(numbers: Numbers, scenario: str) -> Place | None:
    """Return a model of the scenario beside which the retain model was attacked."""
    return next(
        (
            place
            for place in numbers.finals(scenario)
            if any(_path(numbers, place, measure, control=True) for measure, _ in _READINGS)
        ),
        None,
    )


def _path(
    numbers: Numbers, place: Place, measure: str, *, control: bool = False
) -> list[tuple[int, Estimate]]:
    """Return (step, accuracy) of a model, or of its control, where it was measured."""
    steps = numbers.relearning_steps(place.scenario)
    found = [
        (step, numbers.get(at, "forget", "all", measure))
        for step, at in zip(steps, _along(place, steps, control=control), strict=True)
    ]
    return [(step, one) for step, one in found if one and one.value is not None]


def _panel(axes: Axes, numbers: Numbers, scenario: str, measure: str) -> None:
    steps, mains = numbers.relearning_steps(scenario), numbers.mains(scenario)
    control = _control(numbers, scenario)
    path = _path(numbers, control, measure, control=True) if control else []
    with_ends = [
        (step, 100 * one.low, 100 * one.high)
        for step, one in path
        if one.low is not None and one.high is not None
    ]
    if with_ends:
        at, low, high = zip(*with_ends, strict=True)
        axes.fill_between(at, low, high, **BAND)
    last = (path[-1][1].value or 0.0) if path else 1.0
    if path:
        axes.plot([s for s, _ in path], [100 * (one.value or 0.0) for _, one in path], **gold())
    for place, shift in dodged(mains, _DODGE * max(steps), _MOST_DODGE * max(steps)):
        points = [(step + shift, one) for step, one in _path(numbers, place, measure)]
        look = numbers.look(place.method)
        draw_path(axes, points, look, with_seeds=shows_seeds(numbers, mains))
    chances = [numbers.value(p.relearned(0), "forget", "all", "chance") for p in mains]
    draw_chance(axes, chances, at="right", away_from=last)
    axes.set_ylim(-3, 103)
    axes.set_xticks(_apart(steps))
    quiet(axes, grid="y")


def _apart(steps: Sequence[int]) -> list[int]:
    """Return the steps whose labels have room, the last first."""
    told: list[int] = []
    for step in reversed(steps):
        if not told or told[-1] - step >= max(steps) / _MOST_LABELS:
            told.append(step)
    return told


def _cell(numbers: Numbers, place: Place, notes: Notes) -> Shown:
    """Return the rotated accuracy with the strict one beside it, or the strict one alone."""
    strict = numbers.get(place, "forget", "all", "accuracy")
    rotated = numbers.get(place, "forget", "all", "rotated_accuracy")
    seeds = seed_count(numbers)
    if rotated is None or rotated.value is None:
        return shown(strict, "accuracy", notes, seeds=seeds)
    beside = (f"strict {percent(strict.value)}",) if strict else ()
    return shown(rotated, "rotated_accuracy", notes, seeds=seeds, beside=beside)
