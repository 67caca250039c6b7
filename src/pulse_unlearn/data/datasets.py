"""Data sets by name: where people and general questions come from.

Adding one: a function that takes a `Source` and returns a `Dataset`, and an entry; third parties
use the entry-point group `pulse_unlearn.datasets`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pulse_unlearn.data import embedded, mmbench
from pulse_unlearn.data.clear import load_clear, load_real_world
from pulse_unlearn.data.configs import PATTERNS
from pulse_unlearn.data.fiubench import load_fiubench
from pulse_unlearn.data.hub import local_path
from pulse_unlearn.data.mllmu_set import load_both_groups
from pulse_unlearn.data.people import load_folder
from pulse_unlearn.data.source import Dataset, Source
from pulse_unlearn.data.umu import load_umu
from pulse_unlearn.errors import ConfigError, Problem
from pulse_unlearn.registry import Registry

Loader = Callable[[Source], Dataset]
"""Takes what the experiment says of the source; raises DataError."""


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
    if DATASETS.get(name).general_training is None:
        return Dataset()
    load = _loader(name, "training questions", lambda entry: entry.general_training)
    return load(_source(source))


def _source(source: Source | str | None) -> Source:
    return source if isinstance(source, Source) else Source(source)


def _loader(name: str, part: str, choose: Callable[[DatasetEntry], Loader | None]) -> Loader:
    loader = choose(DATASETS.get(name))
    if loader is None:
        having = [name for name, entry in DATASETS if choose(entry)]
        raise ConfigError(
            Problem(f"this data set has no {part}", got=name, allowed=", ".join(having))
        )
    return loader


def _mllmu_people(source: Source) -> Dataset:
    """Load fictional people and celebrities of an MLLMU-Bench folder or hub data set."""
    what = "the folder that holds Full_Set and Retain_Set"
    root = local_path(source, "mllmu", what, patterns=PATTERNS)
    return load_both_groups(root, scored_picture=source.scored_picture)


def _umu_people(source: Source) -> Dataset:
    """Load fictional and real people of a UMU-Bench folder or hub data set."""
    what = "the folder that holds Full_Set and Real_Person_Set"
    return load_umu(local_path(source, "umu", what, patterns=PATTERNS), source=source)


def _fiubench_people(source: Source) -> Dataset:
    """Load the people of a FIUBench folder or hub data set."""
    what = "the folder that holds full.json, split.json and the pictures"
    root = local_path(source, "fiubench", what, patterns=("*.json", "*/*.jpg", "*/*.png"))
    return load_fiubench(root, source=source)


def _clear_people(source: Source) -> Dataset:
    """Load authors and celebrities of a CLEAR folder or hub data set."""
    what = "the folder that holds full, full+tofu, forget10_perturbed and real_faces"
    return load_clear(local_path(source, "clear", what, patterns=PATTERNS), source=source)


def _clear_general(source: Source) -> Dataset:
    """Load the general questions of a CLEAR folder or hub data set."""
    root = local_path(source, "clear_real_world", "the folder with real_world", patterns=PATTERNS)
    return load_real_world(root, source=source)


def _own_people(source: Source) -> Dataset:
    """Load a folder of one's own people."""
    root = local_path(source, "people", "a folder with people.jsonl", patterns=("*", "*/*"))
    return load_folder(root, source=source)


_TSV = "a TSV file such as MMBench_DEV_EN.tsv"


def _mmbench_general(source: Source) -> Dataset:
    """Load an MMBench TSV."""
    return mmbench.load_scored(local_path(source, "mmbench", _TSV))


def _mmbench_training(source: Source) -> Dataset:
    """Load `<name>_train.tsv` beside an MMBench TSV, if it is there."""
    return mmbench.load_training(local_path(source, "mmbench", _TSV))


DATASETS.add(
    "world",
    DatasetEntry(
        "the embedded world: 273 drawn people and general questions about drawn scenes; no path",
        embedded.world_people,
        embedded.world_general,
        embedded.world_training,
    ),
)
DATASETS.add(
    "mllmu",
    DatasetEntry(
        "MLLMU-Bench people; path: the folder with Full_Set, Retain_Set, ft_Data and Test_Set, "
        "or the hub id with a revision",
        people=_mllmu_people,
    ),
)
DATASETS.add(
    "umu",
    DatasetEntry(
        "UMU-Bench people; path: the folder with Full_Set and Real_Person_Set, "
        "or the hub id with a revision",
        people=_umu_people,
    ),
)
DATASETS.add(
    "fiubench",
    DatasetEntry(
        "FIUBench people, asked with their picture only; path: the folder with full.json, "
        "split.json and the unpacked pictures",
        people=_fiubench_people,
    ),
)
DATASETS.add(
    "clear",
    DatasetEntry(
        "CLEAR people; path: the folder with full, full+tofu, forget10_perturbed and the like, "
        "real_faces, or the hub id with a revision",
        people=_clear_people,
    ),
)
DATASETS.add(
    "clear_real_world",
    DatasetEntry(
        "CLEAR's general questions; path: the folder with real_world, or hub id and revision",
        general=_clear_general,
    ),
)
DATASETS.add(
    "people",
    DatasetEntry(
        "your own people; path: a folder with people.jsonl, .csv or .parquet and pictures; "
        "`pulse data init` writes an example",
        people=_own_people,
    ),
)
DATASETS.add(
    "mmbench",
    DatasetEntry(
        "MMBench questions; path: any TSV of that format, local or owner/name/file.tsv with a "
        "revision; <name>_train.tsv beside it is training material",
        general=_mmbench_general,
        general_training=_mmbench_training,
    ),
)
