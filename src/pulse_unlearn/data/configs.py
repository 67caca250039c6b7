"""Configs of a public data set in a folder: where their files may lie, and their rows."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from pulse_unlearn.data.benchmarks import belongs_to, benchmark_in, benchmark_of
from pulse_unlearn.data.parquet import Row, columns_of, parquet_rows
from pulse_unlearn.data.records_file import read_records
from pulse_unlearn.errors import DataError, Problem

PLACES = (
    "{}/*.parquet",
    "{}/*/*.parquet",
    "data/{}/*.parquet",
    "data/{}-*.parquet",
    "{}.jsonl",
)
"""Where a config's files may lie: as uploaded, as the hub converts them (`Full_Set/train/`), in a
folder `data`, or as JSON lines beside the pictures. The first that has files is taken."""
PATTERNS = ("*/*.parquet", "*/*/*.parquet", "*.jsonl")
"""What of a hub data set is fetched."""

_SHARD = re.compile(r"(?P<stem>.*-)(?P<number>\d{5})-of-(?P<count>\d{5})\.parquet")
_CONVERTED = re.compile(r"\d{4}\.parquet")


def shards(folder: Path, config: str) -> list[Path]:
    """Return the files of one config, in order; empty if there are none."""
    for place in PLACES:
        found = sorted(folder.glob(place.format(config)))
        if found:
            return found
    return []


def first_config(folder: Path, spellings: Sequence[str]) -> str:
    """Return the first of a config's names under which there are files; the first if none has."""
    return next((name for name in spellings if shards(folder, name)), spellings[0])


def read_rows(
    folder: Path,
    config: str,
    *,
    needed: Sequence[str],
    optional: Sequence[str],
    problems: list[Problem],
    hub: str = "MLLMMU/MLLMU-Bench",
) -> list[Row]:
    """Read the named columns of every file of a config that can be read.

    Added to `problems`: every file that is missing, cannot be read, or lacks a needed column.
    """
    files = shards(folder, config)
    if not files:
        problems.append(missing_config(folder, config, hub=hub))
    problems += _missing_shards(folder, files)
    rows: list[Row] = []
    for path in files:
        try:
            rows += _rows_of(path, folder, needed=needed, optional=optional, problems=problems)
        except DataError as error:
            problems += error.problems
    return rows


def missing_config(folder: Path, config: str, *, hub: str) -> Problem:
    """Return the problem that a config has no files: what was looked for, and what is there."""
    looked = ", ".join(place.format(config) for place in PLACES)
    fix = belongs_to(benchmark_in(folder))
    return Problem(
        f"there is no {config} here",
        str(folder),
        got=contents(folder),
        allowed=f"{config}/train-00000-of-00001.parquet; looked for {looked}",
        fix=fix
        or "give the folder that holds the benchmark's configs; or its hub id, "
        f"{hub}, together with data.people.revision",
    )


def contents(folder: Path) -> str:
    """Return the names of what a folder holds, the first dozen of them."""
    if not folder.is_dir():
        return "no such folder"
    return ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "an empty folder"


def _rows_of(
    path: Path,
    folder: Path,
    *,
    needed: Sequence[str],
    optional: Sequence[str],
    problems: list[Problem],
) -> list[Row]:
    name = path.relative_to(folder).as_posix()
    columns = (*needed, *optional)
    if path.suffix == ".jsonl":
        rows = read_records(path, problems)
        kept = [Row({c: row.values.get(c) for c in columns}, row.where) for row in rows]
        lacking = [
            _lacks(row.where, frozenset(row.values), needed)
            for row in rows
            if not row.values.keys() >= set(needed)
        ]
        problems += lacking
        return [
            row for row, read in zip(kept, rows, strict=True) if read.values.keys() >= {*needed}
        ]
    present = columns_of(path)
    if present and not present >= set(needed):
        raise DataError(_lacks(name, present, needed))
    return parquet_rows(path, name, columns=columns)


def _lacks(where: str, present: frozenset[str], needed: Sequence[str]) -> Problem:
    missing = [column for column in needed if column not in present]
    return Problem(
        "columns are missing",
        where,
        got=", ".join(sorted(map(str, present))),
        allowed=f"needs {', '.join(needed)}; lacks {', '.join(missing)}",
        fix=belongs_to(benchmark_of(present)),
    )


def _missing_shards(folder: Path, files: Sequence[Path]) -> list[Problem]:
    """Return the files that others say there are: of `train-00000-of-00003`, or before `0002`."""
    names: dict[Path, set[str]] = defaultdict(set)
    for path in files:
        names[path.parent].add(path.name)
    missing: set[str] = set()
    for parent, present in names.items():
        told: set[str] = set()
        for found in filter(None, map(_SHARD.fullmatch, sorted(present))):
            count, digits = int(found["count"]), len(found["number"])
            told |= {
                f"{found['stem']}{number:0{digits}d}-of-{found['count']}.parquet"
                for number in range(count)
            }
        converted = [int(name[:4]) for name in present if _CONVERTED.fullmatch(name)]
        told |= {f"{number:04d}.parquet" for number in range(max(converted, default=0))}
        missing |= {(parent / name).relative_to(folder).as_posix() for name in told - present}
    problems = [
        Problem("a shard is missing", name, fix="download the config again")
        for name in sorted(missing)
    ]
    return problems + [
        Problem(
            "the hub converted only the beginning of this config",
            path.relative_to(folder).as_posix(),
            fix="take the config's own files instead of the converted ones",
        )
        for path in files
        if path.parent.name.startswith("partial-")
    ]
