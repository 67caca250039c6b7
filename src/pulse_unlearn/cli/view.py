"""`pulse view`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument(
    "runs", metavar="[RUNS]", required=False, default="runs", type=click.Path(path_type=Path)
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8417,
    show_default=True,
    help="Port to listen on; 0 takes any that is free.",
)
@click.option("--no-browser", is_flag=True, help="Print the address and open no browser.")
def view(runs: Path, port: int, no_browser: bool) -> None:
    """Look at the runs in RUNS (default: runs), or at one run, in a browser.

    Every run's state, its results, and every stored answer with its picture and prompt. The page is
    served to this machine alone, and changes nothing. Ctrl-C ends it.
    """
    import webbrowser

    from pulse_unlearn.view import ViewServer

    with ViewServer(runs, port=port) as server:
        click.echo(f"{runs}: {server.address}  (Ctrl-C ends it)")
        if not no_browser:
            webbrowser.open(server.address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("ended")
