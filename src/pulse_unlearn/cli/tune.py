"""`pulse tune`: good settings of one method, found on people whom the experiment does not use."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pulse_unlearn.cli.experiments import ON, RUNS, SET
from pulse_unlearn.cli.wrapped import wrapped
from pulse_unlearn.errors import Interrupted

if TYPE_CHECKING:
    from pulse_unlearn.config import Trial, Tuning


@click.command()
@click.argument("experiment")
@click.argument("method")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    default=12,
    show_default=True,
    help="How many settings are tried; the first are those given.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws settings and people.")
@click.option(
    "--scenario",
    type=click.Choice(["finetuned", "sustainability"]),
    default="finetuned",
    show_default=True,
    help="The scenario of EXPERIMENT that is run.",
)
@SET
@RUNS
@ON
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; tuned/METHOD.json if not given.",
)
def tune(
    experiment: str,
    method: str,
    trials: int,
    seed: int,
    scenario: Literal["finetuned", "sustainability"],
    overrides: tuple[str, ...],
    runs: Path,
    where: str,
    out: Path | None,
) -> None:
    """Look for good settings of METHOD, a label or registered name, as EXPERIMENT would use it.

    Trials are runs of EXPERIMENT on people whom it does not report on, in one run folder that all
    methods share. The same command continues where it stopped, and --on changes no result.
    `tuned: FILE` in a methods entry takes the winner's settings.
    """
    from pulse_unlearn import registries
    from pulse_unlearn import tuning as room
    from pulse_unlearn.cli.progress import make_progress
    from pulse_unlearn.config import load_experiment
    from pulse_unlearn.pipeline.signals import stop_on_signals
    from pulse_unlearn.store import write_json

    loaded = load_experiment(experiment, overrides=overrides, schemas=registries.schemas())
    out = out or Path("tuned") / f"{method}.json"
    with stop_on_signals() as stop:
        try:
            with make_progress() as progress:
                studied = room.tune(
                    loaded,
                    method,
                    runs,
                    trials=trials,
                    seed=seed,
                    scenario=scenario,
                    progress=progress,
                    stop=stop,
                    on=where,
                    tell=lambda trial: click.echo(
                        f"trial {trial.number}: {_number(trial)}", err=True
                    ),
                )
        except Interrupted as stopped:
            again = shlex.join(["pulse", *sys.argv[1:]])
            told = f"stopped; what is complete is kept, and this continues it:\n  {again}"
            raise Interrupted(told) from stopped
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, studied.tuning.model_dump(mode="json"))
    _show(studied.tuning, method)
    click.echo(f"\n{out}: take it with `tuned: {out}` in a methods entry")
    click.echo(f"answers of all trials: {studied.run}")


def _number(trial: Trial) -> str:
    return "failed" if trial.objective is None else f"{trial.objective:.3f}"


def _show(tuning: Tuning, label: str) -> None:
    """Print the people, a row for each trial, and what the number is."""
    counts = [f"{name} {len(ids)}" for name, ids in tuning.people.items()]
    click.echo(
        f"{label} on people whom {tuning.experiment} does not report on: {', '.join(counts)}"
    )
    names = [knob.name for knob in tuning.space]
    shown = [_short_name(name, names) for name in names]
    kept = list(tuning.best.kept)
    head = ["trial", "number", "known", *(f"kept {name}" for name in kept), "verdict", "steps"]
    rows = [
        [
            f"{'*' if one.number == tuning.winner else ' '} {one.number}",
            _number(one),
            *(_share(value) for value in (one.known, *(one.kept.get(name) for name in kept))),
            one.verdict,
            str(one.steps),
            *(
                f"{one.values[name]:.3g}"
                if isinstance(one.values[name], float)
                else str(one.values[name])
                for name in names
            ),
        ]
        for one in tuning.trials
    ]
    table = [[*head, *shown], *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        click.echo("  ".join(f"{cell:>{width}s}" for cell, width in zip(row, widths, strict=True)))
    for one in tuning.trials:
        if one.failed:
            click.echo(f"trial {one.number}: {one.failed}")
    click.echo()
    click.echo(wrapped(tuning.objective, first="number: "))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _short_name(name: str, names: list[str]) -> str:
    """Return the last part of a setting's place, or all of it if another ends alike."""
    last = name.rpartition(".")[2]
    return last if sum(one.rpartition(".")[2] == last for one in names) == 1 else name
