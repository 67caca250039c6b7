"""`run.json`: the one file whose hash stands for a whole run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pulse_unlearn.errors import Corrupted, Problem
from pulse_unlearn.store.atomic import SCRATCH, sha256_file
from pulse_unlearn.store.manifest import MANIFEST
from pulse_unlearn.store.sealed import (
    FileTable,
    describe_files,
    list_files,
    read_sealed,
    table_from_json,
    table_to_json,
    write_sealed,
)
from pulse_unlearn.store.stages import stage_folders

INDEX = "run.json"
VERSION = 1

PRODUCTS = (
    "environment.json",
    "experiment.yaml",
    "plan.json",
    "report.html",
    "results.csv",
    "results.json",
    "samples.json",
)
"""The files of a run folder that others read; notes and logs beside them are the user's own."""
FOLDERS = ("failures", "figures", "scores")
"""Folders of products."""


@dataclass(frozen=True, slots=True)
class Index:
    """What a run consisted of when it was last written."""

    files: FileTable
    stages: Mapping[str, str]
    """Stage folder -> SHA-256 of its manifest, which in turn holds those of its files."""


def write_index(run: Path, *, changed: Collection[str] | None = None) -> Path:
    """Write `run.json`, last of all, and return its path.

    `changed` names the products just written, such as `report.html` and `figures`: all others keep
    the hash they had, so that making a report anew does not vouch for results that were edited in
    between. Without it everything is hashed. Raises StoreError.
    """
    if changed is None:
        stages = {
            folder.name: sha256_file(folder / MANIFEST) for folder in sorted(stage_folders(run))
        }
        index = Index(describe_files(run, products(run)), stages)
    else:
        index = _updated(run, read_index(run), changed)
    path = run / INDEX
    content = {
        "version": VERSION,
        "files": table_to_json(index.files),
        "stages": index.stages,
    }
    write_sealed(path, content)
    return path


def read_index(run: Path) -> Index:
    """Read `run.json`; raises StoreError if there is none, Corrupted if it was changed."""
    path = run / INDEX
    content = read_sealed(path)
    stages = content.get("stages")
    if content.get("version") != VERSION or not isinstance(stages, dict):
        raise Corrupted(Problem("is not an index of this version", str(path)))
    return Index(table_from_json(content.get("files"), path), cast("dict[str, str]", stages))


def products(run: Path) -> list[str]:
    """Return the products that are there, as paths in the run folder; raises StoreError."""
    names = [name for name in PRODUCTS if (run / name).exists()]
    for name in FOLDERS:
        folder = run / name
        if folder.is_dir():
            names += [
                f"{name}/{inner}"
                for inner in list_files(folder)
                if not Path(inner).name.startswith(SCRATCH)
            ]
    return sorted(names)


def _updated(run: Path, index: Index, changed: Collection[str]) -> Index:
    def is_changed(name: str) -> bool:
        return any(name == part or name.startswith(f"{part}/") for part in changed)

    kept = {name: entry for name, entry in index.files.items() if not is_changed(name)}
    written = [name for name in products(run) if is_changed(name)]
    return Index({**kept, **describe_files(run, written)}, index.stages)
