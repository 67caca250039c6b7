"""How each kind of stage is carried out: inputs and finished parents in, files out.

A runner writes into the stage's partial folder only; the store publishes it. Everything that needs
torch is imported here, and this module is imported only when a stage really has to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from peft import PeftModel

from pulse_unlearn.config import FinetuneSettings, StopSettings, UnlearnSettings
from pulse_unlearn.evaluation.parsers import DEFAULT_PARSER
from pulse_unlearn.evaluation.predict import (
    greedy_accuracy,
    likelihood_accuracy,
    predict,
    rotated_accuracy,
)
from pulse_unlearn.evaluation.table import read_predictions, write_predictions
from pulse_unlearn.methods import build_method
from pulse_unlearn.models.adapters import (
    AdapterStack,
    AnyModel,
    TrainableModel,
    add_trainable,
    load_adapters,
    prepare,
    prepare_full,
    save_trained,
    trainable_names,
)
from pulse_unlearn.models.backends import select_backend
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import Reader
from pulse_unlearn.models.loading import LoadedModel, load_model
from pulse_unlearn.pipeline.asked import PREDICTIONS
from pulse_unlearn.pipeline.checks import Habits, accuracy_of, habits_of
from pulse_unlearn.pipeline.stage_context import (
    ADAPTER,
    StageContext,
    general_epochs,
    held_out,
    people_epochs,
    questions,
)
from pulse_unlearn.records import Example
from pulse_unlearn.store import write_json
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Outcome, Watch, train
from pulse_unlearn.training.objectives import Learning, Objective, Unlearning
from pulse_unlearn.training.references import References, recurring
from pulse_unlearn.training.steps import FinetuneSteps, Steps, UnlearnSteps

OUTCOME = "outcome.json"
ASKED = "asked.json"
"""How a score stage was asked: examples a pass at the end (below the setting where memory did not
suffice), whether they were packed, and what was done otherwise than the model's files say."""


def run_score(context: StageContext) -> None:
    """Ask the model this stage's questions and store every answer."""
    stage, experiment = context.stage, context.inputs.experiment
    loaded = load_model(experiment.model)
    folders = [*loaded.beside, *(context.adapter_of(name) for name in stage.chain)]
    model = load_adapters(loaded.model, folders, how=experiment.model.frozen_adapters)
    scoring = experiment.scoring
    asked = questions(context)
    reader = _reader(context, loaded, model, asked)

    def on_batch(done: int, total: int) -> None:
        context.progress.advance(done, total, {})
        context.stop.check()

    sizes = [scoring.batch_size]

    def on_halved(size: int) -> None:
        sizes.append(size)
        context.progress.warn(f"out of memory: batches of {size} from here on")

    predictions = predict(
        reader,
        asked,
        batch_size=scoring.batch_size,
        max_new_tokens=scoring.max_new_tokens,
        on_batch=on_batch,
        on_halved=on_halved,
    )
    write_predictions(context.folder / PREDICTIONS, predictions)
    how = {"batch_size": sizes[-1], "packed": isinstance(reader, Packed)}
    notes = {"notes": list(loaded.notes)} if loaded.notes else {}
    write_json(context.folder / ASKED, how | notes)


def run_finetune(context: StageContext) -> None:
    """Teach the model the fictional people."""
    experiment = context.inputs.experiment
    settings = FinetuneSettings.model_validate(context.stage.settings["finetune"])
    loaded = load_model(experiment.model)
    prepared = _prepare(context, loaded, settings, keep_reference=False)
    people = context.people(context.stage.retain)
    steps = FinetuneSteps(
        people_epochs(context, people, settings.forms),
        general_epochs(context),
        batch_size=settings.optimiser.batch_size,
        replay=settings.replay,
        epochs=settings.epochs,
        seed=context.stage.order_seed,
        shuffle=settings.optimiser.shuffle,
    )
    stop = StopRule(settings.check_every, accuracy_at_least=settings.target_accuracy)
    unseen = held_out(context, people, settings.check_examples)
    reader = _reader(context, loaded, prepared.model, unseen)
    _train(
        context,
        _Job(prepared, reader, Learning(reader), steps, settings, stop, unseen),
        notes={"individuals": [person.id for person in people]},
    )


def run_unlearn(context: StageContext) -> None:
    """Apply one method to one request."""
    stage, experiment = context.stage, context.inputs.experiment
    settings = UnlearnSettings.model_validate(stage.settings["unlearn"])
    method = build_method(stage.settings["method"], dict(stage.settings["settings"]))
    loaded = load_model(experiment.model)
    needs = method.needs
    asked = needs.forget_reference is not None or needs.retain_reference is not None
    prepared = _prepare(context, loaded, settings, keep_reference=asked)
    forget = context.people(stage.forget)
    retain = context.people(stage.retain) if method.needs.retain else []
    steps = UnlearnSteps(
        people_epochs(context, forget, settings.forms),
        people_epochs(context, retain, settings.forms) if retain else None,
        general_epochs(context),
        batch_size=settings.optimiser.batch_size,
        general_share=settings.general_share,
        steps=settings.stop.max_steps,
        seed=stage.order_seed,
        shuffle=settings.optimiser.shuffle,
    )
    unseen = held_out(context, forget, settings.stop.check_examples)
    reader = _reader(context, loaded, prepared.model, unseen)
    limit = _limit(context, settings.stop, unseen) if stage.before else None
    stop = StopRule(
        settings.stop.check_every,
        loss_bound=settings.stop.loss_bound,
        accuracy_at_most=limit.accuracy if limit else None,
        at_once=settings.stop.floor == "chance",
    )
    references = References(prepared, reader, recurring(steps) if asked else ())
    objective = Unlearning(reader, method, settings.answer_tokens, references)
    _train(
        context,
        _Job(prepared, reader, objective, steps, settings, stop, unseen),
        notes={
            "accuracy_before": limit.before if limit else None,
            "accuracy_limit": limit.accuracy if limit else None,
            "individuals": [person.id for person in forget],
        },
    )


