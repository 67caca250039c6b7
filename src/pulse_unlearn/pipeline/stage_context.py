"""What a runner is given, and the examples that a stage asks or trains on."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data import examples as make
from pulse_unlearn.models.fast.run_cache import RunCache
from pulse_unlearn.pipeline.asked import asked, elsewhere
from pulse_unlearn.pipeline.inputs import Inputs
from pulse_unlearn.pipeline.progress import Progress
from pulse_unlearn.pipeline.signals import StopRequest
from pulse_unlearn.records import Example, Individual
from pulse_unlearn.scenarios import Group, Stage

ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class StageContext:
    """What a runner is given."""

    inputs: Inputs
    stage: Stage
    folder: Path
    """The stage's partial folder."""
    folder_of: Callable[[str], Path]
    """Name of a finished stage -> its folder."""
    resolve: Callable[[Group], tuple[str, ...]]
    """Group -> ids, reading a finished selection if need be."""
    progress: Progress
    stop: StopRequest
    cache: RunCache
    """What earlier stages of the run leave in memory."""

    def people(self, group: Group) -> list[Individual]:
        """Return the individuals of a group."""
        return [self.inputs.people[identity] for identity in self.resolve(group)]

    def adapter_of(self, stage: str) -> Path:
        """Return the adapter folder a finished training stage has left."""
        return self.folder_of(stage) / ADAPTER


def questions(context: StageContext) -> list[Example]:
    """Return what a score stage asks."""
    people = [person for group in context.stage.ask for person in context.people(group)]
    people = list({person.id: person for person in people}.values())
    return asked(context.inputs, context.stage, people)


def people_epochs(
    context: StageContext, people: Sequence[Individual], forms: make.Forms
) -> Callable[[int], list[Example]]:
    """Return what one epoch trains on of these people, by its number."""
    profile, seed = context.inputs.experiment.data.people_prompt, context.stage.order_seed
    return lambda epoch: make.training(people, profile=profile, seed=seed, epoch=epoch, forms=forms)


def general_epochs(context: StageContext) -> Callable[[int], list[Example]]:
    """Return what one epoch replays of general questions, by its number."""
    profile, seed = context.inputs.experiment.data.general_prompt, context.stage.order_seed
    general = context.inputs.general_training
    return lambda epoch: make.general_training(general, profile=profile, seed=seed, epoch=epoch)


def held_out(context: StageContext, people: Sequence[Individual], count: int) -> list[Example]:
    """Return questions for the stop rule: views and option orders that are never reported.

    So many questions; where `rotated` decides, each of them in every order.
    """
    drawn = sorted(question.id for person in people for question in person.questions)
    chosen = random.Random(f"{context.stage.order_seed}:held-out")
    kept = set(chosen.sample(drawn, min(count, len(drawn))))
    asked = elsewhere(context.inputs, people, turned=context.stage.decides == "rotated")
    return [example for example in asked if example.question_id in kept]
