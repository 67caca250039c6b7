"""A plan as text: sets, stages, what is shared and what is complete already."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import click

from pulse_unlearn.evaluation.compare import detectable_difference
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.scenarios import Group, Operation, Stage
from pulse_unlearn.store import Store

QUESTIONS_PER_PERSON = 10


def print_plan(inputs: Inputs, run: Path) -> None:
    """Print sets, stages and the smallest difference the design can detect."""
    plan = inputs.plan
    click.echo(f"experiment {plan.name}: {len(plan.stages)} stages, run folder {run}\n")
    _print_sets(inputs)
    _print_stages(inputs, run)
    _print_detectable(inputs)


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


def _print_stages(inputs: Inputs, run: Path) -> None:
    store = Store(run)
    used = Counter(
        name for operation in inputs.plan.operations for name in _all_parents(operation, inputs)
    )
    click.echo("stages (used by how many operations; + is complete already)")
    for stage in inputs.plan.stages:
        key = inputs.keys[stage.name]
        mark = "+" if store.find(key) else " "
        click.echo(
            f"  {mark} {key.number:3d}  {stage.kind:8s}  {key.fingerprint[:8]}  "
            f"{stage.name}  (used by {used[stage.name]})"
        )
    click.echo("")


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
