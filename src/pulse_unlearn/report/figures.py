"""Figures 4 and 5 of the paper, ours beside theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulse_unlearn.report import paper
from pulse_unlearn.report.drawing import Drawing, colour, finish, marker, quiet, style
from pulse_unlearn.report.estimates import Estimate, Numbers, Place
from pulse_unlearn.report.svg import INK, MUTED, PAGE
from pulse_unlearn.report.words import method_title, scenario_title, scope_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_RATIO_PANELS: tuple[tuple[str, str, str, str], ...] = (
    ("forget", "forgotten_pct", "forgotten", "D_unlearn forgotten, %"),
    ("retain", "kept_pct", "retain_kept", "D_retain kept, %"),
    ("general", "kept_pct", "general_kept", "General ability kept, %"),
)
_PATH_PANELS: tuple[tuple[str, str, str], ...] = (
    ("forget", "accuracy", "D_unlearn accuracy, %"),
    ("retain", "accuracy", "D_retain accuracy, %"),
    ("general", "accuracy", "General ability, %"),
    ("not_yet_requested", "accuracy", "Not yet requested, %"),
    ("forgotten_earlier", "accuracy", "Forgotten in earlier requests, %"),
    ("forget", "unparsable", "D_unlearn answers unreadable, %"),
)
_DODGE = 0.07
_LIFT = 0.26
"""Height of the paper's marker above ours, so that neither hides the other."""


@dataclass(frozen=True, slots=True)
class _Line:
    """One row of Figure 4: where it stands and which of its method's looks it takes."""

    y: float
    place: Place
    look: int
    label: str


def figure4(numbers: Numbers) -> Drawing | None:
    """Draw what was forgotten and kept, one row per scenario and method, in three panels."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines, titles = _rows(numbers)
    if not lines:
        return None
    with style():
        depth = -lines[-1].y + 0.7
        figure = Figure(
            figsize=(10, 1.05 + 0.3 * depth),
            layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.04),
        )
        panels = figure.subplots(1, 3, sharey=True)
        for axes, (name, measure, attribute, title) in zip(panels, _RATIO_PANELS, strict=True):
            _ratio_panel(axes, numbers, lines, (name, measure, attribute))
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
        _ours_and_paper(figure)
        return finish(
            figure,
            "figure-4",
            title="Figure 4: forgotten and kept",
            description="Filled markers with intervals are this run, hollow markers the paper. "
            "The same numbers are in the table below the figure.",
        )


def figure5(numbers: Numbers) -> Drawing | None:
    """Draw accuracy after every request: the paper's three panels and three that it lacks."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    mains = numbers.mains("sustainability")
    if not mains:
        return None
    last = max(place.request for place in mains)
    with style():
        figure = Figure(figsize=(10, 6.2), layout=ConstrainedLayoutEngine(wspace=0.06, hspace=0.04))
        grid = figure.subplots(2, 3, sharex=True, sharey=True)
        for axes, (name, measure, title) in zip(grid.flat, _PATH_PANELS, strict=True):
            for look, place in enumerate(mains):
                _path(axes, numbers, place, (name, measure), look)
            _chance(axes, numbers, mains[0], name, measure)
            axes.set_title(title)
            axes.set_ylim(-3, 103)
            axes.set_xlim(-0.3, max(last, 1) + 0.3)
            axes.set_xticks(range(last + 1), ["before", *map(str, range(1, last + 1))])
            quiet(axes, grid="y")
        grid[1][1].set_xlabel("request")
        labels = [method_title(place.method) for place in mains]
        _ours_and_paper(figure, labels)
        return finish(
            figure,
            "figure-5",
            title="Figure 5: sequential requests",
            description="Accuracy before and after each request. Solid lines are this run, dashed "
            "lines with hollow markers the paper. The same numbers are in the table below.",
        )


