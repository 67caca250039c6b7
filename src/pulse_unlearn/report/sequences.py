"""Requests one after the other: who is known after which, what comes back, and where it falls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from pulse_unlearn.evaluation.trajectories import (
    CLIFF,
    area_over,
    cliff,
    eroded_before_turn,
    rebound,
)
from pulse_unlearn.report.drawing import INK, MUTED, SERIES, Drawing, finish, style
from pulse_unlearn.report.estimates import LATENT, Numbers, Place
from pulse_unlearn.report.tables import Notes, Row, Shown, Table, seed_count, shown
from pulse_unlearn.report.trajectory import over_seeds
from pulse_unlearn.report.words import MISSING, method_title, percent, scenario_title, set_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_REQUESTS = 10
"""Requests up to which every cell of the matrix is printed and drawn."""
_COLUMNS = 3
_AREAS = (
    ("forget", LATENT),
    ("retain", "accuracy"),
    ("unseen", "accuracy"),
    ("general", "accuracy"),
)
Line = list[float | None]


def people_of(request: int) -> str:
    """Return the name of the set of a request's people."""
    return f"request:{request}"


def matrix_table(numbers: Numbers) -> Table | None:
    """Build request x step: accuracy on the people of each request after each request."""
    notes, rows, last = Notes(), [], 0
    for scenario in numbers.sequences():
        for place in numbers.mains(scenario):
            if not 1 < place.request <= MOST_REQUESTS:
                continue
            last = max(last, place.request)
            for turn in range(1, place.request + 1):
                path = [place.at(after) for after in range(place.request + 1)]
                found = [numbers.get(at, people_of(turn), "all", LATENT) for at in path]
                cells = tuple(shown(e, LATENT, notes, seeds=seed_count(numbers)) for e in found)
                heads = (scenario_title(scenario), method_title(place.method), f"{turn}")
                rows.append(Row(heads, cells))
    rows = [
        Row(row.heads, (*row.cells, *[Shown(MISSING)] * (last + 1 - len(row.cells))))
        for row in rows
        if any(cell.value != MISSING for cell in row.cells)
    ]
    if not rows:
        return None
    columns = ("before", *(f"after {after}" for after in range(1, last + 1)))
    heads = ("Scenario", "Method", "People of request")
    return Table("Request by request", heads, columns, tuple(rows), tuple(notes.items()))


def sequence_table(numbers: Numbers) -> Table | None:
    """Build what a sequence did as a whole, a row a method: rebound, erosion, cliff, areas."""
    notes, rows = Notes(), []
    for scenario in numbers.sequences():
        for place in numbers.finals(scenario):
            if place.request < 2:
                continue
            cells = (
                _over_turns(numbers, place, rebound, notes),
                _over_turns(numbers, place, eroded_before_turn, notes),
                _cliff(numbers, place),
                *(_area(numbers, place, what, notes) for what in _AREAS),
            )
            if any(cell.value != MISSING for cell in cells):
                heads = (scenario_title(scenario), method_title(place.method))
                rows.append(Row(heads, cells))
    if not rows:
        return None
    columns = (
        *("rebound", "lost before turn", f"general below {CLIFF:.0%}".replace("%", " %")),
        *(f"{set_title(name)}, area" for name, _ in _AREAS),
    )
    heads = ("Scenario", "Method")
    return Table("Over the sequence", heads, columns, tuple(rows), tuple(notes.items()))


def _line(numbers: Numbers, place: Place, seed: int, what: tuple[str, str]) -> Line:
    """Return one seed's accuracy on a set before and after each request."""
    name, measure = what
    path = [place.at(after) for after in range(place.request + 1)]
    if measure == LATENT:
        return [numbers.remembered(seed, at, name) for at in path]
    return [numbers.in_seed(seed, at, name, measure) for at in path]


