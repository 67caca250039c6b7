"""Predictions and scores as parquet files that say which version they are.

The same rows give the same bytes (for one version of pyarrow), so that a hash of the file is a
hash of the content.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pulse_unlearn.errors import Corrupted, DataError, Problem, StoreError
from pulse_unlearn.files import plain_file
from pulse_unlearn.records import ExampleKey, Option, Prediction, Score
from pulse_unlearn.store.atomic import file_errors, write_bytes

VERSION = 3
"""Version of both tables; a file of another version is refused, never guessed at."""

# What pyarrow says of a damaged file: OSError for pages, UnicodeDecodeError for names.
_UNREADABLE = (pa.ArrowException, OSError, UnicodeDecodeError)

_KIND_KEY, _VERSION_KEY = b"pulse_unlearn.table", b"pulse_unlearn.version"

_KEY = (
    ("example_id", pa.string()),
    ("question_id", pa.string()),
    ("individual", pa.string()),
    ("modality", pa.string()),
    ("category", pa.string()),
    ("rotation", pa.int32()),
    ("asked_as", pa.string()),
)


def _schema(kind: str, columns: Iterable[tuple[str, Any]]) -> Any:
    described = [pa.field(name, of, nullable=False) for name, of in (*_KEY, *columns)]
    metadata = {_KIND_KEY: kind.encode(), _VERSION_KEY: str(VERSION).encode()}
    return pa.schema(described, metadata=metadata)


def _list_of(of: Any) -> Any:
    return pa.list_(pa.field("element", of, nullable=False))


_OPTION = pa.struct(
    [pa.field("letter", pa.string(), nullable=False), pa.field("text", pa.string(), nullable=False)]
)

PREDICTIONS = _schema(
    "predictions",
    (
        ("options", _list_of(_OPTION)),
        ("answer", pa.string()),
        ("text", pa.string()),
        ("option_log_probs", _list_of(pa.float64())),
        ("end_log_probs", _list_of(pa.float64())),
        ("option_tokens", _list_of(pa.int32())),
        ("cut_off", pa.bool_()),
    ),
)
"""Arrow schema of `predictions.parquet`."""

SCORES = _schema(
    "scores",
    (
        ("answer", pa.string()),
        ("verdict", pa.string()),
        ("choice", pa.string()),
        ("likeliest", pa.string()),
        ("true_probability", pa.float64()),
        ("mentioned", pa.string()),
        ("chance", pa.float64()),
    ),
)
"""Arrow schema of `scores.parquet`."""


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write predictions in the given order; raises StoreError if the file can't be written."""
    rows = tuple(predictions)
    options = [[{"letter": o.letter, "text": o.text} for o in row.options] for row in rows]
    _write(path, rows, PREDICTIONS, options=options)


def read_predictions(path: Path) -> tuple[Prediction, ...]:
    """Read what `write_predictions` wrote; raises StoreError (Corrupted if it's no such table)."""
    return predictions_of(open_predictions(path))


def open_predictions(path: Path) -> Any:
    """Return the Arrow table of stored predictions, its rows still columns; raises likewise."""
    return _open(path, PREDICTIONS)


def predictions_of(table: Any) -> tuple[Prediction, ...]:
    """Return the rows of a table of predictions, or of a part of one."""
    rows = table.to_pylist()
    for row in rows:
        row["options"] = tuple(Option(**option) for option in row["options"])
        for name in ("option_log_probs", "end_log_probs", "option_tokens"):
            row[name] = tuple(row[name])
    return tuple(Prediction(**row) for row in rows)


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """Write scores in the given order; raises StoreError if the file can't be written."""
    _write(path, tuple(scores), SCORES)


def read_scores(path: Path) -> tuple[Score, ...]:
    """Read what `write_scores` wrote; raises StoreError (Corrupted if it's no such table)."""
    return scores_of(open_scores(path))


def open_scores(path: Path) -> Any:
    """Return the Arrow table of stored scores, its rows still columns; raises likewise."""
    return _open(path, SCORES)


def scores_of(table: Any) -> tuple[Score, ...]:
    """Return the rows of a table of scores, or of a part of one."""
    return tuple(Score(**row) for row in table.to_pylist())


def _write(path: Path, rows: Sequence[ExampleKey], schema: Any, **instead: list[Any]) -> None:
    """Write the columns of `schema` from the rows' attributes, or as given by name."""
    columns = {name: [getattr(row, name) for row in rows] for name in schema.names} | instead
    try:
        table = pa.Table.from_pydict(columns, schema=schema)
    except (pa.ArrowException, UnicodeEncodeError, TypeError) as error:
        raise DataError(Problem("rows don't fit the table", str(path), got=str(error))) from error
    buffer = io.BytesIO()
    pq.write_table(
        table, buffer, compression="zstd", write_statistics=False, write_page_checksum=True
    )
    write_bytes(path, buffer.getvalue())


def _open(path: Path, schema: Any) -> Any:
    with file_errors(path, "read"):
        data = plain_file(path).read_bytes()
    try:
        # In one thread: a pool still at work when the interpreter ends can abort the process.
        table = pq.read_table(io.BytesIO(data), use_threads=False, page_checksum_verification=True)
        _check(table.schema, schema, path)
        # Texts that are not UTF-8 would show only when they are used.
        table.validate(full=True)
    except _UNREADABLE as error:
        what = f"not a table of {_kind(schema)}"
        raise Corrupted(Problem(what, str(path), got=str(error))) from error
    return table


def _check(found: Any, schema: Any, path: Path) -> None:
    """Raise unless a file's schema is ours: Corrupted, or StoreError for another version."""
    kind, metadata = _kind(schema), found.metadata or {}
    if metadata.get(_KIND_KEY) != schema.metadata[_KIND_KEY]:
        got = metadata.get(_KIND_KEY, b"another parquet file").decode(errors="replace")
        raise Corrupted(Problem(f"not a table of {kind}", str(path), got=got, allowed=kind))
    if metadata.get(_VERSION_KEY) != schema.metadata[_VERSION_KEY]:
        got = f"version {metadata.get(_VERSION_KEY, b'none').decode(errors='replace')}"
        fix = "read it with the release that wrote it, or run the stage again"
        raise StoreError(
            Problem(f"unknown version of {kind}", str(path), got, f"version {VERSION}", fix)
        )
    if not found.equals(schema):
        got = ", ".join(found.names)
        raise Corrupted(Problem(f"columns of {kind} changed", str(path), got=got))


def _kind(schema: Any) -> str:
    kind: str = schema.metadata[_KIND_KEY].decode()
    return kind
