"""A plan as text: sets, stages, what is shared and complete, what it takes, what is missing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import click

from pulse_unlearn.cli.show_costs import print_costs, work
from pulse_unlearn.config import Experiment
from pulse_unlearn.data.checks import gathered
from pulse_unlearn.data.leaks import refused
from pulse_unlearn.errors import ModelError, Problem
from pulse_unlearn.evaluation.comparisons import RHO, detectable_difference
from pulse_unlearn.evaluation.intervals import intraclass_correlation
from pulse_unlearn.evaluation.scoring import score_all
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.models.describe import describe
from pulse_unlearn.pipeline.asked import PREDICTIONS, words_notes
from pulse_unlearn.pipeline.estimate import StageEstimate, estimate_stages
from pulse_unlearn.pipeline.inputs import Inputs, read_inputs
from pulse_unlearn.pipeline.leaks import find_leaks, known_sides
from pulse_unlearn.pipeline.placeholder_inputs import (
    data_are_there,
    placeholder_inputs,
    still_missing,
)
from pulse_unlearn.pipeline.token_stats import chosen_sizes
from pulse_unlearn.scenarios import Evaluation, Group, Operation, Stage
from pulse_unlearn.store import Store

GENERAL_DISCORDANCE = 0.1
"""Share of general questions answered differently before and after; most stay as they were."""


def show_plan(experiment: Experiment, run: Path, *, measure: bool, rate: float | None) -> None:
    """Print sets, stages, what they take, what the design can detect, and what is missing.

    `measure` loads the model and raises if anything is missing; `rate` is in TFLOP/s.
    """
    missing = still_missing(experiment)
    if missing and measure:
        raise ModelError(missing)
    inputs = placeholder_inputs(experiment) if missing else read_inputs(experiment)
    assumed = bool(missing) and not data_are_there(experiment)
    try:
        model, unknown = describe(experiment.model), None
    except ModelError as error:
        model, unknown = None, error
    estimates = estimate_stages(inputs, model) if model else ()
    plan = inputs.plan
    seeds = ", ".join(map(str, experiment.seeds))
    click.echo(
        f"experiment {plan.name}: {len(plan.stages)} stages, seeds {seeds}, run folder {run}\n"
    )
    _print_sets(inputs)
    _print_stages(inputs, run, {stage.name: stage for stage in estimates})
    if model:
        measured = None
        if measure:
            from pulse_unlearn.pipeline import measure as measuring

            measured = measuring.measure(inputs, model)
        print_costs(
            experiment,
            model,
            estimates,
            run=run,
            assumed=assumed,
            rate=rate,
            measured=measured,
        )
    if unknown:
        click.echo(f"memory, disk and time are not estimated: {unknown}\n")
    _print_detectable(inputs, Store(run))
    problems = [*missing, *([] if assumed else _leaks(inputs))]
    if problems:
        click.echo("\nbefore it can run")
        for problem in problems:
            click.echo("  " + str(problem).replace("\n", "\n  "))


def _leaks(inputs: Inputs) -> list[Problem]:
    """Return the overlaps a run would refuse; those that are allowed are counted in print."""
    leaks = find_leaks(inputs, known_sides(inputs.plan))
    wrong = refused(leaks, inputs.experiment.data.allow_overlap)
    passed = sum(map(len, leaks.values())) - len(wrong)
    if passed:
        click.echo(f"\nallowed by data.allow_overlap, and listed in the report: {passed} overlaps")
    return gathered(wrong)


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
        for name, group in operation.unseen:
            click.echo(f"    {name:10s} {_describe(group, inputs)}")
        if len(operation.requests) > 1:
            for number, request in enumerate(operation.requests, start=1):
                click.echo(f"    request {number}  {_describe(request, inputs)}")
    kinds = Counter(len(question.options) for question in inputs.general)
    turns = inputs.experiment.scoring.general == "circular"
    asked = sum(count * (options if turns else 1) for options, count in kinds.items())
    click.echo(
        f"  general ability: {len(inputs.general)} questions"
        + (f", asked in every rotation: {asked}" if turns else ", asked in the file's order")
        + (f"; {len(inputs.general_training)} to train on" if inputs.general_training else "")
    )
    _print_asked(inputs)
    click.echo("")


def _print_asked(inputs: Inputs) -> None:
    scoring = inputs.experiment.scoring
    orders = "in every cyclic order" if scoring.people == "circular" else "in the file's order"
    words = "; not asked in words" if scoring.words == "none" else "; and bare, in words"
    click.echo(f"  people's questions are asked {orders}{words}")
    if scoring.people == "vanilla":
        click.echo(
            "    one order alone cannot tell a lost memory from a model that says one letter to "
            "everything"
        )
    for note in (*inputs.notes, *words_notes(inputs)):
        click.echo(f"    {note}")


def _describe(group: Group, inputs: Inputs) -> str:
    if group.selection:
        return f"{_size(group, inputs)} people, chosen by stage {group.selection}"
    shown = ", ".join(inputs.people[identity].name for identity in group.ids[:3])
    more = ", ..." if len(group.ids) > 3 else ""
    return f"{len(group.ids)} people: {shown}{more}"


def _print_stages(inputs: Inputs, run: Path, estimates: Mapping[str, StageEstimate]) -> None:
    store = Store(run)
    used = Counter(name for one in inputs.plan.evaluations for name in _all_parents(one, inputs))
    click.echo("stages (used by how many evaluations; + is complete already)")
    for number, stage in enumerate(inputs.plan.stages, start=1):
        # Stand-ins have no identity: nothing of theirs can be complete.
        key = inputs.keys.get(stage.name)
        mark = "+" if key and store.find(key) else " "
        identity = key.fingerprint[:8] if key else "-" * 8
        takes = work(estimates[stage.name]) if stage.name in estimates else ""
        click.echo(
            f"  {mark} {number:3d}  {stage.kind:8s}  {identity}  "
            f"{stage.name}  (used by {used[stage.name]})  {takes}".rstrip()
        )
    click.echo("  steps and tokens are the most there can be\n" if estimates else "")


def _all_parents(evaluation: Evaluation, inputs: Inputs) -> set[str]:
    """Return every stage an evaluation rests on."""
    open_names = [name for name in (evaluation.scores, evaluation.compared_to) if name]
    found: set[str] = set()
    while open_names:
        name = open_names.pop()
        if name not in found:
            found.add(name)
            stage: Stage = inputs.plan.stage(name)
            open_names += stage.parents
    return found


def _print_detectable(inputs: Inputs, store: Store) -> None:
    click.echo(
        "smallest difference in accuracy, between two methods or before and after, that this "
        "design can detect\n  in one seed (80 % power, 5 % level; half of the answers differing)"
    )
    seen = set()
    for operation in inputs.plan.operations:
        scenario = operation.cell.scenario
        if scenario in seen:
            continue
        seen.add(scenario)
        measured = _correlation(inputs, store, operation)
        rho = RHO if measured is None else measured
        source = "assumed" if measured is None else f"measured in {operation.before}"
        click.echo(f"  {scenario}: a person's answers correlated by {rho:.2f}, {source}")
        for name, group in (("D_unlearn", operation.forget), ("D_retain", operation.retain)):
            count = _size(group, inputs)
            asked = count * _questions_each(group, inputs)
            points = 100 * detectable_difference(count, round(asked), rho=rho)
            click.echo(f"    {name} ({count} people, {asked:.0f} questions): {points:.1f} points")
    count = len(inputs.general)
    points = 100 * detectable_difference(count, count, discordance=GENERAL_DISCORDANCE)
    click.echo(
        f"  general ability ({count} questions, {GENERAL_DISCORDANCE:.0%} of answers differing): "
        f"{points:.1f} points"
    )


def _correlation(inputs: Inputs, store: Store, operation: Operation) -> float | None:
    """Return how alike a person's answers were before the operation; None if not yet asked.

    Over everybody of the scenario: those chosen because they know everything do not differ.
    """
    key = inputs.keys.get(operation.before)
    folder = store.find(key) if key else None
    if folder is None:
        return None
    people = {*_everybody(operation.forget, inputs), *_everybody(operation.retain, inputs)}
    asked = [
        one
        for one in read_predictions(folder / PREDICTIONS)
        if one.asked_as == "options" and one.rotation == 0 and one.individual in people
    ]
    right = [one.verdict == "correct" for one in score_all(asked)]
    return intraclass_correlation(right, [one.individual for one in asked]) if asked else None


def _everybody(group: Group, inputs: Inputs) -> list[str]:
    """Return the people of the group, or those that it will be chosen from."""
    stage = inputs.plan.selection(group)
    return list(stage.candidates.ids if stage else group.ids)


def _questions_each(group: Group, inputs: Inputs) -> float:
    """Return the mean number of questions a person of the group is asked."""
    people = _everybody(group, inputs)
    return sum(len(inputs.people[key].questions) for key in people) / max(len(people), 1)


def _size(group: Group, inputs: Inputs) -> int:
    stage = inputs.plan.selection(group)
    return chosen_sizes(stage)[group.part] if stage else len(group.ids)
