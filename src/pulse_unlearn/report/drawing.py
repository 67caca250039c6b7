"""The ground on which figures are drawn: one style, and bytes that come out the same every time."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulse_unlearn.report.svg import GOLD, INK, LINE, MARKERS, MUTED, PAGE, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pulse-unlearn",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "legend.frameon": False,
    "figure.facecolor": PAGE,
    "axes.facecolor": PAGE,
}


@dataclass(frozen=True, slots=True)
class Drawing:
    """One figure as files: SVG text and PDF bytes, both free of dates."""

    name: str
    title: str
    description: str
    svg: str
    pdf: bytes


@contextmanager
def style() -> Iterator[None]:
    """Draw in the report's style whatever the reader's matplotlibrc says."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def finish(figure: Figure, name: str, *, title: str, description: str) -> Drawing:
    """Lay the figure out and write it in both forms; call inside `style()`."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    with warnings.catch_warnings():
        # A label may hold characters the font lacks; a box in its place is all right.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        svg, pdf = io.StringIO(), io.BytesIO()
        # Left to `savefig`, each file costs a layout and a draw without output of its own.
        FigureCanvasSVG(figure)
        figure.dpi = 72
        if engine := figure.get_layout_engine():
            engine.execute(figure)
            figure.set_layout_engine(None)
        figure.savefig(svg, format="svg", metadata={"Date": None})
        figure.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    return Drawing(name, title, description, svg.getvalue(), pdf.getvalue())


def colour(index: int) -> str:
    """Return the colour of the series with this position."""
    return SERIES[index % len(SERIES)]


def marker(index: int) -> str:
    """Return the marker of the series with this position; where colours repeat, it differs."""
    return MARKERS[(index + index // len(SERIES)) % len(MARKERS)]


def gold() -> dict[str, Any]:
    """Return the look of the retain model's line: gold between dark edges, behind the markers."""
    from matplotlib.patheffects import Normal, Stroke

    edges = [Stroke(linewidth=3.6, foreground=INK), Normal()]
    return {"color": GOLD, "lw": 2.2, "solid_capstyle": "butt", "zorder": 1.6,
            "path_effects": edges, "label": "retain model"}  # fmt: skip


def quiet(axes: Axes, *, grid: str) -> None:
    """Keep grid lines along one direction only and drop the ticks."""
    axes.grid(visible=False)
    axes.grid(visible=True, axis="x" if grid == "x" else "y")
    axes.tick_params(length=0)
