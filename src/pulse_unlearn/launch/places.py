"""Where stages are carried out: the words of `--on`, and the engine that each names."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from pulse_unlearn.config import Experiment, dump_experiment
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.launch.coordinator import Coordinator
from pulse_unlearn.launch.engines import Engine, Job
from pulse_unlearn.pipeline.work import Pipeline
from pulse_unlearn.ranks import ALONE, Ranks

ALLOWED = "local, local:N, ray, or ray://HOST:PORT"
_LOCAL = re.compile(r"local:([1-9]\d{0,3})")
_RAY = re.compile(r"ray|ray://\S+")


def launched(
    named: str, experiment: Experiment, runs: Path, ranks: Ranks = ALONE
) -> Callable[[Pipeline], tuple[int, int]]:
    """Return what carries a run out on the engine that `--on` names.

    Raises ConfigError, also where several ranks are to do each stage together: a worker is one.
    """
    make = engine_of(named)
    if make is None:
        return Pipeline.carry_out
    if not ranks.alone:
        what = "workers beside each other, and processes that do each stage together"
        fix = "leave out --on, or start one process without torchrun"
        raise ConfigError(Problem(what, "--on", named, "local", fix))
    job = Job(dump_experiment(experiment), runs.absolute())
    return lambda pipeline: Coordinator(make(job)).carry_out(pipeline)


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
