"""Figures 4 and 5 of the paper, ours beside theirs, in the paper's reading and in the highest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulse_unlearn.report import paper
from pulse_unlearn.report.drawing import (
    MUTED,
    PAGE,
    Drawing,
    colour,
    finish,
    gold,
    marker,
    quiet,
    style,
)
from pulse_unlearn.report.estimates import PAPERS_SEQUENCE, Estimate, Numbers, Place
from pulse_unlearn.report.marks import (
    BAND,
    GAP,
    GOLD_TOLD,
    dodged,
    draw_chance,
    draw_path,
    explain_marks,
    plot_all,
    seed_look,
    shows_seeds,
)
from pulse_unlearn.report.tables import papers_ratios
from pulse_unlearn.report.words import method_title, scenario_title, scope_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STRICT, LATENT_PREFIX = "", "latent_"
"""Prefix of the measures of a reading: the paper's, and the highest."""
_READ = {STRICT: "as the paper reads", LATENT_PREFIX: "by the reading that finds most"}

_RATIO_PANELS: tuple[tuple[str, str, str, str], ...] = (
    ("forget", "forgotten_pct", "forgotten", "D_unlearn accuracy lost, %"),
    ("retain", "kept_pct", "retain_kept", "D_retain accuracy kept, %"),
    ("general", "kept_pct", "general_kept", "General ability kept, %"),
)
_PATH_PANELS: tuple[tuple[str, str, str], ...] = (
    ("forget", "accuracy", "D_unlearn, %"),
    ("retain", "accuracy", "D_retain, %"),
    ("general", "accuracy", "General ability, %"),
    ("unseen", "accuracy", "Unseen people, %"),
    ("not_yet_requested", "accuracy", "Not yet requested, %"),
    ("forgotten_earlier", "accuracy", "Requested earlier, %"),
)
_HABIT_PANELS: tuple[tuple[str, str, str], ...] = (
    ("forget", "unreadable", "D_unlearn answers unreadable, %"),
    ("forget", "letter_share", "D_unlearn, largest letter, %"),
)
"""Drawn beside the paper's reading, which they can fool."""
_GOLD_SETS = ("forget", "forgotten_earlier")
_PATH_COLUMNS = 3
_OVERHANG = 15.0
"""How far beyond 0 and 100 % an interval is drawn; values are never cut."""
_DODGE, _MOST_DODGE = 0.07, 0.45
"""Distance of two methods at a request, and of the first from the last, in requests."""
_LIFT = 0.26
"""Height of the paper's marker above ours, so that neither hides the other."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One row of Figure 4: where it stands and which of its method's looks it takes."""

    y: float
    place: Place
    look: int
    label: str


