"""Three measured steps: how fast this device really is, in the operations of `counts`."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pulse_unlearn.data import examples as make
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.estimate.counts import NOTHING, forward_operations, training_operations
from pulse_unlearn.estimate.questions import Pools
from pulse_unlearn.estimate.sizes import SizedModel
from pulse_unlearn.estimate.stages import adapter_of
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.models.adapters import AdapterStack
from pulse_unlearn.models.backends import select_backend
from pulse_unlearn.models.encode import Encoder
from pulse_unlearn.models.forward import Backend
from pulse_unlearn.models.loading import load_model
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.pipeline.runners import prepare_training
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
    """Operations a second, as `counts` counts them."""
    asking: float
    step_seconds: float
    questions_per_second: float
    peak_bytes: int | None
    """Most memory the device held; None where torch does not count it."""
    device: str


def measure(inputs: Inputs, model: SizedModel) -> Measured:
    """Load the model, train three steps of the first training stage and ask three batches.

    Raises ConfigError for a plan that trains nothing, and whatever loading the model raises.
    """
    stage = next((s for s in inputs.plan.stages if isinstance(s, TrainingStage)), None)
    if stage is None:
        raise ConfigError(Problem("nothing is trained in this plan, so nothing can be measured"))
    experiment, settings, pools = inputs.experiment, stage.settings, Pools(inputs, model)
    examples = pools.epoch(stage, stage.groups()[0])
    loaded = load_model(experiment.model)
    if loaded.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(loaded.device)
    # What is trained lies over the model's own adapters alone.
    keep = settings.update != "full"
    own = AdapterStack(loaded.beside, reference_depth=len(loaded.beside), keep_reference=keep)
    prepared = prepare_training(loaded, stage, own, how=experiment.model.frozen_adapters)
    backend = select_backend(
        prepared.model,
        Encoder(loaded.processor, loaded.family),
        speed=experiment.speed,
        examples=examples,
        warn=lambda _: None,
    )
    steps = _Few(examples, settings.optimiser.batch_size)
    seconds = _train(prepared.model, backend, steps, stage)
    seen = (pools.taken(steps[WARM_UP + number].retain) for number in range(STEPS))
    trained = training_operations(
        model,
        sum(seen, NOTHING),
        adapter=adapter_of(settings),
        checkpointing=experiment.model.gradient_checkpointing,
    )
    scored = make.scored(inputs.general, profile=experiment.data.general_prompt)
    few = scored[: STEPS * experiment.scoring.batch_size]
    started = time.perf_counter()
    predict(
        backend,
        few,
        batch_size=experiment.scoring.batch_size,
        max_new_tokens=experiment.scoring.max_new_tokens,
        on_batch=lambda _done, _total: None,
    )
    asking_seconds = max(time.perf_counter() - started, 1e-9)
    return Measured(
        trained / seconds,
        forward_operations(model, pools.taken(few, "reply")) / asking_seconds,
        seconds / STEPS,
        len(few) / asking_seconds,
        torch.cuda.max_memory_allocated(loaded.device) if loaded.device.type == "cuda" else None,
        str(loaded.device),
    )


@dataclass(frozen=True, slots=True)
class _Few:
    """The first steps of a training; behind the last example the first comes again."""

    examples: list[Example]
    size: int

    def __len__(self) -> int:
        return WARM_UP + STEPS

    def __getitem__(self, step: int) -> StepData:
        places = range(step * self.size, (step + 1) * self.size)
        return StepData((), tuple(self.examples[n % len(self.examples)] for n in places))


def _train(model: Any, backend: Backend, steps: _Few, stage: TrainingStage) -> float:
    """Return the seconds of the steps that count."""
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            model,
            Learning(backend),
            steps,
            settings=stage.settings.optimiser,
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
