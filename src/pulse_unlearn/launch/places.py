"""Where stages are carried out: the words of `--on`, and the engine that each names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pulse_unlearn.config import Experiment, dump_experiment
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.launch.coordinator import Coordinator
from pulse_unlearn.launch.devices import Fleet, this_machine
from pulse_unlearn.launch.engines import Engine, Job
from pulse_unlearn.pipeline.work import Pipeline
from pulse_unlearn.ranks import ALONE, Ranks

ALLOWED = "local, local:N, ray, or ray://HOST:PORT"
_LOCAL = re.compile(r"local:([1-9]\d{0,3})")
_RAY = re.compile(r"ray|ray://\S+")


Check = Callable[[Pipeline, Fleet], None]
"""Looks at what a run is about to use before anything is computed; raises what it finds wrong."""


def launched(
    named: str,
    experiment: Experiment,
    runs: Path,
    *,
    ranks: Ranks = ALONE,
    check: Check | None = None,
) -> Callable[[Pipeline], tuple[int, int]]:
    """Return what carries a run out on the engine that `--on` names.

    Raises ConfigError, also where several ranks are to do each stage together: a worker is one.
    """
    make = engine_of(named)
    if make is not None and not ranks.alone:
        what = "workers beside each other, and processes that do each stage together"
        fix = "leave out --on, or start one process without torchrun"
        raise ConfigError(Problem(what, "--on", named, "local", fix))
    job = Job(dump_experiment(experiment), runs.absolute())

    def carry_out(pipeline: Pipeline) -> tuple[int, int]:
        if make is None:
            if check:
                check(pipeline, Fleet((this_machine(1),)))
            return pipeline.carry_out()
        engine = make(job)
        if check:
            try:
                check(pipeline, engine.fleet())
            except BaseException:
                engine.close()
                raise
        return Coordinator(engine).carry_out(pipeline)

    return carry_out


def fleet_of(named: str) -> Fleet:
    """Return the machines that `--on` names, of which none is given work; raises ConfigError."""
    make = engine_of(named)
    if make is None:
        return Fleet((this_machine(1),))
    engine = make(Job("", Path()))
    try:
        return engine.fleet()
    finally:
        engine.close()


def engine_of(named: str) -> Callable[[Job], Engine] | None:
    """Return what makes the engine that `--on` names; None for one process. Raises ConfigError."""
    if named == "local":
        return None
    if match := _LOCAL.fullmatch(named):
        workers = int(match[1])

        def local(job: Job) -> Engine:
            from pulse_unlearn.launch.local import LocalEngine

            return LocalEngine(job, workers)

        return local
    if _RAY.fullmatch(named):

        def on_ray(job: Job) -> Engine:
            from pulse_unlearn.launch.ray import RayEngine

            return RayEngine(job, None if named == "ray" else named)

        return on_ray
    raise ConfigError(Problem("no such place to run on", "--on", named, ALLOWED))
