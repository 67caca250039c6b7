"""The manifest: the record that makes a stage complete, and the proof that it is unchanged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pulse_unlearn.errors import Corrupted, Problem, PulseError, StoreError
from pulse_unlearn.store.fingerprint import SCHEME, fingerprint
from pulse_unlearn.store.sealed import (
    FileTable,
    compare_files,
    read_sealed,
    table_from_json,
    table_to_json,
    write_sealed,
)

MANIFEST = "manifest.json"
CHECKPOINTS = "checkpoints"
"""Folder in a stage that is scratch: deleted once the stage is published, never part of it."""

VERSION = 1
REPAIR = "set the stage aside and compute it again: add --repair to the `pulse run` command"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a finished stage is, what it was made from, and the files it consists of."""

    name: str
    kind: str
    fingerprint: str
    settings: Mapping[str, object]
    data: Mapping[str, str]
    parents: tuple[str, ...]
    files: FileTable
    notes: Mapping[str, object] = field(default_factory=dict)
    """Facts that do not change the output by right, such as library versions."""
    scheme: int = SCHEME


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into a stage folder; raises StoreError."""
    write_sealed(
        folder / MANIFEST,
        {
            "version": VERSION,
            "name": manifest.name,
            "kind": manifest.kind,
            "fingerprint": manifest.fingerprint,
            "scheme": manifest.scheme,
            "settings": manifest.settings,
            "data": manifest.data,
            "parents": list(manifest.parents),
            "notes": manifest.notes,
            "files": table_to_json(manifest.files),
        },
    )


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a stage folder.

    Raises StoreError if there is none, Corrupted if it is not the one that was written, and
    StoreError if a later version of this program wrote it.
    """
    path = folder / MANIFEST
    content = read_sealed(path)
    version = content.get("version")
    if version != VERSION:
        raise StoreError(
            Problem(
                "was written by another version of this program",
                str(path),
                got=f"version {version}",
                allowed=f"version {VERSION}",
            )
        )
    try:
        return Manifest(
            name=str(content["name"]),
            kind=str(content["kind"]),
            fingerprint=str(content["fingerprint"]),
            settings=cast("dict[str, object]", content["settings"]),
            data=cast("dict[str, str]", content["data"]),
            parents=tuple(cast("list[str]", content["parents"])),
            files=table_from_json(content["files"], path),
            notes=cast("dict[str, object]", content["notes"]),
            scheme=cast("int", content["scheme"]),
        )
    except (KeyError, TypeError) as error:
        raise Corrupted(Problem("lacks a part", str(path), f"{error}", fix=REPAIR)) from error


def stage_problems(folder: Path) -> list[Problem]:
    """Return everything that differs between a finished stage and the stage that was written."""
    try:
        manifest = read_manifest(folder)
    except PulseError as error:
        return [_with_fix(problem) for problem in error.problems]
    problems = _identity_problems(folder, manifest)
    skip = {MANIFEST, CHECKPOINTS}
    return problems + compare_files(folder, manifest.files, skip=skip, fix=REPAIR)


def _identity_problems(folder: Path, manifest: Manifest) -> list[Problem]:
    """The folder's name, the fingerprint and what it is a fingerprint of must agree."""
    where = str(folder / MANIFEST)
    problems: list[Problem] = []
    if not folder.name.endswith(f"-{manifest.fingerprint[:8]}"):
        problems.append(
            Problem("belongs to another stage folder", where, manifest.fingerprint, fix=REPAIR)
        )
    if manifest.scheme == SCHEME:
        expected = fingerprint(
            manifest.kind, manifest.settings, data=manifest.data, parents=manifest.parents
        )
        if expected != manifest.fingerprint:
            got = manifest.fingerprint
            problems.append(
                Problem("settings and fingerprint disagree", where, got, expected, fix=REPAIR)
            )
    return problems


def _with_fix(problem: Problem) -> Problem:
    fix = problem.fix or REPAIR
    return Problem(problem.what, problem.where, problem.got, problem.allowed, fix)