@dataclass(frozen=True, slots=True)
class _Limit:
    """What accuracy a stop rule asks for, and the target model's own on the same questions."""

    before: float
    accuracy: float


def _limit(context: StageContext, stop: StopSettings, unseen: Sequence[Example]) -> _Limit:
    """Return the accuracy to stop at: measured once on the target model, never below chance."""
    asked = read_predictions(context.folder_of(context.stage.before) / PREDICTIONS)
    before = accuracy_of(
        asked,
        frozenset(example.id for example in unseen),
        decides=context.stage.decides,
    )
    limit = before * (1 - (stop.target_forgetting or 0.0))
    if stop.floor == "chance":
        limit = max(limit, fmean(1 / len(example.options) for example in unseen))
    return _Limit(before, limit)


@dataclass(frozen=True, slots=True)
class _Job:
    prepared: TrainableModel
    reader: Reader
    objective: Objective
    steps: Steps
    settings: FinetuneSettings | UnlearnSettings
    stop: StopRule
    held_out: list[Example]


def _train(context: StageContext, job: _Job, *, notes: dict[str, Any]) -> None:
    """Run the loop and write adapter, log and outcome."""
    optimiser = job.settings.optimiser

    def accuracy() -> float:
        size = optimiser.micro_batch_size
        return _accuracy(context, job.reader, job.held_out, size)

    names = trainable_names(job.prepared.model)
    outcome = train(
        job.prepared.model,
        job.objective,
        job.steps,
        settings=optimiser,
        stop=job.stop,
        accuracy=accuracy,
        vocabulary=len(job.reader.encoder.tokenizer),
        seed=context.stage.seed,
        watch=Watch(
            folder=context.folder,
            checkpoint_seconds=context.inputs.experiment.checkpoint_seconds,
            on_step=context.progress.advance,
            should_stop=context.stop,
            warn=context.progress.warn,
        ),
    )
    save_trained(
        job.prepared.model, context.folder / ADAPTER, base=context.inputs.experiment.model.source
    )
    if outcome.stopped_by == "target_forgetting":
        notes = {**notes, "answers_at_stop": asdict(_habits(context, job))}
    notes = {**notes, "packed": isinstance(job.reader, Packed), "trainable": names}
    write_json(context.folder / OUTCOME, {**_outcome(outcome), **notes})


def _accuracy(
    context: StageContext, reader: Reader, held_out: Sequence[Example], size: int
) -> float:
    """Measure what stop rules look at, in batches of this size."""
    measures = {
        "strict": greedy_accuracy,
        "likelihood": likelihood_accuracy,
        "rotated": rotated_accuracy,
    }
    measure = measures[context.stage.decides or DEFAULT_PARSER]
    return measure(reader, held_out, batch_size=size)


def _habits(context: StageContext, job: _Job) -> Habits:
    """Look at how the stop rule's questions are answered in words: readably, by one letter?"""
    asked = [example for example in job.held_out if example.rotation == 0]
    size = job.settings.optimiser.micro_batch_size
    scoring = context.inputs.experiment.scoring
    predictions = predict(
        job.reader,
        asked,
        batch_size=size,
        max_new_tokens=scoring.max_new_tokens,
        on_batch=lambda done, total: None,
    )
    return habits_of(predictions)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {**asdict(outcome), "checks": [list(check) for check in outcome.checks]}


def _reader(
    context: StageContext, loaded: LoadedModel, model: AnyModel, examples: Sequence[Example]
) -> Reader:
    """Return what reads the model, tried on some of the stage's examples."""
    return select_backend(
        model,
        context.cache.encoder(loaded),
        speed=context.inputs.experiment.speed,
        examples=examples,
        warn=context.progress.warn,
        features=context.cache.features,
    )


def _prepare(
    context: StageContext,
    loaded: LoadedModel,
    settings: FinetuneSettings | UnlearnSettings,
    *,
    keep_reference: bool,
) -> TrainableModel:
    stage = context.stage
    stack = AdapterStack(
        chain=(*loaded.beside, *(context.adapter_of(name) for name in stage.chain)),
        start_from=context.adapter_of(stage.start_from) if stage.start_from else None,
        reference_depth=len(loaded.beside) + stage.reference_depth,
        keep_reference=keep_reference,
    )
    if settings.update == "full":
        return prepare_full(loaded.model, stack, family=loaded.family, scope=settings.scope)

    def fresh(model: AnyModel) -> PeftModel:
        return add_trainable(
            model, loaded.family, settings.scope, lora=settings.lora, seed=stage.seed
        )

    how = context.inputs.experiment.model.frozen_adapters
    return prepare(loaded.model, stack, how=how, fresh=fresh)


RUNNERS: dict[str, Callable[[StageContext], None]] = {
    "score": run_score,
    "finetune": run_finetune,
    "unlearn": run_unlearn,
}
