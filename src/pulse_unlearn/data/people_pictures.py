"""Pictures of one's own people: files inside the folder, or bytes in a parquet file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.data.people_rows import Draft
from pulse_unlearn.errors import Problem
from pulse_unlearn.records import Picture


class Album:
    """Reads each picture file once; what cannot be read goes to `problems`."""

    def __init__(self, folder: Path, problems: list[Problem]) -> None:
        self._folder, self._problems = folder.resolve(), problems
        self._roots = (self._folder, *_blobs(self._folder))
        self._read: dict[str, bytes | None] = {}
        self.digests: dict[str, str] = {}
        """Picture file, relative to the folder -> SHA-256."""
        self.read: list[Picture] = []
        """Every picture that was read, also those that nothing shows."""

    def pictures(self, draft: Draft, column: str) -> tuple[Picture, ...]:
        """Return the different pictures a person's column names, in order."""
        found: dict[str, Picture] = {}
        for cell in draft.cells.get(column, ()):
            picture = self.picture(cell, f"{draft.where} {column}")
            if picture is not None:
                found.setdefault(picture.digest, picture)
        return tuple(found.values())

    def picture(self, cell: Any, where: str) -> Picture | None:
        """Return the picture of one cell: bytes, bytes in a struct, or the name of a file."""
        data = cell.get("bytes") if isinstance(cell, Mapping) else cell
        name = None
        if not isinstance(data, bytes):
            name = cell.get("path") if isinstance(cell, Mapping) else cell
            where = f"{where} {name}"
            data = self._file(name, where)
        if data is None:
            return None
        picture = picture_from_bytes(data, where)
        self.read.append(picture)
        if name is not None:
            self.digests[str(name)] = picture.digest
        return picture

    def _file(self, name: Any, where: str) -> bytes | None:
        if not isinstance(name, str) or not name or "\0" in name:
            self._problems.append(
                Problem("not the name of a picture file", where, repr(name)[:60], "text")
            )
            return None
        path = (self._folder / name).resolve()
        inside = any(path.is_relative_to(root) for root in self._roots)
        if Path(name).is_absolute() or not inside:
            self._problems.append(
                Problem("the picture lies outside the folder", where, allowed="a path inside it")
            )
            return None
        if name not in self._read:
            self._read[name] = _bytes_of(path)
        if self._read[name] is None:
            what = "there is no such picture" if not os.path.exists(path) else "not a readable file"
            self._problems.append(Problem(what, where))
        return self._read[name]


def _blobs(folder: Path) -> Iterator[Path]:
    """Yield the folder to which the files of a snapshot in the hub's cache are links."""
    for place in (folder, *folder.parents):
        if place.parent.name == "snapshots":
            yield place.parent.parent / "blobs"


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
