"""Methods along their operations: compared where they have forgotten as much, and as frontiers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING

from pulse_unlearn.evaluation.intervals import mean_over_seeds
from pulse_unlearn.evaluation.trajectories import (
    HALFWAY,
    Point,
    area_under,
    first_down_to,
    frontier,
    level_of,
    with_least,
)
from pulse_unlearn.report.drawing import Drawing, colour, finish, gold, marker, quiet, style
from pulse_unlearn.report.estimates import LATENT, Estimate, Numbers, Place
from pulse_unlearn.report.extras import Flag
from pulse_unlearn.report.marks import BAND, GAP, GOLD_TOLD, explain_marks, plot_all
from pulse_unlearn.report.tables import Notes, Row, Shown, Table, seed_count, shown
from pulse_unlearn.report.words import (
    MISSING,
    method_title,
    model_heads,
    percent,
    scenario_title,
    set_title,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

KEPT = ("retain", "unseen", "unseen_fictional", "general")
"""Sets whose accuracy over that before is what a method keeps."""
LEAST = "least"
"""Of these sets the one that kept least."""
_LATENT = "latent_"
"""Prefix of a set's name where the highest reading counts instead of the usable one."""
_DRAWN = ("retain", "unseen", "general")
_STEPS = re.compile(r"(\d+) steps")
_ALREADY = "there before the last request began"
_NOTHING_KNOWN = "D_unlearn was known no better before than by a model that never knew"


@dataclass(frozen=True, slots=True)
class Way:
    """One seed of a method's last operation, from its step 0 to its end."""

    before: float
    """D_unlearn by the highest reading, in the target model."""
    floor: float
    """The same in the retain model; chance without one."""
    path: tuple[Point, ...]

    def at(self, share: float) -> Point | None:
        """Return where a share of the way down to the floor is first reached."""
        return first_down_to(self.path, level_of(self.before, self.floor, share))

    def area(self, name: str) -> float | None:
        """Return the area under the frontier of a set, or of `LEAST`; None if not measured."""
        if self.before <= self.floor or not any(name in point.kept for point in self.path):
            return None
        return area_under(frontier(self.path, name, before=self.before, floor=self.floor))


def ways(numbers: Numbers, place: Place, flags: Sequence[Flag]) -> dict[int, Way]:
    """Return the ways of a method's last operation by seed; empty if none was measured.

    `flags` say after how many steps operations ended.
    """
    ended = _ended(place, flags)
    found = {}
    for seed in sorted(numbers.seeds(place)):
        before = numbers.remembered(seed, place.at(0))
        floor = numbers.remembered(seed, numbers.retain_model(place.scenario))
        if floor is None:
            floor = numbers.in_seed(seed, place, "forget", "chance") or 0.0
        end = ended.get(seed)
        steps = [
            step
            for step in numbers.steps_on_the_way(place.scenario)
            if step == 0 or end is None or step < end
        ]
        on_the_way = [_point(numbers, place.on_the_way(step), seed, step) for step in steps]
        path = [point for point in on_the_way if point]
        last = _point(numbers, place, seed, end)
        if before is not None and path and last:
            found[seed] = Way(before, floor, (*path, last))
    return found


def _ended(place: Place, flags: Sequence[Flag]) -> dict[int, int]:
    """Return the steps after which an operation ended, by seed."""
    at = (place.scenario, place.method, place.scope, str(place.request))
    told = {
        one.seed: _STEPS.match(one.detail)
        for one in flags
        if one.flag == "stopped" and (one.scenario, one.method, one.scope, one.request) == at
    }
    return {int(seed): int(match[1]) for seed, match in told.items() if match and seed.isdigit()}


def _point(numbers: Numbers, place: Place, seed: int, step: int | None) -> Point | None:
    remembered = numbers.remembered(seed, place)
    if remembered is None:
        return None
    kept = {
        f"{prefix}{name}": value / 100
        for name in KEPT
        for prefix in ("", _LATENT)
        if (value := numbers.in_seed(seed, place, name, f"{prefix}kept_pct")) is not None
    }
    return Point(step, remembered, with_least(kept, KEPT, LEAST))


