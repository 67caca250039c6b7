"""Data sets by name: where people and general questions come from, with the digest of every file.

Adding one: a function that returns a `Dataset`, and an entry; third parties use the entry-point
group `pulse_unlearn.datasets`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import as_file, files
from pathlib import Path

from pulse_unlearn.data import mllmu
from pulse_unlearn.data.mmbench import load_mmbench
from pulse_unlearn.data.parquet import read_rows, shards
from pulse_unlearn.errors import ConfigError, DataError, Problem
from pulse_unlearn.records import Individual, Question
from pulse_unlearn.registry import Registry

CELEBRITY_PREFIX = "celebrity-"
"""Put before ids of celebrities in a data set that counts both groups from the same number."""
WORLD_QUESTIONS = "general/mmbench_world.tsv"
_REINSTALL = "install pulse-unlearn again, or rebuild the world"


@dataclass(frozen=True, slots=True)
class Dataset:
    """What one source holds; parts it doesn't have, or was not asked for, are empty."""

    individuals: tuple[Individual, ...] = ()
    general: tuple[Question, ...] = ()
    """General-ability questions that are scored."""
    general_training: tuple[Question, ...] = ()
    """General-ability questions to train on: replay and retain material, never scored."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """File, relative to the source -> SHA-256 of its bytes, hex."""


Loader = Callable[[str | None], Dataset]
"""Takes the path named in the experiment, None if there is none; raises DataError."""


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """A source: what it is, and a loader for each part it has."""

    description: str
    people: Loader | None = None
    general: Loader | None = None
    general_training: Loader | None = None


DATASETS: Registry[DatasetEntry] = Registry("data set", group="pulse_unlearn.datasets")


def load_people(source: str, path: str | None = None) -> Dataset:
    """Load a source's individuals; raises ConfigError if it has none, DataError for bad files."""
    return _loader(source, "people", lambda entry: entry.people)(path)


def load_general(source: str, path: str | None = None) -> Dataset:
    """Load a source's scored general questions; raises like `load_people`."""
    return _loader(source, "general questions", lambda entry: entry.general)(path)


def load_general_training(source: str, path: str | None = None) -> Dataset:
    """Load a source's general questions to train on, none if it has none; raises likewise."""
    if DATASETS.get(source).general_training is None:
        return Dataset()
    return _loader(source, "training questions", lambda entry: entry.general_training)(path)


