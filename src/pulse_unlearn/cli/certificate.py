"""`pulse certificate`: one page about one request, and the same facts for programs."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--request", type=click.IntRange(min=1), required=True, help="Number of the request.")
@click.option("--scenario", help="Needed where the run has several.")
@click.option("--method", help="Label of the method in the experiment; likewise.")
@click.option("--seed", type=int, help="Likewise.")
@click.option("--names", is_flag=True, help="Show people's names and ids, not salted hashes.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write into; certificates/ in the run folder if not given.",
)
@click.option(
    "--sign",
    "key",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Sign the JSON with this private SSH key (ssh-keygen -Y sign).",
)
def certificate(
    run_folder: Path,
    request: int,
    scenario: str | None,
    method: str | None,
    seed: int | None,
    names: bool,
    out: Path | None,
    key: Path | None,
) -> None:
    """Write a certificate of one request of RUN: asked, done, tested, not tested, limits.

    One A4 page as HTML, to be printed, and the same facts as canonical JSON. `pulse verify` on the
    JSON checks signature, page and the files of the run.
    """
    from pulse_unlearn.export.certificate_files import write_certificate

    path = write_certificate(
        run_folder,
        request=request,
        scenario=scenario,
        method=method,
        seed=seed,
        names=names,
        out=out,
        key=key,
    )
    click.echo(f"page: {path.with_suffix('.html')}")
    click.echo(f"facts: {path}" + (f", signed: {path}.sig" if key else ""))