def figure4(numbers: Numbers, prefix: str = STRICT) -> Drawing | None:
    """Draw what was lost and kept in one reading, a row per scenario and method, three panels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines, titles = _rows(numbers)
    if not lines or not _has_ratios(numbers, lines, prefix):
        return None
    with style():
        depth = -lines[-1].y + 0.7
        figure = Figure(
            figsize=(10, 1.05 + 0.3 * depth),
            layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.04),
        )
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (name, measure, attribute, title) in zip(panels, _RATIO_PANELS, strict=True):
            paper_attribute = "" if prefix else attribute
            _ratio_panel(axes, numbers, lines, (name, prefix + measure, paper_attribute))
            axes.set_title(title)
            axes.set_ylim(-depth, 0.75)
        panels[0].set_yticks([line.y for line in lines], [line.label for line in lines])
        for y, text in titles:
            panels[0].annotate(
                text,
                (0, y),
                xycoords=("axes fraction", "data"),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                color=MUTED,
                fontsize=9,
            )
        has_gold = any(numbers.retain_model(scenario) for scenario in numbers.scenarios())
        several = len(numbers.all_seeds()) > 1
        explain_marks(figure, with_paper=not prefix, with_gold=has_gold, with_seeds=several)
        return finish(
            figure,
            "figure-4-latent" if prefix else "figure-4",
            title=f"Figure 4, {_READ[prefix]}: lost and kept",
            description="Filled markers with intervals are this run, hollow markers the paper. "
            f"{GOLD_TOLD if has_gold else ''}"
            "The same numbers are in the table below the figure.",
        )


def figure5(numbers: Numbers, prefix: str = STRICT) -> Drawing | None:
    """Draw accuracy after every request in one reading: the paper's panels and those it lacks."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    scenario = numbers.sequence()
    mains, is_papers = numbers.mains(scenario), scenario == PAPERS_SEQUENCE
    panels = [(name, f"{prefix}{measure}", title) for name, measure, title in _PATH_PANELS]
    panels += [] if prefix else _HABIT_PANELS
    panels = [panel for panel in panels if _has_path(numbers, mains, panel[:2])]
    if not mains or not panels:
        return None
    last = max(place.request for place in mains)
    retain_model, with_seeds = numbers.retain_model(scenario), shows_seeds(numbers, mains)
    with style():
        rows = math.ceil(len(panels) / _PATH_COLUMNS)
        figure = Figure(
            figsize=(10, 0.8 + 2.7 * rows), layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.04)
        )
        grid = list(figure.subplots(rows, _PATH_COLUMNS, sharey=True, squeeze=False).flat)
        for axes, (name, measure, title) in zip(grid, panels, strict=False):
            for place, shift in dodged(mains, _DODGE, _MOST_DODGE):
                _path(axes, numbers, place, (name, measure), shift, with_seeds=with_seeds)
            gold_number = None
            if name == "forget" and retain_model:
                gold_number = numbers.get(retain_model, name, "all", measure)
            own = _gold_steps(axes, numbers, scenario, (name, measure))
            gold_number = None if own else gold_number
            if measure.endswith("accuracy"):
                path = [mains[0].at(request) for request in range(mains[0].request + 1)]
                chances = [numbers.value(p, name, "all", "chance") for p in path]
                draw_chance(axes, chances, away_from=_gold_across(axes, gold_number))
            else:
                _gold_across(axes, gold_number)
            axes.set_title(title)
            axes.set_ylim(-3, 103)
            axes.set_xlim(-0.3, max(last, 1) + 0.3)
            axes.set_xticks(range(last + 1), ["before", *map(str, range(1, last + 1))])
            quiet(axes, grid="y")
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        looks = [(numbers.look(place.method), method_title(place.method)) for place in mains]
        explain_marks(
            figure,
            looks,
            with_paper=is_papers and not prefix,
            with_gold=bool(retain_model),
            with_seeds=with_seeds,
        )
        return finish(
            figure,
            "figure-5-latent" if prefix else "figure-5",
            title=f"Figure 5, {_READ[prefix]}: sequential requests",
            description="Accuracy before and after each request. Solid lines are this run"
            f"{', dashed lines with hollow markers the paper' if is_papers else ''}. "
            f"{GOLD_TOLD if retain_model else ''}"
            "The same numbers are in the table below.",
        )


def _has_ratios(numbers: Numbers, lines: Sequence[_Line], prefix: str) -> bool:
    return any(
        numbers.get(line.place, name, "all", prefix + measure)
        for line in lines
        for name, measure, _, _ in _RATIO_PANELS
    )


def _has_path(numbers: Numbers, mains: Sequence[Place], what: tuple[str, str]) -> bool:
    name, measure = what
    return any(
        numbers.value(place.at(k), name, "all", measure) is not None
        for place in mains
        for k in range(place.request + 1)
    )


def _rows(numbers: Numbers) -> tuple[list[_Line], list[tuple[float, str]]]:
    """Place the rows of Figure 4 from top to bottom, a title line above each scenario."""
    lines: list[_Line] = []
    titles: list[tuple[float, str]] = []
    y = 0.0
    for scenario in numbers.scenarios():
        finals = numbers.finals(scenario)
        if not finals:
            continue
        last = max(place.request for place in finals)
        after = f", after request {last}" if last > 1 else ""
        titles.append((y, scenario_title(scenario) + after))
        several = len({place.scope for place in finals}) > 1
        for place in finals:
            y -= 1
            label = method_title(place.method)
            label += f" · {scope_title(place.scope)}" if several else ""
            lines.append(_Line(y, place, numbers.look(place.method), label[:40]))
        y -= 1.4
    return lines, titles


def _ratio_panel(
    axes: Axes, numbers: Numbers, lines: Sequence[_Line], what: tuple[str, str, str]
) -> None:
    """Draw one panel; intervals that run far out are cut at its edge, values never are."""
    name, measure, attribute = what
    values, ends = [0.0, 100.0], [0.0, 100.0]
    _whiskers(axes, [(line, numbers.get(line.place, name, "all", measure)) for line in lines])
    for line in lines:
        found = numbers.get(line.place, name, "all", measure)
        values += [found.value] if found and found.value is not None else []
        ends += [end for end in (found.low, found.high) if end is not None] if found else []
        theirs = papers_ratios(numbers, line.place)
        if theirs and attribute:
            axes.plot(
                [getattr(theirs, attribute)],
                [line.y + _LIFT],
                marker(line.look),
                mfc=PAGE,
                mec=colour(line.look),
                mew=1.4,
                ms=7,
                zorder=2,
            )
    if name == "forget":
        values += _gold_levels(axes, numbers, lines, measure)
    lowest = min(*values, max(min(ends), -_OVERHANG))
    highest = max(*values, min(max(ends), 100 + _OVERHANG))
    pad = 0.04 * (highest - lowest)
    axes.set_xlim(lowest - pad, highest + pad)
    quiet(axes, grid="x")


