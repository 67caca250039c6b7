"""`pulse tables`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

if TYPE_CHECKING:
    from pulse_unlearn.tables import Ends


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["latex", "markdown", "csv"]),
    default="markdown",
    show_default=True,
)
@click.option(
    "--table",
    "names",
    multiple=True,
    metavar="NAME",
    help="accuracy, readings (or one scenario's: accuracy-finetuned), verdicts, sustainability; "
    "repeatable. All that the run has, if left out.",
)
@click.option(
    "--reading", default="accuracy", show_default=True, help="Reading of the accuracies' tables."
)
@click.option(
    "--interval",
    "ends",
    type=click.Choice(["low-high", "half-width"]),
    default="low-high",
    show_default=True,
    help="[low, high], or +- half of the width.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write a file for each table into this folder.",
)
def tables(
    run_folder: Path, kind: str, names: tuple[str, ...], reading: str, ends: str, out: Path | None
) -> None:
    """Write RUN's numbers as tables for a paper: LaTeX (booktabs), Markdown or CSV.

    They are the report's: means over seeds with the same intervals, in percent.
    """
    from pulse_unlearn.store import file_errors, write_text
    from pulse_unlearn.tables import FORMATS, choose, paper_tables

    chosen = choose(paper_tables(run_folder, reading=reading), names)
    written = FORMATS[kind]
    texts = {table.name: written.write(table, cast("Ends", ends)) for table in chosen}
    if out is None:
        if kind == "csv" and len(texts) > 1:
            allowed = ", ".join(texts)
            raise click.UsageError(
                f"several tables as CSV need --out, or one --table of: {allowed}"
            )
        click.echo("\n".join(texts.values()), nl=False)
        return
    with file_errors(out, "make the folder"):
        out.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = out / f"{name}{written.suffix}"
        write_text(path, text)
        click.echo(str(path))
