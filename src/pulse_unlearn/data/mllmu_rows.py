"""Rows of MLLMU-Bench to individuals, every malformed row named at once."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
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
from pulse_unlearn.data.images import check_pictures
from pulse_unlearn.data.naming import find_name, mentions
from pulse_unlearn.data.parquet import Row
from pulse_unlearn.data.people_pictures import Album
from pulse_unlearn.data.structures import (
    Malformed,
    Pair,
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

IMAGE_COLUMNS = ("image", "images")
IMAGE_PATH = "image_path"
"""Where JSON lines name a picture file that neither of those names."""
_TASKS: tuple[tuple[Modality, str], ...] = (
    ("multimodal", "Image_Textual_Questions"),
    ("text_only", "Pure_Text_Questions"),
)
_NUMBER = re.compile(r"0*(\d+)(?:\.0)?")


def same_id(identity: str) -> str:
    """Return what two spellings of one id have in common: `093`, `93` and `93.0` are one number."""
    number = _NUMBER.fullmatch(identity)
    return number[1] if number else identity


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
    pairs: list[tuple[str, str, str]] = field(default_factory=list)
    """Question, answer and row, of rows that have them in columns of their own."""
    answers: list[ShortAnswer] = field(default_factory=list)


class Reader:
    """Collects people and problems; what one row lacks never hides what the next one lacks."""

    def __init__(self, folder: Path, *, group: str, prefix: str) -> None:
        self._group, self._prefix = group, prefix
        self._people: dict[str, _Draft] = {}
        self._rows: dict[str, str] = {}
        self._by_number: dict[str, list[str]] = defaultdict(list)
        self._respelt: dict[str, Counter[str]] = {}
        self._columns_read: Counter[str] = Counter()
        self._silent: Counter[str] = Counter()
        self.problems: list[Problem] = []
        self.album = Album(folder, self.problems)

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
            fix = "name one; further poses go to Test_Set, pictures to train on to ft_Data"
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
        self._by_number[same_id(identity)].append(identity)

    def add_training(self, row: Row, config: str) -> None:
        """Take a row with a picture to train on and its question-answer pairs.

        The pairs stand in `metadata`, or one in `question` and `answer` where there is none.
        """
        draft = self._person(row, config)
        if draft is None:
            return
        where = f"{row.where} ID {draft.id}"
        draft.training.update({p.digest: p for p in self._pictures(row, where)})
        cell = row.values.get("metadata")
        question, answer = row.values.get("question"), row.values.get("answer")
        if cell:
            text = cell if isinstance(cell, str) else json.dumps(cell, default=str)
            draft.metadata.setdefault(text, where)
        elif clean(question) or clean(answer):
            draft.pairs.append((clean(question), clean(answer), where))
            self._columns_read[config] += 1
        else:
            self._silent[config] += 1

    def add_poses(self, row: Row, config: str) -> None:
        """Take a row with further poses."""
        draft = self._person(row, config)
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

    def notes(self) -> Iterator[str]:
        """Yield what was read in another way than the benchmark's own files need."""
        for config, spelt in self._respelt.items():
            yield (
                f"{config}: ids are written otherwise ({next(iter(spelt))}); "
                f"{sum(spelt.values())} rows are matched by number"
            )
        for config, count in self._columns_read.items():
            yield (
                f"{config}: {count} rows have no metadata; "
                "question and answer are read as what is trained on in words"
            )
        for config, count in self._silent.items():
            yield f"{config}: {count} rows hold no question with an answer to train on in words"

    def _person(self, row: Row, config: str) -> _Draft | None:
        """Return whose row it is; ids that only differ in leading zeros are one, unless two are."""
        identity = self._identity(row)
        if identity in self._people:
            return self._people[identity]
        same = self._by_number.get(same_id(identity), [])
        if len(same) != 1:
            return None
        self._respelt.setdefault(config, Counter())[f"{identity} for {same[0]}"] += 1
        return self._people[same[0]]

    def _identity(self, row: Row) -> str:
        identity = clean(row.values["ID"])
        self.problems += check_text("ID", identity, row.where)
        return identity

    def _pictures(self, row: Row, where: str) -> list[Picture]:
        """Return the pictures of a row that has a struct, plain bytes, or a list of either."""
        cells: list[Any] = []
        for column in IMAGE_COLUMNS:
            value = row.values.get(column)
            cells += value if isinstance(value, list) else [] if value is None else [value]
        path = row.values.get(IMAGE_PATH)
        cells += [path] if path and not cells else []
        pictures = []
        for number, cell in enumerate(cells):
            data = cell.get("bytes") if isinstance(cell, Mapping) else cell
            place = where if len(cells) == 1 else f"{where} picture {number}"
            if isinstance(data, bytes | str):
                picture = self.album.picture(data, place)
                pictures += [picture] if picture else []
                continue
            path = cell.get("path") if isinstance(cell, Mapping) else None
            got = f"path {path!r}" if path else type(data).__name__
            allowed = "the image file itself, in the parquet file"
            self.problems.append(Problem("the picture holds no bytes", place, got, allowed))
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
        different: dict[Pair, ShortAnswer] = {}
        for pair, where in self._pairs(draft):
            answer = ShortAnswer(
                id=f"{draft.id}/{pair.modality}/short{len(different) + 1}",
                modality=pair.modality,
                question=pair.question,
                answer=pair.answer,
                individual=draft.id,
            )
            if pair not in different:
                self.problems += check_short_answer(answer, where)
                different[pair] = answer
        return list(different.values())

    def _pairs(self, draft: _Draft) -> Iterator[tuple[Pair, str]]:
        for text, where in draft.metadata.items():
            try:
                yield from ((pair, where) for pair in pairs_of(text, name=draft.name))
            except Malformed as error:
                self.problems.append(Problem("metadata is malformed", where, str(error)))
        for question, answer, where in draft.pairs:
            text_only = mentions(question, draft.name)
            yield Pair("text_only" if text_only else "multimodal", question, answer), where


def _pictures_of(draft: _Draft) -> Iterable[Picture]:
    yield from (question.picture for question in draft.questions if question.picture)
    yield from draft.training.values()
    yield from draft.other.values()


def _other_pictures(draft: _Draft) -> tuple[Picture, ...]:
    """Return the poses that are neither scored nor trained on; a copy of those is no other pose."""
    used = set(draft.training) | {q.picture.digest for q in draft.questions if q.picture}
    return tuple(picture for digest, picture in draft.other.items() if digest not in used)
