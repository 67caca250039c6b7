"""MLLMU-Bench people: parquet configs to individuals, every malformed row named at once.

Source: MLLMU-Bench (arXiv 2410.22108), Hub data set MLLMMU/MLLMU-Bench. `Full_Set` holds the
fictional people, `Retain_Set` the celebrities; both carry the scored picture and the questions.
`ft_Data` adds pictures and question-answer pairs to train on, `Test_Set` further poses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pulse_unlearn.data.checks import (
    check_question,
    check_short_answer,
    check_text,
    clean,
    gathered,
)
from pulse_unlearn.data.images import check_pictures, picture_from_bytes
from pulse_unlearn.data.naming import find_name
from pulse_unlearn.data.parquet import Row, read_rows, shards
from pulse_unlearn.data.structures import (
    Malformed,
    foreign_letters,
    letter_of,
    no_question,
    options_of,
    pairs_of,
    structure,
)
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Individual, Modality, Picture, Question, ShortAnswer
from pulse_unlearn.registry import did_you_mean

CELEBRITIES = "Retain_Set"
FICTIONAL = "Full_Set"
TRAINING = "ft_Data"
OTHER_POSES = "Test_Set"
SPLITS = (("forget_5", "retain_95"), ("forget_10", "retain_90"), ("forget_15", "retain_85"))
"""Pairs that together hold every fictional person's training rows, as `ft_Data` does."""

_TASKS: tuple[tuple[Modality, str], ...] = (
    ("multimodal", "Image_Textual_Questions"),
    ("text_only", "Pure_Text_Questions"),
)
_IMAGE_COLUMNS = ("image", "images")


def training_configs(folder: Path) -> tuple[str, ...]:
    """Return the configs to take training rows from: `ft_Data`, else the first whole split."""
    whole = (pair for pair in ((TRAINING,), *SPLITS) if all(shards(folder, name) for name in pair))
    return next(whole, ())


def load_people(
    folder: Path, *, config: str, more: bool = True, id_prefix: str = ""
) -> list[Individual]:
    """Read the people of one config, in the order of the file.

    `more` adds pictures to train on and further poses, from whichever of their configs are there.
    People of `Retain_Set` are of group `celebrity`, all others `fictional`. `id_prefix` keeps ids
    of two configs apart. Every picture is decoded once. Raises DataError with every problem of
    every file.
    """
    reader = _Reader(group="celebrity" if config == CELEBRITIES else "fictional", prefix=id_prefix)
    needed, optional = ("ID", "Classification_Task"), (*_IMAGE_COLUMNS, "biography")
    for row in read_rows(
        folder, config, needed=needed, optional=optional, problems=reader.problems
    ):
        reader.add_person(row)
    further = [(name, reader.add_training) for name in training_configs(folder)]
    further += [(OTHER_POSES, reader.add_poses)] if shards(folder, OTHER_POSES) else []
    for name, add in further if more else ():
        columns = (*_IMAGE_COLUMNS, "metadata")
        for row in read_rows(
            folder, name, needed=("ID",), optional=columns, problems=reader.problems
        ):
            add(row)
    return reader.finish(where=f"{folder}/{config}")


@dataclass(slots=True)
class _Draft:
    """A person while the files are being read."""

    id: str
    name: str
    questions: list[Question]
    training: dict[str, Picture] = field(default_factory=dict)
    other: dict[str, Picture] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    """Text of a `metadata` cell -> the row it was first seen in; views repeat the same text."""
    answers: list[ShortAnswer] = field(default_factory=list)


