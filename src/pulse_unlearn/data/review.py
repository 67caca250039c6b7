"""A data set looked at as a whole, before any experiment: its format, its faults, its content."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.checks import Problems
from pulse_unlearn.data.configs import benchmark_in, shards
from pulse_unlearn.data.datasets import DATASETS
from pulse_unlearn.data.leaks import (
    Different,
    Part,
    find_declared,
    find_duplicates,
    find_trained_on_scored,
    left_out,
    unknown_people,
)
from pulse_unlearn.data.mllmu import CELEBRITIES, FICTIONAL
from pulse_unlearn.data.people import STEM
from pulse_unlearn.data.source import Dataset, Source
from pulse_unlearn.data.tables import SUFFIXES
from pulse_unlearn.errors import ConfigError, DataError, Problem
from pulse_unlearn.records import Individual, Question


@dataclass(frozen=True, slots=True)
class Review:
    """What a data set holds, and what experiments on it would refuse."""

    parts: tuple[str, ...]
    """One line for each thing there is to say."""
    leaks: Mapping[str, Sequence[Problem]]
    """By kind: people who stand there twice, scored material that is trained on."""


def recognise(path: Path) -> str:
    """Return the name of the data set whose format this is; raises ConfigError if none's."""
    if path.suffix == ".tsv":
        return "mmbench"
    if any((path / f"{STEM}{suffix}").is_file() for suffix in SUFFIXES):
        return "people"
    if (path / "manifest.json").is_file() and (path / "people").is_dir():
        return "world"
    benchmark = benchmark_in(path)
    if benchmark:
        return benchmark
    if any(shards(path, config) for config in (FICTIONAL, CELEBRITIES)):
        return "mllmu"
    raise ConfigError(
        Problem(
            "not recognised as a data set" if path.exists() else "there is nothing here",
            str(path),
            allowed="a .tsv file (MMBench), a folder with people.jsonl, .csv or .parquet, "
            "or one of MLLMU-Bench, UMU-Bench, FIUBench or CLEAR",
            fix="" if not path.exists() else "say what it is with --source",
        )
    )


def review(name: str, source: Source, *, different: Different = ()) -> Review:
    """Read every part of a data set; raises DataError with the problems of all of them.

    People in `different` are two although they share a name or look alike, which is noted; raises
    ConfigError if nobody has such an id.
    """
    read: list[Dataset] = []
    problems = Problems()
    entry = DATASETS.get(name)
    for load in filter(None, (entry.people, entry.general, entry.general_training)):
        try:
            read.append(load(source))
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(list(dict.fromkeys(problems)))
    people = [person for part in read for person in part.individuals]
    general = [question for part in read for question in part.general]
    training = [question for part in read for question in part.general_training]
    unknown = unknown_people(
        (name for pair in different for name in pair), {person.id for person in people}
    )
    if unknown:
        raise ConfigError(unknown)
    leaks = {
        "same_person": find_duplicates(people, different=different),
        "trained_on_scored": find_trained_on_scored(
            people, general=general, general_training=training
        ),
    }
    _, about = left_out(people, [*general, *training], allowed=())
    lines = [*_about_people(people), *_about_general(general)]
    lines += [f"{len(training)} general questions to train on"] if training else []
    files = {file for part in read for file in part.digests}
    lines.append(f"{len(files - {'as read'})} files")
    lines += [f"note: {note}" for part in read for note in part.notes]
    declared = find_declared([Part("", [person]) for person in people], different)
    lines += [f"note: declared different: {line}" for line in declared]
    lines += [f"note: {note}" for note in about]
    return Review(tuple(lines), leaks)


def _about_people(people: list[Individual]) -> Iterator[str]:
    groups = Counter(person.group for person in people)
    for group, count in sorted(groups.items()):
        members = [person for person in people if person.group == group]
        asked = Counter(q.modality for person in members for q in person.questions)
        yield (
            f"{count} people, {group}: {asked['multimodal']} questions with a picture, "
            f"{asked['text_only']} in text only, "
            f"{sum(len(p.training_pictures) for p in members)} pictures to train on, "
            f"{sum(len(p.other_pictures) for p in members)} further views"
        )
        uneven = Counter(len(person.questions) for person in members)
        if len(uneven) > 1:
            shown = ", ".join(f"{count} have {size}" for size, count in sorted(uneven.items()))
            yield f"  not everybody is asked as many questions: {shown}"
        nameless = sum(not person.name for person in members)
        if nameless:
            yield f"  {nameless} without a name, who cannot be compared by it"


def _about_general(general: list[Question]) -> Iterator[str]:
    if general:
        sizes = Counter(len(question.options) for question in general)
        shown = ", ".join(f"{count} of {size} options" for size, count in sorted(sizes.items()))
        yield f"{len(general)} general questions: {shown}"
    for column, categories in (
        ("l2-category", Counter(q.l2_category for q in general)),
        ("category", Counter(q.category for q in general)),
    ):
        if set(categories) - {""}:
            counts = sorted(categories.items())
            shown = ", ".join(f"{name or 'none'} {count}" for name, count in counts)
            yield f"  by {column}: {shown}"
