"""MMBench questions: a TSV with pictures inside, read with CSV quoting; all bad rows named at once.

Source: MMBench (arXiv 2307.06281) and its public TSV files. A row's image is base64 or the index of
another row; circular copies of a question carry `index + k * 1000000` and are left out here, since
`examples.circular` makes the rotations of any file itself.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.checks import LETTERS, check_question, clean, gathered
from pulse_unlearn.data.images import check_pictures, picture_from_bytes
from pulse_unlearn.data.records_file import long_fields
from pulse_unlearn.data.source import Dataset, digest
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Option, Picture, Question

COPY = 1_000_000
"""Distance between the indices of a question and of its circular copies."""
PUBLIC_MD5 = {
    "MMBench_DEV_EN": "b6caf1133a01c6bb705cf753bb527ed8",
    "MMBench_DEV_CN": "08b8fc3324a5ed74155350f57be69fbd",
    "MMBench_DEV_EN_V11": "30c05be8f2f347a50be25aa067248184",
    "MMBench_DEV_CN_V11": "593f9b5f6bea453d870a798b34ae4f37",
    "CCBench": "f5dde47f24dc5a6fb6e595b409b466ac",
}
"""MD5 of the public files with answers, by name, as VLMEvalKit's table of data sets lists them
(vlmeval/dataset/image_mcq.py); a file of another name is anybody's own."""
_NEEDED = ("index", "question", "A", "B", "answer", "image")
_WRITTEN_OUT = "nan"
"""What some table libraries write for an empty cell they have read."""
_TAKE_DEV = "take a split with answers (dev); test splits have none"


@dataclass(frozen=True, slots=True)
class _Row:
    index: int
    cells: Mapping[str, str]
    where: str


def load_mmbench(path: Path) -> list[Question]:
    """Read the base questions of a TSV, in the order of the file; ids are the base indices.

    Every picture is decoded once. Raises DataError with every problem as `file:line`.
    """
    return _Table(path).questions()


class _Table:
    """A file's rows, read once; what is wrong with them is told when the questions are made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems = _not_the_public_file(path)
        self._rows: dict[int, _Row] = {}
        try:
            rows = list(_rows(path, self._problems))
        except DataError as error:
            # A torn download is no public file either, and that is the better explanation.
            raise DataError([*self._problems, *error.problems]) from error
        for row in rows:
            if row.index in self._rows:
                got = f"{row.index}: {self._rows[row.index].where}"
                self._problems.append(Problem("the index stands twice", row.where, got))
            self._rows.setdefault(row.index, row)
        options = {
            _cell(row, letter)
            for row in self._rows.values()
            for letter in LETTERS
            if letter in row.cells
        }
        # A file with options that are truly empty means the text where it says `nan`.
        self._written_out = _WRITTEN_OUT in options and "" not in options

    def questions(self) -> list[Question]:
        """Return the base questions; raises DataError."""
        problems, rows = self._problems, self._rows
        if rows and not any(_content(row, "answer") for row in rows.values()):
            problems.append(_unanswered(self._path))
            raise DataError(gathered(problems))
        problems += [
            Problem("a circular copy of a question that is not there", row.where, str(row.index))
            for row in rows.values()
            if row.index % COPY not in rows
        ]
        questions = []
        for row in rows.values():
            if row.index < COPY:
                options = self._options(row)
                question = _question(row, options, _picture(row, rows, problems))
                problems += check_question(question, row.where)
                questions.append(question)
        if not questions and not problems:
            problems.append(Problem("there are no questions", str(self._path)))
        problems += check_pictures(q.picture for q in questions if q.picture)
        if problems:
            raise DataError(gathered(problems))
        return questions

    def notes(self) -> tuple[str, ...]:
        """Return what was left out or read in a way that could be another."""
        copies = sum(index >= COPY for index in self._rows)
        notes = [f"{copies} circular copies are left out: every question is rotated here"]
        notes = notes if copies else []
        if self._written_out:
            notes.append(f"options that say {_WRITTEN_OUT} are empty: no option is empty otherwise")
        return tuple(notes)

    def _options(self, row: _Row) -> tuple[Option, ...]:
        """Return a row's options; one that is missing before others is told."""
        empty = {"", _WRITTEN_OUT} if self._written_out else {""}
        texts = {letter: _cell(row, letter) for letter in LETTERS}
        options = tuple(Option(letter, text) for letter, text in texts.items() if text not in empty)
        missing = [letter for letter in LETTERS[: len(options)] if texts[letter] in empty]
        # A public file is what it is; in any other an empty cell there is a text that was lost.
        if missing and self._path.stem not in PUBLIC_MD5:
            self._problems.append(
                Problem(
                    "an option before others is empty",
                    row.where,
                    ", ".join(missing),
                    "empty cells behind the last option only",
                )
            )
        return options


