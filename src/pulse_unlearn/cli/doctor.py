"""`pulse doctor`: one table of what this machine has, and what would stop a run."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pulse_unlearn.cli.wrapped import wrapped

_COLOURS = {"ok": "green", "note": "yellow", "stop": "red"}


@click.command()
@click.option("--model", metavar="PATH", help="Also look at this model, and ask it ten questions.")
@click.option("--revision", help="The model is on the hub, at this commit; its cache is looked at.")
@click.option(
    "--prompt",
    default="mmbench_llava",
    show_default=True,
    help="Prompt profile the questions are asked with; `short` for the embedded model.",
)
@click.option("--ask/--no-ask", default=True, help="Ask the ten questions, or load no weights.")
@click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder that is to hold the run folders.",
)
def doctor(model: str | None, revision: str | None, prompt: str, ask: bool, runs: Path) -> None:
    """Look for what would stop a run here, and say how to mend it; exit code 1 if there is any.

    A model is asked ten questions: whether it answers with a letter, talks, or is cut off decides
    which parser and how many tokens an experiment should name.
    """
    from pulse_unlearn.pipeline.doctor import examine

    stops = 0
    asked = prompt if ask else ""
    for finding in examine(runs, model=model, revision=revision, prompt=asked):
        stops += finding.state == "stop"
        line = wrapped(finding.said, first=f"{finding.state:4s}  {finding.name:12s}  ")
        click.echo(click.style(line[:4], fg=_COLOURS[finding.state]) + line[4:])
        if finding.fix:
            click.echo(wrapped(f"fix: {finding.fix}", first=" " * 20, indent=25))
    if stops:
        click.echo(f"\n{stops} of these would stop a run")
        sys.exit(1)
    click.echo("\nnothing here would stop a run")