class _Reader:
    """Collects people and problems; what one row lacks never hides what the next one lacks."""

    def __init__(self, *, group: str, prefix: str) -> None:
        self._group, self._prefix = group, prefix
        self._people: dict[str, _Draft] = {}
        self._rows: dict[str, str] = {}
        self.problems: list[Problem] = []

    def add_person(self, row: Row) -> None:
        """Take a row with the scored picture and the questions."""
        identity = self._identity(row)
        if not identity:
            return
        where = f"{row.where} ID {identity}"
        if identity in self._rows:
            self.problems.append(
                Problem("the ID stands twice", where, got=f"also {self._rows[identity]}")
            )
            return
        self._rows[identity] = row.where
        pictures = self._pictures(row, where)
        if len(pictures) > 1:
            fix = f"name one; further poses go to {OTHER_POSES}, pictures to train on to {TRAINING}"
            self.problems.append(
                Problem("more than one scored picture", where, str(len(pictures)), fix=fix)
            )
        draft = _Draft(self._prefix + identity, "", [])
        try:
            task = structure(row.values["Classification_Task"])
        except Malformed as error:
            self.problems.append(Problem("Classification_Task is malformed", where, str(error)))
            task = {}
        else:
            draft.questions = self._questions(
                draft.id, task, pictures[0] if pictures else None, where
            )
            if not draft.questions:
                self.problems.append(Problem("a person of whom nothing is asked", where))
        texts = [q.question for q in draft.questions if q.modality == "text_only"]
        draft.name = find_name(row.values.get("biography"), texts)
        self._people[identity] = draft

    def add_training(self, row: Row) -> None:
        """Take a row with a picture to train on and its question-answer pairs."""
        draft = self._people.get(self._identity(row))
        if draft is None:
            return
        where = f"{row.where} ID {draft.id}"
        draft.training.update({p.digest: p for p in self._pictures(row, where)})
        cell = row.values.get("metadata")
        if cell:
            text = cell if isinstance(cell, str) else json.dumps(cell, default=str)
            draft.metadata.setdefault(text, where)

    def add_poses(self, row: Row) -> None:
        """Take a row with further poses."""
        draft = self._people.get(self._identity(row))
        if draft is not None:
            pictures = self._pictures(row, f"{row.where} ID {draft.id}")
            draft.other.update({p.digest: p for p in pictures})

    def finish(self, *, where: str) -> list[Individual]:
        """Return the people; raises DataError if anything was wrong, pictures included."""
        for draft in self._people.values():
            draft.answers = self._short_answers(draft)
        if not self._people and not self.problems:
            self.problems.append(Problem("there are no people", where))
        self.problems += check_pictures(
            picture for draft in self._people.values() for picture in _pictures_of(draft)
        )
        if self.problems:
            raise DataError(gathered(self.problems))
        return [
            Individual(
                id=draft.id,
                name=draft.name,
                group=self._group,
                questions=tuple(draft.questions),
                training_pictures=tuple(draft.training.values()),
                other_pictures=_other_pictures(draft),
                short_answers=tuple(draft.answers),
            )
            for draft in self._people.values()
        ]

    def _identity(self, row: Row) -> str:
        identity = clean(row.values["ID"])
        self.problems += check_text("ID", identity, row.where)
        return identity

    def _pictures(self, row: Row, where: str) -> list[Picture]:
        """Return the pictures of a row that has a struct, plain bytes, or a list of either."""
        cells: list[Any] = []
        for column in _IMAGE_COLUMNS:
            value = row.values.get(column)
            cells += value if isinstance(value, list) else [] if value is None else [value]
        pictures = []
        for number, cell in enumerate(cells):
            data = cell.get("bytes") if isinstance(cell, Mapping) else cell
            place = where if len(cells) == 1 else f"{where} picture {number}"
            if isinstance(data, bytes):
                pictures.append(picture_from_bytes(data, place))
            else:
                path = cell.get("path") if isinstance(cell, Mapping) else None
                self.problems.append(
                    Problem(
                        "the picture holds no bytes",
                        place,
                        got=f"path {path!r}" if path else type(data).__name__,
                        allowed="the image file itself, in the parquet file",
                    )
                )
        return pictures

    def _questions(
        self, identity: str, task: Any, picture: Picture | None, where: str
    ) -> list[Question]:
        questions = []
        columns = [column for _, column in _TASKS]
        given = task if isinstance(task, Mapping) else {}
        for name in given:
            if name not in columns and given[name]:
                fix = did_you_mean(str(name), columns)
                self.problems.append(
                    Problem("unknown kind of question", where, str(name), ", ".join(columns), fix)
                )
        for modality, column in _TASKS:
            entries = given.get(column)
            if not isinstance(entries, list | None):
                self.problems.append(Problem(f"{column} is not a list", where))
                continue
            for number, entry in enumerate(entries or (), start=1):
                place = f"{where} {column} {number}"
                wrong = no_question(entry)
                if wrong:
                    self.problems.append(Problem("not a question", place, wrong))
                    continue
                question = Question(
                    id=f"{identity}/{modality}/{number}",
                    modality=modality,
                    question=clean(entry.get("Question")),
                    options=options_of(entry.get("Options")),
                    answer=letter_of(entry.get("Correct_Answer")),
                    individual=identity,
                    picture=picture if modality == "multimodal" else None,
                )
                self.problems += foreign_letters(entry.get("Options"), place)
                self.problems += check_question(question, place)
                questions.append(question)
        return questions

    def _short_answers(self, draft: _Draft) -> list[ShortAnswer]:
        different: dict[tuple[str, str, str], ShortAnswer] = {}
        for text, where in draft.metadata.items():
            try:
                pairs = pairs_of(text, name=draft.name)
            except Malformed as error:
                self.problems.append(Problem("metadata is malformed", where, str(error)))
                continue
            for pair in pairs:
                answer = ShortAnswer(
                    id=f"{draft.id}/{pair.modality}/short{len(different) + 1}",
                    modality=pair.modality,
                    question=pair.question,
                    answer=pair.answer,
                    individual=draft.id,
                )
                key = (pair.modality, pair.question, pair.answer)
                if key not in different:
                    self.problems += check_short_answer(answer, where)
                    different[key] = answer
        return list(different.values())


def _pictures_of(draft: _Draft) -> Iterable[Picture]:
    yield from (question.picture for question in draft.questions if question.picture)
    yield from draft.training.values()
    yield from draft.other.values()


def _other_pictures(draft: _Draft) -> tuple[Picture, ...]:
    """Return the poses that are neither scored nor trained on; a copy of those is no other pose."""
    used = set(draft.training) | {q.picture.digest for q in draft.questions if q.picture}
    return tuple(picture for digest, picture in draft.other.items() if digest not in used)
