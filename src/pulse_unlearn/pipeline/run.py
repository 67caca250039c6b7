"""A plan's stages in order, then the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pulse_unlearn.config import Experiment
from pulse_unlearn.errors import PluginError, Problem, RankLost, StoreError
from pulse_unlearn.pipeline.failures import Failure
from pulse_unlearn.pipeline.inputs import read_inputs
from pulse_unlearn.pipeline.leaks import (
    check_leaks,
    known_sides,
)
from pulse_unlearn.pipeline.ledger import check_order
from pulse_unlearn.pipeline.products import write_products
from pulse_unlearn.pipeline.progress import Progress, Silent
from pulse_unlearn.pipeline.record import write_record
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.pipeline.tracking import tracked
from pulse_unlearn.pipeline.work import Pipeline
from pulse_unlearn.ranks import ALONE, Ranks
from pulse_unlearn.store import INDEX, RunLock, file_errors, refuse_links
from pulse_unlearn.store.manifest import stage_problems


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run leaves behind."""

    run: Path
    computed: int
    reused: int
    seconds: float
    measured: bool = True
    """Whether there are results: not where every operation is missing."""
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """Stage -> why a third party's code failed in it."""

    def raise_failures(self) -> None:
        """Raise PluginError with every failure; nothing if there is none."""
        again = f"tracebacks are in {self.run / 'failures'}; the same command tries again"
        if self.failures:
            raise PluginError(
                [Problem(one.why, stage, fix=again) for stage, one in self.failures.items()]
            )


def run_experiment(
    experiment: Experiment,
    runs: Path,
    *,
    repair: bool = False,
    accept_env_change: bool = False,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
    carry_out: Callable[[Pipeline], tuple[int, int]] = Pipeline.carry_out,
    ranks: Ranks = ALONE,
) -> Finished:
    """Run an experiment into `runs/<name>/`, reusing what is complete there; write its results.

    `carry_out` brings the stages to completion and counts those computed and reused; by default in
    this process, one after another. The first of several `ranks` does this; the others
    `follow_run`.

    Raises RunLocked if another process works there, Corrupted if a finished stage was damaged
    (unless `repair`, which sets it aside and computes it anew), StoreError if it was begun with
    other versions (unless `accept_env_change`), Interrupted if asked to stop.
    """
    started = time.monotonic()
    inputs = read_inputs(experiment)
    run = runs / experiment.name
    with RunLock(run), tracked(experiment, run, progress or Silent()) as watch:
        stop = stop or StopRequest()
        pipeline = Pipeline(inputs, run, repair=repair, progress=watch, stop=stop, ranks=ranks)
        check_leaks(inputs, known_sides(inputs.plan))
        check_order(run, inputs.requests)
        pipeline.require_one_environment(accept=accept_env_change)
        if not (run / INDEX).exists():
            # Of a run with results the record changes with them: they always agree.
            write_record(run, pipeline.record())
        computed, reused = carry_out(pipeline)
        measured = write_products(pipeline)
        if measured:
            watch.results(run)
    ranks.told(None)  # so that the others know that it is over
    seconds = time.monotonic() - started
    return Finished(run, computed, reused, seconds, measured, pipeline.failures.found)


def follow_run(
    experiment: Experiment, runs: Path, ranks: Ranks, *, stop: StopRequest | None = None
) -> None:
    """Do this rank's part of each stage that rank 0 works on, until it has ended.

    Raises Interrupted if asked to stop, RankLost if another rank has gone.
    """
    inputs, stop = read_inputs(experiment), stop or StopRequest()
    run = runs / experiment.name
    pipeline = Pipeline(inputs, run, repair=False, progress=Silent(), stop=stop, ranks=ranks)
    try:
        pipeline.follow()
    except RankLost:
        stop.check()
        raise


def run_stage(
    experiment: Experiment,
    runs: Path,
    name: str,
    *,
    progress: Progress | None = None,
    stop: StopRequest | None = None,
    ranks: Ranks = ALONE,
) -> bool:
    """Carry out one stage of an experiment, for launchers; False if it is complete already.

    Takes the stage's own lock and not the run's, so that several processes can share a run folder.
    Raises StoreError if a stage it rests on is not complete, RunLocked if another process works on
    it, and KeyError if there is no such stage.
    """
    inputs, run = read_inputs(experiment), runs / experiment.name
    with file_errors(run, "use the run folder"):
        run.mkdir(parents=True, exist_ok=True)
    refuse_links(run)
    pipeline = Pipeline(
        inputs,
        run,
        repair=False,
        progress=progress or Silent(),
        stop=stop or StopRequest(),
        ranks=ranks,
    )
    stage = inputs.plan.stage(name)
    missing = [
        Problem("this stage is not complete, and another rests on it", str(run), parent)
        for parent in stage.parents
        if pipeline.store.find(inputs.keys[parent]) is None
    ]
    if missing:
        raise StoreError(missing)
    computed = pipeline.work_on(stage)
    ranks.told(None)
    return computed


def rescore(experiment: Experiment, run: Path) -> None:
    """Judge the stored answers of a finished run anew.

    Raises StoreError if a stage was changed, or is missing without that a third party's code
    failed in it, or in one that it depends on, in that run.
    """
    if not run.is_dir():
        raise StoreError(Problem("there is no such run folder", str(run)))
    inputs = read_inputs(experiment)
    with RunLock(run):
        pipeline = Pipeline(inputs, run, repair=False, progress=Silent(), stop=StopRequest())
        missing = [
            Problem("this stage is not complete", str(run), stage.name, fix="finish the run first")
            for stage in inputs.plan.stages
            if pipeline.store.find(inputs.keys[stage.name]) is None
            and not pipeline.failures.recall(stage.name)
            and not pipeline.failures.skips(stage)
        ]
        changed = [
            problem for found in pipeline.finished().values() for problem in stage_problems(found)
        ]
        if missing or changed:
            raise StoreError([*missing, *changed])
        write_products(pipeline)
