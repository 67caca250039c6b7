"""Files of MMBench: rows of its TSV, and answers that others made to them.

Answers are LLaVA's JSON lines or VLMEvalKit's tables. LLaVA (llava/eval/model_vqa_mmbench.py)
writes a line an answer: `question_id` is the row's index, `round_id` how often its options were
moved up by one place. VLMEvalKit adds a column `prediction` to the rows of the benchmark's own
file; its .xlsx is read once it is exported as .tsv or .csv.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.checks import LETTERS, Problems, clean
from pulse_unlearn.data.tables import long_fields
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.files import plain_file

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
WRITTEN_OUT = "nan"
"""What some table libraries write for an empty cell they have read."""
TAKE_DEV = "take a split with answers (dev); test splits have none"
_NEEDED = ("index", "question", "A", "B", "answer")
_INDEX = re.compile(r"([0-9]{1,12})(?:\.0+)?")
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_OTHER_FORMATS = {
    ".parquet": "a parquet file",
    ".xlsx": "an Excel workbook",
    ".jsonl": "a file of JSON lines",
    ".json": "a JSON file",
}


@dataclass(frozen=True, slots=True)
class QuestionRow:
    """One row; cells by column, under the names that `column` gives."""

    index: int
    cells: Mapping[str, str]
    where: str

    def cell(self, name: str) -> str:
        """Return a cell's text; empty if there is no such column."""
        return clean(self.cells.get(name))

    def content(self, name: str) -> str:
        """Return a cell in which `nan` can only mean that it is empty."""
        text = self.cell(name)
        return "" if text == WRITTEN_OUT else text


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one row of the file."""

    index: int
    turn: int
    """Places by which the row's options were moved up before they were shown."""
    text: str
    where: str


def read_questions(path: Path, problems: Problems) -> list[QuestionRow]:
    """Read the rows that have an index; what is wrong with the others is added to `problems`.

    Raises DataError if the file as a whole is no such table.
    """
    other = _OTHER_FORMATS.get(path.suffix.lower())
    if other:
        fix = "take the benchmark's own .tsv, or export the table as UTF-8 TSV with quoting"
        raise DataError(Problem("MMBench files are read as TSV", str(path), other, fix=fix))
    return list(_rows(path, problems))


def as_index(text: str) -> int | None:
    """Return a row's number, also written as `12.0`; None if the text is none."""
    match = _INDEX.fullmatch(text)
    return int(match[1]) if match else None


def read_answers(path: Path) -> list[Answer]:
    """Read a file of answers; raises DataError with every line that cannot be read."""
    problems = Problems()
    read = _answer_lines if path.suffix == ".jsonl" else _answer_rows
    try:
        found = list(read(path, problems))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(_no_answers(path, str(error))) from error
    if not found and not problems:
        problems.append(_no_answers(path, "no answers"))
    problems.raise_any()
    return found


def check_public_file(path: Path, problems: Problems) -> None:
    """Tell that a file bears a public file's name but isn't that file."""
    known = PUBLIC_MD5.get(path.stem)
    if known is None or not path.is_file():
        return
    with plain_file(path).open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != known:
        what, got, allowed = "not the public file of this name", f"MD5 {found}", f"MD5 {known}"
        fix = "download it again; give a changed or shortened copy a name of its own"
        problems.add(what, path.name, got, allowed, fix)


def letters_of(rows: Sequence[QuestionRow]) -> tuple[str, ...]:
    """Return the letters that the table has option columns for."""
    return tuple(letter for letter in LETTERS if rows and letter in rows[0].cells)


def _rows(path: Path, problems: Problems) -> Iterator[QuestionRow]:
    line = 0
    try:
        with plain_file(path).open(encoding="utf-8-sig", newline="") as file, long_fields():
            reader = csv.reader(file, delimiter="\t", strict=True)
            header = next(reader, [])
            names = _columns(header, path)
            line = reader.line_num
            for cells in reader:
                where, line = f"{path.name}:{line + 1}", reader.line_num
                row = _row(names, cells, where, problems) if cells else None
                if row:
                    yield row
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        where = f"{path}:{line + 1}" if line else str(path)
        allowed = (
            "a UTF-8 TSV with CSV quoting, header "
            "`index question hint A B C D answer category image ...`"
        )
        what = "not a readable MMBench file"
        raise DataError(Problem(what, where, str(error), allowed)) from error


