"""Answers that others made to an MMBench file: LLaVA's JSON lines, VLMEvalKit's tables.

LLaVA (llava/eval/model_vqa_mmbench.py) writes a line an answer: `question_id` is the row's index,
`round_id` how often its options were moved up by one place. VLMEvalKit adds a column `prediction`
to the rows of the benchmark's own file; its .xlsx is read once it is exported as .tsv or .csv.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data.checks import clean, gathered
from pulse_unlearn.data.mmbench_table import as_index
from pulse_unlearn.data.records_file import long_fields
from pulse_unlearn.errors import DataError, Problem

_DELIMITERS = {".tsv": "\t", ".csv": ","}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one row of the file."""

    index: int
    turn: int
    """Places by which the row's options were moved up before they were shown."""
    text: str
    where: str


def read_answers(path: Path) -> list[Answer]:
    """Read a file of answers; raises DataError with every line that cannot be read."""
    problems: list[Problem] = []
    try:
        found = list(_lines(path, problems) if path.suffix == ".jsonl" else _rows(path, problems))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(_no_answers(path, str(error))) from error
    if not found and not problems:
        problems.append(_no_answers(path, "no answers"))
    if problems:
        raise DataError(gathered(problems))
    return found


def _no_answers(path: Path, got: str) -> Problem:
    return Problem(
        "not a readable file of answers",
        str(path),
        got,
        "LLaVA's .jsonl (question_id, round_id, text), or VLMEvalKit's table (index, prediction) "
        "as .tsv or .csv",
        "export an .xlsx as UTF-8 .csv" if path.suffix == ".xlsx" else "",
    )


def _lines(path: Path, problems: list[Problem]) -> Iterator[Answer]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path.name}:{number}"
            try:
                entry = json.loads(line) if line.strip() else None
            except ValueError as error:
                problems.append(Problem("not a line of JSON", where, str(error)))
                continue
            if entry is None:
                continue
            fields = entry if isinstance(entry, dict) else {}
            index = as_index(str(fields.get("question_id", "")))
            turn = as_index(str(fields.get("round_id", 0)))
            text = fields.get("text")
            if index is None or turn is None or not isinstance(text, str):
                allowed = "question_id (the row's index), round_id, text"
                problems.append(Problem("not an answer", where, repr(line.strip()[:60]), allowed))
                continue
            yield Answer(index, turn, text, where)


def _rows(path: Path, problems: list[Problem]) -> Iterator[Answer]:
    delimiter = _DELIMITERS.get(path.suffix)
    if delimiter is None:
        raise DataError(_no_answers(path, f"a file named {path.suffix or 'without an ending'}"))
    with path.open(encoding="utf-8-sig", newline="") as file, long_fields():
        reader = csv.DictReader(file, delimiter=delimiter)
        names = reader.fieldnames or ()
        if not {"index", "prediction"} <= {*names}:
            got = f"columns {', '.join(name[:20] for name in names[:16])}"
            raise DataError(_no_answers(path, got))
        for cells in reader:
            where, index = f"{path.name}:{reader.line_num}", as_index(clean(cells["index"]))
            if index is None:
                got = repr(clean(cells["index"])[:40])
                problems.append(Problem("the index is not a number", where, got))
                continue
            yield Answer(index, 0, clean(cells["prediction"]), where)
