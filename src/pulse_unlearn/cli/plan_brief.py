"""`pulse plan --brief`: a plan in ten lines; what needs no torch is told before it is imported."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_unlearn.cli.wrapped import wrapped
from pulse_unlearn.data.checks import gathered
from pulse_unlearn.data.leaks import refused
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.estimate.placeholders import (
    data_are_there,
    placeholder_inputs,
    still_missing,
)
from pulse_unlearn.estimate.units import size_of, time_of
from pulse_unlearn.pipeline.inputs import Inputs, read_inputs
from pulse_unlearn.pipeline.leaks import find_leaks, known_sides
from pulse_unlearn.store import Store

if TYPE_CHECKING:
    from pulse_unlearn.config import Experiment


def show_brief(experiment: Experiment, run: Path) -> None:
    """Print what would run, what it takes and what is missing.

    Raises ModelError, at the end, for a model that a run would refuse.
    """
    missing = still_missing(experiment)
    inputs = placeholder_inputs(experiment) if missing else read_inputs(experiment)
    _line(experiment.name, experiment.description or "no description")
    _line("model", f"{experiment.model.source}, {experiment.model.dtype}")
    _line("scenarios", ", ".join(dict.fromkeys(c.cell.scenario for c in inputs.plan.operations)))
    _line("methods", ", ".join(experiment.methods))
    _line("stages", _stages(inputs, run))
    if not missing or data_are_there(experiment):
        leaks = find_leaks(inputs, known_sides(inputs.plan))
        missing = [*missing, *gathered(refused(leaks, experiment.data.allow_overlap))]
    _line("missing", "; ".join(map(_short, missing)) or "nothing")

    from pulse_unlearn.estimate.outlook import ASSUMED_RATES, look_ahead

    found, dtype = look_ahead(inputs), experiment.model.dtype
    if found.stages:
        rate = f"at {ASSUMED_RATES[dtype]:g} TFLOP/s, assumed for {dtype}"
        _line("time", f"about {time_of(found.seconds(dtype))} of model time {rate}")
        _line("memory", f"{size_of(found.memory)} on the device at the peak")
        _line("disk", f"{size_of(found.disk)} below {run}")
    if found.unknown:
        _line("not told", f"time, memory and disk: {found.unknown}")
    if found.on_trial:
        _line("note", found.on_trial)
    if found.refused:
        raise ModelError(found.refused)


def _line(name: str, text: str) -> None:
    click.echo(wrapped(text, first=f"{name:10s}  "))


def _stages(inputs: Inputs, run: Path) -> str:
    """Count the stages by kind, and those that are complete already."""
    kinds = Counter(stage.kind for stage in inputs.plan.stages)
    store, keys = Store(run), inputs.keys.values()
    complete = sum(store.find(key) is not None for key in keys)
    parts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"{len(inputs.plan.stages)} ({parts}), {complete} complete"


def _short(problem: Problem) -> str:
    return f"{problem.where}: {problem.what}" if problem.where else problem.what
