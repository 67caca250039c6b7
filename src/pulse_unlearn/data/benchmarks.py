"""Which public benchmark of people a file is of, told by its columns."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from pulse_unlearn.data.parquet import columns_of

TITLES = {
    "umu": "UMU-Bench",
    "mllmu": "MLLMU-Bench",
    "fiubench": "FIUBench",
    "clear": "CLEAR",
}
"""Data set -> name of the benchmark."""
FIUBENCH_FILE = "full.json"

_SIGNS = (
    ("umu", frozenset({"Classify"})),
    ("umu", frozenset({"MM_QA"})),
    ("mllmu", frozenset({"Classification_Task"})),
    ("fiubench", frozenset({"qa_list"})),
    ("clear", frozenset({"image", "caption"})),
)
_PLACES = ("*/*.parquet", "*/*/[0-9][0-9][0-9][0-9].parquet")
_LOOKED_AT = 60
"""Files whose columns are read; CLEAR has 21 configs."""


def benchmark_of(columns: Set[str]) -> str:
    """Return the data set whose columns these are; empty if none's."""
    return next((name for name, signs in _SIGNS if signs <= columns), "")


def benchmark_in(folder: Path) -> str:
    """Return the data set a folder holds, by the columns of its files; empty if none is known."""
    if (folder / FIUBENCH_FILE).is_file():
        return "fiubench"
    files = [path for place in _PLACES for path in sorted(folder.glob(place))]
    found = (benchmark_of(columns_of(path)) for path in files[:_LOOKED_AT])
    return next((name for name in found if name), "")


def belongs_to(name: str) -> str:
    """Return what to do with files of this data set; empty if `name` is."""
    return f"this is {TITLES[name]}: set data.people.source: {name}" if name else ""
