"""Rows of a JSON-lines, CSV or parquet file, each with its place; what is no row is a problem."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pulse_unlearn.data.parquet import Row
from pulse_unlearn.errors import DataError, Problem


def read_records(path: Path, problems: list[Problem]) -> list[Row]:
    """Read the rows that can be read; what is wrong with the others is added to `problems`.

    `where` is `<file>:<line>`, and `<file>:row <n>` for parquet. Raises DataError if the file as a
    whole cannot be read.
    """
    try:
        return list(_READERS[path.suffix](path, problems))
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        raise DataError(
            Problem(
                "not a readable file of people",
                str(path),
                got=str(error),
                allowed="UTF-8 JSON lines, CSV with a header, or parquet",
            )
        ) from error


@contextmanager
def long_fields() -> Iterator[None]:
    """Lift csv's limit of 128 KiB for a field, which a base64 picture exceeds, while reading."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def json_lines(path: Path, problems: list[Problem]) -> Iterator[Row]:
    """Yield the rows of a file with a JSON object on each line; what is none is a problem."""
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        where = f"{path.name}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            problems.append(Problem("not a line of JSON", where, got=str(error)[:120]))
            continue
        if isinstance(value, dict):
            yield Row(value, where)
        else:
            problems.append(
                Problem("not a person", where, type(value).__name__, "a JSON object on one line")
            )


def json_rows(path: Path, problems: list[Problem]) -> list[Row]:
    """Read a JSON file that is one list of objects, or has one on each line; raises DataError.

    `where` is `<file> entry <n>`, counted from 0, or `<file>:<line>`.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError:
        return list(json_lines(path, problems))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(Problem("not readable as JSON", path.name, str(error)[:120])) from error
    rows = []
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        where = f"{path.name} entry {number}"
        if isinstance(entry, dict):
            rows.append(Row(entry, where))
        else:
            problems.append(Problem("not an object", where, type(entry).__name__))
    return rows


def _csv(path: Path, problems: list[Problem]) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file, long_fields():
        reader = csv.DictReader(file, strict=True)
        line = reader.line_num if reader.fieldnames else 0
        for cells in reader:
            where, line = f"{path.name}:{line + 1}", reader.line_num
            if None in cells or None in cells.values():
                fix = "quote cells that hold commas or line breaks, doubling the quotes inside"
                problems.append(
                    Problem("the row has other columns than the header", where, fix=fix)
                )
            else:
                yield Row(dict(cells), where)


def _parquet(path: Path, problems: list[Problem]) -> Iterator[Row]:
    with pq.ParquetFile(path) as file:
        # In one thread: a pool still at work when the interpreter ends can abort the process.
        values = file.read(use_threads=False).to_pylist()
    for number, value in enumerate(values):
        yield Row(value, f"{path.name}:row {number}")


_READERS: dict[str, Callable[[Path, list[Problem]], Iterator[Row]]] = {
    ".jsonl": json_lines,
    ".csv": _csv,
    ".parquet": _parquet,
}
SUFFIXES = tuple(_READERS)
