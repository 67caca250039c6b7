"""Named data sets: where people and general questions come from, and the digests of their files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from importlib.resources import as_file, files
from pathlib import Path

from pulse_unlearn.data.mllmu import load_people as read_people
from pulse_unlearn.data.mllmu import people_files
from pulse_unlearn.data.mmbench import load_mmbench
from pulse_unlearn.errors import ConfigError, DataError, Problem
from pulse_unlearn.records import Individual, Question
from pulse_unlearn.registry import Registry


@dataclass(frozen=True, slots=True)
class Dataset:
    """What was read, and the SHA-256 of each file it was read from."""

    individuals: tuple[Individual, ...] = ()
    questions: tuple[Question, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Source:
    """A registered data set: the parts it offers, each a loader from a folder or file."""

    description: str
    people: Callable[[Path], Dataset] | None = None
    general: Callable[[Path], Dataset] | None = None
    general_training: Callable[[Path], Dataset] | None = None
    packaged: str = ""
    """Folder inside the package; empty if the experiment must give a path."""


DATASETS: Registry[Source] = Registry("dataset", group="pulse_unlearn.datasets")


def load_people(source: str, path: str | None) -> Dataset:
    """Read a data set's people; raises ConfigError or DataError."""
    return _load(source, path, "people")


def load_general(source: str, path: str | None) -> Dataset:
    """Read a data set's general questions; raises ConfigError or DataError."""
    return _load(source, path, "general")


def load_general_training(source: str, path: str | None) -> Dataset:
    """Read a data set's general training questions; empty if it has none."""
    return _load(source, path, "general_training")


def _load(source: str, path: str | None, part: str) -> Dataset:
    entry = DATASETS.get(source)
    loader = getattr(entry, part)
    if loader is None:
        if part == "general_training":
            return Dataset()
        offering = [name for name, other in DATASETS if getattr(other, part)]
        raise ConfigError(
            Problem(f"this data set has no {part}", f"data.{part}", source, ", ".join(offering))
        )
    if entry.packaged:
        with as_file(files("pulse_unlearn").joinpath(entry.packaged)) as folder:
            loaded: Dataset = loader(folder)
            return loaded
    if path is None or not Path(path).exists():
        raise ConfigError(
            Problem(
                "this data set needs the path of a local copy",
                f"data.{part}.path",
                got=str(path),
                fix=f"--set data.{part}.path=<folder or file>",
            )
        )
    loaded = loader(Path(path))
    return loaded


def _digests(paths: Sequence[Path], root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root) if path != root else path.name): sha256(
            path.read_bytes()
        ).hexdigest()
        for path in paths
    }


@lru_cache(maxsize=4)
def _people(folder: Path) -> Dataset:
    paths = people_files(folder)
    if not paths:
        raise DataError(Problem("no MLLMU-Bench parquet files here", str(folder)))
    return Dataset(individuals=tuple(read_people(folder)), digests=_digests(paths, folder))


@lru_cache(maxsize=4)
def _tsv(path: Path) -> Dataset:
    return Dataset(questions=tuple(load_mmbench(path)), digests=_digests([path], path))


DATASETS.add(
    "world",
    Source(
        "the embedded world: 153 celebrities, 120 fictional people, MMBench-style questions",
        people=lambda folder: _people(folder / "people"),
        general=lambda folder: _tsv(folder / "general" / "mmbench_world.tsv"),
        general_training=lambda folder: _tsv(folder / "general" / "mmbench_world_train.tsv"),
        packaged="assets/world",
    ),
)
DATASETS.add("mllmu", Source("a local copy of MLLMU-Bench", people=_people))
DATASETS.add("mmbench", Source("an MMBench-format TSV file", general=_tsv))