def matched_table(numbers: Numbers, flags: Sequence[Flag]) -> Table | None:
    """Build the table of methods at matched forgetting: a row for each level and method."""
    notes, rows = Notes(), []
    sets = _sets(numbers)
    for scenario in numbers.scenarios():
        found = [(p, w) for p in numbers.finals(scenario) if (w := ways(numbers, p, flags))]
        for share in (HALFWAY, 1.0) if found else ():
            title = _level_title(numbers, scenario, share, [way for _, way in found])
            for place, way in found:
                cells = _matched_cells(numbers, place, way, share, (sets, notes))
                rows.append(Row((scenario_title(scenario), title, *model_heads(place)), cells))
    if not rows:
        return None
    heads = ("Scenario", "D_unlearn down to", "Method", "Updated")
    columns = ("at step", *(f"{set_title(name)} kept" for name in sets))
    return Table("Matched forgetting", heads, columns, tuple(rows), tuple(notes.items()))


def frontier_table(numbers: Numbers, flags: Sequence[Flag]) -> Table | None:
    """Build the table of the areas under the frontiers of what is forgotten and kept."""
    notes, rows, sets = Notes(), [], _sets(numbers)
    for scenario in numbers.scenarios():
        for place in numbers.finals(scenario):
            if not (found := ways(numbers, place, flags)):
                continue
            cells = []
            for name in (LEAST, *sets):
                areas = {seed: way.area(name) for seed, way in found.items()}
                known = any(way.before > way.floor for way in found.values())
                reason = "" if known else _NOTHING_KNOWN
                cells.append(_cell(areas, notes, seeds=seed_count(numbers), reason=reason))
            rows.append(Row((scenario_title(scenario), *model_heads(place)), tuple(cells)))
    if not rows:
        return None
    columns = ("least of the sets", *map(set_title, sets))
    heads = ("Scenario", "Method", "Updated")
    return Table("Frontiers", heads, columns, tuple(rows), tuple(notes.items()))


def over_seeds(
    values: Mapping[int, float | None],
    *,
    bounds: tuple[float, float] = (-math.inf, math.inf),
    reason: str = "",
) -> Estimate | None:
    """Return a derived number over the seeds that have it; None if none has, and no reason."""
    there = {seed: value for seed, value in values.items() if value is not None}
    if not there:
        return Estimate(None, None, None, None, (), 0, reason) if reason else None
    found = mean_over_seeds([*there.values()], bounds=bounds)
    return Estimate(
        found.value, found.low, found.high, found.spread, tuple(there.items()), 0, reason
    )


def _sets(numbers: Numbers) -> list[str]:
    """Return the sets of which anything is told to be kept along a way."""
    places = [
        place.on_the_way(step)
        for scenario in numbers.scenarios()
        for place in numbers.finals(scenario)
        for step in numbers.steps_on_the_way(scenario)
    ]
    return [n for n in KEPT if any(numbers.get(p, n, "all", "kept_pct") for p in places)]


def _level_title(
    numbers: Numbers, scenario: str, share: float, found: Sequence[Mapping[int, Way]]
) -> str:
    levels = [level_of(w.before, w.floor, share) for by_seed in found for w in by_seed.values()]
    level = f"{percent(fmean(levels))} %"
    if share != 1.0:
        return f"{level}, half of the way"
    model = "the retain model" if numbers.retain_model(scenario) else "chance"
    return f"{level}, {model}"


def _matched_cells(
    numbers: Numbers,
    place: Place,
    found: Mapping[int, Way],
    share: float,
    told: tuple[Sequence[str], Notes],
) -> tuple[Shown, ...]:
    (sets, notes), seeds = told, seed_count(numbers)
    known = {seed: way for seed, way in found.items() if way.before > way.floor}
    if not known:
        return (Shown(MISSING, mark=notes.mark(_NOTHING_KNOWN)), *([Shown(MISSING)] * len(sets)))
    points = {seed: point for seed, way in known.items() if (point := way.at(share))}
    if not points:
        least = fmean(min(point.remembered for point in way.path) for way in known.values())
        never = Shown("never", beside=(f"{percent(least)} % at the least",))
        return (never, *([Shown(MISSING)] * len(sets)))
    began = place.request > 1 and any(point.step == 0 for point in points.values())
    steps = [point.step for point in points.values() if point.step is not None]
    at = Shown(
        f"{fmean(steps):.1f}" if steps else MISSING,
        mark=notes.mark(_ALREADY) if began else "",
        beside=(f"{len(points)} of {len(found)} seeds get there",)
        if len(points) < len(found)
        else (),
    )
    cells = [at]
    for name in sets:
        latent = [
            point.kept[f"{_LATENT}{name}"]
            for point in points.values()
            if f"{_LATENT}{name}" in point.kept
        ]
        beside = (f"latent {percent(fmean(latent))}",) if latent else ()
        kept = {seed: point.kept.get(name) for seed, point in points.items()}
        cells.append(_cell(kept, notes, seeds=seeds, beside=beside))
    return tuple(cells)


