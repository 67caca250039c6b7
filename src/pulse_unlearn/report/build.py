"""Writes `report.html` and the figures of a run; reads nothing but the run folder."""

from __future__ import annotations

from pathlib import Path

from pulse_unlearn.report.drawing import Drawing
from pulse_unlearn.report.load import load_run
from pulse_unlearn.report.page import Page, make_page
from pulse_unlearn.report.svg import inline_svg
from pulse_unlearn.store.atomic import file_errors, sha256_file, write_bytes, write_text

REPORT = "report.html"
FIGURES = "figures"
_SOURCES = ("results.csv", "results.json", "experiment.yaml", "plan.json", "samples.json")


def build_report(run: Path) -> Path:
    """Write `report.html` and `figures/*.svg` and `*.pdf`, and return the report's path.

    The same run folder gives the same bytes. A run of which only some cells are finished is
    reported with what is missing. Raises StoreError if there is nothing to report, if the results
    are not well formed, or if a file cannot be written.
    """
    record = load_run(run)
    digests = [(name, sha256_file(run / name)) for name in _SOURCES if (run / name).is_file()]
    page = make_page(record, digests=digests)
    html = render(page)
    figures = run / FIGURES
    with file_errors(figures, "make the folder"):
        figures.mkdir(exist_ok=True)
    for drawing in page.drawings.values():
        write_text(figures / f"{drawing.name}.svg", drawing.svg)
        write_bytes(figures / f"{drawing.name}.pdf", drawing.pdf)
    # Last, so that whoever sees a report finds its figures.
    write_text(run / REPORT, html)
    return run / REPORT


def render(page: Page) -> str:
    """Return the page as HTML: every value escaped, no script, no address outside the file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    def inlined(drawing: Drawing) -> Markup:
        # Markup is right here alone: matplotlib escapes what it writes, `inline_svg` its titles.
        return Markup(
            inline_svg(
                drawing.svg,
                drawing.name,
                title=drawing.title,
                description=drawing.description,
            )
        )

    environment = Environment(
        loader=PackageLoader("pulse_unlearn.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["inlined"] = inlined
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%")
    return environment.get_template("report.html.j2").render(page=page)
