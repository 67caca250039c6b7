"""The `pulse` command: the only room that prints for people.

Rooms are imported inside the commands that need them, so that `pulse --help` takes no time.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path

import click

from pulse_unlearn import __version__
from pulse_unlearn.cli import (
    audit,
    certificate,
    data,
    diff,
    doctor,
    experiments,
    export,
    launching,
    leaderboard,
    listings,
    plugins,
    tables,
    tune,
    view,
)
from pulse_unlearn.errors import Interrupted, PulseError
from pulse_unlearn.texts import printable_block


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="pulse")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def pulse(debug: bool) -> None:
    """What did a large multimodal model really forget, and what did it cost?"""


for command in (
    experiments.run,
    experiments.plan,
    launching.status,
    launching.stage,
    audit.audit,
    leaderboard.leaderboard,
    experiments.score,
    experiments.report,
    experiments.verify,
    export.export,
    certificate.certificate,
    listings.list_entries,
    data.data,
    doctor.doctor,
    plugins.plugin,
    diff.diff,
    tables.tables,
    tune.tune,
    view.view,
):
    pulse.add_command(command)


def main() -> None:
    """Run the command line; a PulseError is told without a traceback, with its own exit code.

    A stop that was asked for is no error: what it says is told once, and 130 returned as shells do.
    """
    debug = "--debug" in sys.argv
    # Read when numpy is imported. In the small products of the search for copies its threads wait
    # for each other, several times as long as one takes; that search has threads of its own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # PEFT asks transformers for a name that transformers 6 will drop; nothing a user can mend.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
    # Its new name is unknown to the first versions of transformers 5, which are supported too.
    warnings.filterwarnings("ignore", "`past_key_values`", FutureWarning)
    try:
        pulse(standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Interrupted as stopped:
        if debug:
            raise
        click.echo(printable_block(str(stopped)), err=True)
        sys.exit(stopped.exit_code)
    except PulseError as error:
        if debug:
            raise
        _tell_error(str(error))
        sys.exit(error.exit_code)
    except OSError as error:  # of a file or folder that no room answers for
        if debug:
            raise
        from pulse_unlearn.store.atomic import typed

        told = typed(error, Path.cwd(), "go on")
        _tell_error(str(told))
        sys.exit(told.exit_code)
    except MemoryError:
        if debug:
            raise
        _tell_error("this machine's memory does not suffice; the same command continues")
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("stopped at once; the same command continues from the last checkpoint", err=True)
        sys.exit(130)


def _tell_error(text: str) -> None:
    # Names from files stand in it: nothing of theirs may move the cursor or the reading direction.
    click.echo(click.style("error: ", fg="red", bold=True) + printable_block(text), err=True)
