"""`pulse diff`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

_PATH = click.Path(path_type=Path, dir_okay=False)


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=_PATH, help="Write all of it here as JSON, too.")
@click.option("--html", "html_file", type=_PATH, help="Write it here as one HTML page, too.")
@click.option("--exit-code", is_flag=True, help="End with 1 if a number of A is not the same in B.")
def diff(a: Path, b: Path, json_file: Path | None, html_file: Path | None, exit_code: bool) -> None:
    """Compare two finished run folders, A and B: differences are B minus A.

    Flipped answers first, then settings and environment that differ, what cannot be compared,
    paired differences with intervals, and rows that only one of them has.
    """
    from pulse_unlearn.api import load_run
    from pulse_unlearn.diff import as_json, compare_runs, render_page, text_lines
    from pulse_unlearn.store import write_json, write_text

    found = compare_runs(load_run(a), load_run(b))
    for line in text_lines(found):
        click.echo(line)
    if json_file:
        write_json(json_file, as_json(found))
    if html_file:
        write_text(html_file, render_page(found))
    if exit_code and not found.is_same:
        sys.exit(1)
