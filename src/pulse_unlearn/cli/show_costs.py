"""An outlook as text: model, memory, disk and time, each with its formula and assumptions."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pulse_unlearn.config import Experiment
from pulse_unlearn.models import costs
from pulse_unlearn.models.cost_words import FORMULAS, LETTERS
from pulse_unlearn.models.costs import Memory
from pulse_unlearn.models.describe import TEMPLATE_TOKENS, Described, packing_obstacle
from pulse_unlearn.pipeline.estimate import StageEstimate
from pulse_unlearn.pipeline.placeholder_inputs import HINT, HINTED
from pulse_unlearn.pipeline.token_stats import ASSUMED_SIDE, Form

if TYPE_CHECKING:
    from pulse_unlearn.pipeline.measure import Measured

ASSUMED_RATES = {"float32": 0.1, "bfloat16": 100.0, "float16": 100.0}
"""10^12 operations a second: two CPU cores (the demo reaches 0.13), a third of an A100's peak."""
_WHOSE = {"float32": "two CPU cores", "bfloat16": "a third of an A100", "float16": "likewise"}


def print_costs(
    experiment: Experiment,
    model: Described,
    stages: Sequence[StageEstimate],
    *,
    run: Path,
    assumed: bool,
    rate: float | None,
    measured: Measured | None,
) -> None:
    """Print what the run takes; `assumed` says that data were stand-ins, `rate` is in TFLOP/s."""
    _print_model(model, stages, experiment, assumed=assumed)
    _print_memory(stages, experiment)
    _print_disk(stages, run, model)
    _print_time(stages, experiment, model, rate=rate, measured=measured)


def work(stage: StageEstimate) -> str:
    """Return a stage's steps and tokens in a few words; empty for one that runs no model."""
    if not stage.tokens:
        return ""
    steps = (
        f"{stage.steps} steps, " if stage.steps else f"{round(stage.asked.questions)} questions, "
    )
    return f"{steps}{tokens_of(stage.tokens)} tokens"


def tokens_of(count: float) -> str:
    """Return a count of tokens, such as `1.2 M`."""
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count / 1e3:.0f} k"


