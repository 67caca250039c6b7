"""MMBench-format TSV to general questions, with every quirk of the public files.

Source: MMBench (Liu et al. 2023), `MMBench_DEV_EN.tsv`: CSV-quoted fields (a hint may hold line
breaks), base64 pictures or the index of the row that holds the picture, empty options, and circular
copies under `index + k * 1000000`, which are dropped because rotations are made here.
"""

from __future__ import annotations

import base64
import binascii
import csv
from collections.abc import Mapping
from pathlib import Path

from pulse_unlearn.data.images import picture_from_bytes, picture_problems
from pulse_unlearn.data.mllmu import question_problems
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Option, Picture, Question

COPY_STEP = 1_000_000
_NEEDED = ("index", "question", "A", "B", "answer", "image")
_OPTIONS = "ABCD"
_FIELD_LIMIT = 64 * 1024 * 1024
_MISSING = {"", "nan"}


def load_mmbench(path: Path) -> list[Question]:
    """Read the base questions; raises DataError listing every problem with file and line."""
    rows, problems = _read(path)
    pictures: dict[int, Picture] = {}
    questions = []
    for index, (where, row) in rows.items():
        if index >= COPY_STEP:
            continue
        picture = _picture(index, rows, pictures, problems)
        question = _question(index, row, picture, problems, where)
        if question is not None:
            questions.append(question)
    if not questions and not problems:
        problems.append(Problem("no questions found", str(path)))
    if problems:
        raise DataError(problems)
    return questions


Rows = dict[int, tuple[str, dict[str, str]]]


def _read(path: Path) -> tuple[Rows, list[Problem]]:
    problems: list[Problem] = []
    rows: Rows = {}
    # The module's limit is 128 kB, less than one base64 picture; it can only be set globally.
    csv.field_size_limit(_FIELD_LIMIT)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t")
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or [])]
            if missing:
                raise DataError(
                    Problem(
                        "columns are missing", str(path), ", ".join(missing), ", ".join(_NEEDED)
                    )
                )
            for row in reader:
                where = f"{path.name}:{reader.line_num}"
                index = _index(row.get("index") or "")
                if index is None or index in rows:
                    what = "the index is no number" if index is None else "the index stands twice"
                    problems.append(Problem(what, where, repr(row.get("index"))))
                    continue
                rows[index] = (where, row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(Problem("not a readable TSV file", str(path), str(error))) from error
    return rows, problems


def _index(text: str) -> int | None:
    try:
        return int(float(text))
    except ValueError:
        return None


def _picture(
    index: int, rows: Rows, known: dict[int, Picture], problems: list[Problem]
) -> Picture | None:
    """Return the picture of a row, following one reference to another row."""
    where, row = rows[index]
    text = (row.get("image") or "").strip()
    if text.isdigit():
        other = int(text)
        if other not in rows:
            problems.append(Problem("the picture's row does not exist", where, text))
            return None
        if other != index:
            pointed = (rows[other][1].get("image") or "").strip()
            if pointed.isdigit():
                problems.append(Problem("the picture's row holds no picture", where, text))
                return None
            return _picture(other, rows, known, problems)
    if index not in known:
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            problems.append(Problem("the picture is not base64", where, repr(text[:20])))
            return None
        known[index] = picture_from_bytes(data, where)
        problems += picture_problems(known[index])
    return known[index]


def _question(
    index: int,
    row: Mapping[str, str],
    picture: Picture | None,
    problems: list[Problem],
    where: str,
) -> Question | None:
    def cell(name: str) -> str:
        text = (row.get(name) or "").strip()
        return "" if text in _MISSING else text

    options = tuple(Option(letter, cell(letter)) for letter in _OPTIONS if cell(letter))
    text, answer = cell("question"), cell("answer")
    found = question_problems(text, options, answer, where)
    problems += found
    if found:
        return None
    return Question(
        id=f"general/{index}",
        modality="multimodal",
        question=text,
        options=options,
        answer=answer,
        hint=cell("hint"),
        category=cell("category") or "uncategorised",
        picture=picture,
    )
