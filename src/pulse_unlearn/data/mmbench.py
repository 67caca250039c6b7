"""MMBench questions: a TSV with pictures inside, all bad rows named at once.

Source: MMBench (arXiv 2307.06281) and its public TSV files. A row's image is base64, the index of
another row, or a path in the file's folder. Circular copies of a question carry
`index + k * 1000000`: they are the orders in which its options are asked. A few public questions
have equal options: they are taken, and whichever is equal to the true one is true as well.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.checks import Problems, check_question, clean, listing
from pulse_unlearn.data.images import Album, check_pictures, picture_from_bytes
from pulse_unlearn.data.mmbench_table import (
    COPY,
    PUBLIC_MD5,
    TAKE_DEV,
    WRITTEN_OUT,
    QuestionRow,
    as_index,
    check_public_file,
    letters_of,
    read_questions,
)
from pulse_unlearn.data.options import names_letters, staying
from pulse_unlearn.data.source import Dataset, digest
from pulse_unlearn.errors import DataError
from pulse_unlearn.records import Option, Picture, Question

_NAMED = 10
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


def load_scored(file: Path) -> Dataset:
    """Read a TSV whose questions are scored, in the order of the file; ids are the base indices.

    Every picture is decoded once. Raises DataError with every problem as `file:line`.
    """
    table = _Table(file)
    return Dataset(general=table.questions(), digests=table.digests(), notes=table.notes())


def load_training(file: Path) -> Dataset:
    """Read `<name>_train.tsv` beside a scored TSV, nothing if it isn't there; raises likewise."""
    beside = file.with_name(f"{file.stem}_train{file.suffix}")
    if not beside.exists():
        return Dataset()
    table = _Table(beside)
    return Dataset(general_training=table.questions(), digests=table.digests(), notes=table.notes())


def load_rows(path: Path) -> dict[int, Shown]:
    """Read what every row of a TSV shows, by index, circular copies too; raises likewise."""
    return _Table(path).shown()


class _Table:
    """A file's rows, read once; what is wrong with them is told when the questions are made."""

    def __init__(self, path: Path) -> None:
        self._path, self._problems = path, Problems()
        self._album = Album(path.parent, self._problems)
        self._rows: dict[int, QuestionRow] = {}
        check_public_file(path, self._problems)
        try:
            rows = read_questions(path, self._problems)
        except DataError as error:
            # A torn download is no public file either, and that is the better explanation.
            raise DataError([*self._problems, *error.problems]) from error
        for row in rows:
            if row.index in self._rows:
                got = f"{row.index}: {self._rows[row.index].where}"
                self._problems.add("the index stands twice", row.where, got)
            self._rows.setdefault(row.index, row)
        self._letters = letters_of(rows)
        texts = {row.cell(letter) for row in self._rows.values() for letter in self._letters}
        # A file with options that are truly empty means the text where it says `nan`.
        self._written_out = WRITTEN_OUT in texts and "" not in texts
        self._questions: tuple[Question, ...] = ()

    def questions(self) -> tuple[Question, ...]:
        """Return the base questions; raises DataError."""
        problems, rows = self._problems, self._rows
        if rows and not any(row.content("answer") for row in rows.values()):
            problems.add("no question has an answer", self._path.name, fix=TAKE_DEV)
            problems.raise_any()
        copies: dict[int, list[QuestionRow]] = defaultdict(list)
        for row in sorted(rows.values(), key=lambda row: row.index):
            if row.index >= COPY:
                copies[row.index % COPY].append(row)
                if row.index % COPY not in rows:
                    what = "a circular copy of a question that is not there"
                    problems.add(what, row.where, str(row.index))
        base = [row for row in rows.values() if row.index < COPY]
        self._questions = tuple(self._question(row, copies[row.index]) for row in base)
        if not self._questions and not problems:
            problems.add("there are no questions", str(self._path))
        problems += check_pictures(q.picture for q in self._questions if q.picture)
        problems.raise_any()
        return self._questions

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file read: the table, and pictures that it names by path."""
        return digest([self._path], root=self._path.parent) | self._album.digests

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

    def _question(self, row: QuestionRow, copies: Sequence[QuestionRow]) -> Question:
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

    def _options(self, row: QuestionRow) -> tuple[Option, ...]:
        """Return a row's options; one that is missing before others is told."""
        empty = {"", WRITTEN_OUT} if self._written_out else {""}
        texts = {letter: row.cell(letter) for letter in self._letters}
        options = tuple(Option(letter, text) for letter, text in texts.items() if text not in empty)
        missing = [letter for letter in self._letters[: len(options)] if texts[letter] in empty]
        # A public file is what it is; in any other an empty cell there is a text that was lost.
        if missing and self._path.stem not in PUBLIC_MD5:
            got, allowed = ", ".join(missing), "empty cells behind the last option only"
            self._problems.add("an option before others is empty", row.where, got, allowed)
        return options

    def _orders(
        self, row: QuestionRow, options: Sequence[Option], copies: Sequence[QuestionRow]
    ) -> tuple[tuple[int, ...], ...]:
        """Return the orders of a question and of its copies; none where there are no copies."""
        truth = {option.letter: option.text for option in options}.get(_answer(row))
        orders = [tuple(range(len(options)))]
        for copy in copies:
            texts = [option.text for option in self._options(copy)]
            order = _places(texts, [option.text for option in options])
            shown = dict(zip((option.letter for option in options), texts, strict=False))
            if order is None or shown.get(_answer(copy)) != truth:
                other = "other options" if order is None else "another answer"
                what = f"a circular copy has {other} than its question"
                fix = "take the copies out: the question is rotated without them"
                self._problems.add(what, copy.where, f"{copy.index}: {row.where}", fix=fix)
            else:
                orders.append(order)
        return tuple(dict.fromkeys(orders)) if copies else ()

    def _picture(self, row: QuestionRow) -> Picture | None:
        """Return the row's picture, following indices of other rows; None if its cell is empty."""
        holder, seen = row, {row.index}
        while (index := as_index(clean(holder.cells.get("image")))) is not None:
            if index not in self._rows or index in seen:
                what = "comes back to itself" if index in seen else "is not there"
                self._problems.add(f"the row its image refers to {what}", row.where, str(index))
                return None
            seen.add(index)
            holder = self._rows[index]
        text, name = holder.content("image"), holder.content("image-path")
        if (text or name).startswith("["):
            what, allowed = "a question with a list of pictures", "one picture a question"
            fix = "take these questions out: questions on several pictures are not asked"
            self._problems.add(what, holder.where, repr((text or name)[:40]), allowed, fix)
            return None
        if not text:
            return self._album.picture(name, holder.where) if name else None
        encoded = text.partition("base64,")[2] if text.startswith("data:") else text
        try:
            data = base64.b64decode("".join(encoded.split()), validate=True)
        except ValueError as error:
            got = f"{text[:30]!r}; {error}"
            self._problems.add("the image is not base64", holder.where, got)
            return None
        return picture_from_bytes(data, holder.where)


def _answer(row: QuestionRow) -> str:
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
    told = listing([question.id for question in questions], most=_NAMED)
    count = f"{len(questions)} question{'s' if len(questions) > 1 else ''}"
    return f"{count} {what}{f' ({told})' if named else ''}"
