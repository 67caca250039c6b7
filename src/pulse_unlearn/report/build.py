"""Writes `report.html` and the figures of a run, and skips that where nothing has changed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pulse_unlearn.report.drawing import inline_svg
from pulse_unlearn.report.templates import templates
from pulse_unlearn.store import refuse_links
from pulse_unlearn.store.atomic import file_errors, write_bytes, write_text
from pulse_unlearn.store.products import code_digest, file_digests, made_before, note_made

if TYPE_CHECKING:
    from pulse_unlearn.report.drawing import Drawing
    from pulse_unlearn.report.page import Page

REPORT = "report.html"
FIGURES = "figures"
RECORD = ".report.json"
"""What the report was made from, and what it consists of; without it the report is drawn again."""
_SOURCES = ("results.csv", "results.json", "experiment.yaml", "plan.json", "samples.json")
_READ_TOO = ("environment.json", "stages/*/train.jsonl")
"""Read, but not listed in the report with their hashes."""


@dataclass(frozen=True, slots=True)
class Report:
    """A report on disk."""

    path: Path
    summary: tuple[str, ...]
    """The main numbers as lines of ASCII, for the terminal."""


def build_report(run: Path, *, redraw: bool = False) -> Report:
    """Write `report.html` and `figures/*.svg` and `*.pdf`.

    The same run folder gives the same bytes, so nothing is written if the last report was made from
    the same files by the same code and is intact, unless `redraw`. A run of which only some cells
    are finished is reported with what is missing. Raises StoreError if there is nothing to report,
    if the results are not well formed, or if a file cannot be read or written.
    """
    inputs = file_digests(run, [*_SOURCES, *_matching(run, _READ_TOO)])
    made_from = {
        "folder": run.resolve().name,
        "inputs": inputs,
        "scores": (scores := _matching(run, ["scores/*.parquet"])),
        "code": code_digest(),
        "packages": {name: version(name) for name in ("jinja2", "matplotlib")},
    }
    if not redraw and (notes := made_before(run / RECORD, made_from)) is not None:
        return Report(run / REPORT, tuple(cast("list[str]", notes["summary"])))
    digests = [(name, inputs[name]) for name in _SOURCES if name in inputs]
    summary, written = _write(run, digests, scores)
    note_made(run / RECORD, made_from, written, notes={"summary": list(summary)})
    return Report(run / REPORT, summary)


def _matching(run: Path, patterns: Iterable[str]) -> list[str]:
    found = [path for pattern in patterns for path in run.glob(pattern)]
    return sorted(path.relative_to(run).as_posix() for path in found)


def _write(
    run: Path, digests: list[tuple[str, str]], scores: list[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Write report and figures; return the summary and the names of the files written."""
    # Imported here: a report that need not be drawn needs none of it.
    from pulse_unlearn.report.estimates import Numbers
    from pulse_unlearn.report.load import load_run
    from pulse_unlearn.report.page import make_page
    from pulse_unlearn.report.summary import summary_lines

    refuse_links(run)
    record = load_run(run)
    numbers = Numbers(record.results, record.labels, record.extras.over_seeds)
    page = make_page(record, numbers, digests=digests, scores=scores)
    html, summary = render(page), tuple(summary_lines(record, numbers))
    figures = run / FIGURES
    with file_errors(figures, "make the folder"):
        figures.mkdir(exist_ok=True)
    written = []
    for drawing in page.drawings.values():
        name = f"{FIGURES}/{drawing.name}"
        write_text(run / f"{name}.svg", drawing.svg)
        write_bytes(run / f"{name}.pdf", drawing.pdf)
        written += [f"{name}.svg", f"{name}.pdf"]
    # Last, so that whoever sees a report finds its figures.
    write_text(run / REPORT, html)
    return summary, [*written, REPORT]


def render(page: Page) -> str:
    """Return the page as HTML: every value escaped, no script, no address outside the file."""
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

    environment = templates("pulse_unlearn.report")
    environment.filters["inlined"] = inlined
    environment.filters["unbroken"] = lambda text: text.replace(" %", "\u00a0%")
    return environment.get_template("report.html.j2").render(page=page)
