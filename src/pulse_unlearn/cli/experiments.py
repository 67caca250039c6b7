"""`pulse run`, `plan`, `score`, `report` and `verify`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_unlearn.cli.kinds import KINDS
from pulse_unlearn.errors import Corrupted, Interrupted

if TYPE_CHECKING:
    from pulse_unlearn.config import Experiment
    from pulse_unlearn.pipeline.run import Finished

_DEFAULT_RUNS = Path("runs")
_EXPERIMENT = click.argument("experiment")
SET = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change one setting, such as --set finetune.epochs=5; repeatable.",
)
RUNS = click.option(
    "--runs",
    type=click.Path(path_type=Path, file_okay=False),
    default=_DEFAULT_RUNS,
    show_default=True,
    help="Folder that holds the run folders.",
)
ON = click.option(
    "--on",
    "where",
    default="local",
    show_default=True,
    metavar="WHERE",
    help="What carries the stages out: local (this process), local:N (N processes, a GPU each), "
    "ray (the cluster that RAY_ADDRESS names, or one on this machine), ray://HOST:PORT.",
)
OTHER_BASE = click.option(
    "--allow-base-mismatch",
    is_flag=True,
    help="Load adapters although they name another base model; the run notes which.",
)
ALLOWS_OTHER_BASE = "model.allow_base_mismatch=true"
_RUN = click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))


@click.command()
@_EXPERIMENT
@SET
@RUNS
@click.option("--repair", is_flag=True, help="Set damaged stages aside and compute them anew.")
@click.option(
    "--accept-env-change",
    is_flag=True,
    help="Go on with other versions of packages than finished stages were computed with; the run "
    "says which stage is under which.",
)
@click.option(
    "--allow-overlap",
    type=KINDS,
    default=(),
    help="Go on although people overlap (same_person) or scored material is trained on "
    "(trained_on_scored), keep general questions that name or show people (named, pictured); "
    "several with commas. The report says so.",
)
@OTHER_BASE
@click.option(
    "--track",
    multiple=True,
    metavar="NAME",
    help="Show losses and results there, too: tensorboard, wandb, trackio; repeatable. Takes the "
    "place of the file's `trackers`.",
)
@ON
def run(
    experiment: str,
    overrides: tuple[str, ...],
    runs: Path,
    where: str,
    repair: bool,
    accept_env_change: bool,
    allow_overlap: tuple[str, ...],
    allow_base_mismatch: bool,
    track: tuple[str, ...],
) -> None:
    """Run EXPERIMENT (a shipped name or a .yaml file) to its report.

    The same command continues an interrupted run and recomputes nothing that is complete.
    """
    overrides += (f"data.allow_overlap=[{','.join(allow_overlap)}]",) if allow_overlap else ()
    overrides += (ALLOWS_OTHER_BASE,) if allow_base_mismatch else ()
    overrides += (f"trackers=[{','.join(track)}]",) if track else ()
    again = command(experiment, overrides, runs, where)
    carry_out(
        partial(load, experiment, overrides),
        runs,
        where=where,
        repair=repair,
        accept_env_change=accept_env_change,
        again=again,
    )


def carry_out(
    loads: Callable[[], Experiment],
    runs: Path,
    *,
    where: str = "local",
    repair: bool,
    again: str,
    accept_env_change: bool = False,
) -> None:
    """Run an experiment and print what it found; `again` is the command that continues it."""
    from pulse_unlearn.pipeline.signals import stop_on_signals
    from pulse_unlearn.ranks import joined

    with stop_on_signals() as stop, joined() as ranks:
        loaded = loads()
        from pulse_unlearn.cli.progress import make_progress
        from pulse_unlearn.estimate.room import require_room
        from pulse_unlearn.launch import launched
        from pulse_unlearn.pipeline.run import follow_run, run_experiment

        engine = launched(where, loaded, runs, ranks=ranks, check=require_room)
        if not ranks.first:
            follow_run(loaded, runs, ranks, stop=stop)
            return

        try:
            with make_progress() as progress:
                finished = run_experiment(
                    loaded,
                    runs,
                    repair=repair,
                    accept_env_change=accept_env_change,
                    progress=progress,
                    stop=stop,
                    carry_out=engine,
                    ranks=ranks,
                )
        except Interrupted as stopped:
            told = f"stopped; what is complete is kept, and this continues it:\n  {again}"
            raise Interrupted(told) from stopped
        click.echo(
            f"{finished.computed} stages computed, {finished.reused} reused, "
            f"{finished.seconds:.0f} s"
        )
        if finished.measured:
            _report(finished.run)
        _tell_failures(finished)


def _tell_failures(finished: Finished) -> None:
    """Raise what third parties' code raised, with all of its tracebacks under --debug."""
    if click.get_current_context().find_root().params.get("debug"):
        for failure in finished.failures.values():
            click.echo(failure.traceback, err=True)
    finished.raise_failures()


def command(experiment: str, overrides: tuple[str, ...], runs: Path, where: str) -> str:
    """Return the command that continues a run, quoted for a shell."""
    place = [] if where == "local" else ["--on", where]
    settings = [part for override in overrides for part in ("--set", override)]
    folder = [] if runs == _DEFAULT_RUNS else ["--runs", str(runs)]
    return shlex.join(["pulse", "run", experiment, *settings, *folder, *place])


