"""How each kind of stage is carried out: inputs and finished parents in, files out.

A runner writes into the stage's partial folder only; the store publishes it. Everything that needs
torch is imported here, and this module is imported only when a stage really has to run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from peft import PeftModel

from pulse_unlearn.data.facts import of_modality
from pulse_unlearn.evaluation.parsers import DEFAULT_PARSER
from pulse_unlearn.evaluation.predict import (
    greedy_accuracy,
    likelihood_accuracy,
    predict,
    rotated_accuracy,
)
from pulse_unlearn.evaluation.table import write_predictions
from pulse_unlearn.isolation import deadline
from pulse_unlearn.methods import METHODS, Method, Part, Procedure, Request, build_method, serves
from pulse_unlearn.models.adapter_base import note_base
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
from pulse_unlearn.models.forward import Backend
from pulse_unlearn.models.loading import LoadedModel, load_model
from pulse_unlearn.models.rounding import round_weights
from pulse_unlearn.models.served import ServedSystem, Switched, beside, read_served
from pulse_unlearn.models.sharding import (
    is_sharded,
    require_shardable,
    shard_layers,
    whole_weights,
)
from pulse_unlearn.pipeline.asked import PREDICTIONS
from pulse_unlearn.pipeline.decisions import Habits, habits_of
from pulse_unlearn.pipeline.inputs import OUTCOME
from pulse_unlearn.pipeline.limits import limit_of
from pulse_unlearn.pipeline.probing import run_probe
from pulse_unlearn.pipeline.served import ask_served
from pulse_unlearn.pipeline.stage_context import (
    StageContext,
    embedded_views,
    finetune_steps,
    held_out,
    questions,
    unlearn_steps,
    update_folder,
    variants_of,
)
from pulse_unlearn.records import Example, Prediction
from pulse_unlearn.registry import Registry
from pulse_unlearn.scenarios import (
    FinetuneStage,
    ProbeStage,
    ScoreStage,
    TrainingStage,
    UnlearnStage,
)
from pulse_unlearn.store import write_folder, write_json, write_text
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Outcome, Watch, as_lines, train
from pulse_unlearn.training.objectives import Learning
from pulse_unlearn.training.references import References, recurring
from pulse_unlearn.training.session import MethodSession, carried
from pulse_unlearn.training.state import marks_of_untrained, require_untouched

ASKED = "asked.json"
"""How a score stage was asked: examples a pass at the end (below the setting where memory did not
suffice), whether they were packed, and what was done otherwise than the model's files say."""
CHECKPOINTS = "checkpoints"
LOG = "train.jsonl"

Runner = Callable[[StageContext[Any]], None]
RUNNERS: Registry[Runner] = Registry("kind of stage", group="pulse_unlearn.runners")
"""Kind of a stage -> what carries it out. Those that choose people need no model and are the
pipeline's own."""
RUNNERS.register(ProbeStage.kind)(run_probe)


@RUNNERS.register(ScoreStage.kind)
def run_score(context: StageContext[ScoreStage]) -> None:
    """Ask the model this stage's questions and store every answer."""
    stage, experiment = context.stage, context.inputs.experiment
    asked = questions(context)
    loaded = load_model(context.model)
    steps = [None] * (len(stage.chain) - 1) + [stage.step]
    updates = zip(stage.chain, steps, strict=False)
    folders = [*loaded.beside, *(context.update_of(name, step=step) for name, step in updates)]
    how_held = "merged" if stage.bits else context.model.frozen_adapters
    model = load_adapters(loaded.model, folders, how=how_held)
    if stage.bits:
        round_weights(model, loaded.family, bits=stage.bits, group=stage.group)
    scoring = experiment.scoring
    system, switched = None, Switched(model)
    if stage.served:
        system = read_served(context.folder_of(stage.served[-1]))
        own = [] if system.serves == "refusal" else [context.update_of(one) for one in stage.served]
        switched = beside(model, own)
    if context.ranks.lockstep:
        shard_layers(switched.model, loaded.family, context.ranks)
    backend = _backend(context, loaded, switched.model, asked)

    sizes = [scoring.batch_size]

    def on_halved(size: int) -> None:
        sizes.append(size)
        context.progress.warn(f"out of memory: batches of {size} from here on")

    def ask(examples: Sequence[Example]) -> list[Prediction]:
        return predict(
            backend,
            examples,
            batch_size=sizes[-1],
            max_new_tokens=scoring.max_new_tokens,
            on_batch=context.on_batch,
            on_halved=on_halved,
            ranks=context.ranks,
        )

    how: dict[str, Any] = {}
    if system is None:
        predictions = ask(asked)
    else:
        size = scoring.batch_size
        predictions, told = ask_served(system, switched, backend, ask, asked, batch_size=size)
        how["served"] = told
    write_predictions(context.folder / PREDICTIONS, predictions)
    how |= {"batch_size": sizes[-1], "packed": isinstance(backend, Packed)}
    notes = {"notes": list(loaded.notes)} if loaded.notes else {}
    write_json(context.folder / ASKED, how | notes)


