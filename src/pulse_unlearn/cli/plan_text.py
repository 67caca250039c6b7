"""A plan as text: sets, stages, what is shared and complete, what it takes, what is missing."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_unlearn.cli.plan_devices import devices_told, show_fleet
from pulse_unlearn.cli.wrapped import WIDTH, wrapped
from pulse_unlearn.config import Experiment, Scope
from pulse_unlearn.data.checks import gathered
from pulse_unlearn.data.leaks import refused
from pulse_unlearn.errors import ModelError, Problem, TooLarge
from pulse_unlearn.estimate import counts
from pulse_unlearn.estimate.outlook import ASSUMED_RATES, look_ahead
from pulse_unlearn.estimate.placeholders import (
    ASSUMED_SIDE,
    HINT,
    HINTED,
    data_are_there,
    placeholder_inputs,
    still_missing,
)
from pulse_unlearn.estimate.questions import TEMPLATE_TOKENS, Form, likely_people
from pulse_unlearn.estimate.sizes import SizedModel
from pulse_unlearn.estimate.stages import ASKING, CHECKPOINT_NUMBERS, CHECKPOINTS, StageEstimate
from pulse_unlearn.estimate.units import size_of, time_of, tokens_of
from pulse_unlearn.evaluation.comparisons import RHO, detectable_difference
from pulse_unlearn.evaluation.intervals import intraclass_correlation
from pulse_unlearn.evaluation.scoring import score_all
from pulse_unlearn.evaluation.table import read_predictions
from pulse_unlearn.launch import fleet_of
from pulse_unlearn.models.backends import packing_obstacle
from pulse_unlearn.pipeline.asked import PREDICTIONS, words_notes
from pulse_unlearn.pipeline.inputs import Inputs, read_inputs
from pulse_unlearn.pipeline.leaks import find_leaks, known_sides
from pulse_unlearn.scenarios import Evaluation, Group, Operation, Stage
from pulse_unlearn.store import Store

if TYPE_CHECKING:
    from pulse_unlearn.estimate.measure import Measured

GENERAL_DISCORDANCE = 0.1
"""Share of general questions answered differently before and after; most stay as they were."""
_WHOSE = {"float32": "two CPU cores", "bfloat16": "a third of an A100", "float16": "likewise"}
_FORMS: dict[Form, str] = {
    "file": "the file's order of the options",
    "orders": "its other orders (scoring.people, scoring.general: vanilla turns them off)",
    "words": "bare questions in words (scoring.words: none turns them off)",
}


def show_plan(
    experiment: Experiment, run: Path, *, measure: bool, rate: float | None, where: str | None
) -> None:
    """Print sets, stages, what they take, what the design can detect, and what is missing.

    `measure` loads the model and raises if anything is missing; `rate` is in TFLOP/s; `where` is
    what `--on` names. Raises ModelError, at the end, for a model that a run would refuse, and
    TooLarge for stages that do not fit there.
    """
    fleet = fleet_of(where) if where else None
    missing = still_missing(experiment)
    if missing and measure:
        raise ModelError(missing)
    inputs = placeholder_inputs(experiment) if missing else read_inputs(experiment)
    assumed = bool(missing) and not data_are_there(experiment)
    found = look_ahead(inputs)
    if found.refused and measure:
        raise ModelError(found.refused)
    plan, unfit = inputs.plan, list[Problem]()
    seeds = ", ".join(map(str, experiment.seeds))
    _say(f"experiment {plan.name}: {len(plan.stages)} stages, seeds {seeds}, run folder {run}")
    _print_sets(inputs)
    _print_stages(inputs, run, {stage.name: stage for stage in found.stages})
    if found.model and found.stages:
        measured = None
        if measure:
            from pulse_unlearn.estimate.measure import measure as measure_rates

            measured = measure_rates(inputs, found.model)
        _print_model(experiment, found.model, found.stages, assumed=assumed)
        if found.on_trial:
            _say(found.on_trial, indent=2)
        _print_memory(experiment, found.stages)
        _print_disk(found.stages, run, found.model)
        takes = _print_time(inputs, found.stages, rate=rate, measured=measured)
        _print_operations(experiment, found.stages, found.model)
        if where and fleet:
            unfit = show_fleet(
                where, fleet, inputs, found.stages, takes, done=_complete(inputs, run)
            )
    if found.unknown:
        _say(f"\nmemory, disk and time are not estimated: {found.unknown}")
    _print_detectable(inputs, Store(run))
    problems = [*missing, *([] if assumed else _leaks(inputs))]
    if problems:
        click.echo("\nbefore it can run")
        for problem in problems:
            for number, line in enumerate(str(problem).splitlines()):
                _say(line, indent=2 + 2 * bool(number))
    if found.refused:
        click.echo("\na run would refuse the model")
        raise ModelError(found.refused)
    if unfit:
        raise TooLarge(unfit)


def _complete(inputs: Inputs, run: Path) -> set[str]:
    store = Store(run)
    return {name for name, key in inputs.keys.items() if store.find(key)}


def _say(text: str, *, indent: int = 0) -> None:
    """Print text in lines of 80 columns; an empty line before it is kept."""
    if text.startswith("\n"):
        click.echo("")
    click.echo(wrapped(text, first=" " * indent, indent=indent + 2))


def _leaks(inputs: Inputs) -> list[Problem]:
    """Return the overlaps a run would refuse; those that are allowed are counted in print."""
    leaks = find_leaks(inputs, known_sides(inputs.plan))
    wrong = refused(leaks, inputs.experiment.data.allow_overlap)
    passed = sum(map(len, leaks.values())) - len(wrong)
    if passed:
        _say(f"\nallowed by data.allow_overlap, and listed in the report: {passed} overlaps")
    return gathered(wrong)


def _print_sets(inputs: Inputs) -> None:
    click.echo("\nwho is in which set")
    seen = set()
    for operation in inputs.plan.operations:
        key = (operation.cell.scenario, operation.cell.seed)
        if key in seen:
            continue
        seen.add(key)
        click.echo(f"  {operation.cell.scenario}, seed {operation.cell.seed}")
        for name, group in (
            ("D_unlearn", operation.forget),
            ("D_retain", operation.retain),
            *operation.unseen,
        ):
            click.echo(wrapped(_describe(group, inputs), first=f"    {name:10s} "))
        if len(operation.requests) > 1:
            for number, request in enumerate(operation.requests, start=1):
                click.echo(wrapped(_describe(request, inputs), first=f"    request {number}  "))
    kinds = Counter(len(question.options) for question in inputs.general)
    turns = inputs.experiment.scoring.general == "circular"
    asked = sum(count * (options if turns else 1) for options, count in kinds.items())
    _say(
        f"general ability: {len(inputs.general)} questions"
        + (f", asked in every rotation: {asked}" if turns else ", asked in the file's order")
        + (f"; {len(inputs.general_training)} to train on" if inputs.general_training else ""),
        indent=2,
    )
    _print_asked(inputs)


def _print_asked(inputs: Inputs) -> None:
    scoring = inputs.experiment.scoring
    orders = "in every cyclic order" if scoring.people == "circular" else "in the file's order"
    words = "; not asked in words" if scoring.words == "none" else "; and bare, in words"
    _say(f"people's questions are asked {orders}{words}", indent=2)
    if scoring.people == "vanilla":
        _say(
            "one order alone cannot tell a lost memory from a model that says one letter to "
            "everything",
            indent=4,
        )
    for note in (*inputs.notes, *words_notes(inputs)):
        _say(note, indent=4)


def _describe(group: Group, inputs: Inputs) -> str:
    if group.selection:
        return f"{len(likely_people(inputs, group))} people, chosen by stage {group.selection}"
    shown = ", ".join(inputs.people[identity].name for identity in group.ids[:3])
    more = ", ..." if len(group.ids) > 3 else ""
    return f"{len(group.ids)} people: {shown}{more}"


def _print_stages(inputs: Inputs, run: Path, estimates: Mapping[str, StageEstimate]) -> None:
    store = Store(run)
    used = Counter(name for one in inputs.plan.evaluations for name in _all_parents(one, inputs))
    click.echo("\nstages (used by how many evaluations; + is complete already)")
    for number, stage in enumerate(inputs.plan.stages, start=1):
        # Stand-ins have no identity: nothing of theirs can be complete.
        key = inputs.keys.get(stage.name)
        mark = "+" if key and store.find(key) else " "
        identity = key.fingerprint[:8] if key else "-" * 8
        takes = _work(estimates[stage.name]) if stage.name in estimates else ""
        row = f"  {mark} {number:3d}  {identity}  "
        told = f"(used by {used[stage.name]}) {takes}".rstrip()
        # A name is never torn: what does not fit behind it stands below.
        fits = len(row) + len(stage.name) + 2 + len(told) <= WIDTH
        click.echo(row + stage.name + ("  " if fits else "\n" + " " * (len(row) + 2)) + told)
    if estimates:
        click.echo("  steps and tokens are the most there can be")


def _work(stage: StageEstimate) -> str:
    """Return a stage's steps and tokens in a few words; empty for one that runs no model."""
    if not stage.tokens:
        return ""
    steps = f"{stage.steps} steps" if stage.steps else f"{round(stage.asked.questions)} questions"
    return f"{steps}, {tokens_of(stage.tokens)} tokens"


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


