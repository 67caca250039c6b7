"""MMBench questions: a TSV with pictures inside, all bad rows named at once.

Source: MMBench (arXiv 2307.06281) and its public TSV files. A row's image is base64, the index of
another row, or a path in the file's folder. Circular copies of a question carry
`index + k * 1000000`: they are the orders in which its options are asked. A few public questions
have equal options: they are taken, and whichever is equal to the true one is true as well.
"""

from __future__ import annotations

import base64
import binascii
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.checks import check_question, clean, gathered
from pulse_unlearn.data.images import check_pictures, picture_from_bytes
from pulse_unlearn.data.mmbench_table import (
    COPY,
    PUBLIC_MD5,
    TAKE_DEV,
    WRITTEN_OUT,
    Row,
    as_index,
    letters_of,
    not_the_public_file,
    read_rows,
)
from pulse_unlearn.data.orders import names_letters, staying
from pulse_unlearn.data.public import shown
from pulse_unlearn.data.source import Dataset, digest
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Option, Picture, Question

_SHOWN = 10
"""Questions that a note names."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one row of a file shows: a question in one order of its options."""

    question_id: str
    """Of the base question."""
    where: str
    options: tuple[Option, ...]
    answer: str
    category: str
    l2_category: str


def load_rows(path: Path) -> dict[int, Shown]:
    """Read what every row of a TSV shows, by index; raises DataError as `load_mmbench` does."""
    return _Table(path).shown()


def load_mmbench(path: Path) -> list[Question]:
    """Read the base questions of a TSV, in the order of the file; ids are the base indices.

    Every picture is decoded once. Raises DataError with every problem as `file:line`.
    """
    return _Table(path).questions()


class _Table:
    """A file's rows, read once; what is wrong with them is told when the questions are made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._problems = not_the_public_file(path)
        self._rows: dict[int, Row] = {}
        try:
            rows = read_rows(path, self._problems)
        except DataError as error:
            # A torn download is no public file either, and that is the better explanation.
            raise DataError([*self._problems, *error.problems]) from error
        for row in rows:
            if row.index in self._rows:
                got = f"{row.index}: {self._rows[row.index].where}"
                self._problems.append(Problem("the index stands twice", row.where, got))
            self._rows.setdefault(row.index, row)
        self._letters = letters_of(rows)
        texts = {row.cell(letter) for row in self._rows.values() for letter in self._letters}
        # A file with options that are truly empty means the text where it says `nan`.
        self._written_out = WRITTEN_OUT in texts and "" not in texts
        self._questions: list[Question] = []
        self._pictures: dict[str, str] = {}

    def questions(self) -> list[Question]:
        """Return the base questions; raises DataError."""
        problems, rows = self._problems, self._rows
        if rows and not any(row.content("answer") for row in rows.values()):
            problems.append(Problem("no question has an answer", self._path.name, fix=TAKE_DEV))
            raise DataError(gathered(problems))
        copies: dict[int, list[Row]] = defaultdict(list)
        for row in sorted(rows.values(), key=lambda row: row.index):
            if row.index >= COPY:
                copies[row.index % COPY].append(row)
        problems += [
            Problem("a circular copy of a question that is not there", row.where, str(row.index))
            for base, of in copies.items()
            for row in of
            if base not in rows
        ]
        questions = [
            self._question(row, copies[row.index]) for row in rows.values() if row.index < COPY
        ]
        if not questions and not problems:
            problems.append(Problem("there are no questions", str(self._path)))
        problems += check_pictures(q.picture for q in questions if q.picture)
        if problems:
            raise DataError(gathered(problems))
        self._questions = questions
        return questions

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file read: the table, and pictures that it names by path."""
        return {**digest([self._path], root=self._path.parent), **self._pictures}

    def shown(self) -> dict[int, Shown]:
        """Return what every row shows, by index; circular copies too. Raises as `questions`."""
        self.questions()
        return {
            row.index: Shown(
                str(row.index % COPY),
                row.where,
                self._options(row),
                _answer(row),
                row.content("category"),
                row.content("l2-category"),
            )
            for row in self._rows.values()
        }

    def notes(self) -> tuple[str, ...]:
        """Return what was read in a way that could be another; questions must have been read."""
        asked = self._questions
        own = [q for q in asked if q.orders]
        twins = [q for q in asked if len({o.text for o in q.options}) < len(q.options)]
        true = [q for q in twins if [o.text for o in q.options].count(q.truth) > 1]
        about = [q for q in asked if not q.orders and staying(q.options)]
        named = [q for q in about if names_letters(q.options)]
        stays = [q for q in about if not names_letters(q.options)]
        notes = [
            _note(own, "asked in the orders of the file's own circular copies"),
            _note(twins, "with equal options, taken as they are", named=True),
            _note(true, "where an option equal to the true one counts as true, too", named=True),
            _note(stays, "whose options about other options stay in place", named=True),
            _note(named, "asked in the file's order only: options name letters", named=True),
        ]
        if self._written_out:
            notes.append(f"options that say {WRITTEN_OUT} are empty: no option is empty otherwise")
        return tuple(note for note in notes if note)

    def _question(self, row: Row, copies: Sequence[Row]) -> Question:
        """Return a row's question; what is wrong with it or its copies is told."""
        options = self._options(row)
        question = Question(
            id=str(row.index),
            modality="multimodal",
            question=row.cell("question"),
            options=options,
            answer=_answer(row),
            hint=row.content("hint"),
            category=row.content("category"),
            l2_category=row.content("l2-category"),
            picture=self._picture(row),
            orders=self._orders(row, options, copies),
        )
        named = bool(row.content("image") or row.content("image-path"))
        self._problems += check_question(question, row.where, twins=True, picture_told=named)
        return question

    def _options(self, row: Row) -> tuple[Option, ...]:
        """Return a row's options; one that is missing before others is told."""
        empty = {"", WRITTEN_OUT} if self._written_out else {""}
        texts = {letter: row.cell(letter) for letter in self._letters}
        options = tuple(Option(letter, text) for letter, text in texts.items() if text not in empty)
        missing = [letter for letter in self._letters[: len(options)] if texts[letter] in empty]
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

    def _orders(
        self, row: Row, options: Sequence[Option], copies: Sequence[Row]
    ) -> tuple[tuple[int, ...], ...]:
        """Return the orders of a question and of its copies; none where there are no copies."""
        truth = {option.letter: option.text for option in options}.get(_answer(row))
        orders = [tuple(range(len(options)))]
        for copy in copies:
            texts = [option.text for option in self._options(copy)]
            order = _places(texts, [option.text for option in options])
            shown = dict(zip((option.letter for option in options), texts, strict=False))
            if order is None:
                what, fix = "a circular copy has other options than its question", ""
            elif shown.get(_answer(copy)) != truth:
                what, fix = "a circular copy has another answer than its question", ""
            else:
                orders.append(order)
                continue
            fix = fix or "take the copies out: the question is rotated without them"
            self._problems.append(Problem(what, copy.where, f"{copy.index}: {row.where}", fix=fix))
        return tuple(dict.fromkeys(orders)) if copies else ()

    def _picture(self, row: Row) -> Picture | None:
        """Return the row's picture, following indices of other rows; None if its cell is empty."""
        holder, seen = row, {row.index}
        while (index := as_index(clean(holder.cells.get("image")))) is not None:
            if index not in self._rows or index in seen:
                what = "comes back to itself" if index in seen else "is not there"
                what = f"the row its image refers to {what}"
                self._problems.append(Problem(what, row.where, str(index)))
                return None
            seen.add(index)
            holder = self._rows[index]
        text = holder.content("image")
        if text:
            return _decoded(text, holder.where, self._problems)
        name = holder.content("image-path")
        found = _beside(self._path.parent, name, holder.where, self._problems) if name else None
        if found:
            self._pictures[name] = found.digest
        return found


