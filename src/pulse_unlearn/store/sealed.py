"""JSON that detects a change of any of its own bytes, and tables of the files in a folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pulse_unlearn.errors import Corrupted, Problem, StoreError
from pulse_unlearn.files import plain_file
from pulse_unlearn.store.atomic import file_errors, sha256_file, sync_file, sync_folder, write_text
from pulse_unlearn.store.fingerprint import compact, indented, plain

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
        data = plain_file(path).read_bytes()
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
                got=f"content with seal {_seal_of(content)[:16]}...",
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


def _seal_of(clean: Mapping[str, object]) -> str:
    return hashlib.sha256(compact(clean).encode()).hexdigest()


def _sealed_text(content: Mapping[str, object], path: Path) -> str:
    clean = cast("dict[str, object]", plain(content, where=path.name))
    return indented({**clean, SEAL: _seal_of(clean)}, sort_keys=True)
