"""The board as a page: its tables, and for each scenario what is forgotten against what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from pulse_unlearn.leaderboard.board import Board, write_board
from pulse_unlearn.leaderboard.entries import VERDICTS
from pulse_unlearn.leaderboard.ranking import Ranked, both_of
from pulse_unlearn.leaderboard.text import EXPLAINED, HEADS, Section, markdown, sections
from pulse_unlearn.report.drawing import (
    LINE,
    MUTED,
    SERIES,
    Drawing,
    finish,
    inline_svg,
    quiet,
    style,
)
from pulse_unlearn.report.templates import templates
from pulse_unlearn.report.words import method_title
from pulse_unlearn.store import write_text
from pulse_unlearn.texts import printable

BOARD, MARKDOWN, PAGE = "leaderboard.json", "leaderboard.md", "leaderboard.html"
_TEXTS = (1, 6, 7, 9)
"""Columns that are words."""
_MOST_NAMED = 14
"""Methods whose names stand in the figure: the first ones and the front."""


def write_all(folder: Path, board: Board) -> list[Path]:
    """Write the board, its Markdown and its page into a folder; return the three paths."""
    paths = [folder / name for name in (BOARD, MARKDOWN, PAGE)]
    write_board(paths[0], board)
    write_text(paths[1], markdown(board))
    write_text(paths[2], render(board))
    return paths


def render(board: Board) -> str:
    """Return the page as HTML: every value escaped, no script, no address outside the file."""
    from markupsafe import Markup

    def inlined(drawing: Drawing) -> Markup:
        # As in the report, Markup is right here and for the style sheet alone: matplotlib escapes
        # what it writes, `inline_svg` its titles.
        told = {"title": drawing.title, "description": drawing.description}
        return Markup(inline_svg(drawing.svg, drawing.name, **told))

    found = sections(board)
    css = (files("pulse_unlearn.report") / "report.css").read_text(encoding="utf-8")
    environment = templates("pulse_unlearn.leaderboard")
    environment.filters |= {"printable": printable, "inlined": inlined}
    return environment.get_template("page.html.j2").render(
        css=Markup(css),
        explained=EXPLAINED.replace("`", ""),
        sections=found,
        drawings=[_frontier(section, number) for number, section in enumerate(found)],
        heads=HEADS,
        texts=_TEXTS,
        verdicts=VERDICTS,
        runs=sorted({one.run for one in board.entries}),
    )


def _frontier(section: Section, number: int) -> Drawing | None:
    """Draw each method by what is forgotten after attacks and the least that is kept."""
    if not section.ranks:
        return None
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    points = [(one, *both_of(one.entry)) for one in section.ranks]
    with style():
        figure = Figure(figsize=(7.5, 4.6), layout=ConstrainedLayoutEngine())
        axes = figure.subplots()
        front = sorted((x, y) for one, x, y in points if one.on_front)
        axes.plot([100 * x for x, _ in front], [100 * y for _, y in front], lw=1, color=LINE)
        for on_front in (False, True):
            chosen = [(100 * x, 100 * y) for one, x, y in points if one.on_front is on_front]
            axes.scatter(
                [x for x, _ in chosen],
                [y for _, y in chosen],
                s=34 if on_front else 22,
                color=SERIES[0] if on_front else MUTED,
                zorder=3,
            )
        for name, x, y in _named(points):
            axes.annotate(
                name, (100 * x, 100 * y), (4, 4), textcoords="offset points", fontsize=7.5
            )
        axes.set_xlim(-3, 108)
        axes.set_ylim(-3, 108)
        axes.set_xlabel("forgotten after attacks, %")
        axes.set_ylabel("kept of the set that lost most, %")
        quiet(axes, grid="both")
        return finish(
            figure,
            f"frontier{number}",
            title=f"{section.title}: what is forgotten and what is kept",
            description="Each point is a method; the line joins those that nobody beats in both. "
            "The same numbers are in the table below.",
        )


def _named(points: Sequence[tuple[Ranked, float, float]]) -> list[tuple[str, float, float]]:
    """Return whose names are written; where several lie on one spot, the first with how many."""
    spots: dict[tuple[int, int], list[Ranked]] = {}
    for one, x, y in points:
        spots.setdefault((round(25 * x), round(25 * y)), []).append(one)
    named = []
    for one, x, y in points:
        alike = spots[round(25 * x), round(25 * y)]
        if one is not alike[0] or not (one.on_front or one.rank <= _MOST_NAMED):
            continue
        more = f" +{len(alike) - 1}" if len(alike) > 1 else ""
        named.append((printable(method_title(one.entry.method), 40) + more, x, y))
    return named
