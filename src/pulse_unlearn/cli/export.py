"""`pulse export`: a model of a finished run as a folder that plain transformers and PEFT load."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("stage")
@click.option("--adapter", "form", flag_value="adapter", help="One PEFT adapter over the base.")
@click.option("--merged", "form", flag_value="merged", help="A whole model's folder.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    help="Precision of merged weights, and of the check; the run's if not given.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder to write, which must not exist; named after run and stage if not given.",
)
@click.option(
    "--questions",
    type=click.IntRange(min=1),
    default=250,
    show_default=True,
    help="Stored questions the export is asked before it counts.",
)
def export(
    run_folder: Path,
    stage: str,
    form: Literal["adapter", "merged"] | None,
    dtype: str | None,
    out: Path | None,
    questions: int,
) -> None:
    """Export the model of STAGE, with every update below it, from the finished run RUN.

    STAGE is a name as `pulse plan` prints it, such as seed0/finetuned/ga/unlearn, or a unique end
    of one. The folder is loaded again in a process without PULSE and asked stored questions; it is
    kept only if it gives the stored answers.
    """
    if form is None:
        raise click.UsageError("say --adapter or --merged")
    from pulse_unlearn.export.build import export_model

    folder = export_model(
        run_folder,
        stage,
        form=form,
        dtype=dtype,
        out=out,
        questions=questions,
        say=click.echo,
    )
    click.echo(f"{folder}: a model card, README.md, says what it is and how to load it")
