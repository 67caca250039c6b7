"""MLLMU-Bench parquet files to individuals, with every problem told at once.

Source: MLLMU-Bench (Liu et al. 2024), hub id `MLLMMU/MLLMU-Bench`. Configs used: `Full_Set` and
`Retain_Set` hold the scored picture and the multiple-choice questions of fictional people and
celebrities, `ft_Data` training pictures and short answers, `Test_Set` other poses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pulse_unlearn.data.images import picture_from_bytes, picture_problems
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Individual, Modality, Option, Picture, Question, ShortAnswer

GROUPS = {"Full_Set": "fictional", "Retain_Set": "celebrity"}
TRAINING, OTHER = "ft_Data", "Test_Set"
_TASKS: dict[str, Modality] = {
    "Image_Textual_Questions": "multimodal",
    "Pure_Text_Questions": "text_only",
}
_TYPES: dict[str, Modality] = {"Image_Textual": "multimodal", "Pure_Text": "text_only"}
_LETTERS = "ABCDEFGH"
MAX_TEXT = 10_000
"""Most characters accepted in one question or option."""


@dataclass(slots=True)
class _Reading:
    """Problems found so far, and pictures already checked."""

    problems: list[Problem] = field(default_factory=list)
    checked: dict[str, Picture] = field(default_factory=dict)

    def picture(self, value: Any, where: str) -> Picture | None:
        """Take a struct{bytes, path}; note what is wrong with it."""
        data = value.get("bytes") if isinstance(value, Mapping) else None
        if not isinstance(data, bytes):
            self.problems.append(
                Problem(
                    "the picture has no bytes", where, type(value).__name__, "struct{bytes, path}"
                )
            )
            return None
        picture = picture_from_bytes(data, where)
        if picture.digest not in self.checked:
            self.problems += picture_problems(picture)
            self.checked[picture.digest] = picture
        return picture


def people_files(folder: Path) -> list[Path]:
    """Return the parquet files that are read, in a fixed order."""
    configs = (*GROUPS, TRAINING, OTHER)
    return [path for config in configs for path in sorted((folder / config).glob("*.parquet"))]


def load_people(folder: Path) -> list[Individual]:
    """Read all people of a local copy of MLLMU-Bench.

    Raises DataError listing every problem with file and row: missing columns, duplicate ids,
    answers that are no option, empty or equal options, bad pictures, unreadable metadata.
    """
    reading = _Reading()
    training = _by_id(folder, TRAINING, reading)
    other = _by_id(folder, OTHER, reading)
    people: dict[str, Individual] = {}
    for config, group in GROUPS.items():
        for where, row in _rows(folder / config, reading):
            identity = str(row.get("ID"))
            if identity in people:
                reading.problems.append(Problem("the ID stands twice", where, identity))
                continue
            people[identity] = _individual(
                row,
                identity,
                group,
                training.get(identity, []),
                other.get(identity, []),
                reading=reading,
                where=where,
            )
    if not people and not reading.problems:
        reading.problems.append(
            Problem("no people found", str(folder), allowed=f"parquet files in {', '.join(GROUPS)}")
        )
    if reading.problems:
        raise DataError(reading.problems)
    return list(people.values())


def _rows(folder: Path, reading: _Reading) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (file:row, row) of every parquet file in a folder."""
    for path in sorted(folder.glob("*.parquet")):
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            reading.problems.append(Problem("not a readable parquet file", str(path), str(error)))
            continue
        if "ID" not in table.column_names:
            reading.problems.append(
                Problem("the column ID is missing", str(path), ", ".join(table.column_names))
            )
            continue
        for number, row in enumerate(table.to_pylist()):
            yield f"{path.parent.name}/{path.name}:{number}", row


def _by_id(
    folder: Path, config: str, reading: _Reading
) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for where, row in _rows(folder / config, reading):
        found.setdefault(str(row["ID"]), []).append((where, row))
    return found


def _individual(
    row: Mapping[str, Any],
    identity: str,
    group: str,
    training: Sequence[tuple[str, dict[str, Any]]],
    other: Sequence[tuple[str, dict[str, Any]]],
    *,
    reading: _Reading,
    where: str,
) -> Individual:
    face = reading.picture(row.get("image"), where)
    questions = _questions(row.get("Classification_Task"), identity, face, reading, where)
    trained = [reading.picture(item.get("image"), place) for place, item in training]
    poses = [
        reading.picture(image, place)
        for place, item in other
        for image in (item.get("images") or ([item["image"]] if item.get("image") else []))
    ]
    shorts: dict[tuple[str, str], ShortAnswer] = {}
    for place, item in training:
        for short in _short_answers(item.get("metadata"), identity, reading, place):
            shorts.setdefault((short.modality, short.question), short)
    return Individual(
        id=identity,
        name=common_name([q.question for q in questions if q.modality == "text_only"]) or identity,
        group=group,
        questions=tuple(questions),
        training_pictures=tuple(picture for picture in trained if picture),
        other_pictures=tuple(picture for picture in poses if picture),
        short_answers=tuple(shorts.values()),
    )


