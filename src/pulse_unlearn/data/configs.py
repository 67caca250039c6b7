"""Configs of a public benchmark: where their files may lie, their rows, whose files they are."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from pathlib import Path

from pulse_unlearn.data.checks import Problems
from pulse_unlearn.data.tables import Row, columns_of, parquet_rows, read_records
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
SPLITS = (("forget_5", "retain_95"), ("forget_10", "retain_90"), ("forget_15", "retain_85"))
"""Pairs of MLLMU-Bench's and UMU-Bench's configs that together hold every fictional person."""
FIUBENCH_FILE = "full.json"

_TITLES = {"umu": "UMU-Bench", "mllmu": "MLLMU-Bench", "fiubench": "FIUBench", "clear": "CLEAR"}
"""Data set -> name of the benchmark."""
_SIGNS = (
    ("umu", {"Classify"}),
    ("umu", {"MM_QA"}),
    ("mllmu", {"Classification_Task"}),
    ("fiubench", {"qa_list"}),
    ("clear", {"image", "caption"}),
)
"""Columns that only files of a benchmark have."""
_SIGNED = ("*/*.parquet", "*/*/[0-9][0-9][0-9][0-9].parquet")
_LOOKED_AT = 60
"""Files whose columns are read; CLEAR has 21 configs."""
_SHARD = re.compile(r"(?P<stem>.*-)(?P<number>\d{5})-of-(?P<count>\d{5})\.parquet")
_CONVERTED = re.compile(r"\d{4}\.parquet")


class Configs:
    """The configs of one data set in a folder; what is wrong with them is added to `problems`."""

    def __init__(self, folder: Path, problems: Problems, *, hub: str) -> None:
        self.folder, self.problems, self._hub = folder, problems, hub
        self.files: dict[Path, None] = {}
        """Files that were read, or would have been if they were not damaged."""

    def first(self, choices: Iterable[Sequence[str]]) -> Sequence[str]:
        """Return the first choice of which every config has files; none if there is none."""
        whole = (names for names in choices if all(shards(self.folder, name) for name in names))
        return next(whole, ())

    def rows(self, config: str, needed: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
        """Read the named columns of every file of a config that can be read.

        Told is every file that is missing, cannot be read, or lacks a needed column.
        """
        files = shards(self.folder, config)
        self.files |= dict.fromkeys(files)
        if not files:
            self.problems.append(self.lacking(config))
        self._tell_gaps(files)
        rows: list[Row] = []
        for path in files:
            try:
                rows += self._rows_of(path, needed, (*needed, *optional))
            except DataError as error:
                self.problems += error.problems
        return rows

    def lacking(self, config: str) -> Problem:
        """Return the problem that a config has no files: what was looked for, what is there."""
        looked = ", ".join(place.format(config) for place in PLACES)
        return Problem(
            f"there is no {config} here",
            str(self.folder),
            got=contents(self.folder),
            allowed=f"{config}/train-00000-of-00001.parquet; looked for {looked}",
            fix=belongs_to(benchmark_in(self.folder))
            or "give the folder that holds the benchmark's configs; or its hub id, "
            f"{self._hub}, together with data.people.revision",
        )

    def _rows_of(self, path: Path, needed: Sequence[str], columns: Sequence[str]) -> list[Row]:
        name = self._name(path)
        if path.suffix == ".jsonl":
            rows = []
            for row in read_records(path, self.problems):
                if row.values.keys() >= {*needed}:
                    rows.append(Row({name: row.values.get(name) for name in columns}, row.where))
                else:
                    self.problems.append(_lacks(row.where, row.values.keys(), needed))
            return rows
        present = columns_of(path)
        if present and not present >= {*needed}:
            raise DataError(_lacks(name, present, needed))
        return parquet_rows(path, name, columns=columns)

    def _tell_gaps(self, files: Sequence[Path]) -> None:
        """Tell files that others say there are: of `train-00000-of-00003`, or before `0002`."""
        names: dict[Path, set[str]] = defaultdict(set)
        for path in files:
            names[path.parent].add(path.name)
        missing: set[str] = set()
        for parent, present in names.items():
            told: set[str] = set()
            for found in filter(None, map(_SHARD.fullmatch, present)):
                numbers = (f"{number:05d}" for number in range(int(found["count"])))
                told |= {f"{found['stem']}{n}-of-{found['count']}.parquet" for n in numbers}
            converted = [int(name[:4]) for name in present if _CONVERTED.fullmatch(name)]
            told |= {f"{number:04d}.parquet" for number in range(max(converted, default=0))}
            missing |= {self._name(parent / name) for name in told - present}
        for name in sorted(missing):
            self.problems.add("a shard is missing", name, fix="download the config again")
        what = "the hub converted only the beginning of this config"
        fix = "take the config's own files instead of the converted ones"
        for path in files:
            if path.parent.name.startswith("partial-"):
                self.problems.add(what, self._name(path), fix=fix)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def shards(folder: Path, config: str) -> list[Path]:
    """Return the files of one config, in order; empty if there are none."""
    found = (sorted(folder.glob(place.format(config))) for place in PLACES)
    return next(filter(None, found), [])


def contents(folder: Path) -> str:
    """Return the names of what a folder holds, the first dozen of them."""
    if not folder.is_dir():
        return "no such folder"
    return ", ".join(sorted(path.name for path in folder.iterdir())[:12]) or "an empty folder"


def benchmark_of(columns: Set[str]) -> str:
    """Return the data set whose columns these are; empty if none's."""
    return next((name for name, signs in _SIGNS if signs <= columns), "")


def benchmark_in(folder: Path) -> str:
    """Return the data set a folder holds, by the columns of its files; empty if none is known."""
    if (folder / FIUBENCH_FILE).is_file():
        return "fiubench"
    files = [path for place in _SIGNED for path in sorted(folder.glob(place))]
    found = (benchmark_of(columns_of(path)) for path in files[:_LOOKED_AT])
    return next(filter(None, found), "")


def belongs_to(name: str) -> str:
    """Return what to do with files of this data set; empty if `name` is."""
    return f"this is {_TITLES[name]}: set data.people.source: {name}" if name else ""


def _lacks(where: str, present: Set[str], needed: Sequence[str]) -> Problem:
    missing = [column for column in needed if column not in present]
    return Problem(
        "columns are missing",
        where,
        got=", ".join(sorted(map(str, present))),
        allowed=f"needs {', '.join(needed)}; lacks {', '.join(missing)}",
        fix=belongs_to(benchmark_of(present)),
    )
