"""What several devices would bring, told from a plan's graph, and whether stages fit on them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import click

from pulse_unlearn.cli.wrapped import wrapped
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.errors import Problem
from pulse_unlearn.estimate.room import Fit, doubts_of, fits_of, on_gpus, problems_of
from pulse_unlearn.estimate.stages import StageEstimate
from pulse_unlearn.estimate.units import size_of, time_of
from pulse_unlearn.launch import Fleet
from pulse_unlearn.launch.schedule import critical_path, lower_bound, makespan
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.scenarios import Plan

_DEVICES = (2, 4, 8, 32)
Takes = Callable[[StageEstimate], float]
"""Seconds that a stage takes on one device."""


def devices_told(plan: Plan, stages: Sequence[StageEstimate], seconds: Takes) -> str:
    """Return one sentence: the longest chain, and how many times as fast N devices are.

    Each stage has one device; the order is the coordinator's.
    """
    takes = {stage.name: seconds(stage) for stage in stages}
    parents = {stage.name: stage.parents for stage in plan.stages}

    def cost(name: str) -> float:
        return takes.get(name, 0.0)

    total = sum(takes.values())
    if not total:
        return ""
    chain = [name for name in critical_path(parents, cost) if cost(name)]
    longest = lower_bound(parents, cost, workers=len(parents))
    gains = [
        f"{devices}: {total / makespan(parents, cost, workers=devices):.1f}"
        for devices in _DEVICES
        if devices < 2 * len(parents)
    ]
    return (
        f"side by side (--on), a stage a device: {', '.join(gains)} times as fast, at most "
        f"{total / longest:.1f}; the longest chain takes {time_of(longest)}: {chain[0]} to "
        f"{chain[-1]}, {len(chain)} stages"
    )


def show_fleet(
    where: str,
    fleet: Fleet,
    inputs: Inputs,
    stages: Sequence[StageEstimate],
    seconds: Takes,
    *,
    done: Collection[str],
) -> list[Problem]:
    """Print what the workers of `--on` bring, and what each memory has to hold.

    Returns what cannot fit.
    """
    settings = inputs.experiment.model
    click.echo(f"\non {where}: {_who(fleet, settings)}")
    _say(_gain(fleet, settings, inputs.plan, stages, seconds))
    fits = fits_of(inputs.plan, stages, fleet, settings, done=done)
    for one in fits:
        _say(_held(one))
    if not fits:
        everything = len(done) == len(inputs.plan.stages)
        _say("nothing is left to compute" if everything else "no memory is told")
    if settings.device_map != "none":
        _say("model.device_map spreads the layers, so the memory of one device decides nothing")
    if inputs.experiment.speed.sharding != "none":
        _say("speed.sharding divides the layers, so the memory of one device decides nothing")
        return []
    for doubt in doubts_of(fits, settings):
        _say(f"warning: {doubt}")
    return problems_of(fits, settings)


def _who(fleet: Fleet, settings: ModelSettings) -> str:
    workers = f"{fleet.workers} workers" if fleet.workers != 1 else "one worker"
    machines = f"{len(fleet.machines)} machines" if len(fleet.machines) != 1 else "one machine"
    gpus = sum(on_gpus(one, settings) for one in fleet.machines)
    return f"{workers} on {machines}, {f'{gpus} GPUs' if gpus else 'no GPU'}"


def _gain(
    fleet: Fleet,
    settings: ModelSettings,
    plan: Plan,
    stages: Sequence[StageEstimate],
    seconds: Takes,
) -> str:
    """Say how much faster than one device; workers that share one have their part of it each."""
    takes = {stage.name: seconds(stage) for stage in stages}
    parents = {stage.name: stage.parents for stage in plan.stages}
    devices = sum(on_gpus(one, settings) or 1 for one in fleet.machines) or 1
    share = max(1.0, fleet.workers / devices)
    total = sum(takes.values())
    took = share * makespan(parents, lambda name: takes.get(name, 0.0), workers=fleet.workers)
    if not took:
        return "nothing takes time"
    told = f"{time_of(took)} in place of {time_of(total)}, {total / took:.1f} times as fast"
    if share == 1.0:
        return f"{told}, if its devices are as fast as the one above"
    shared = "its cores" if not any(on_gpus(one, settings) for one in fleet.machines) else "a GPU"
    return (
        f"{told}: {share:g} workers share {shared}, so they gain only what one process leaves "
        f"unused; busy {total / took / devices:.0%} of the time"
    )


def _held(fit: Fit) -> str:
    beside = f" and {len(fit.stages) - 1} beside it" if fit.stages[1:] else ""
    memory = fit.place.memory
    return (
        f"{memory.name}: {size_of(memory.total)}, {size_of(memory.free)} free; at the fullest "
        f"moment it holds {size_of(fit.certain)} of weights and what is trained "
        f"({fit.stages[0]}{beside}), {size_of(fit.likely)} with the largest batches"
    )


def _say(text: str) -> None:
    click.echo(wrapped(text, first="  ", indent=4))