def _not_the_public_file(path: Path) -> list[Problem]:
    """Return a problem if the file bears a public file's name but isn't that file."""
    known = PUBLIC_MD5.get(path.stem)
    if known is None or not path.is_file():
        return []
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found == known:
        return []
    return [
        Problem(
            "not the public file of this name",
            path.name,
            got=f"MD5 {found}",
            allowed=f"MD5 {known}",
            fix="download it again; give a changed or shortened copy a name of its own",
        )
    ]


def load_scored(file: Path) -> Dataset:
    """Read a TSV whose questions are scored; raises DataError."""
    table = _Table(file)
    return Dataset(
        general=tuple(table.questions()),
        digests=digest([file], root=file.parent),
        notes=table.notes(),
    )


def load_training(file: Path) -> Dataset:
    """Read `<name>_train.tsv` beside a scored TSV, nothing if it isn't there; raises DataError."""
    beside = file.with_name(f"{file.stem}_train{file.suffix}")
    if not beside.exists():
        return Dataset()
    table = _Table(beside)
    return Dataset(
        general_training=tuple(table.questions()),
        digests=digest([beside], root=file.parent),
        notes=table.notes(),
    )


def _rows(path: Path, problems: list[Problem]) -> Iterator[_Row]:
    """Yield the rows that have an index; what is wrong with the others is added to `problems`.

    Raises DataError if the file as a whole is no such table.
    """
    line = 0
    try:
        with path.open(encoding="utf-8-sig", newline="") as file, long_fields():
            reader = csv.DictReader(file, delimiter="\t", strict=True)
            _check_header(reader.fieldnames or (), path)
            line = reader.line_num
            for cells in reader:
                where, line = f"{path.name}:{line + 1}", reader.line_num
                row = _row(cells, where, problems)
                if row:
                    yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            Problem(
                "not a readable MMBench file",
                f"{path}:{line + 1}" if line else str(path),
                got=str(error),
                allowed="a UTF-8 TSV with CSV quoting, header "
                "`index question hint A B C D answer category image ...`",
            )
        ) from error


def _row(cells: Mapping[str | None, object], where: str, problems: list[Problem]) -> _Row | None:
    if None in cells or None in cells.values():
        problems.append(
            Problem(
                "the row has other columns than the header",
                where,
                fix="quote cells that hold tabs or line breaks, doubling the quotes inside",
            )
        )
        return None
    index = clean(cells["index"])
    if not _is_index(index):
        problems.append(Problem("the index is not a number", where, repr(index[:40])))
        return None
    return _Row(int(index), {str(key): str(value) for key, value in cells.items()}, where)


def _check_header(header: object, path: Path) -> None:
    names = list(header) if isinstance(header, list | tuple) else []
    missing = [name for name in _NEEDED if name not in names]
    if missing:
        raise DataError(
            Problem(
                "columns are missing",
                str(path),
                got=", ".join(name[:20] for name in names[:16]) or "an empty file",
                allowed=f"needs {', '.join(_NEEDED)}; lacks {', '.join(missing)}",
                fix=_TAKE_DEV if missing == ["answer"] else "",
            )
        )


def _unanswered(path: Path) -> Problem:
    return Problem("no question has an answer", path.name, "an empty column", fix=_TAKE_DEV)


def _question(row: _Row, options: tuple[Option, ...], picture: Picture | None) -> Question:
    return Question(
        id=str(row.index),
        modality="multimodal",
        question=_cell(row, "question"),
        options=options,
        answer=_cell(row, "answer"),
        hint=_content(row, "hint"),
        category=_content(row, "category"),
        l2_category=_content(row, "l2-category"),
        picture=picture,
    )


def _cell(row: _Row, column: str) -> str:
    return clean(row.cells.get(column))


def _content(row: _Row, column: str) -> str:
    """Return a cell in which `nan` can only mean that it is empty."""
    text = _cell(row, column)
    return "" if text == _WRITTEN_OUT else text


def _picture(row: _Row, rows: Mapping[int, _Row], problems: list[Problem]) -> Picture | None:
    """Return the row's picture, following indices of other rows; None if its cell is empty."""
    holder, seen = row, {row.index}
    while _is_index(text := clean(holder.cells["image"])):
        if int(text) not in rows or int(text) in seen:
            what = "comes back to itself" if int(text) in seen else "is not there"
            problems.append(Problem(f"the row its image refers to {what}", row.where, text[:40]))
            return None
        seen.add(int(text))
        holder = rows[int(text)]
    if not text:
        return None
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        problems.append(Problem("the image is not base64", holder.where, f"{text[:30]!r}; {error}"))
        return None
    return picture_from_bytes(data, holder.where)


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 12
