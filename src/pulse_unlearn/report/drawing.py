"""One style for every figure, the same bytes every time, and SVG prepared for the page."""

from __future__ import annotations

import io
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


INK, MUTED, LINE, PAGE = "#1d232b", "#5d6875", "#d5dae0", "#ffffff"
SERIES: tuple[str, ...] = (
    "#0b66b0",
    "#c2410c",
    "#0f7b55",
    "#8b3fa8",
    "#8a6a00",
    "#b01e5a",
    "#4a5560",
)
GOLD = "#e8a800"
"""The retain model; drawn between dark edges, so that it can be told apart in grey."""
MARKERS: tuple[str, ...] = ("o", "s", "^", "D", "v", "P", "X")
"""Shape goes with colour, so that neither has to be told apart alone."""

_COLOURS: Mapping[str, str] = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    PAGE: "var(--page)",
    GOLD: "var(--gold)",
    **{colour: f"var(--series-{index})" for index, colour in enumerate(SERIES)},
}


def inline_svg(svg: str, name: str, *, title: str, description: str) -> str:
    """Return the `<svg>` element with ids under `name`, page colours, and text for screen readers.

    The colours of the file become variables of the page, so that one figure serves light and dark.
    What takes room and shows nothing is left out: ids nobody names, styles said again, digits.
    """
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    head, rest = body.split(">", 1)
    rest = re.sub(r"<[^<>]+>", lambda tag: _tidy(tag[0]), rest)
    rest = re.sub(r">\s*\n\s*<", "><", rest)
    rest = re.sub(r"<g(?: [^>]*)?/>|<defs></defs>", "", rest)
    rest = _with_classes(_with_short_ids(rest, name), name)
    for colour, variable in _COLOURS.items():
        rest = rest.replace(colour, variable)
    rest = re.sub(r"font: ([^;\"'}]*?[0-9.]+px) [^;\"}]*", r"font: \1 var(--sans)", rest)
    rest = re.sub(r"font-family: [^;\"}]*", "font-family: var(--sans)", rest)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    labels = (
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    names = f'role="img" aria-labelledby="{name}-title {name}-desc"'
    return f"{head} {names}>{labels}{rest}".strip()


def _tidy(tag: str) -> str:
    """Round the numbers of one tag to hundredths of a point and write its path closely."""
    if not tag.startswith("</"):
        tag = re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}", tag)
        tag = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", tag)
        tag = re.sub(r' d="[^"]*"', _closely, tag)
    return tag


def _closely(path: re.Match[str]) -> str:
    text = " ".join(path[0].split())
    return " " + re.sub(r" ?([A-Za-z]) ?(?![^ ]*=)", r"\1", text).replace(' "', '"').lstrip()


def _with_short_ids(body: str, name: str) -> str:
    """Number the ids that something names, and drop the others."""
    named = dict.fromkeys(re.findall(r"(?:url\(|href=\")#([^)\"]+)", body))
    short = {old: f"{name}-{number}" for number, old in enumerate(named)}
    body = re.sub(r' id="([^"]*)"', lambda m: f' id="{short[m[1]]}"' if m[1] in short else "", body)
    return re.sub(r"(url\(|href=\")#([^)\"]+)", lambda m: f"{m[1]}#{short[m[2]]}", body).replace(
        "xlink:href", "href"
    )


def _with_classes(body: str, name: str) -> str:
    """Say each style that stands more than once in a rule, and its class where it stood."""
    counts = Counter(re.findall(r' style="([^"]*)"', body))
    often = [style for style, count in counts.items() if count > 1]
    classes = {style: f"{name}-s{number}" for number, style in enumerate(often)}
    rules = "".join(f".{label}{{{style}}}" for style, label in classes.items())
    body = re.sub(
        r' style="([^"]*)"',
        lambda m: f' class="{classes[m[1]]}"' if m[1] in classes else m[0],
        body,
    )
    return f"<style>{rules}</style>{body}" if rules else body


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
    """Draw in the report's style, whatever the user's matplotlibrc says."""
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