def _over_turns(
    numbers: Numbers, place: Place, measure: Callable[[Line, int], float | None], notes: Notes
) -> Shown:
    """Return the mean of a number over the requests that have it, and the worst request."""
    values, worst = {}, []
    for seed in sorted(numbers.seeds(place)):
        found = [
            measure(_line(numbers, place, seed, (people_of(turn), LATENT)), turn)
            for turn in range(1, place.request + 1)
        ]
        there = [one for one in found if one is not None]
        if there:
            values[seed] = fmean(there)
            worst.append(max(there))
    beside = (f"most {percent(fmean(worst))}",) if worst else ()
    return shown(over_seeds(values), LATENT, notes, seeds=seed_count(numbers), beside=beside)


def _cliff(numbers: Numbers, place: Place) -> Shown:
    """Return the request of the cliff, those of seeds that differ beside each other."""
    lines = [
        _line(numbers, place, seed, ("general", "accuracy"))
        for seed in sorted(numbers.seeds(place))
    ]
    told = [f"request {n}" if (n := cliff(line)) else "never" for line in lines if line[0]]
    if not told:
        return Shown(MISSING)
    first, *others = dict.fromkeys(told)
    return Shown(", ".join((first, *others)) if others else first)


def _area(numbers: Numbers, place: Place, what: tuple[str, str], notes: Notes) -> Shown:
    areas = {
        seed: area_over(_line(numbers, place, seed, what)) for seed in sorted(numbers.seeds(place))
    }
    return shown(over_seeds(areas), LATENT, notes, seeds=seed_count(numbers))


def draw_matrices(numbers: Numbers) -> Drawing | None:
    """Draw request x step of each method: the darker a cell, the more is known of those people."""
    from matplotlib.figure import Figure

    places = [
        place
        for scenario in numbers.sequences()
        for place in numbers.mains(scenario)
        if 1 < place.request <= MOST_REQUESTS and _matrix(numbers, place)
    ]
    if not places:
        return None
    rows = -(-len(places) // _COLUMNS)
    most = max(place.request for place in places)
    several = len({place.scenario for place in places}) > 1
    with style():
        figure = Figure(figsize=(10, 0.5 + rows * (0.8 + 0.34 * most)), layout="constrained")
        grid = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
        for axes, place in zip(grid, places, strict=False):
            title = method_title(place.method)
            axes.set_title(f"{title}, {scenario_title(place.scenario)}" if several else title)
            _cells(axes, _matrix(numbers, place))
        for axes in grid[len(places) :]:
            axes.set_axis_off()
        return finish(
            figure,
            "sequence-matrix",
            title="Request by request: who is known after which",
            description="Accuracy in percent by the reading that finds most: a row for the people "
            "of each request, a column before and after each request. Right of the line a row's "
            "people have been requested. The same numbers are in the table below.",
        )


def _matrix(numbers: Numbers, place: Place) -> list[Line]:
    """Return the mean over seeds of each request's people, before and after each request."""
    rows = [
        [
            numbers.value(place.at(after), people_of(turn), "all", LATENT)
            for after in range(place.request + 1)
        ]
        for turn in range(1, place.request + 1)
    ]
    return rows if any(value is not None for row in rows for value in row) else []


def _cells(axes: Axes, matrix: Sequence[Line]) -> None:
    from matplotlib.patches import Rectangle

    for row, line in enumerate(matrix):
        for column, value in enumerate(line):
            if value is None:
                continue
            cell = Rectangle(
                (column - 0.5, row - 0.5), 1, 1, fc=SERIES[0], alpha=0.75 * value, lw=0
            )
            axes.add_patch(cell)
            text = percent(value, digits=0)
            axes.annotate(text, (column, row), ha="center", va="center", color=INK, fontsize=8)
        # Its own request stands between the columns of before and after it.
        axes.plot([row + 0.5] * 2, [row - 0.5, row + 0.5], color=INK, lw=2)
    last = len(matrix)
    axes.set_xlim(-0.5, last + 0.5)
    axes.set_ylim(last - 0.5, -0.5)
    axes.set_xticks(range(last + 1), ["before", *map(str, range(1, last + 1))])
    axes.set_yticks(range(last), [f"request {turn}" for turn in range(1, last + 1)])
    axes.set_xlabel("after request", color=MUTED)
    axes.grid(visible=False)
    axes.tick_params(length=0)
