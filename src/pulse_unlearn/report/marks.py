"""What figures of several models share: bars, points of seeds, chance, gold line and legend."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from pulse_unlearn.report.drawing import GOLD, INK, MUTED, PAGE, colour, gold, marker
from pulse_unlearn.report.estimates import Estimate, Numbers, Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOLD_TOLD = "The gold line is the retain model, which never saw D_unlearn. "
BAND: dict[str, Any] = {"color": GOLD, "alpha": 0.22, "lw": 0}
"""The look of the retain model's interval."""
MOST_WITH_SEEDS = 8
"""Methods in one panel beyond which points of single seeds hide more than they show."""
GAP = (math.nan, math.nan)
_LEGEND_COLUMNS, _LEGEND_LINE = 7, 0.2
"""Entries beside each other, and the height of a line of them in inches."""


def plot_all(axes: Axes, points: Sequence[tuple[float, float]], **look: Any) -> None:
    """Draw all points as one line, with a gap at each `GAP`; none draw nothing.

    An artist for each bar would be most of the time of drawing many methods.
    """
    if points:
        axes.plot([x for x, _ in points], [y for _, y in points], **look)


def dodged(places: Sequence[Place], step: float, most: float) -> list[tuple[Place, float]]:
    """Return how far each place is drawn beside its request, `step` apart or less if many."""
    apart = min(step, most / max(len(places) - 1, 1))
    return [(p, (position - (len(places) - 1) / 2) * apart) for position, p in enumerate(places)]


def shows_seeds(numbers: Numbers, places: Sequence[Place]) -> bool:
    """Return whether lines of these models have room for a point for each seed."""
    return len(numbers.all_seeds()) > 1 and len(places) <= MOST_WITH_SEEDS


def seed_look(look: int) -> dict[str, Any]:
    """Return the look of the numbers of single seeds beside their mean: small points, no line."""
    return {"color": colour(look), "ls": "none", "marker": ".", "ms": 6, "mew": 0, "alpha": 0.8}


def draw_path(
    axes: Axes, points: Sequence[tuple[float, Estimate]], look: int, *, with_seeds: bool
) -> None:
    """Draw one model's accuracies at their places, in percent, with an upright bar for each.

    With several seeds each stands as a point to the right of their mean, if it is asked for.
    """
    from matplotlib.transforms import ScaledTranslation

    inside = [(x, one.value, one.low, one.high) for x, one in points if one.value is not None]
    limits = [
        (x, 100 * low, 100 * high)
        for x, _, low, high in inside
        if low is not None and high is not None
    ]
    bars = [point for x, low, high in limits for point in ((x, low), (x, high), GAP)]
    plot_all(axes, bars, color=colour(look), lw=1.2, alpha=0.5)
    of_seeds = [
        (x, 100 * value)
        for x, one in points
        if with_seeds and sum(value is not None for _, value in one.seeds) > 1
        for _, value in one.seeds
        if value is not None
    ]
    beside = axes.transData + ScaledTranslation(4 / 72, 0, axes.figure.dpi_scale_trans)
    plot_all(axes, of_seeds, transform=beside, **seed_look(look))
    xs, ys = [x for x, *_ in inside], [100 * value for _, value, *_ in inside]
    axes.plot(xs, ys, color=colour(look), marker=marker(look), ms=5, lw=1.8, zorder=3)


def draw_chance(
    axes: Axes, found: Iterable[float | None], *, at: str = "left", away_from: float = 0.0
) -> None:
    """Draw the first chance there is: sets need not exist before every request.

    Its name stands at the left or right end, on the other side of the line than `away_from`.
    """
    chance = next((value for value in found if value is not None), None)
    if chance is not None:
        below = away_from >= chance
        axes.axhline(100 * chance, color=MUTED, lw=1.2, ls=(0, (1, 2)), zorder=1)
        axes.annotate(
            "chance",
            (0.02 if at == "left" else 0.98, 100 * chance),
            xycoords=("axes fraction", "data"),
            xytext=(0, -3 if below else 3),
            textcoords="offset points",
            ha=at,
            va="top" if below else "baseline",
            fontsize=8,
            color=MUTED,
        )


def explain_marks(
    figure: Figure,
    methods: Sequence[tuple[int, str]] = (),
    *,
    with_paper: bool,
    with_gold: bool = False,
    with_seeds: bool = False,
    with_intervals: bool = True,
) -> None:
    """Add one legend under the panels; `methods` are (look, title)."""
    from matplotlib.lines import Line2D

    handles: list[Any] = [
        Line2D([], [], color=colour(look), marker=marker(look), ms=6, lw=1.8, label=title[:40])
        for look, title in methods
    ]
    run = "this run, with interval" if with_intervals else "this run"
    handles.append(Line2D([], [], color=INK, marker="o", ms=6, lw=1.8, label=run))
    if with_seeds:
        one_seed = {**seed_look(0), "color": INK, "ms": 8}
        handles.append(Line2D([], [], label="each seed", **one_seed))
    if with_paper:
        dash: Any = (0, (4, 3)) if methods else "none"
        handles.append(
            Line2D([], [], color=INK, marker="o", mfc=PAGE, ms=6, lw=1, ls=dash, label="paper")
        )
    handles += [Line2D([], [], **gold())] if with_gold else []
    columns = min(len(handles), _LEGEND_COLUMNS)
    figure.set_figheight(
        figure.get_figheight() + _LEGEND_LINE * (math.ceil(len(handles) / columns) - 1)
    )
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=9)
