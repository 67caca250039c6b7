"""What a runner is given, and the examples that a stage asks or trains on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pulse_unlearn.config import ModelSettings
from pulse_unlearn.data import examples as make
from pulse_unlearn.data.facts import with_facts
from pulse_unlearn.data.variants import Variants
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.models.loading import RunCache
from pulse_unlearn.pipeline.asked import other_view_examples, stage_examples
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.pipeline.progress import StageProgress
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.ranks import ALONE, Ranks
from pulse_unlearn.records import Example, Facts, Individual
from pulse_unlearn.scenarios import (
    FinetuneStage,
    Group,
    ScoreStage,
    Stage,
    TrainingStage,
    UnlearnStage,
)
from pulse_unlearn.training.steps import FinetuneSteps, UnlearnSteps

ADAPTER = "adapter"

AnyStage = TypeVar("AnyStage", bound=Stage, covariant=True)


@dataclass(frozen=True, slots=True)
class StageContext(Generic[AnyStage]):
    """What a runner is given: one stage of its kind, and where it works."""

    inputs: Inputs
    stage: AnyStage
    folder: Path
    """The stage's partial folder."""
    folder_of: Callable[[str], Path]
    """Name of a finished stage -> its folder."""
    resolve: Callable[[Group], tuple[str, ...]]
    """Group -> ids, reading a finished selection if need be."""
    progress: StageProgress
    stop: StopRequest
    cache: RunCache
    """What earlier stages of the run leave in memory, for this stage's model."""
    ranks: Ranks = ALONE
    """The processes that carry the stage out together; what others than the first write is lost."""

    @property
    def model(self) -> ModelSettings:
        """The model that the stage starts from."""
        return self.inputs.experiment.model_of(self.stage.model)

    def on_batch(self, done: int, total: int) -> None:
        """Tell how far the stage is, and leave it if that was asked for."""
        self.progress.advance(done, total, {})
        self.stop.check()

    def people(self, group: Group, *, facts: Facts = "all", seed: int = 0) -> list[Individual]:
        """Return the individuals of a group, with the questions about some of their facts."""
        found = [self.inputs.people[identity] for identity in self.resolve(group)]
        return [with_facts(person, facts, seed=seed) for person in found]

    def update_of(self, stage: str, *, step: int | None = None) -> Path:
        """Return the folder of the update a finished training stage has left, or a snapshot."""
        return self.folder_of(stage) / update_folder(step)


def update_folder(step: int | None) -> str:
    """Return the name of the folder of a final update, or of that after some steps."""
    return ADAPTER if step is None else f"{ADAPTER}-step{step}"


def questions(context: StageContext[ScoreStage]) -> list[Example]:
    """Return what a score stage asks; raises DataError if that is nothing."""
    found = stage_examples(context.inputs, context.stage, context.resolve)
    if not found:
        raise DataError(Problem("there is nothing to ask", context.stage.name, got="no questions"))
    return found


def people_epochs(
    inputs: Inputs, stage: TrainingStage, people: Sequence[Individual]
) -> Callable[[int], list[Example]]:
    """Return what one epoch of a stage trains on of these people, by its number."""
    profile, seed, forms = (
        inputs.experiment.data.people_prompt,
        stage.order_seed,
        stage.settings.forms,
    )
    return lambda epoch: make.training(people, profile=profile, seed=seed, epoch=epoch, forms=forms)


def variants_of(
    inputs: Inputs,
    stage: UnlearnStage,
    forget: Sequence[Individual],
    retain: Sequence[Individual],
) -> Variants:
    """Return other forms of a stage's forget questions."""
    profile, forms = inputs.experiment.data.people_prompt, stage.settings.forms
    return Variants(forget, retain, profile=profile, seed=stage.order_seed, forms=forms)


def general_epochs(inputs: Inputs, stage: TrainingStage) -> Callable[[int], list[Example]]:
    """Return what one epoch of a stage replays of general questions, by its number."""
    profile, seed = inputs.experiment.data.general_prompt, stage.order_seed
    general = inputs.general_training
    return lambda epoch: make.general_training(general, profile=profile, seed=seed, epoch=epoch)


def embedded_views(
    inputs: Inputs,
    stage: UnlearnStage,
    people: Sequence[Individual],
    epochs: int,
    *,
    own: bool,
) -> list[Example]:
    """Return the training views of some epochs, with and without options; never scored ones.

    Behind those of retained people stand general questions, where retain batches have them.
    """
    data = inputs.experiment.data
    found: list[Example] = []
    for epoch in range(epochs):
        found += make.training(
            people, profile=data.people_prompt, seed=stage.order_seed, epoch=epoch, forms="both"
        )
        if not own and stage.settings.replayed_share:
            found += general_epochs(inputs, stage)(epoch)
    return found


def finetune_steps(
    inputs: Inputs, stage: FinetuneStage, people: Sequence[Individual]
) -> FinetuneSteps:
    """Return which examples each step of a fine-tuning shows."""
    settings = stage.settings
    return FinetuneSteps(
        people_epochs(inputs, stage, people),
        general_epochs(inputs, stage),
        batch_size=settings.optimiser.batch_size,
        replay=settings.replay,
        epochs=settings.epochs,
        steps=settings.steps,
        seed=stage.order_seed,
        shuffle=settings.optimiser.shuffle,
    )


def unlearn_steps(
    inputs: Inputs,
    stage: UnlearnStage,
    forget: Sequence[Individual],
    retain: Sequence[Individual],
    others: Sequence[Individual],
    *,
    general_share: float,
) -> Callable[[int], UnlearnSteps]:
    """Return which examples each step of an unlearning shows, by the number of its steps."""
    settings = stage.settings
    forgotten = people_epochs(inputs, stage, forget)
    kept, shared = (
        people_epochs(inputs, stage, people) if people else None for people in (retain, others)
    )
    return lambda steps: UnlearnSteps(
        forgotten,
        kept,
        general_epochs(inputs, stage),
        others=shared,
        batch_size=settings.optimiser.batch_size,
        general_share=general_share,
        steps=steps,
        seed=stage.order_seed,
        shuffle=settings.optimiser.shuffle,
    )


def held_out(
    context: StageContext[TrainingStage], people: Sequence[Individual], count: int
) -> list[Example]:
    """Return questions for the stop rule: views and option orders that are never reported.

    So many questions; where `rotated` decides, each of them in every order. Of nobody, general
    questions that are trained on: then no stop rule asks any.
    """
    if not people:
        return general_epochs(context.inputs, context.stage)(0)[:count]
    drawn = sorted(question.id for person in people for question in person.questions)
    chosen = random.Random(f"{context.stage.order_seed}:held-out")
    kept = set(chosen.sample(drawn, min(count, len(drawn))))
    asked = other_view_examples(context.inputs, people, turned=context.stage.decides == "rotated")
    return [example for example in asked if example.question_id in kept]
