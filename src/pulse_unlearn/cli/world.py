"""`pulse world build` and `pulse world train`: the embedded world, made anew."""

from __future__ import annotations

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
    """Train the world's model from nothing into OUT: about 40 minutes on two cores.

    WORK keeps pictures, features and checkpoints, so the same command continues a stopped training
    (needs the `world` extra).
    """
    import logging

    from pulse_unlearn.world.train import train_world

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train_world(out, work=work, seed=seed)
    click.echo(f"world model: {out}")