def _rows(numbers: Numbers) -> tuple[list[_Line], list[tuple[float, str]]]:
    """Place the rows of Figure 4 from top to bottom, a title line above each scenario."""
    lines: list[_Line] = []
    titles: list[tuple[float, str]] = []
    looks: dict[str, int] = {}
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
            look = looks.setdefault(place.method, len(looks))
            label = method_title(place.method)
            label += f" · {scope_title(place.scope)}" if several else ""
            lines.append(_Line(y, place, look, label[:40]))
        y -= 1.4
    return lines, titles


def _ratio_panel(
    axes: Axes, numbers: Numbers, lines: Sequence[_Line], what: tuple[str, str, str]
) -> None:
    name, measure, attribute = what
    lowest, highest = 0.0, 100.0
    for line in lines:
        found = numbers.get(line.place, name, "all", measure)
        _whisker(axes, found, line)
        for end in (found.low, found.high, found.value) if found else ():
            lowest, highest = min(lowest, end or 0.0), max(highest, end or 0.0)
        label = numbers.paper(line.place)
        theirs = paper.relative(line.place.scenario, label, line.place.request)
        if theirs and line.place.scope in ("projector+llm", ""):
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
    pad = 0.04 * (highest - lowest)
    axes.set_xlim(lowest - pad, highest + pad)
    quiet(axes, grid="x")


def _whisker(axes: Axes, found: Estimate | None, line: _Line) -> None:
    if found is None or found.value is None:
        axes.annotate(
            "n/a" if found else "not finished", (0, line.y), color=MUTED, va="center", fontsize=8
        )
        return
    if found.low is not None and found.high is not None:
        axes.plot([found.low, found.high], [line.y] * 2, color=colour(line.look), lw=2, alpha=0.55)
    for _, value in found.seeds if len(found.seeds) > 1 else ():
        if value is not None:
            axes.plot([value], [line.y - 0.24], "|", color=colour(line.look), ms=4, mew=1)
    axes.plot([found.value], [line.y], marker(line.look), color=colour(line.look), ms=7, zorder=3)


def _path(axes: Axes, numbers: Numbers, place: Place, what: tuple[str, str], look: int) -> None:
    name, measure = what
    shift = (look - 1) * _DODGE
    xs: list[float] = []
    ys: list[float] = []
    for request in range(place.request + 1):
        found = numbers.get(place.at(request), name, "all", measure)
        if found is None or found.value is None:
            continue
        xs.append(request + shift)
        ys.append(100 * found.value)
        if found.low is not None and found.high is not None:
            limits = [100 * found.low, 100 * found.high]
            axes.plot([request + shift] * 2, limits, color=colour(look), lw=1.2, alpha=0.5)
    axes.plot(xs, ys, color=colour(look), marker=marker(look), ms=5, lw=1.8, zorder=3)
    label = numbers.paper(place)
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


def _chance(axes: Axes, numbers: Numbers, place: Place, name: str, measure: str) -> None:
    """Draw chance in, from the first request at which the set exists."""
    if measure != "accuracy":
        return
    found = [
        numbers.value(place.at(request), name, "all", "chance")
        for request in range(place.request + 1)
    ]
    chance = next((value for value in found if value is not None), None)
    if chance is not None:
        axes.axhline(100 * chance, color=MUTED, lw=1.2, ls=(0, (1, 2)), zorder=1)
        axes.annotate(
            "chance",
            (0.02, 100 * chance),
            xycoords=("axes fraction", "data"),
            xytext=(0, 3),
            textcoords="offset points",
            fontsize=8,
            color=MUTED,
        )


def _ours_and_paper(figure: Figure, methods: Sequence[str] = ()) -> None:
    """Explain the marks once, under the panels."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=colour(i), marker=marker(i), ms=6, lw=1.8, label=label[:40])
        for i, label in enumerate(methods)
    ]
    dash: Any = (0, (4, 3)) if methods else "none"
    handles += [
        Line2D([], [], color=INK, marker="o", ms=6, lw=1.8, label="this run, with interval"),
        Line2D([], [], color=INK, marker="o", mfc=PAGE, ms=6, lw=1, ls=dash, label="paper"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9)