@RUNNERS.register(FinetuneStage.kind)
def run_finetune(context: StageContext[FinetuneStage]) -> None:
    """Teach the model people: the target model, a retain model, or what an attacker knows."""
    stage, settings = context.stage, context.stage.settings
    people = context.people(stage.learn, facts=stage.facts, seed=stage.facts_seed)
    steps = finetune_steps(context.inputs, stage, people)
    job = _job(context, held_out(context, people, settings.check_examples), keep_reference=False)
    outcome = train(
        job.prepared.model,
        Learning(job.backend),
        steps,
        settings=settings.optimiser,
        stop=StopRule(settings.check_every, accuracy_at_least=settings.target_accuracy),
        accuracy=job.accuracy,
        vocabulary=len(job.backend.encoder.tokenizer),
        seed=stage.seed,
        watch=job.watch,
        snapshots=stage.snapshots,
        ranks=context.ranks,
    )
    job.finish(outcome, notes={"individuals": [person.id for person in people]})


@RUNNERS.register(UnlearnStage.kind)
def run_unlearn(context: StageContext[UnlearnStage]) -> None:
    """Apply one method to one request."""
    stage, settings = context.stage, context.stage.settings
    method = build_method(stage.method, dict(stage.method_settings))
    needs = method.needs
    forget = [of_modality(one, settings.modalities) for one in context.people(stage.forget)]
    sides = [context.people(group) for group in (stage.retain, stage.others)]
    retain, others = sides if needs.retain else ([], [])  # nobody: general questions alone
    kept = [one for side in sides for one in side] if needs.retain or needs.decoupled else []
    share = settings.replayed_share if needs.retain else 0.0
    plan = unlearn_steps(context.inputs, stage, forget, retain, others, general_share=share)

    def views(part: Part, epochs: int) -> list[Example]:
        own = part == "forget"
        return embedded_views(
            context.inputs, stage, forget if own else [*retain, *others], epochs, own=own
        )

    unseen = held_out(context, forget, settings.stop.check_examples)
    job = _job(
        context,
        unseen,
        keep_reference=needs.reference,
        procedure=isinstance(method, Procedure),
    )
    limit = limit_of(context, unseen) if stage.before else None
    session = MethodSession(
        job.backend,
        References(
            job.prepared,
            job.backend,
            # In lockstep nothing is kept: a rank that need not ask would fall behind.
            recurring(plan(settings.stop.max_steps))
            if needs.reference and not context.ranks.lockstep
            else (),
        ),
        settings,
        plan,
        StopRule(
            settings.stop.check_every,
            loss_bound=settings.stop.loss_bound,
            accuracy_at_most=limit.accuracy if limit else None,
            at_once=settings.stop.floor == "chance",
        ),
        job.accuracy,
        stage.seed,
        job.watch,
        context.folder,
        history=[_request(context, name) for name in stage.history],
        state=carried(context.folder_of(stage.history[-1])) if stage.history else {},
        variants=variants_of(context.inputs, stage, forget, kept),
        stage=stage.name,
        served=_served_before(context),
        views=views,
        snapshots=stage.snapshots,
        ranks=context.ranks,
    )
    outcome = _applied(context, job, session, method)
    for step in stage.snapshots if not session.phases else ():  # there was nothing to train
        job.save(step)
    job.finish(
        outcome,
        trained=serves(stage.method) != "refusal",
        notes={
            "accuracy_before": limit.before if limit else None,
            "accuracy_limit": limit.accuracy if limit else None,
            "individuals": [person.id for person in forget],
        },
    )


def _applied(
    context: StageContext[UnlearnStage], job: _Job, session: MethodSession, method: Method
) -> Outcome:
    """Apply a method; a third party's within its time, and held to its update scope."""
    limited = METHODS.origin(context.stage.method) is not None
    seconds = context.inputs.experiment.plugin_seconds if limited else 0
    untouched = marks_of_untrained(job.prepared.model) if limited else {}
    fix = "raise plugin_seconds if it needs longer"
    with deadline(seconds, fix=fix, stopped=context.stop) as more_time:

        def on_step(done: int, total: int, row: dict[str, Any]) -> None:
            more_time()
            job.watch.on_step(done, total, row)

        session.watch = replace(job.watch, on_step=on_step)
        outcome = session.apply(method)
    if limited:
        require_untouched(job.prepared.model, untouched)
    return outcome


def _served_before(context: StageContext[UnlearnStage]) -> ServedSystem | None:
    """Return what the requests before serve; None for the first, or if the method does not."""
    stage = context.stage
    if not stage.history or serves(stage.method) is None:
        return None
    return read_served(context.folder_of(stage.history[-1]))


def _request(context: StageContext[UnlearnStage], name: str) -> Request:
    stage = context.inputs.plan.stage(name)
    if not isinstance(stage, UnlearnStage):
        raise TypeError(f"{name} is no request")
    return Request(name, context.resolve(stage.forget))