def _print_model(
    experiment: Experiment,
    model: SizedModel,
    stages: Sequence[StageEstimate],
    *,
    assumed: bool,
) -> None:
    size = _count_of(model.parameters)
    _say(f"\nmodel {model.name}: {size} parameters, from {model.origin}")
    parts: tuple[tuple[str, Scope], ...] = (
        ("vision tower", "vision"),
        ("projector", "projector"),
        ("language model", "llm"),
    )
    sizes = [f"{name} {_count_of(model.trained(scope))}" for name, scope in parts]
    _say(", ".join(sizes), indent=2)
    longest = max((stage.batch.longest for stage in stages if stage.batch), default=0)
    _say(f"longest question: {longest} tokens; text counted by {model.counted_by}", indent=2)
    _say(f"assumed: {TEMPLATE_TOKENS} tokens of chat template around a question", indent=2)
    if assumed:
        _say(
            "assumed, as the data are not there: five questions of each kind a person, of usual "
            f"length, a hint of {len(HINT)} characters at every {HINTED}th general question, "
            f"pictures of {ASSUMED_SIDE} x {ASSUMED_SIDE} pixels",
            indent=2,
        )
    obstacle = packing_obstacle(model.config, model.family, experiment.speed)
    _say(
        f"questions are not packed: {obstacle}"
        if obstacle
        else "questions will be packed if a trial at run time agrees (told from config.json)",
        indent=2,
    )


