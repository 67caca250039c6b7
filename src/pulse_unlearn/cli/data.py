"""`pulse data init` and `check`: one's own people, and any data set before it is used."""

from __future__ import annotations

from pathlib import Path

import click

from pulse_unlearn.errors import DataError

_ALLOW = "Tell people who stand there twice, and scored material that is trained on, as notes."


@click.group()
def data() -> None:
    """Begin a data set of your own, or check one."""


@data.command()
@click.argument("folder", type=click.Path(path_type=Path))
def init(folder: Path) -> None:
    """Write a small example into FOLDER: people, pictures, an experiment that runs, a README."""
    from pulse_unlearn.data.starter import write_starter

    write_starter(folder)
    click.echo(f"{folder}: twelve invented people; {folder / 'README.md'} describes every field")
    click.echo(f"next: pulse data check {folder}; pulse run {folder / 'experiment.yaml'}")


@data.command()
@click.argument("path")
@click.option("--source", help="What it is, if not recognised: people, mllmu, mmbench, ...")
@click.option("--revision", help="PATH is a data set on the hub, at this commit.")
@click.option("--allow-overlap", is_flag=True, help=_ALLOW)
def check(path: str, source: str | None, revision: str | None, allow_overlap: bool) -> None:
    """Read all of PATH and tell every fault at once, by file and row."""
    from pulse_unlearn.data.review import recognise, review
    from pulse_unlearn.data.source import Source

    name = source or recognise(Path(path).expanduser())
    found = review(name, Source(path, revision))
    click.echo(f"{path} ({name})")
    for line in found.parts:
        click.echo(f"  {line}")
    if found.leaks and not allow_overlap:
        raise DataError(found.leaks)
    for problem in found.leaks:
        click.echo(f"allowed: {problem}")
    click.echo("no fault found" if not found.leaks else f"{len(found.leaks)} overlaps allowed")
