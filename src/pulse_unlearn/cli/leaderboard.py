"""`pulse leaderboard`: methods beside each other, from verified runs of one protocol."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from pulse_unlearn.cli.experiments import ON, RUNS, SET, carry_out, command, load

_OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("leaderboard"),
    show_default=True,
    help="Folder of leaderboard.json, .md and .html.",
)


@click.group(invoke_without_command=True)
@click.option(
    "--experiment",
    default="leaderboard",
    show_default=True,
    help="The experiment to run: a shipped name or a .yaml file.",
)
@SET
@RUNS
@ON
@_OUT
@click.pass_context
def leaderboard(
    context: click.Context,
    experiment: str,
    overrides: tuple[str, ...],
    runs: Path,
    where: str,
    out: Path,
) -> None:
    """Run every method in every scenario over several seeds, and rank them.

    The same command continues; `pulse leaderboard add RUN` enters a run that was made elsewhere.
    """
    if context.invoked_subcommand:
        return
    again = command(experiment, overrides, runs, where)
    carry_out(partial(load, experiment, overrides), runs, where=where, repair=False, again=again)
    _enter(out, (runs / load(experiment, overrides).name,))


@leaderboard.command()
@click.argument(
    "run_folders",
    metavar="RUN...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
)
@_OUT
def add(run_folders: tuple[Path, ...], out: Path) -> None:
    """Enter finished RUNs: verified as by `pulse verify`, and of the board's own protocol.

    A run whose base model, data, scenarios, fine-tuning or scoring differ is refused; so is a
    method that another run has entered. The same run entered again takes its own place.
    """
    _enter(out, run_folders)


def _enter(out: Path, runs: tuple[Path, ...]) -> None:
    from pulse_unlearn.leaderboard.board import read_board
    from pulse_unlearn.leaderboard.page import BOARD, write_all
    from pulse_unlearn.leaderboard.text import sections
    from pulse_unlearn.store import file_errors

    board = read_board(out / BOARD)
    for run in runs:
        board = board.with_run(run)
    with file_errors(out, "make the folder"):
        out.mkdir(parents=True, exist_ok=True)
    for section in sections(board):
        click.echo(f"{section.title}: {section.told}")
        for row in section.rows[:5]:
            click.echo(f"  {row[0]:>9}  {row[1]:<28} score {row[2]:>3}  {row[-1]}")
    for path in write_all(out, board):
        click.echo(f"written: {path}")