def _print_memory(experiment: Experiment, stages: Sequence[StageEstimate]) -> None:
    where = "on the device" if experiment.model.device_map == "none" else "on all devices together"
    _say(f"\nmemory {where} at the peak ({counts.LETTERS})")
    for kinds, title in ((("finetune", "unlearn"), "training"), (ASKING, "scoring")):
        sized = [
            (stage.memory, stage.batch, stage.name)
            for stage in stages
            if stage.kind in kinds and stage.memory and stage.batch
        ]
        if not sized:
            continue
        memory, batch, name = max(sized, key=lambda one: sum(one[0].values()))
        _say(
            f"{title}: {size_of(sum(memory.values()))}, largest in {name} "
            f"(B {batch.sequences}, T {batch.longest})",
            indent=2,
        )
        for part, size in memory.items():
            if size:
                row = f"    {part:16s} {size_of(size):>9s}  "
                click.echo(wrapped(counts.FORMULAS[part], first=row))


def _print_disk(stages: Sequence[StageEstimate], run: Path, model: SizedModel) -> None:
    kept = sum(stage.kept_bytes for stage in stages)
    passing = max((stage.passing_bytes for stage in stages), default=0)
    _say(f"\ndisk: {size_of(kept + passing)} below {run}")
    _say(
        f"kept {size_of(kept)}: what was trained (P x t), answers; in passing "
        f"{size_of(passing)}: {CHECKPOINTS} checkpoints (P x {CHECKPOINT_NUMBERS}t "
        "and the references kept)",
        indent=2,
    )
    place = next((p for p in (run, *run.absolute().parents) if p.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    short = free < kept + passing
    click.echo(click.style(f"  free there: {size_of(free)}", fg="red" if short else None), nl=False)
    click.echo(", which is not enough" if short else "")
    if model.origin.startswith("sizes known"):
        click.echo(f"  and about {size_of(2 * model.parameters)} to fetch the model to")


def _print_time(
    inputs: Inputs,
    stages: Sequence[StageEstimate],
    *,
    rate: float | None,
    measured: Measured | None,
) -> Callable[[StageEstimate], float]:
    """Say what the plan takes on one device, and return what a stage does."""
    dtype = inputs.experiment.model.dtype
    training = asking = (rate or ASSUMED_RATES[dtype]) * 1e12
    if measured:
        training, asking = measured.training, measured.asking

    def takes(stage: StageEstimate) -> float:
        return stage.operations / (asking if stage.kind in ASKING else training)

    seconds = {"finetune": 0.0, "unlearn": 0.0, "score": 0.0, "probe": 0.0}
    for stage in stages:
        if stage.kind in seconds:
            seconds[stage.kind] += takes(stage)
    parts = ", ".join(f"{kind} {time_of(value)}" for kind, value in seconds.items() if value)
    total = time_of(sum(seconds.values()))
    _say(f"\ntime: about {total} of model time, if no stop rule ends a training ({parts})")
    if devices := devices_told(inputs.plan, stages, takes):
        _say(devices, indent=2)
    if measured is None:
        whose = "as given" if rate else f"assumed for {dtype}: {_WHOSE[dtype]}"
        _say(
            f"operations / {training / 1e12:g} TFLOP/s ({whose}; small models and batches reach "
            "less); --measure takes three steps here, --tflops sets the rate",
            indent=2,
        )
        return takes
    _say(
        f"measured on {measured.device}: {measured.step_seconds:.2f} s a step "
        f"({training / 1e12:.3g} TFLOP/s), {measured.questions_per_second:.1f} questions "
        f"a second ({asking / 1e12:.3g} TFLOP/s)",
        indent=2,
    )
    if measured.peak_bytes is not None:
        click.echo(f"  memory it really took: {size_of(measured.peak_bytes)}")
    return takes


def _print_operations(
    experiment: Experiment, stages: Sequence[StageEstimate], model: SizedModel
) -> None:
    """Say what operations are spent on, unpacked; packs share pictures and questions."""
    total = sum(stage.operations for stage in stages)
    passes = "twice forward" if experiment.model.gradient_checkpointing else "forward"
    _say(
        f"operations {total / 1e15:.3g} x 10^15, as torch counts those of a layer: training "
        f"passes {passes} and back, frozen weights take no gradient",
        indent=2,
    )
    spent = {form: sum(stage.forms.get(form, 0.0) for stage in stages) for form in _FORMS}
    scored = max(sum(spent.values()), 1.0)
    parts = [f"{spent[form] / scored:.0%} {words}" for form, words in _FORMS.items() if spent[form]]
    _say(f"of scoring, {', '.join(parts)}; without packing", indent=2)
    seen = [stage.trained + stage.asked for stage in stages]
    pictures = sum(counts.picture_operations(model, one) for one in seen)
    _say(
        f"{pictures / max(total, 1.0):.0%} of them is looking at pictures, counted for each "
        "question; packing looks once at a picture that questions of a batch share",
        indent=2,
    )


def _print_detectable(inputs: Inputs, store: Store) -> None:
    _say(
        "\nsmallest difference in accuracy, between two methods or before and after, that this "
        "design can detect in one seed (80 % power, 5 % level; half of the answers differing)"
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
        _say(f"{scenario}: a person's answers correlated by {rho:.2f}, {source}", indent=2)
        for name, group in (("D_unlearn", operation.forget), ("D_retain", operation.retain)):
            count = len(likely_people(inputs, group))
            asked = count * _questions_each(group, inputs)
            points = 100 * detectable_difference(count, round(asked), rho=rho)
            click.echo(f"    {name} ({count} people, {asked:.0f} questions): {points:.1f} points")
    count = len(inputs.general)
    points = 100 * detectable_difference(count, count, discordance=GENERAL_DISCORDANCE)
    _say(
        f"general ability ({count} questions, {GENERAL_DISCORDANCE:.0%} of answers differing): "
        f"{points:.1f} points",
        indent=2,
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


def _count_of(parameters: int) -> str:
    units = (("G", 1e9, 2), ("M", 1e6, 2))
    unit, factor, digits = next((one for one in units if parameters >= one[1]), ("k", 1e3, 1))
    return f"{parameters / factor:.{digits}f} {unit}"