def _cell(
    values: Mapping[int, float | None],
    notes: Notes,
    *,
    seeds: int,
    beside: Sequence[str] = (),
    reason: str = "",
) -> Shown:
    return shown(over_seeds(values, reason=reason), LATENT, notes, seeds=seeds, beside=beside)


def draw_trajectories(numbers: Numbers) -> Drawing | None:
    """Draw what is kept against what is remembered: a column a scenario, a row a set."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    scenarios = [name for name in numbers.scenarios() if numbers.steps_on_the_way(name)]
    mains = [place for scenario in scenarios for place in numbers.mains(scenario)]
    places = [place for place in mains if any(_path(numbers, place, name) for name in _DRAWN)]
    sets = [n for n in _DRAWN if any(len(_path(numbers, p, n)) > 1 for p in places)]
    if not sets:
        return None
    with style():
        figure = Figure(
            figsize=(10, 0.9 + 2.5 * len(sets)),
            layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.06),
        )
        grid = figure.subplots(
            len(sets), max(len(scenarios), 2), sharex="col", sharey="row", squeeze=False
        )
        for axes, scenario in zip(grid[0], scenarios, strict=False):
            axes.set_title(scenario_title(scenario))
        for row, name in zip(grid, sets, strict=True):
            heights = [y for p in places for _, y, *_ in _path(numbers, p, name)]
            for axes, scenario in zip(row, scenarios, strict=False):
                _panel(axes, numbers, scenario, name)
                axes.set_ylim(min(-3, *heights) - 2, max(103, *heights) + 2)
            row[0].set_ylabel(f"{set_title(name)} kept, %")
            for axes in row[len(scenarios) :]:
                axes.set_axis_off()
        for axes in grid[-1][: len(scenarios)]:
            axes.set_xlabel("D_unlearn remembered, %")
        has_gold = any(numbers.retain_model(scenario) for scenario in scenarios)
        looks = {numbers.look(p.method): method_title(p.method) for p in places}
        explain_marks(figure, sorted(looks.items()), with_paper=False, with_gold=has_gold)
        return finish(
            figure,
            "trajectory",
            title="Along the way: what is kept at the same forgetting",
            description="Usable accuracy over that before, against D_unlearn by the reading that "
            "finds most, which falls to the right; a point for each step that was measured, a "
            f"large one for the end. {GOLD_TOLD if has_gold else ''}"
            "Derived numbers are in the tables below.",
        )


def _path(
    numbers: Numbers, place: Place, name: str
) -> list[tuple[float, float, float | None, float | None]]:
    """Return (remembered, kept, its low, its high) in percent from step 0 to the end."""
    found = []
    steps = numbers.steps_on_the_way(place.scenario)
    on_the_way = [place.on_the_way(step) for step in steps]
    if not any(numbers.get(at, "forget", "all", "accuracy") for at in on_the_way):
        return []  # a method that has only its end
    for at in (*on_the_way, place):
        remembered = numbers.get(at, "forget", "all", LATENT) or numbers.get(
            at, "forget", "all", "accuracy"
        )
        kept = numbers.get(at, name, "all", "kept_pct")
        if remembered and kept and remembered.value is not None and kept.value is not None:
            found.append((100 * remembered.value, kept.value, kept.low, kept.high))
    return found


def _panel(axes: Axes, numbers: Numbers, scenario: str, name: str) -> None:
    reached = []
    for place in numbers.mains(scenario):
        path, look = _path(numbers, place, name), numbers.look(place.method)
        if not path:
            continue
        bars = [
            point
            for x, _, low, high in path
            if low is not None and high is not None
            for point in ((x, low), (x, high), GAP)
        ]
        plot_all(axes, bars, color=colour(look), lw=1.2, alpha=0.4)
        xs, ys = [x for x, *_ in path], [y for _, y, *_ in path]
        axes.plot(xs, ys, color=colour(look), marker=marker(look), ms=3.5, lw=1.6, zorder=3)
        axes.plot(xs[-1:], ys[-1:], color=colour(look), marker=marker(look), ms=8, zorder=4)
        reached += xs
    model = numbers.retain_model(scenario)
    never = numbers.get(model, "forget", "all", LATENT) if model else None
    if never and never.value is not None:
        if never.low is not None and never.high is not None:
            axes.axvspan(100 * never.low, 100 * never.high, **BAND)
        axes.axvline(100 * never.value, **gold())
        reached.append(100 * never.value)
    if reached:  # forgetting goes to the right
        axes.set_xlim(max(reached) + 4, min(reached) - 4)
    quiet(axes, grid="y")