def digest(paths: Sequence[Path], *, root: Path) -> dict[str, str]:
    """Return the SHA-256 of each file, by its path relative to `root`."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            found[path.relative_to(root).as_posix()] = hashlib.file_digest(
                file, "sha256"
            ).hexdigest()
    return found


def _loader(source: str, part: str, choose: Callable[[DatasetEntry], Loader | None]) -> Loader:
    loader = choose(DATASETS.get(source))
    if loader is None:
        having = [name for name, entry in DATASETS if choose(entry)]
        raise ConfigError(
            Problem(f"this data set has no {part}", got=source, allowed=", ".join(having))
        )
    return loader


def _mllmu_people(path: str | None) -> Dataset:
    """Load fictional people and celebrities of an MLLMU-Bench folder."""
    return _people_in(_given(path, "mllmu", "the folder that holds Full_Set and Retain_Set"))


def _people_in(root: Path) -> Dataset:
    configs = [name for name in (mllmu.FICTIONAL, mllmu.CELEBRITIES) if shards(root, name)]
    shared = _shared_ids(root) if len(configs) == 2 else frozenset()
    individuals: list[Individual] = []
    problems: list[Problem] = []
    for config in configs or [mllmu.FICTIONAL]:
        # Where both groups use the same ids, further pictures are those of the fictional people.
        apart = config == mllmu.CELEBRITIES and bool(shared)
        try:
            individuals += mllmu.load_people(
                root,
                config=config,
                training=None if apart else mllmu.TRAINING,
                other=None if apart else mllmu.OTHER_POSES,
                id_prefix=CELEBRITY_PREFIX if apart else "",
            )
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(list(dict.fromkeys(problems)))
    used = [*configs, mllmu.TRAINING, mllmu.OTHER_POSES]
    read = [file for config in used for file in shards(root, config)]
    return Dataset(individuals=tuple(individuals), digests=digest(read, root=root))


def _shared_ids(root: Path) -> frozenset[str]:
    """Return ids that both groups use; other columns are not read."""
    both = [
        {str(row.values["ID"]) for row in read_rows(root, config, needed=("ID",), optional=())}
        for config in (mllmu.FICTIONAL, mllmu.CELEBRITIES)
    ]
    return frozenset(both[0] & both[1])


def _mmbench_general(path: str | None) -> Dataset:
    """Load an MMBench TSV."""
    file = _given(path, "mmbench", "a TSV file such as MMBench_DEV_EN.tsv")
    return Dataset(general=tuple(load_mmbench(file)), digests=digest([file], root=file.parent))


def _mmbench_training(path: str | None) -> Dataset:
    """Load `<name>_train.tsv` beside an MMBench TSV, if it is there."""
    file = _given(path, "mmbench", "a TSV file such as MMBench_DEV_EN.tsv")
    beside = file.with_name(f"{file.stem}_train{file.suffix}")
    if not beside.exists():
        return Dataset()
    return Dataset(
        general_training=tuple(load_mmbench(beside)), digests=digest([beside], root=file.parent)
    )


def _given(path: str | None, source: str, what: str) -> Path:
    if not path:
        raise ConfigError(
            Problem(f"data set '{source}' needs a path", allowed=what, fix="set data.<part>.path")
        )
    return Path(path).expanduser()


def _world_people(path: str | None) -> Dataset:
    """Load the embedded people."""
    with _world(path, "people/") as root:
        return _people_in(root / "people")


def _world_general(path: str | None) -> Dataset:
    """Load the embedded general questions."""
    with _world(path, WORLD_QUESTIONS) as root:
        return _mmbench_general(str(root / WORLD_QUESTIONS))


def _world_training(path: str | None) -> Dataset:
    """Load the embedded general questions to train on."""
    with _world(path, "general/") as root:
        return _mmbench_training(str(root / WORLD_QUESTIONS))


@contextmanager
def _world(path: str | None, part: str) -> Iterator[Path]:
    """Yield the embedded world's folder once a part's files are seen to be those of its manifest.

    `path` may name the folder of a rebuilt world instead. Raises DataError.
    """
    if path:
        root = Path(path).expanduser()
        _check_manifest(root, part)
        yield root
        return
    with as_file(files("pulse_unlearn").joinpath("assets/world")) as root:
        _check_manifest(root, part)
        yield root


def _check_manifest(root: Path, part: str) -> None:
    manifest = root / "manifest.json"
    try:
        listed: dict[str, str] = json.loads(manifest.read_text(encoding="utf-8"))["files"]
        wanted = {name: known for name, known in listed.items() if name.startswith(part)}
        found = digest([root / name for name in wanted], root=root)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            Problem(
                "the embedded world is not complete", str(manifest), repr(error), fix=_REINSTALL
            )
        ) from error
    changed = [name for name, known in wanted.items() if found[name] != known]
    problems = [
        Problem("the embedded file was changed", name, found[name], wanted[name], _REINSTALL)
        for name in changed
    ]
    if problems or not wanted:
        raise DataError(
            problems or Problem("the manifest does not list this part", str(manifest), part)
        )


DATASETS.add(
    "world",
    DatasetEntry(
        "the embedded world: 273 drawn people and general questions about drawn scenes; no path",
        _world_people,
        _world_general,
        _world_training,
    ),
)
DATASETS.add(
    "mllmu",
    DatasetEntry(
        "MLLMU-Bench people; path: the folder with Full_Set, Retain_Set, ft_Data and Test_Set",
        people=_mllmu_people,
    ),
)
DATASETS.add(
    "mmbench",
    DatasetEntry(
        "MMBench questions; path: a TSV file; <name>_train.tsv beside it is training material",
        general=_mmbench_general,
        general_training=_mmbench_training,
    ),
)
