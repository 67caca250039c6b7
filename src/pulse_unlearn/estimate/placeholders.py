"""What an experiment still lacks, and what stands in for it in a plan.

No torch: `pulse plan --brief` says this first.
"""

from __future__ import annotations

import math
from hashlib import sha256
from pathlib import Path

from pulse_unlearn.config import Experiment
from pulse_unlearn.data import Dataset, datasets
from pulse_unlearn.errors import Problem
from pulse_unlearn.models.checkpoints import unknown_source
from pulse_unlearn.pipeline.inputs import Inputs, read_inputs
from pulse_unlearn.records import MODALITIES, Individual, Modality, Option, Picture, Question

ASSUMED_SIDE = 512
"""Pixels along both sides of a picture that is not there yet."""
QUESTIONS = 5
"""In each modality, of one person: MLLMU-Bench."""
GENERAL_QUESTIONS = 1164
"""MMBench, English dev set."""
FOUR_OPTIONS = 0.86
"""Share of them with four options, the rest having two: about 4 330 rotations."""
QUESTION = "What kind of a town did this person live in as a young lady?"
"""Words of usual length and number: tokenizers read a row of signs in other ways."""
OPTION = "a small town in Portugal"
HINT = "It was built by the river long before the first bridge was there. " * 30
"""About 2 000 characters: MMBench has paragraphs, and the longest question decides about memory."""
HINTED = 20
"""One general question in so many has that hint."""


def still_missing(experiment: Experiment) -> list[Problem]:
    """Return what has to be got or filled in before the experiment can run."""
    data = experiment.data
    problems = []
    for part, what, source in (
        ("people", "people", data.people),
        ("general", "general questions", data.general),
    ):
        datasets.DATASETS.get(source.source)
        if source.path and not _on_hub(source) and not Path(source.path).exists():
            problems.append(
                Problem(
                    f"the {what} are not there",
                    f"data.{part}.path",
                    got=source.path,
                    fix=f"get them (the experiment file says how), or --set data.{part}.path=...",
                )
            )
    unknown = unknown_source(experiment.model)
    return [*problems, unknown] if unknown else problems


def data_are_there(experiment: Experiment) -> bool:
    """Tell whether all data can be read; what is on the hub is not fetched for a plan."""
    return _readable(experiment.data.people) and _readable(experiment.data.general)


def placeholder_inputs(experiment: Experiment) -> Inputs:
    """Lay out the plan with placeholders for data that are not there; raises as `read_inputs`."""
    placeholders = {}
    if not _readable(experiment.data.people):
        placeholders["people"] = Dataset(individuals=tuple(_people(experiment)))
    if not _readable(experiment.data.general):
        placeholders["general"] = Dataset(general=tuple(_general(GENERAL_QUESTIONS)))
        placeholders["general_training"] = Dataset(general_training=tuple(_general(100)))
    return read_inputs(experiment, placeholders=placeholders)


def _on_hub(source: object) -> bool:
    return getattr(source, "revision", None) is not None


def _readable(source: object) -> bool:
    """Tell whether a source is local and there."""
    path = getattr(source, "path", None)
    return not _on_hub(source) and (path is None or Path(path).exists())


def _people(experiment: Experiment) -> list[Individual]:
    scenarios = experiment.scenarios
    chosen = [one for one in (scenarios.pretrained, scenarios.same_checkpoint) if one]
    counts = {
        "fictional": experiment.finetune.individuals if scenarios.teaches() else 0,
        "celebrity": max((one.candidates for one in chosen), default=0),
    }
    return [
        _person(f"{group} {number}", group)
        for group, count in counts.items()
        for number in range(1, count + 1)
    ]


def _person(name: str, group: str) -> Individual:
    questions = tuple(
        _question(f"{name}/{modality}/{number}", modality, person=name)
        for modality in MODALITIES
        for number in range(QUESTIONS)
    )
    return Individual(name, name, group, questions, training_pictures=(), other_pictures=())


def _general(count: int) -> list[Question]:
    four = math.ceil(FOUR_OPTIONS * count)
    return [
        _question(
            f"general/{number}",
            "multimodal",
            options=4 if number < four else 2,
            hint="" if number % HINTED else HINT,
        )
        for number in range(count)
    ]


def _question(
    name: str, modality: Modality, *, options: int = 4, person: str = "", hint: str = ""
) -> Question:
    digest = sha256((person or name).encode()).hexdigest()
    return Question(
        id=name,
        modality=modality,
        question=QUESTION,
        # Texts differ, as they must to be told apart in words, and are of one length.
        options=tuple(Option(letter, letter.lower() + OPTION[1:]) for letter in "ABCD"[:options]),
        answer="A",
        individual=person,
        hint=hint,
        picture=Picture(b"", digest, "a placeholder") if modality == "multimodal" else None,
    )
