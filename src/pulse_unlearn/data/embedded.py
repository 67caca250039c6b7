"""The embedded world's data, or a rebuilt one's: used once its files are those of its manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from pulse_unlearn.data.mllmu_set import load_both_groups
from pulse_unlearn.data.mmbench import load_scored, load_training
from pulse_unlearn.data.source import Dataset, Source, digest
from pulse_unlearn.errors import DataError, Problem

WORLD_QUESTIONS = "general/mmbench_world.tsv"
_REINSTALL = "install pulse-unlearn again, or rebuild the world"


def world_people(source: Source) -> Dataset:
    """Load the embedded people."""
    with _world(source.path, "people/") as root:
        return load_both_groups(root / "people", scored_picture=source.scored_picture)


def world_general(source: Source) -> Dataset:
    """Load the embedded general questions."""
    with _world(source.path, WORLD_QUESTIONS) as root:
        return load_scored(root / WORLD_QUESTIONS)


def world_training(source: Source) -> Dataset:
    """Load the embedded general questions to train on."""
    with _world(source.path, "general/") as root:
        return load_training(root / WORLD_QUESTIONS)


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
