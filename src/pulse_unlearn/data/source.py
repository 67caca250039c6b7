"""Where a data set comes from, the choices made in reading it, and what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.records import Individual, Question

ScoredPicture = Literal["own", "other_pose"]


@dataclass(frozen=True, slots=True)
class Source:
    """A place, and the choices that decide what is read there."""

    path: str | None = None
    """File or folder; None for embedded data; `owner/name` on the hub if there is a revision."""
    revision: str | None = None
    """Commit of a hub data set."""
    scored_picture: ScoredPicture = "own"
    """`own`: the picture beside the questions; `other_pose`: a further pose is scored instead."""
    options: int = 4
    """How many options a question gets that has only a true answer."""
    options_seed: int = 0
    """Decides which other people's answers become its options."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """What one source holds; parts it doesn't have, or was not asked for, are empty."""

    individuals: tuple[Individual, ...] = ()
    general: tuple[Question, ...] = ()
    """General-ability questions that are scored."""
    general_training: tuple[Question, ...] = ()
    """General-ability questions to train on: replay and retain material, never scored."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """File, relative to the source -> SHA-256 of its bytes, hex; `as read` -> that of the content
    where choices of reading decide about it."""
    notes: tuple[str, ...] = ()
    """What was left out, or could have been read in another way; nothing that makes it unusable."""


def with_notes(found: Dataset, notes: Iterable[str]) -> Dataset:
    """Return the data set with these notes behind its own."""
    return replace(found, notes=(*found.notes, *notes))


def digest(paths: Sequence[Path], *, root: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path relative to `root`."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            found[path.relative_to(root).as_posix()] = hashlib.file_digest(
                file, "sha256"
            ).hexdigest()
    return found


def digest_as_read(individuals: Iterable[Individual]) -> dict[str, str]:
    """Return one SHA-256 over everything a model can be shown of these people."""
    lines = []
    for person in individuals:
        questions = [
            [
                *(question.id, question.question, question.hint, question.answer),
                [[option.letter, option.text] for option in question.options],
                question.picture.digest if question.picture else "",
            ]
            for question in person.questions
        ]
        pictures = [
            [picture.digest for picture in views]
            for views in (person.training_pictures, person.other_pictures)
        ]
        words = [[one.id, one.question, one.answer] for one in person.short_answers]
        lines.append(json.dumps([person.id, person.group, questions, pictures, words]))
    return {"as read": hashlib.sha256("\n".join(lines).encode()).hexdigest()}


def given(source: Source, name: str, what: str) -> str:
    """Return the path; raises ConfigError if the experiment names none."""
    if not source.path:
        raise ConfigError(
            Problem(f"data set '{name}' needs a path", allowed=what, fix="set data.<part>.path")
        )
    return source.path
