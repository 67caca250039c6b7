"""`pulse stage` and `pulse status`: one stage for a scheduler of your own, and a look at a run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from pulse_unlearn.errors import Interrupted, Problem, StoreError

_RUN = click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))


@click.command()
@_RUN
@click.argument("name", metavar="STAGE")
def stage(run_folder: Path, name: str) -> None:
    """Carry out one STAGE of RUN, for schedulers that start processes themselves.

    The stages that it rests on must be complete; `pulse status RUN --waiting` lists those that can
    start. Several processes can do this in one run folder, and those that torchrun starts do one
    stage together; `pulse run` then writes the results.
    """
    from pulse_unlearn.pipeline.signals import stop_on_signals
    from pulse_unlearn.ranks import joined

    with stop_on_signals() as stop, joined() as ranks:
        from pulse_unlearn import registries
        from pulse_unlearn.config import load_experiment
        from pulse_unlearn.pipeline.progress import Lines
        from pulse_unlearn.pipeline.run import follow_run, run_stage

        run = run_folder.absolute()
        loaded = load_experiment(str(run / "experiment.yaml"), schemas=registries.schemas())
        if loaded.name != run.name:
            raise StoreError(
                Problem("the run folder has been renamed", str(run), run.name, loaded.name)
            )
        if not ranks.first:
            follow_run(loaded, run.parent, ranks, stop=stop)
            return
        progress = Lines(partial(click.echo, err=True))
        try:
            computed = run_stage(
                loaded, run.parent, name, progress=progress, stop=stop, ranks=ranks
            )
        except KeyError as error:
            fix = f"`pulse status {run_folder} --waiting` lists them"
            raise StoreError(Problem("the run has no such stage", got=name, fix=fix)) from error
        except Interrupted as stopped:
            raise Interrupted("stopped; the same command continues") from stopped
    click.echo(f"{name}: {'computed' if computed else 'complete already'}")


@click.command()
@_RUN
@click.option("--waiting", is_flag=True, help="List the stages that can start now, and no more.")
def status(run_folder: Path, waiting: bool) -> None:
    """Say which stages of RUN are done, running and waiting, and how long it takes.

    Reads the folder alone, and holds up nobody who works in it.
    """
    from pulse_unlearn.pipeline.status import status_of

    found = status_of(run_folder)
    if waiting:
        for name in found.ready:
            click.echo(name)
        return
    counts = [
        f"{len(found.done)} of {found.total} stages done",
        f"{len(found.running)} running",
        f"{len(found.waiting) + len(found.begun)} waiting",
        *([f"{len(found.failed)} failed"] if found.failed else []),
    ]
    click.echo(f"{run_folder}: {', '.join(counts)}")
    for one in found.running:
        click.echo(f"  running  {one}")
    for name in found.begun:
        click.echo(f"  begun    {name}: nobody works on it; it continues from its checkpoint")
    for name in found.failed:
        click.echo(f"  failed   {name}: see {run_folder / 'failures'}")
    if found.total > len(found.done) and found.seconds_left is not None:
        minutes = max(round(found.seconds_left / 60), 1)
        click.echo(f"about {minutes} min left, by the time of the stages so far")
