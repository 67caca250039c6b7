"""What differs, as one HTML page: every value escaped, no script, nothing from elsewhere."""

from __future__ import annotations

from pulse_unlearn.diff.choice import differing
from pulse_unlearn.diff.compare import Diff, cell_title, model_title
from pulse_unlearn.report.templates import templates
from pulse_unlearn.report.words import reading_title, set_title
from pulse_unlearn.texts import printable

MOST_FLIPS = 500
"""Flipped answers shown of each model."""
MOST_NUMBERS = 3000
_PERCENT = "_pct"


def render_page(diff: Diff) -> str:
    """Return the page."""
    environment = templates("pulse_unlearn.diff")
    environment.filters |= {
        "printable": printable,
        "cell": cell_title,
        "model": model_title,
        "set": set_title,
        "reading": reading_title,
        "points": points,
        "value": value,
    }
    differ = differing(diff.gaps)
    return environment.get_template("diff.html.j2").render(
        diff=diff,
        names=(printable(diff.a.path), printable(diff.b.path)),
        numbers=differ[:MOST_NUMBERS],
        differ=len(differ),
        clear=sum(one.is_clear for one in differ),
        most_flips=MOST_FLIPS,
    )


def value(number: float | None, measure: str) -> str:
    """Write a value in percent; `*_pct` measures are percent already."""
    if number is None:
        return "n/a"
    return f"{number if _PERCENT in measure else 100 * number:.1f}"


def points(number: float | None, measure: str) -> str:
    """Write a difference in points, with its sign."""
    if number is None:
        return "n/a"
    return f"{number if _PERCENT in measure else 100 * number:+.1f}"
