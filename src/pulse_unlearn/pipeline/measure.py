"""Three measured steps: how fast this device really is, for the outlook's operations."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pulse_unlearn.config import FinetuneSettings, ModelSettings, UnlearnSettings
from pulse_unlearn.data import examples as make
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.models import costs
from pulse_unlearn.models.adapters import (
    AdapterStack,
    TrainableModel,
    add_trainable,
    prepare,
    prepare_full,
)
from pulse_unlearn.models.backends import select_backend
from pulse_unlearn.models.describe import Described
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import Backend
from pulse_unlearn.models.loading import LoadedModel, load_model
from pulse_unlearn.pipeline.estimate import adapter_of
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.pipeline.token_stats import TokenStats
from pulse_unlearn.records import Example
from pulse_unlearn.scenarios import TrainingStage
from pulse_unlearn.training.guards import StopRule
from pulse_unlearn.training.loop import Watch, train
from pulse_unlearn.training.objectives import Learning
from pulse_unlearn.training.steps import StepData

STEPS = 3
WARM_UP = 1
"""Steps before them that do not count: memory is first taken, kernels are first chosen."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Rates of this device with this model."""

    training: float
    """Operations a second, by the outlook's count."""
    asking: float
    step_seconds: float
    questions_per_second: float
    peak_bytes: int | None
    """Most memory the device held; None where torch does not count it."""
    device: str


@dataclass(frozen=True, slots=True)
class _Few:
    """The first steps of a training."""

    examples: list[Example]
    size: int

    def __len__(self) -> int:
        return WARM_UP + STEPS

    def __getitem__(self, step: int) -> StepData:
        return StepData((), _batch(self.examples, step, self.size))


def measure(inputs: Inputs, model: Described) -> Measured:
    """Load the model, train three steps of the first training stage and ask three batches.

    Raises ConfigError for a plan that trains nothing, and whatever loading the model raises.
    """
    stage = next((s for s in inputs.plan.stages if isinstance(s, TrainingStage)), None)
    if stage is None:
        raise ConfigError(Problem("nothing is trained in this plan, so nothing can be measured"))
    experiment, settings = inputs.experiment, stage.settings
    stats = TokenStats(inputs, model)
    examples = stats.epoch(stage.groups()[0], settings.forms)
    loaded = load_model(experiment.model)
    if loaded.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(loaded.device)
    prepared = _prepare(loaded, settings, experiment.model)
    backend = select_backend(
        prepared.model,
        Encoder(loaded.processor, loaded.family),
        speed=experiment.speed,
        examples=examples,
        warn=lambda _: None,
    )
    size = settings.optimiser.batch_size
    seconds = _train(prepared.model, backend, _Few(examples, size), settings)
    taken = sum(
        (stats.taken(_batch(examples, WARM_UP + n, size)) for n in range(STEPS)),
        costs.NOTHING,
    )
    trained = costs.training_operations(
        model.shape,
        taken,
        adapter=adapter_of(settings),
        checkpointing=experiment.model.gradient_checkpointing,
    )
    asked, count, asking_seconds = _ask(inputs, stats, backend)
    return Measured(
        trained / seconds,
        costs.forward_operations(model.shape, asked) / asking_seconds,
        seconds / STEPS,
        count / asking_seconds,
        torch.cuda.max_memory_allocated(loaded.device) if loaded.device.type == "cuda" else None,
        str(loaded.device),
    )


def _prepare(
    loaded: LoadedModel, settings: FinetuneSettings | UnlearnSettings, model: ModelSettings
) -> TrainableModel:
    """Make trainable what the settings train, over the model's own adapters alone."""
    own = loaded.beside
    stack = AdapterStack(own, reference_depth=len(own), keep_reference=settings.update != "full")
    if settings.update == "full":
        return prepare_full(loaded.model, stack, family=loaded.family, scope=settings.scope)
    return prepare(
        loaded.model,
        stack,
        how=model.frozen_adapters,
        fresh=lambda held: add_trainable(
            held, loaded.family, settings.scope, lora=settings.lora, seed=0
        ),
    )


def _batch(examples: list[Example], step: int, size: int) -> tuple[Example, ...]:
    """Return batch number `step`, beginning anew behind the last example."""
    return tuple(examples[(step * size + n) % len(examples)] for n in range(size))


def _train(
    model: Any, backend: Backend, steps: _Few, settings: FinetuneSettings | UnlearnSettings
) -> float:
    """Return the seconds of the steps that count."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            model,
            Learning(backend),
            steps,
            settings=settings.optimiser,
            stop=StopRule(check_every=1),
            accuracy=lambda: 0.0,
            vocabulary=len(backend.encoder.tokenizer),
            seed=0,
            watch=Watch(
                folder=Path(folder),
                checkpoint_seconds=float("inf"),
                on_step=lambda _done, _total, row: seconds.append(row["seconds"]),
                should_stop=lambda: False,
                warn=lambda _: None,
            ),
        )
    return max(sum(seconds[WARM_UP:]), 1e-9)


def _ask(inputs: Inputs, stats: TokenStats, backend: Backend) -> tuple[costs.Asked, int, float]:
    """Ask three batches of general questions; return what they take, how many, and seconds."""
    experiment = inputs.experiment
    scoring = experiment.scoring
    questions = make.scored(inputs.general, profile=experiment.data.general_prompt)
    few = questions[: STEPS * scoring.batch_size]
    started = time.perf_counter()
    predict(
        backend,
        few,
        batch_size=scoring.batch_size,
        max_new_tokens=scoring.max_new_tokens,
        on_batch=lambda _done, _total: None,
    )
    return stats.taken(few, "reply"), len(few), max(time.perf_counter() - started, 1e-9)
