"""JSON that detects a change of any of its own bytes; tables of files; the manifest of a stage."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pulse_unlearn.errors import Corrupted, Problem, PulseError, StoreError
from pulse_unlearn.store.atomic import file_errors, sha256_file, sync_file, sync_folder, write_text
from pulse_unlearn.store.fingerprint import (
    SCHEME,
    canonical_text,
    fingerprint,
    plain,
    readable_text,
)

SEAL = "seal"
"""Key of the hash over the rest of a sealed file."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What a file was when it was written."""

    sha256: str
    size: int
    """Bytes."""


FileTable = Mapping[str, FileEntry]
"""Path inside a folder, with `/`, -> what the file was when it was written."""


def write_sealed(path: Path, content: Mapping[str, object]) -> None:
    """Write `content` as JSON together with its own hash; raises StoreError."""
    write_text(path, _sealed_text(content, path))


def read_sealed(path: Path) -> dict[str, object]:
    """Return what `write_sealed` wrote, without the seal; raises Corrupted if a byte differs."""
    with file_errors(path, "read"):
        data = path.read_bytes()
    try:
        content = json.loads(data)
    except ValueError as error:
        raise Corrupted(
            Problem("is not the JSON that was written", str(path), str(error))
        ) from error
    if not isinstance(content, dict):
        raise Corrupted(Problem("is not the JSON that was written", str(path), "no mapping"))
    seal = content.pop(SEAL, "")
    # The bytes too are compared: a changed blank would leave the parsed content as it was.
    try:
        expected = _sealed_text(content, path)
    except StoreError as error:  # the flip made a number infinite, or text invalid
        raise Corrupted(error.problems) from error
    if expected.encode("utf-8") != data:
        raise Corrupted(
            Problem(
                "was changed since it was written",
                str(path),
                got=f"content with seal {_seal_of(content, path)[:16]}...",
                allowed=f"seal {str(seal)[:16]}... as stored",
            )
        )
    return content


def list_files(folder: Path, *, skip: Collection[str] = ()) -> list[str]:
    """Return the paths inside `folder`, with `/` and sorted, links and devices included.

    `skip` names files and folders directly in `folder` that do not count. Raises StoreError.
    """
    names: list[str] = []

    def reraise(error: OSError) -> None:
        raise error

    with file_errors(folder, "list"):
        for parent, folders, files in os.walk(folder, onerror=reraise):
            here = Path(parent)
            linked = [name for name in folders if (here / name).is_symlink()]
            if here == folder:
                folders[:] = [name for name in folders if name not in skip]
                files = [name for name in files if name not in skip]
            names += [(here / name).relative_to(folder).as_posix() for name in [*files, *linked]]
    return sorted(names)


def describe_files(folder: Path, names: Collection[str], *, sync: bool = False) -> FileTable:
    """Hash the named files; with `sync`, first wait until they and their folders are on the disk.

    Raises StoreError; a link or device is refused, because its content could change elsewhere.
    """
    odd = [name for name in names if not _is_plain_file(folder / name)]
    if odd:
        raise StoreError(
            [
                Problem("is not a plain file", str(folder / name), allowed="files and folders")
                for name in odd
            ]
        )
    table: dict[str, FileEntry] = {}
    for name in sorted(names):
        path = folder / name
        with file_errors(path, "flush to the disk"):
            if sync:
                sync_file(path)
            size = path.stat().st_size
        table[name] = FileEntry(sha256_file(path), size)
    if sync:
        parents = {parent for name in names for parent in (folder / name).parents}
        for parent in sorted(p for p in parents if p.is_relative_to(folder)):
            with file_errors(parent, "flush to the disk"):
                sync_folder(parent)
    return table


def compare_files(
    folder: Path, table: FileTable, *, skip: Collection[str] = (), fix: str = ""
) -> list[Problem]:
    """Return one Problem for each file that is changed, missing, unreadable or added."""
    try:
        present = set(list_files(folder, skip=skip))
    except StoreError as error:
        return list(error.problems)
    problems: list[Problem] = []
    for name in sorted(present | set(table)):
        problems += compare_file(folder / name, table.get(name), fix=fix)
    return problems


def compare_file(path: Path, entry: FileEntry | None, *, fix: str = "") -> list[Problem]:
    """Return what differs between a file and its entry; `None` says it should not be there."""
    where = str(path)
    if entry is None:
        return [Problem("was added after the folder was finished", where, fix=fix)]
    if not path.is_symlink() and not path.exists():
        return [Problem("is missing", where, allowed=f"{entry.size} bytes", fix=fix)]
    if not _is_plain_file(path):
        return [Problem("is not a plain file any more", where, fix=fix)]
    try:
        with file_errors(path, "read"):
            size = path.stat().st_size
        if size != entry.size:
            got, allowed = f"{size} bytes", f"{entry.size} bytes"
            return [Problem("has another size than was written", where, got, allowed, fix)]
        digest = sha256_file(path)
    except StoreError as error:
        return list(error.problems)
    if digest == entry.sha256:
        return []
    got, allowed = f"sha256 {digest}", f"sha256 {entry.sha256}"
    return [Problem("was changed since it was written", where, got, allowed, fix)]


def table_to_json(table: FileTable) -> dict[str, object]:
    """Return the form of a file table in sealed files."""
    return {name: {"sha256": e.sha256, "size": e.size} for name, e in table.items()}


def table_from_json(content: object, path: Path) -> FileTable:
    """Read back `table_to_json`; raises Corrupted, naming `path`, if it has another form."""
    try:
        entries = cast("Mapping[str, Mapping[str, object]]", content)
        return {
            name: FileEntry(str(entry["sha256"]), int(cast("int", entry["size"])))
            for name, entry in entries.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Corrupted(
            Problem("holds no table of files", str(path), f"{type(error).__name__}: {error}")
        ) from error


def _is_plain_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _seal_of(content: Mapping[str, object], path: Path) -> str:
    return hashlib.sha256(canonical_text(content, where=path.name).encode()).hexdigest()


def _sealed_text(content: Mapping[str, object], path: Path) -> str:
    clean = cast("dict[str, object]", plain(content, where=path.name))
    sealed = {**clean, SEAL: _seal_of(clean, path)}
    return readable_text(sealed, where=path.name, sort_keys=True)


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
