"""Rows of a parquet data set folder, with a place for every row; no pandas, nothing unpickled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pulse_unlearn.errors import DataError, Problem

_SHARD = re.compile(r"(?P<stem>.*-)(?P<number>\d{5})-of-(?P<count>\d{5})\.parquet")


@dataclass(frozen=True, slots=True)
class Row:
    """One row, as plain Python values, and where it stands."""

    values: dict[str, Any]
    where: str
    """`<config>/<file>:row <n>`, counted from 0 as parquet viewers do."""


def shards(folder: Path, config: str) -> list[Path]:
    """Return the parquet files of one config, in order; empty if there are none."""
    return sorted((folder / config).glob("*.parquet"))


def read_rows(
    folder: Path,
    config: str,
    *,
    needed: Sequence[str],
    optional: Sequence[str],
    problems: list[Problem],
) -> list[Row]:
    """Read the named columns of every shard of a config that can be read.

    Added to `problems`: every file that is missing, is no parquet file, or lacks a needed column.
    """
    files = shards(folder, config)
    if not files:
        problems.append(
            Problem(
                f"there is no {config} here",
                str(folder),
                got=_contents(folder),
                allowed=f"{config}/train-00000-of-00001.parquet",
                fix="give the folder that holds the benchmark's configs; or its hub id, "
                "MLLMMU/MLLMU-Bench, together with data.people.revision",
            )
        )
    problems += _missing_shards(files, config)
    rows: list[Row] = []
    for path in files:
        name = f"{config}/{path.name}"
        try:
            rows += _rows_of(path, name, needed=needed, optional=optional)
        except DataError as error:
            problems += error.problems
    return rows


def _missing_shards(files: Sequence[Path], config: str) -> list[Problem]:
    """Return the shards that others of their kind (`train-00000-of-00003`) say there are."""
    names = {path.name for path in files}
    missing = set()
    for found in filter(None, map(_SHARD.fullmatch, sorted(names))):
        for number in range(int(found["count"])):
            name = f"{found['stem']}{number:0{len(found['number'])}d}-of-{found['count']}.parquet"
            missing |= {name} - names
    return [
        Problem("a shard is missing", f"{config}/{name}", fix="download the config again")
        for name in sorted(missing)
    ]


def _rows_of(path: Path, name: str, *, needed: Sequence[str], optional: Sequence[str]) -> list[Row]:
    try:
        with pq.ParquetFile(path) as file:
            present = set(file.schema_arrow.names)
            missing = [column for column in needed if column not in present]
            if missing:
                raise DataError(
                    Problem(
                        "columns are missing",
                        name,
                        got=", ".join(sorted(present)),
                        allowed=f"needs {', '.join(needed)}; lacks {', '.join(missing)}",
                    )
                )
            columns = [*needed, *(column for column in optional if column in present)]
            # In one thread: a pool still at work when the interpreter ends can abort the process.
            values = file.read(columns=columns, use_threads=False).to_pylist()
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


def _contents(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    return ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "an empty folder"
