"""Data sets by name: where people and general questions come from.

Adding one: a function that takes a `Source` and returns a `Dataset`, and an entry; third parties
use the entry-point group `pulse_unlearn.datasets`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_unlearn.data import mmbench
from pulse_unlearn.data.clear import load_clear, load_real_world
from pulse_unlearn.data.configs import PATTERNS
from pulse_unlearn.data.fiubench import load_fiubench
from pulse_unlearn.data.mllmu import load_mllmu
from pulse_unlearn.data.people import load_folder
from pulse_unlearn.data.source import Dataset, Source, local_path
from pulse_unlearn.data.umu import load_umu
from pulse_unlearn.errors import ConfigError, DataError, Problem
from pulse_unlearn.registry import Registry
from pulse_unlearn.shipped import world

Loader = Callable[[Source], Dataset]
"""Takes what the experiment says of the source; raises DataError."""

WORLD_QUESTIONS = "general/mmbench_world.tsv"


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A source: what it is, and a loader for each part it has."""

    description: str
    people: Loader | None = None
    general: Loader | None = None
    general_training: Loader | None = None


DATASETS: Registry[DatasetEntry] = Registry("data set", group="pulse_unlearn.datasets")


def load_people(name: str, source: Source | str | None = None) -> Dataset:
    """Load a source's individuals; raises ConfigError if it has none, DataError for bad files."""
    return _loader(name, "people", lambda entry: entry.people)(_source(source))


def load_general(name: str, source: Source | str | None = None) -> Dataset:
    """Load a source's scored general questions; raises like `load_people`."""
    return _loader(name, "general questions", lambda entry: entry.general)(_source(source))


def load_general_training(name: str, source: Source | str | None = None) -> Dataset:
    """Load a source's general questions to train on, none if it has none; raises likewise."""
    load = DATASETS.get(name).general_training
    return load(_source(source)) if load else Dataset()


def _source(source: Source | str | None) -> Source:
    return source if isinstance(source, Source) else Source(source)


def _loader(name: str, part: str, choose: Callable[[DatasetEntry], Loader | None]) -> Loader:
    loader = choose(DATASETS.get(name))
    if loader is None:
        having = ", ".join(name for name, entry in DATASETS if choose(entry))
        raise ConfigError(Problem(f"this data set has no {part}", got=name, allowed=having))
    return loader


def _folder(
    name: str,
    what: str,
    load: Callable[[Path, Source], Dataset],
    *,
    patterns: Sequence[str] = PATTERNS,
) -> Loader:
    """Return the loader of a folder, or of what matches `patterns` in a hub data set."""
    return lambda source: load(local_path(source, name, what, patterns=patterns), source)


def _table(load: Callable[[Path], Dataset]) -> Loader:
    what = "a TSV file such as MMBench_DEV_EN.tsv"
    return lambda source: load(local_path(source, "mmbench", what))


def _world_people(source: Source) -> Dataset:
    with world("people/", DataError, path=source.path) as root:
        return load_mllmu(root / "people", source)


def _world_general(source: Source) -> Dataset:
    with world(WORLD_QUESTIONS, DataError, path=source.path) as root:
        return mmbench.load_scored(root / WORLD_QUESTIONS)


def _world_training(source: Source) -> Dataset:
    with world("general/", DataError, path=source.path) as root:
        return mmbench.load_training(root / WORLD_QUESTIONS)


_ENTRIES = {
    "world": DatasetEntry(
        "the embedded world: 273 drawn people and general questions about drawn scenes; no path",
        _world_people,
        _world_general,
        _world_training,
    ),
    "mllmu": DatasetEntry(
        "MLLMU-Bench people; path: the folder with Full_Set, Retain_Set, ft_Data and Test_Set, "
        "or the hub id with a revision",
        _folder("mllmu", "the folder that holds Full_Set and Retain_Set", load_mllmu),
    ),
    "umu": DatasetEntry(
        "UMU-Bench people; path: the folder with Full_Set and Real_Person_Set, "
        "or the hub id with a revision",
        _folder("umu", "the folder that holds Full_Set and Real_Person_Set", load_umu),
    ),
    "fiubench": DatasetEntry(
        "FIUBench people, asked with their picture only; path: the folder with full.json, "
        "split.json and the unpacked pictures",
        _folder(
            "fiubench",
            "the folder that holds full.json, split.json and the pictures",
            load_fiubench,
            patterns=("*.json", "*/*.jpg", "*/*.png"),
        ),
    ),
    "clear": DatasetEntry(
        "CLEAR people; path: the folder with full, full+tofu, forget10_perturbed and the like, "
        "real_faces, or the hub id with a revision",
        _folder(
            "clear",
            "the folder that holds full, full+tofu, forget10_perturbed and real_faces",
            load_clear,
        ),
    ),
    "clear_real_world": DatasetEntry(
        "CLEAR's general questions; path: the folder with real_world, or hub id and revision",
        general=_folder("clear_real_world", "the folder with real_world", load_real_world),
    ),
    "people": DatasetEntry(
        "your own people; path: a folder with people.jsonl, .csv or .parquet and pictures; "
        "`pulse data init` writes an example",
        _folder("people", "a folder with people.jsonl", load_folder, patterns=("*", "*/*")),
    ),
    "none": DatasetEntry(
        "no general questions: what unlearning cost beside people is then not measured; no path",
        general=lambda source: Dataset(),
    ),
    "mmbench": DatasetEntry(
        "MMBench questions; path: any TSV of that format, local or owner/name/file.tsv with a "
        "revision; <name>_train.tsv beside it is training material",
        general=_table(mmbench.load_scored),
        general_training=_table(mmbench.load_training),
    ),
}
for _name, _entry in _ENTRIES.items():
    DATASETS.add(_name, _entry)
