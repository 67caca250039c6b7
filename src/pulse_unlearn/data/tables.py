"""Rows of JSON, CSV and parquet files, each with its place, and cells that hold nested values.

No pandas, nothing unpickled, nothing evaluated. What is no row is a problem.
"""

from __future__ import annotations

import ast
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pulse_unlearn.data.checks import Problems, short
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.files import plain_file

MAX_LITERAL = 200_000
"""Longest text taken for a literal: the parser's memory and depth grow with it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row, as plain Python values, and where it stands."""

    values: dict[str, Any]
    where: str
    """`<file>:<line>`; `<file>:row <n>` for parquet, from 0 as its viewers count."""


class Malformed(ValueError):
    """A cell that cannot be read; the message says what it holds."""


def read_records(path: Path, problems: Problems) -> list[Row]:
    """Read the rows that can be read; what is wrong with the others is added to `problems`.

    Raises DataError if the file as a whole cannot be read.
    """
    try:
        return list(_READERS[path.suffix](path, problems))
    except (OSError, UnicodeDecodeError, csv.Error, pa.ArrowException) as error:
        allowed = "UTF-8 JSON lines, CSV with a header, or parquet"
        raise DataError(
            Problem("not a readable file of people", str(path), str(error), allowed)
        ) from error


def json_rows(path: Path, problems: Problems) -> list[Row]:
    """Read a JSON file that is one list of objects, or has one on each line; raises DataError.

    `where` is `<file> entry <n>`, counted from 0, or `<file>:<line>`.
    """
    try:
        entries = json.loads(plain_file(path).read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError:
        return list(_json_lines(path, problems))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(Problem("not readable as JSON", path.name, str(error)[:120])) from error
    rows = []
    for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
        where = f"{path.name} entry {number}"
        if isinstance(entry, dict):
            rows.append(Row(entry, where))
        else:
            problems.add("not an object", where, type(entry).__name__)
    return rows


def columns_of(path: Path) -> frozenset[str]:
    """Return a parquet file's columns; none if it cannot be read."""
    try:
        return frozenset(pq.read_schema(plain_file(path)).names)
    except (pa.ArrowException, OSError):
        return frozenset()


def parquet_rows(path: Path, name: str, *, columns: Sequence[str]) -> list[Row]:
    """Read those of the columns that are there; raises DataError for a file that is damaged."""
    try:
        return list(_parquet(path, name, columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        got = f"{path.stat().st_size} bytes; {error}" if path.exists() else str(error)
        fix = "download the file again (a Git LFS pointer has about 130 bytes)"
        raise DataError(Problem("not a readable parquet file", name, got, fix=fix)) from error


@contextmanager
def long_fields() -> Iterator[None]:
    """Lift csv's limit of 128 KiB for a field, which a base64 picture exceeds, while reading."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def structure(value: Any) -> Any:
    """Return a cell as nested Python values; JSON text is parsed. Raises Malformed."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON ({error}): {short(value)}") from error


def literal(value: Any) -> Any:
    """Return a cell that may be a Python literal, or JSON, as text; nothing in it is evaluated.

    Raises Malformed for anything else, code included.
    """
    if not isinstance(value, str):
        return value
    if len(value) > MAX_LITERAL:
        raise Malformed(f"{len(value)} characters, more than {MAX_LITERAL}")
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value.strip())
    # What the parser and the literal's own limits raise.
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        raise Malformed(f"neither JSON nor a Python literal: {short(value)}") from error


def _json_lines(path: Path, problems: Problems) -> Iterator[Row]:
    for number, line in enumerate(plain_file(path).read_bytes().split(b"\n"), start=1):
        where = f"{path.name}:{number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
        except (ValueError, RecursionError) as error:
            problems.add("not a line of JSON", where, str(error)[:120])
            continue
        if isinstance(value, dict):
            yield Row(value, where)
        else:
            problems.add("not a person", where, type(value).__name__, "a JSON object on one line")


def _csv(path: Path, problems: Problems) -> Iterator[Row]:
    with plain_file(path).open(encoding="utf-8-sig", newline="") as file, long_fields():
        reader = csv.DictReader(file, strict=True)
        line = reader.line_num if reader.fieldnames else 0
        for cells in reader:
            where, line = f"{path.name}:{line + 1}", reader.line_num
            if None in cells or None in cells.values():
                fix = "quote cells that hold commas or line breaks, doubling the quotes inside"
                problems.add("the row has other columns than the header", where, fix=fix)
            else:
                yield Row(dict(cells), where)


def _parquet(path: Path, name: str, columns: Sequence[str] | None = None) -> Iterator[Row]:
    with pq.ParquetFile(plain_file(path)) as file:
        present = file.schema_arrow.names
        wanted = [column for column in present if columns is None or column in columns]
        # In one thread: a pool still at work when the interpreter ends can abort the process.
        table = file.read(columns=wanted, use_threads=False)
        try:
            values = table.to_pylist()
        except (OverflowError, ValueError) as error:  # a time that Python cannot tell, bad UTF-8
            raise pa.ArrowInvalid(f"a value cannot be read: {error}") from error
    for number, value in enumerate(values):
        yield Row(value, f"{name}:row {number}")


_READERS: dict[str, Callable[[Path, Problems], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".csv": _csv,
    ".parquet": lambda path, _: _parquet(path, path.name),
}
SUFFIXES = tuple(_READERS)
