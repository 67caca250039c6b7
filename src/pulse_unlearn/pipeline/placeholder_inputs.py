"""Inputs for a plan before the data are there: placeholders of the usual size."""

from __future__ import annotations

import math
from hashlib import sha256
from pathlib import Path

from pulse_unlearn.config import Experiment
from pulse_unlearn.data import datasets
from pulse_unlearn.errors import Problem
from pulse_unlearn.models.checkpoints import missing_revision
from pulse_unlearn.pipeline.inputs import (
    Inputs,
    check_settings,
    general_source,
    people_source,
    sample,
)
from pulse_unlearn.records import MODALITIES, Individual, Modality, Option, Picture, Question
from pulse_unlearn.scenarios import Roster, build_plan

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
LETTERS = "ABCD"


def still_missing(experiment: Experiment) -> list[Problem]:
    """Return what has to be got or filled in before the experiment can run."""
    data = experiment.data
    problems = []
    for part, source in (("people", data.people), ("general", data.general)):
        datasets.DATASETS.get(source.source)
        if source.path and not _on_hub(source) and not Path(source.path).exists():
            problems.append(
                Problem(
                    f"the {part} are not there"
                    if part == "people"
                    else "the general questions are not there",
                    f"data.{part}.path",
                    got=source.path,
                    fix=f"get them (the experiment file says how), or --set data.{part}.path=...",
                )
            )
    revision = missing_revision(experiment.model)
    return [*problems, revision] if revision else problems


def data_are_there(experiment: Experiment) -> bool:
    """Tell whether all data can be read; what is on the hub is not fetched for a plan."""
    return _readable(experiment.data.people) and _readable(experiment.data.general)


def placeholder_inputs(experiment: Experiment) -> Inputs:
    """Lay out the plan without what is missing; stages get no identity, as nothing was read.

    Raises as `read_inputs`.
    """
    data = experiment.data
    if _readable(data.people):
        read = datasets.load_people(data.people.source, people_source(data))
        people = {person.id: person for person in read.individuals}
    else:
        people = {person.id: person for person in _people(experiment)}
    if _readable(data.general):
        source = general_source(data)
        general = datasets.load_general(data.general.source, source).general
        training = datasets.load_general_training(data.general.source, source).general_training
    else:
        general, training = tuple(_general(GENERAL_QUESTIONS)), tuple(_general(100))
    check_settings(experiment, training)
    roster = Roster(
        tuple(key for key, person in people.items() if person.group == "fictional"),
        tuple(key for key, person in people.items() if person.group == "celebrity"),
    )
    return Inputs(
        experiment,
        build_plan(experiment, roster),
        people,
        sample(general, data.general_questions),
        training,
        digests={},
        keys={},
        ingredients={},
    )


def _on_hub(source: object) -> bool:
    return getattr(source, "revision", None) is not None


def _readable(source: object) -> bool:
    """Tell whether a source is local and there."""
    path = getattr(source, "path", None)
    return not _on_hub(source) and (path is None or Path(path).exists())


def _people(experiment: Experiment) -> list[Individual]:
    scenarios = experiment.scenarios
    learned = scenarios.finetuned or scenarios.sustainability
    counts = {
        "fictional": experiment.finetune.individuals if learned else 0,
        "celebrity": scenarios.pretrained.candidates if scenarios.pretrained else 0,
    }
    return [
        _person(f"{group} {number}", group)
        for group, count in counts.items()
        for number in range(1, count + 1)
    ]


def _person(name: str, group: str) -> Individual:
    return Individual(
        id=name,
        name=name,
        group=group,
        questions=tuple(
            _question(f"{name}/{modality}/{number}", modality, person=name, options=4)
            for modality in MODALITIES
            for number in range(QUESTIONS)
        ),
        training_pictures=(),
        other_pictures=(),
    )


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
    name: str, modality: Modality, *, options: int, person: str = "", hint: str = ""
) -> Question:
    return Question(
        id=name,
        modality=modality,
        question=QUESTION,
        # Texts differ, as they must to be told apart in words, and are of one length.
        options=tuple(Option(letter, letter.lower() + OPTION[1:]) for letter in LETTERS[:options]),
        answer="A",
        individual=person,
        hint=hint,
        picture=_picture(person or name) if modality == "multimodal" else None,
    )


def _picture(name: str) -> Picture:
    return Picture(b"", sha256(name.encode()).hexdigest(), "a stand-in")
