"""`pulse world build` and `pulse world train`: the embedded world, made anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click


@click.group()
def world() -> None:
    """Remake the embedded world: its people, questions and model."""


@world.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=0, show_default=True)
def build(out: Path, seed: int) -> None:
    """Write the world's data to OUT, byte for byte as shipped (needs the `world` extra)."""
    from pulse_unlearn.world.build import build_world

    build_world(out, seed=seed)
    click.echo(f"world data: {out}")


@world.command()
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--work", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option("--seed", default=0, show_default=True)
def train(out: Path, work: Path, seed: int) -> None:
    """Train the world's model from nothing into OUT: about ten minutes on two cores.

    WORK keeps pictures, features and checkpoints, so the same command continues a stopped training
    (needs the `world` extra).
    """
    from pulse_unlearn.cli.progress import Part, make_progress
    from pulse_unlearn.world.train import train_world

    parts: list[str] = []
    with make_progress() as progress:
        progress.begin(2)

        def on_step(part: str, done: int, total: int, losses: Mapping[str, float]) -> None:
            if part not in parts:
                parts.append(part)
                progress.start(len(parts), Part(part))
            progress.advance(done, total, losses)

        train_world(out, work=work, seed=seed, on_step=on_step)
    click.echo(f"world model: {out}")