@click.command()
@_EXPERIMENT
@SET
@RUNS
@click.option("--measure", is_flag=True, help="Load the model and time three steps.")
@click.option(
    "--tflops",
    type=click.FloatRange(min=0, min_open=True),
    help="Rate for the estimate of time, in 10^12 operations a second.",
)
@click.option(
    "--on",
    "where",
    metavar="WHERE",
    help="Also say what these workers would bring and whether it fits: as for `pulse run`.",
)
@click.option("--brief", is_flag=True, help="Ten lines: what, time, memory, disk, what is missing.")
def plan(
    experiment: str,
    overrides: tuple[str, ...],
    runs: Path,
    measure: bool,
    tflops: float | None,
    where: str | None,
    brief: bool,
) -> None:
    """Print what EXPERIMENT would do and take: stages, people per set, memory, disk, time.

    No weights are loaded, unless --measure asks for it. What is not there yet is named at the end;
    a model that a run would refuse, or that cannot fit where --on says, is an error.
    """
    if brief and (measure or tflops or where):
        raise click.UsageError("--brief takes none of --measure, --tflops and --on")
    loaded = load(experiment, overrides)
    if brief:
        from pulse_unlearn.cli.plan_brief import show_brief

        show_brief(loaded, runs / loaded.name)
        return
    from pulse_unlearn.cli.plan_text import show_plan

    show_plan(loaded, runs / loaded.name, measure=measure, rate=tflops, where=where)


@click.command()
@click.argument("run_folder", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option("--parser", help="Read the answers with this parser.")
@click.option(
    "--answers",
    type=click.Path(path_type=Path),
    help="Judge answers made elsewhere: LLaVA's .jsonl, VLMEvalKit's table as .tsv or .csv.",
)
@click.option("--general", type=click.Path(path_type=Path), help="The TSV they are answers to.")
@click.option("--json", "out", type=click.Path(path_type=Path), help="Write all of it here, too.")
def score(
    run_folder: Path | None,
    parser: str | None,
    answers: Path | None,
    general: Path | None,
    out: Path | None,
) -> None:
    """Judge the stored answers of RUN anew, without a model, and write its results.

    With --answers and --general instead of RUN: judge answers that others made to an MMBench file,
    vanilla and circular, by category, by every parser or by --parser alone.
    """
    if answers or general:
        if run_folder or not (answers and general):
            raise click.UsageError("give RUN alone, or --answers and --general together")
        from pulse_unlearn.cli.foreign import score_answers

        score_answers(answers, general, [parser] if parser else [], out)
        return
    if run_folder is None:
        raise click.UsageError("give RUN, or --answers and --general")
    record = str(run_folder / "experiment.yaml")
    loaded = load(record, ())
    if parser:
        # Who was chosen, and when trainings ended, stays as the run decided it.
        decided = f"scoring.decided_by={loaded.scoring.decides}"
        loaded = load(record, (f"scoring.parser={parser}", decided))
    from pulse_unlearn.pipeline.run import rescore

    rescore(loaded, run_folder)
    _report(run_folder)


@click.command()
@_RUN
@click.option("--redraw", is_flag=True, help="Draw everything again, even if nothing has changed.")
def report(run_folder: Path, redraw: bool) -> None:
    """Write RUN's report.html and figures from its results.

    Nothing is drawn if they were made from the same files and are intact.
    """
    _report(run_folder, redraw=redraw)


@click.command()
@click.argument("path", metavar="RUN|CERTIFICATE.json", type=click.Path(path_type=Path))
@click.option(
    "--allowed-signers",
    "signers",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Of a certificate: OpenSSH's allowed_signers file; it must be signed by one of them.",
)
@click.option(
    "--run",
    "moved",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Of a certificate: where its run folder is now.",
)
def verify(path: Path, signers: Path | None, moved: Path | None) -> None:
    """Check every file of RUN, or those that a certificate names, against their hashes."""
    if path.is_file():
        from pulse_unlearn.export.certificate_files import verify_certificate

        verify_certificate(path, run=moved, signers=signers, say=click.echo)
        return
    if signers or moved:
        raise click.UsageError("--allowed-signers and --run are for certificates")
    from pulse_unlearn import store

    problems = store.verify(path)
    if problems:
        raise Corrupted(problems)
    click.echo(f"{path}: every file is the one that was written")


def load(experiment: str, overrides: tuple[str, ...]) -> Experiment:
    """Load an experiment by name or path; raises ConfigError with everything that is wrong."""
    from pulse_unlearn import registries
    from pulse_unlearn.config import load_experiment

    return load_experiment(experiment, overrides=overrides, schemas=registries.schemas())


def _report(run_folder: Path, *, redraw: bool = False) -> None:
    from pulse_unlearn.api.experiments import write_report

    built = write_report(run_folder, redraw=redraw)
    for line in built.summary:
        click.echo(line)
    click.echo(f"report: {built.path}")