def _answer(row: Row) -> str:
    text = row.cell("answer")
    return text.upper() if len(text) == 1 else text


def _places(texts: Sequence[str], of: Sequence[str]) -> tuple[int, ...] | None:
    """Return where each of `texts` stands in `of`, equal ones in their order; None if not all."""
    left: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(of):
        left[text].append(place)
    if sorted(texts) != sorted(of):
        return None
    return tuple(left[text].pop(0) for text in texts)


def _note(questions: Sequence[Question], what: str, *, named: bool = False) -> str:
    if not questions:
        return ""
    told = shown([question.id for question in questions], most=_SHOWN)
    count = f"{len(questions)} question{'s' if len(questions) > 1 else ''}"
    return f"{count} {what}{f' ({told})' if named else ''}"


def _decoded(text: str, where: str, problems: list[Problem]) -> Picture | None:
    if text.startswith("["):
        problems.append(_several(where, text))
        return None
    encoded = text.partition("base64,")[2] if text.startswith("data:") else text
    try:
        data = base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        problems.append(Problem("the image is not base64", where, f"{text[:30]!r}; {error}"))
        return None
    return picture_from_bytes(data, where)


def _beside(folder: Path, name: str, where: str, problems: list[Problem]) -> Picture | None:
    """Read a picture by its path, inside the file's folder only."""
    if name.startswith("["):
        problems.append(_several(where, name))
        return None
    path, allowed = folder / name, "a path inside the folder of the TSV"
    if not path.resolve().is_relative_to(folder.resolve()):
        problems.append(Problem("a picture outside the folder", where, repr(name[:80]), allowed))
        return None
    try:
        return picture_from_bytes(path.read_bytes(), str(path))
    except (OSError, ValueError) as error:
        problems.append(Problem("a picture that cannot be read", where, str(error), allowed))
        return None


def _several(where: str, text: str) -> Problem:
    return Problem(
        "a question with a list of pictures",
        where,
        repr(text[:40]),
        "one picture a question",
        "take these questions out: questions on several pictures are not asked",
    )


def load_scored(file: Path) -> Dataset:
    """Read a TSV whose questions are scored; raises DataError."""
    table = _Table(file)
    return Dataset(
        general=tuple(table.questions()),
        digests=table.digests(),
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
        digests=table.digests(),
        notes=table.notes(),
    )