def _whiskers(axes: Axes, rows: Sequence[tuple[_Line, Estimate | None]]) -> None:
    """Draw mean, interval and seeds of every row; rows that look alike are one artist each."""
    looks = dict.fromkeys(line.look for line, _ in rows)
    bars: dict[int, list[tuple[float, float]]] = {look: [] for look in looks}
    seeds: dict[int, list[tuple[float, float]]] = {look: [] for look in looks}
    means: dict[int, list[tuple[float, float]]] = {look: [] for look in looks}
    for line, found in rows:
        if found is None or found.value is None:
            text = "n/a" if found else "not finished"
            axes.annotate(text, (0, line.y), color=MUTED, va="center", fontsize=8)
            continue
        if found.low is not None and found.high is not None:
            bars[line.look] += [(found.low, line.y), (found.high, line.y), GAP]
        if len(found.seeds) > 1:
            seeds[line.look] += [(v, line.y - 0.24) for _, v in found.seeds if v is not None]
        means[line.look].append((found.value, line.y))
    for look in looks:
        plot_all(axes, bars[look], color=colour(look), lw=2, alpha=0.55)
        plot_all(axes, seeds[look], **seed_look(look))
        dots: dict[str, Any] = {"ls": "none", "marker": marker(look), "ms": 7, "zorder": 3}
        plot_all(axes, means[look], color=colour(look), **dots)


def _path(
    axes: Axes,
    numbers: Numbers,
    place: Place,
    what: tuple[str, str],
    shift: float,
    *,
    with_seeds: bool,
) -> None:
    name, measure = what
    look = numbers.look(place.method)
    found = [
        (request + shift, numbers.get(place.at(request), name, "all", measure))
        for request in range(place.request + 1)
    ]
    points = [(x, one) for x, one in found if one]
    draw_path(axes, points, look, with_seeds=with_seeds)
    label = numbers.paper(place) if place.scenario == PAPERS_SEQUENCE else None
    theirs = paper.FIGURE5.get((name, label)) if label and measure == "accuracy" else None
    if theirs:
        axes.plot(
            range(len(theirs)),
            theirs,
            color=colour(look),
            ls=(0, (4, 3)),
            lw=1,
            alpha=0.8,
            marker=marker(look),
            mfc=PAGE,
            ms=5,
            mew=1,
        )


def _gold_levels(axes: Axes, numbers: Numbers, lines: Sequence[_Line], measure: str) -> list[float]:
    """Draw what the retain model lacks of D_unlearn across each scenario's rows, and return it."""
    drawn = []
    for scenario in numbers.scenarios():
        ys = [line.y for line in lines if line.place.scenario == scenario]
        place = numbers.retain_model(scenario)
        found = numbers.get(place, "forget", "all", measure) if place else None
        if not ys or found is None or found.value is None:
            continue
        ends = [max(ys) + 0.5, min(ys) - 0.5]
        if found.low is not None and found.high is not None:
            axes.fill_betweenx(ends, found.low, found.high, **BAND)
        axes.plot([found.value] * 2, ends, **gold())
        drawn.append(found.value)
    return drawn


def _gold_steps(axes: Axes, numbers: Numbers, scenario: str, what: tuple[str, str]) -> bool:
    """Draw the retain model of each request at it; tell whether requests have their own."""
    name, measure = what
    last = max(place.request for place in numbers.mains(scenario))
    drawn = False
    for request in range(1, last + 1) if name in _GOLD_SETS else ():
        place = numbers.retain_model(scenario, request)
        value = numbers.value(place, name, "all", measure) if place else None
        if value is not None:
            axes.plot([request - 0.35, request + 0.35], [100 * value] * 2, **gold())
            drawn = True
    return drawn


def _gold_across(axes: Axes, found: Estimate | None) -> float:
    """Draw the retain model's number on D_unlearn across a panel; return it, or 0 without one."""
    if found is None or found.value is None:
        return 0.0
    if found.low is not None and found.high is not None:
        axes.axhspan(100 * found.low, 100 * found.high, **BAND)
    axes.axhline(100 * found.value, **gold())
    return found.value