def size_of(count: float) -> str:
    """Return bytes in the unit that fits; 1 GB = 10^9 bytes."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def time_of(seconds: float) -> str:
    """Return a duration in the unit that fits."""
    for unit, factor in (("days", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * factor:
            return f"{seconds / factor:.1f} {unit}"
    return f"{seconds:.0f} s"


def _print_model(
    model: Described, stages: Sequence[StageEstimate], experiment: Experiment, *, assumed: bool
) -> None:
    shape = model.shape
    click.echo(f"model {model.name}: {_count_of(shape.parameters)} parameters, from {model.origin}")
    click.echo(
        f"  vision tower {_count_of(shape.vision.parameters)}, "
        f"projector {_count_of(shape.projector.parameters)}, "
        f"language model {_count_of(shape.language.parameters + shape.head)}"
    )
    longest = max((stage.batch.longest for stage in stages if stage.batch), default=0)
    click.echo(f"  longest question: {longest} tokens; text counted by {model.counted()}")
    click.echo(f"  assumed: {TEMPLATE_TOKENS} tokens of chat template around a question")
    if assumed:
        click.echo(
            "  assumed, as the data are not there: five questions of each kind a person, of usual "
            f"length, a hint of {len(HINT)} characters at every {HINTED}th general question, "
            f"pictures of {ASSUMED_SIDE} x {ASSUMED_SIDE} pixels"
        )
    attention = experiment.model.attention
    obstacle = packing_obstacle(model.config, experiment.speed, attention=attention)
    click.echo(
        f"  questions are not packed: {obstacle}"
        if obstacle
        else "  questions will be packed if a trial at run time agrees (told from config.json)"
    )
    click.echo("")


def _print_memory(stages: Sequence[StageEstimate], experiment: Experiment) -> None:
    where = "on the device" if experiment.model.device_map == "none" else "on all devices together"
    click.echo(f"memory {where} at the peak ({LETTERS})")
    for kinds, title in ((("finetune", "unlearn"), "training"), (("score",), "scoring")):
        fitting = [stage for stage in stages if stage.kind in kinds and stage.memory]
        if not fitting:
            continue
        largest = max(fitting, key=lambda stage: stage.memory.total if stage.memory else 0)
        if largest.memory and largest.batch:
            batch = largest.batch
            click.echo(
                f"  {title}: {size_of(largest.memory.total)}, largest in {largest.name} "
                f"(B {batch.sequences}, T {batch.longest})"
            )
            _print_parts(largest.memory, experiment, scoring=title == "scoring")
    click.echo("")


def _print_parts(memory: Memory, experiment: Experiment, *, scoring: bool) -> None:
    settings = experiment.model
    kept = FORMULAS["checkpointed" if settings.gradient_checkpointing else "activations"]
    held = "weights" if settings.quantise == "none" else settings.quantise
    rows = [
        ("weights", memory.weights, FORMULAS[held]),
        ("frozen adapters", memory.frozen_adapters, FORMULAS["frozen adapters"]),
        ("trained adapter", memory.trained_adapter, FORMULAS["trained adapter"]),
        ("gradients", memory.gradients, FORMULAS["gradients"]),
        ("optimiser", memory.optimiser, FORMULAS["optimiser"]),
        ("copies", memory.copies, FORMULAS["copies"]),
        ("reference", memory.reference, FORMULAS["reference"]),
        ("references kept", memory.kept, FORMULAS["kept"]),
        ("activations", memory.activations, FORMULAS["one layer"] if scoring else kept),
        ("keys and values", memory.cache, FORMULAS["cache"]),
        ("answers", memory.answers, FORMULAS["asked" if scoring else "answers"]),
        ("pictures", memory.pictures, FORMULAS["pictures"]),
        ("reserve", memory.total - memory.counted, FORMULAS["reserve"]),
    ]
    for name, size, formula in rows:
        if size:
            click.echo(f"    {name:16s} {size_of(size):>9s}  {formula}")
    if not scoring:
        attention = "eager" if settings.attention == "eager" else "sdpa"
        if settings.gradient_checkpointing:
            click.echo(f"    one layer in full: B x T x ({FORMULAS['layer']})")
        click.echo(f"    attention: {FORMULAS[attention]}; adapters: {FORMULAS['adapters']}")


def _print_disk(stages: Sequence[StageEstimate], run: Path, model: Described) -> None:
    kept = sum(stage.kept_bytes for stage in stages)
    passing = max((stage.passing_bytes for stage in stages), default=0)
    click.echo(f"disk: {size_of(kept + passing)} below {run}")
    click.echo(
        f"  kept {size_of(kept)}: what was trained (P x t), answers; in passing "
        f"{size_of(passing)}: {costs.CHECKPOINTS} checkpoints (P x {costs.CHECKPOINT_NUMBERS}t "
        "and the references kept)"
    )
    place = next((p for p in (run, *run.absolute().parents) if p.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    short = free < kept + passing
    click.echo(click.style(f"  free there: {size_of(free)}", fg="red" if short else None), nl=False)
    click.echo(", which is not enough" if short else "")
    if model.origin.startswith("sizes known"):
        click.echo(f"  and about {size_of(2 * model.shape.parameters)} to fetch the model to")
    click.echo("")


def _print_time(
    stages: Sequence[StageEstimate],
    experiment: Experiment,
    model: Described,
    *,
    rate: float | None,
    measured: Measured | None,
) -> None:
    dtype = experiment.model.dtype
    training = asking = (rate or ASSUMED_RATES[dtype]) * 1e12
    if measured:
        training, asking = measured.training, measured.asking
    seconds = {
        kind: sum(
            stage.operations / (asking if kind == "score" else training)
            for stage in stages
            if stage.kind == kind
        )
        for kind in ("finetune", "unlearn", "score")
    }
    parts = ", ".join(f"{kind} {time_of(value)}" for kind, value in seconds.items() if value)
    total_time = time_of(sum(seconds.values()))
    click.echo(f"time: about {total_time} of model time, if no stop rule ends a training ({parts})")
    if measured:
        click.echo(
            f"  measured on {measured.device}: {measured.step_seconds:.2f} s a step "
            f"({training / 1e12:.3g} TFLOP/s), {measured.questions_per_second:.1f} questions "
            f"a second ({asking / 1e12:.3g} TFLOP/s)"
        )
        if measured.peak_bytes is not None:
            click.echo(f"  memory it really took: {size_of(measured.peak_bytes)}")
    else:
        whose = "as given" if rate else f"assumed for {dtype}: {_WHOSE[dtype]}"
        click.echo(
            f"  operations / {training / 1e12:g} TFLOP/s ({whose}; small models and batches reach "
            "less); --measure takes three steps here, --tflops sets the rate"
        )
    total = sum(stage.operations for stage in stages)
    passes = 3 if experiment.model.gradient_checkpointing else 2
    click.echo(
        f"  operations {total / 1e15:.3g} x 10^15: tokens x 2 x parameters, x {passes} in training "
        f"(x {passes + 1} in a full update; frozen weights take no gradient), attention, adapters, "
        "pictures"
    )
    _print_forms(stages)
    share = sum(_pictures(stage, model) for stage in stages) / max(total, 1.0)
    click.echo(
        f"  {share:.0%} of them is looking at pictures, counted for each question; packing looks "
        "once at a picture that questions of a batch share\n"
    )


_FORMS: dict[Form, str] = {
    "file": "the file's order of the options",
    "orders": "its other orders (scoring.people, scoring.general: vanilla turns them off)",
    "words": "bare questions in words (scoring.words: none turns them off)",
}


def _print_forms(stages: Sequence[StageEstimate]) -> None:
    """Say what each part of scoring costs, unpacked; packs share pictures and questions."""
    spent = {form: sum(stage.forms.get(form, 0.0) for stage in stages) for form in _FORMS}
    total = max(sum(spent.values()), 1.0)
    parts = [f"{spent[form] / total:.0%} {words}" for form, words in _FORMS.items() if spent[form]]
    click.echo(f"  of scoring, {', '.join(parts)}; without packing")


def _pictures(stage: StageEstimate, model: Described) -> float:
    seen = stage.trained + stage.asked
    only = costs.Asked(patches=seen.patches, patch_squares=seen.patch_squares)
    return costs.forward_operations(model.shape, only)


def _count_of(parameters: int) -> str:
    for unit, factor in (("G", 1e9), ("M", 1e6)):
        if parameters >= factor:
            return f"{parameters / factor:.2f} {unit}"
    return f"{parameters / 1e3:.1f} k"
