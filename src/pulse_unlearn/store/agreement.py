"""Do `results.csv` and `results.json`, which hold the same numbers, still say the same?"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from pulse_unlearn.errors import Problem
from pulse_unlearn.records import RESULT_COLUMNS

CSV = "results.csv"
JSON = "results.json"

_MOST = 20
"""Differences listed one by one; a shifted file would fill the screen."""
_KEY = RESULT_COLUMNS[: RESULT_COLUMNS.index("value")]


def disagreements(run: Path) -> list[Problem]:
    """Return one Problem for each row and field in which the two files of results differ."""
    table, listed = run / CSV, run / JSON
    try:
        with table.open(encoding="utf-8", newline="") as file:
            lines = [dict(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, csv.Error) as error:
        return [Problem("cannot be read as a table", str(table), str(error))]
    try:
        content = json.loads(listed.read_text(encoding="utf-8"))
        rows = [dict(row) for row in content["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [Problem("cannot be read as results", str(listed), str(error))]
    problems = []
    if len(lines) != len(rows):
        got, allowed = f"{len(lines)} rows", f"{len(rows)} rows, as in {JSON}"
        problems.append(Problem("rows are missing or added", str(table), got, allowed))
    for i, (line, row) in enumerate(zip(lines, rows, strict=False)):
        problems += _row_problems(f"{table} row {i + 1}", line, row)
    if len(problems) > _MOST:
        more = Problem(f"differs from {JSON} in {len(problems) - _MOST} more places", str(table))
        return [*problems[:_MOST], more]
    return problems


def _row_problems(
    where: str, line: Mapping[str, str | None], row: Mapping[str, object]
) -> list[Problem]:
    cell = " ".join(str(row[column]) for column in _KEY if row.get(column) not in (None, ""))
    return [
        Problem(
            f"differs from {JSON}",
            f"{where}, {column} ({cell})",
            got=repr(line.get(column)),
            allowed=f"{row.get(column)!r}, as in {JSON}",
        )
        for column in RESULT_COLUMNS
        if not _same(line.get(column), row.get(column))
    ]


def _same(text: str | None, value: object) -> bool:
    if value is None:
        return text == ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return text is not None and float(text) == value
        except ValueError:
            return False
    # A text that a spreadsheet would take for a formula stands in the table with a quote before it.
    return text is not None and text.removeprefix("'") == str(value).removeprefix("'")
