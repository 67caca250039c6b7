"""`pulse data init` and `check`: one's own people, and any data set before it is used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_unlearn.cli.kinds import KINDS
from pulse_unlearn.errors import DataError
from pulse_unlearn.files import home_path
from pulse_unlearn.texts import printable_block

if TYPE_CHECKING:
    from pulse_unlearn.data.source import ScoredPicture

_ALLOW = (
    "Tell people who stand there twice (same_person), and scored material that is trained on "
    "(trained_on_scored), as notes; both with a comma."
)


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
@click.option("--source", help="What it is, if not recognised: people, mllmu, umu, ...")
@click.option("--revision", help="PATH is a data set on the hub, at this commit.")
@click.option(
    "--scored-picture",
    type=click.Choice(["own", "other_pose"]),
    default="own",
    show_default=True,
    help="As data.people.scored_picture of an experiment.",
)
@click.option(
    "--different",
    nargs=2,
    multiple=True,
    metavar="ID ID",
    help="Two people although they share a name or look alike, as data.different_people.",
)
@click.option("--allow-overlap", type=KINDS, default=(), help=_ALLOW)
def check(
    path: str,
    source: str | None,
    revision: str | None,
    scored_picture: ScoredPicture,
    different: tuple[tuple[str, str], ...],
    allow_overlap: tuple[str, ...],
) -> None:
    """Read all of PATH and tell every fault at once, by file and row."""
    from pulse_unlearn.data.checks import gathered
    from pulse_unlearn.data.leaks import refused
    from pulse_unlearn.data.review import recognise, review
    from pulse_unlearn.data.source import Source

    name = source or recognise(home_path(path))
    found = review(name, Source(path, revision, scored_picture), different=different)
    click.echo(f"{path} ({name})")
    for line in found.parts:  # categories and groups are the file's own words
        click.echo(printable_block(f"  {line}"))
    wrong = refused(found.leaks, allow_overlap)
    if wrong:
        raise DataError(gathered(wrong))
    passed = [problem for of in found.leaks.values() for problem in of]
    for problem in gathered(passed):
        click.echo(printable_block(f"allowed: {problem}"))
    click.echo(f"{len(passed)} overlaps allowed" if passed else "no fault found")
