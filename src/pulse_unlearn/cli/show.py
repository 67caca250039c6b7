"""A plan as text: sets, stages, what is shared and complete, what it takes, what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import click

from pulse_unlearn.cli.show_costs import print_costs, work
from pulse_unlearn.config import Experiment
from pulse_unlearn.errors import ModelError
from pulse_unlearn.evaluation.compare import detectable_difference
from pulse_unlearn.models.describe import describe
from pulse_unlearn.pipeline.inputs import Inputs, read_inputs
from pulse_unlearn.pipeline.outlook import StageOutlook, look_ahead
from pulse_unlearn.pipeline.standin import stand_in, still_missing
from pulse_unlearn.scenarios import Group, Operation, Stage
from pulse_unlearn.store import Store

QUESTIONS_PER_PERSON = 10


def show_plan(experiment: Experiment, run: Path, *, measure: bool, rate: float | None) -> None:
    """Print sets, stages, what they take, what the design can detect, and what is missing.

    `measure` loads the model and raises if anything is missing; `rate` is in TFLOP/s.
    """
    missing = still_missing(experiment)
    if missing and measure:
        raise ModelError(missing)
    inputs = stand_in(experiment) if missing else read_inputs(experiment)
    try:
        model, unknown = describe(experiment.model), None
    except ModelError as error:
        model, unknown = None, error
    outlook = look_ahead(inputs, model) if model else ()
    plan = inputs.plan
    click.echo(f"experiment {plan.name}: {len(plan.stages)} stages, run folder {run}\n")
    _print_sets(inputs)
    _print_stages(inputs, run, {stage.name: stage for stage in outlook})
    if model:
        measured = None
        if measure:
            from pulse_unlearn.pipeline import measure as measuring

            measured = measuring.measure(inputs, model)
        print_costs(
            experiment,
            model,
            outlook,
            run=run,
            assumed=any(not p.where.startswith("model") for p in missing),
            rate=rate,
            measured=measured,
        )
    if unknown:
        click.echo(f"memory, disk and time are not estimated: {unknown}\n")
    _print_detectable(inputs)
    if missing:
        click.echo("\nbefore it can run")
        for problem in missing:
            click.echo("  " + str(problem).replace("\n", "\n  "))


def _print_sets(inputs: Inputs) -> None:
    click.echo("who is in which set")
    seen = set()
    for operation in inputs.plan.operations:
        key = (operation.cell.scenario, operation.cell.seed)
        if key in seen:
            continue
        seen.add(key)
        click.echo(f"  {operation.cell.scenario}, seed {operation.cell.seed}")
        click.echo(f"    D_unlearn  {_describe(operation.forget, inputs)}")
        click.echo(f"    D_retain   {_describe(operation.retain, inputs)}")
        if len(operation.requests) > 1:
            for number, request in enumerate(operation.requests, start=1):
                click.echo(f"    request {number}  {_describe(request, inputs)}")
    click.echo("")


def _describe(group: Group, inputs: Inputs) -> str:
    if group.selection:
        settings = inputs.plan.stage(group.selection).settings["pretrained"]
        return f"{settings[group.part]} people, chosen by stage {group.selection}"
    shown = ", ".join(inputs.people[identity].name for identity in group.ids[:3])
    more = ", ..." if len(group.ids) > 3 else ""
    return f"{len(group.ids)} people: {shown}{more}"


def _print_stages(inputs: Inputs, run: Path, outlook: Mapping[str, StageOutlook]) -> None:
    store = Store(run)
    used = Counter(
        name for operation in inputs.plan.operations for name in _all_parents(operation, inputs)
    )
    click.echo("stages (used by how many operations; + is complete already)")
    for number, stage in enumerate(inputs.plan.stages, start=1):
        # Stand-ins have no identity: nothing of theirs can be complete.
        key = inputs.keys.get(stage.name)
        mark = "+" if key and store.find(key) else " "
        identity = key.fingerprint[:8] if key else "-" * 8
        takes = work(outlook[stage.name]) if stage.name in outlook else ""
        click.echo(
            f"  {mark} {number:3d}  {stage.kind:8s}  {identity}  "
            f"{stage.name}  (used by {used[stage.name]})  {takes}".rstrip()
        )
    click.echo("  steps and tokens are the most there can be\n" if outlook else "")


def _all_parents(operation: Operation, inputs: Inputs) -> set[str]:
    """Return every stage an operation rests on."""
    open_names = [operation.before, operation.after]
    found: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            stage: Stage = inputs.plan.stage(name)
            open_names += stage.parents
    return found


def _print_detectable(inputs: Inputs) -> None:
    click.echo("smallest difference in accuracy this design can detect (80 % power, 5 % level)")
    seen = set()
    for operation in inputs.plan.operations:
        scenario = operation.cell.scenario
        if scenario in seen:
            continue
        seen.add(scenario)
        for name, group in (("D_unlearn", operation.forget), ("D_retain", operation.retain)):
            count = _size(group, inputs)
            points = 100 * detectable_difference(count, QUESTIONS_PER_PERSON * count)
            click.echo(f"  {scenario} {name} ({count} people): {points:.1f} points")


def _size(group: Group, inputs: Inputs) -> int:
    if not group.selection:
        return len(group.ids)
    settings = inputs.plan.stage(group.selection).settings["pretrained"]
    return int(settings[group.part])