@dataclass(frozen=True, slots=True)
class _Job:
    """A model ready to be trained, how its training is observed, and what it leaves behind."""

    context: StageContext[TrainingStage]
    prepared: TrainableModel
    backend: Backend
    held_out: list[Example]
    """What stop rules ask."""

    @property
    def watch(self) -> Watch:
        context = self.context
        return Watch(
            folder=context.folder / CHECKPOINTS,
            checkpoint_seconds=context.inputs.experiment.checkpoint_seconds,
            on_step=context.progress.advance,
            should_stop=context.stop,
            warn=context.progress.warn,
            on_snapshot=self.save,
        )

    def accuracy(self) -> float:
        """Measure what stop rules look at."""
        measures = {
            "strict": greedy_accuracy,
            "likelihood": likelihood_accuracy,
            "rotated": rotated_accuracy,
        }
        measure = measures[self.context.stage.decides or DEFAULT_PARSER]
        size = self.context.stage.settings.optimiser.micro_batch_size
        return measure(self.backend, self.held_out, batch_size=size, ranks=self.context.ranks)

    def save(self, step: int | None = None) -> None:
        """Write the update as it is now; the first of several ranks does."""
        parts = is_sharded(self.prepared.model) and self.context.stage.settings.update == "full"
        trained = whole_weights(self.prepared.model) if parts else None
        if not self.context.ranks.first:
            return

        def write(folder: Path) -> None:
            source = self.context.model.source
            save_trained(self.prepared.model, folder, base=source, trained=trained)
            note_base(folder, self.context.inputs.bases[self.context.stage.model])

        write_folder(self.context.folder / update_folder(step), write, action="save the update")

    def finish(self, outcome: Outcome, *, notes: dict[str, Any], trained: bool = True) -> None:
        """Write update, log and outcome; no update where no weight was to be trained."""
        names = trainable_names(self.prepared.model) if trained else []
        if trained:
            self.save()
        write_text(self.context.folder / LOG, as_lines(outcome.rows))
        if outcome.stopped_by == "target_forgetting":
            notes = {**notes, "answers_at_stop": asdict(self._habits())}
        notes = {**notes, "packed": isinstance(self.backend, Packed), "trainable": names}
        told = {name: value for name, value in asdict(outcome).items() if name != "rows"}
        told["checks"] = [list(check) for check in outcome.checks]
        write_json(self.context.folder / OUTCOME, {**told, **notes})

    def _habits(self) -> Habits:
        """Look at how the stop rule's questions are answered: readably, by one letter?"""
        predictions = predict(
            self.backend,
            [example for example in self.held_out if example.rotation == 0],
            batch_size=self.context.stage.settings.optimiser.micro_batch_size,
            max_new_tokens=self.context.inputs.experiment.scoring.max_new_tokens,
            on_batch=lambda done, total: None,
            ranks=self.context.ranks,
        )
        return habits_of(predictions)


def _job(
    context: StageContext[TrainingStage],
    held_out: list[Example],
    *,
    keep_reference: bool,
    procedure: bool = False,
) -> _Job:
    """Load the model and put on it what is below this stage, and what is trained."""
    loaded = load_model(context.model)
    stage = context.stage
    stack = AdapterStack(
        chain=(*loaded.beside, *(context.update_of(name) for name in stage.chain)),
        start_from=context.update_of(stage.start_from) if stage.start_from else None,
        reference_depth=len(loaded.beside) + stage.reference_depth,
        keep_reference=keep_reference,
    )
    how = context.model.frozen_adapters
    prepared = prepare_training(loaded, stage, stack, how=how)
    if context.ranks.lockstep:
        require_shardable(
            prepared,
            context.ranks,
            batch_size=stage.settings.optimiser.batch_size,
            procedure=procedure,
        )
        shard_layers(prepared.model, loaded.family, context.ranks)
    backend = _backend(context, loaded, prepared.model, held_out)
    return _Job(context, prepared, backend, held_out)


def _backend(
    context: StageContext[Any],
    loaded: LoadedModel,
    model: AnyModel,
    examples: Sequence[Example],
) -> Backend:
    """Return what reads the model, tried on some of the stage's examples."""
    return select_backend(
        model,
        context.cache.encoder(loaded),
        speed=context.inputs.experiment.speed,
        examples=examples,
        warn=context.progress.warn,
        features=context.cache.features,
    )


def prepare_training(
    loaded: LoadedModel,
    stage: TrainingStage,
    stack: AdapterStack,
    *,
    how: Literal["merged", "stacked"],
) -> TrainableModel:
    """Put the updates below a stage on the model, and make trainable what the stage trains."""
    settings = stage.settings
    if settings.update == "full":
        return prepare_full(loaded.model, stack, family=loaded.family, scope=settings.scope)

    def fresh(model: AnyModel) -> PeftModel:
        return add_trainable(
            model, loaded.family, settings.scope, lora=settings.lora, seed=stage.seed
        )

    return prepare(loaded.model, stack, how=how, fresh=fresh)
