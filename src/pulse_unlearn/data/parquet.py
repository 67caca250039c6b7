"""Rows of one parquet file, with a place for every row; no pandas, nothing unpickled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pulse_unlearn.errors import DataError, Problem


@dataclass(frozen=True, slots=True)
class Row:
    """One row, as plain Python values, and where it stands."""

    values: dict[str, Any]
    where: str
    """`<config>/<file>:row <n>`, counted from 0 as parquet viewers do."""


def columns_of(path: Path) -> frozenset[str]:
    """Return a file's columns; none if it cannot be read."""
    try:
        return frozenset(pq.read_schema(path).names)
    except (pa.ArrowException, OSError):
        return frozenset()


def parquet_rows(path: Path, name: str, *, columns: Sequence[str]) -> list[Row]:
    """Read those of the columns that are there; raises DataError for a file that is damaged."""
    try:
        with pq.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            wanted = [column for column in columns if column in present]
            # In one thread: a pool still at work when the interpreter ends can abort the process.
            values = file.read(columns=wanted, use_threads=False).to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(
            Problem(
                "not a readable parquet file",
                name,
                got=f"{path.stat().st_size} bytes; {error}" if path.exists() else str(error),
                fix="download the file again (a Git LFS pointer has about 130 bytes)",
            )
        ) from error
    return [Row(value, f"{name}:row {number}") for number, value in enumerate(values)]