def _questions(
    task: Any, identity: str, face: Picture | None, reading: _Reading, where: str
) -> list[Question]:
    if not isinstance(task, Mapping) or not any(task.get(name) for name in _TASKS):
        reading.problems.append(Problem("no Classification_Task questions", where, identity))
        return []
    made = []
    for name, modality in _TASKS.items():
        for number, item in enumerate(task.get(name) or []):
            place = f"{where} {name}[{number}]"
            question = _question(item, f"{identity}/{modality}/{number}", modality, reading, place)
            if question is not None:
                shown = face if modality == "multimodal" else None
                made.append(_with(question, identity, shown))
    return made


def _with(question: Question, identity: str, picture: Picture | None) -> Question:
    return Question(
        id=question.id,
        modality=question.modality,
        question=question.question,
        options=question.options,
        answer=question.answer,
        individual=identity,
        picture=picture,
    )


def _question(
    item: Mapping[str, Any], name: str, modality: Modality, reading: _Reading, where: str
) -> Question | None:
    text = str(item.get("Question") or "").strip()
    given = item.get("Options") or {}
    # Parquet unifies structs: an option this question lacks is a null key.
    options = tuple(
        Option(letter, str(given[letter]).strip())
        for letter in _LETTERS
        if given.get(letter) is not None
    )
    answer = str(item.get("Correct_Answer") or "").strip().strip(".)").upper()
    problems = question_problems(text, options, answer, where)
    reading.problems += problems
    return None if problems else Question(name, modality, text, options, answer)


def question_problems(
    text: str, options: Sequence[Option], answer: str, where: str
) -> list[Problem]:
    """Return everything wrong with a multiple-choice question, of whatever data set."""
    problems = []
    texts = [option.text for option in options]
    letters = [option.letter for option in options]
    if not text:
        problems.append(Problem("the question is empty", where))
    for part in (text, *texts):
        if len(part) > MAX_TEXT or "\0" in part:
            got = f"{len(part)} characters" if len(part) > MAX_TEXT else "a NUL character"
            problems.append(Problem("the text cannot be used", where, got))
    if len(options) < 2:
        problems.append(Problem("too few options", where, str(len(options)), "at least 2"))
    if any(not part for part in texts):
        problems.append(Problem("an option is empty", where))
    if len(set(texts)) < len(texts):
        problems.append(Problem("two options are equal", where, ", ".join(texts)))
    if answer not in letters:
        problems.append(
            Problem("the answer is not among the options", where, repr(answer), ", ".join(letters))
        )
    return problems


def _short_answers(
    metadata: Any, identity: str, reading: _Reading, where: str
) -> list[ShortAnswer]:
    if not metadata:
        return []
    try:
        pairs = json.loads(metadata)
    except (TypeError, ValueError) as error:
        reading.problems.append(Problem("metadata is not JSON", where, str(error)))
        return []
    made = []
    for number, pair in enumerate(pairs if isinstance(pairs, list) else []):
        if not isinstance(pair, Mapping) or not pair.get("Question") or not pair.get("Answer"):
            reading.problems.append(
                Problem("a pair lacks Question or Answer", f"{where} metadata[{number}]")
            )
            continue
        modality = _TYPES.get(str(pair.get("Type", "Image_Textual")), "multimodal")
        name = f"{identity}/short/{number}"
        made.append(ShortAnswer(name, modality, pair["Question"], pair["Answer"], identity))
    return made


def common_name(questions: Sequence[str]) -> str:
    """Return the longest run of capitalised words that all questions share: the person's name.

    The files hold no name of their own; an empty string means that none was found.
    """
    if not questions:
        return ""
    words = [word.strip("?.,!") for word in questions[0].replace("'s", "").split()]
    runs = sorted(
        (
            " ".join(words[start:end])
            for start in range(len(words))
            for end in range(start + 1, len(words) + 1)
            if all(word[:1].isupper() for word in words[start:end])
        ),
        key=lambda run: (-len(run.split()), -len(run)),
    )
    return next((run for run in runs if all(run in question for question in questions)), "")