def _column(name: str) -> str:
    """Return a column's name as it is known here: letters upper, all others lower case."""
    name = name.strip()
    return name.upper() if len(name) == 1 else name.lower().replace("_", "-")


def _columns(header: Sequence[str], path: Path) -> list[str]:
    """Return the names of the columns; raises DataError where needed ones are not there."""
    names = [_column(name) for name in header]
    missing = [name for name in _NEEDED if name not in names]
    missing += [] if {"image", "image-path"} & {*names} else ["image"]
    if missing:
        got = ", ".join(name[:20] for name in header[:16]) or "an empty file"
        allowed = f"needs {', '.join((*_NEEDED, 'image'))}; lacks {', '.join(missing)}"
        fix = TAKE_DEV if missing == ["answer"] else ""
        raise DataError(Problem("columns are missing", str(path), got, allowed, fix))
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise DataError(Problem("a column stands twice", str(path), ", ".join(twice)))
    return names


def _row(
    names: Sequence[str], cells: Sequence[str], where: str, problems: Problems
) -> QuestionRow | None:
    if len(cells) != len(names):
        what, got = "the row has other columns than the header", f"{len(cells)} cells"
        fix = "quote cells that hold tabs or line breaks, doubling the quotes inside"
        problems.add(what, where, got, f"{len(names)}", fix)
        return None
    found = dict(zip(names, cells, strict=True))
    index = _index_in(found["index"], where, problems)
    return None if index is None else QuestionRow(index, found, where)


def _index_in(cell: str, where: str, problems: Problems) -> int | None:
    index = as_index(clean(cell))
    if index is None:
        problems.add("the index is not a number", where, repr(clean(cell)[:40]))
    return index


def _no_answers(path: Path, got: str) -> Problem:
    allowed = (
        "LLaVA's .jsonl (question_id, round_id, text), or VLMEvalKit's table (index, prediction) "
        "as .tsv or .csv"
    )
    fix = "export an .xlsx as UTF-8 .csv" if path.suffix == ".xlsx" else ""
    return Problem("not a readable file of answers", str(path), got, allowed, fix)


def _answer_lines(path: Path, problems: Problems) -> Iterator[Answer]:
    with plain_file(path).open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path.name}:{number}"
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except ValueError as error:
                problems.add("not a line of JSON", where, str(error))
                continue
            fields = entry if isinstance(entry, dict) else {}
            index = as_index(str(fields.get("question_id", "")))
            turn = as_index(str(fields.get("round_id", 0)))
            text = fields.get("text")
            if index is None or turn is None or not isinstance(text, str):
                allowed = "question_id (the row's index), round_id, text"
                problems.add("not an answer", where, repr(line.strip()[:60]), allowed)
            else:
                yield Answer(index, turn, text, where)


def _answer_rows(path: Path, problems: Problems) -> Iterator[Answer]:
    delimiter = _DELIMITERS.get(path.suffix)
    if delimiter is None:
        raise DataError(_no_answers(path, f"a file named {path.suffix or 'without an ending'}"))
    with plain_file(path).open(encoding="utf-8-sig", newline="") as file, long_fields():
        reader = csv.DictReader(file, delimiter=delimiter)
        names = reader.fieldnames or ()
        if not {"index", "prediction"} <= {*names}:
            got = f"columns {', '.join(name[:20] for name in names[:16])}"
            raise DataError(_no_answers(path, got))
        for cells in reader:
            where = f"{path.name}:{reader.line_num}"
            index = _index_in(cells["index"], where, problems)
            if index is not None:
                yield Answer(index, 0, clean(cells["prediction"]), where)
