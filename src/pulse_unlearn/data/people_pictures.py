"""Pictures of one's own people: files inside the folder, or bytes in a parquet file."""

from __future__ import annotations

from collections.abc import Mapping
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
        self._read: dict[str, bytes | None] = {}
        self.digests: dict[str, str] = {}
        """Picture file, relative to the folder -> SHA-256."""
        self.read: list[Picture] = []
        """Every picture that was read, also those that nothing shows."""

    def pictures(self, draft: Draft, column: str) -> tuple[Picture, ...]:
        """Return the different pictures a person's column names, in order."""
        found: dict[str, Picture] = {}
        for cell in draft.cells.get(column, ()):
            where = f"{draft.where} {column}"
            data = cell.get("bytes") if isinstance(cell, Mapping) else None
            if not isinstance(data, bytes):
                name = cell.get("path") if isinstance(cell, Mapping) else cell
                where = f"{where} {name}"
                data = self._file(name, where)
            if data is not None:
                picture = picture_from_bytes(data, where)
                found.setdefault(picture.digest, picture)
                self.read.append(picture)
                if not isinstance(cell, Mapping):
                    self.digests[str(cell)] = picture.digest
        return tuple(found.values())

    def _file(self, name: Any, where: str) -> bytes | None:
        if not isinstance(name, str) or not name or "\0" in name:
            self._problems.append(
                Problem("not the name of a picture file", where, repr(name)[:60], "text")
            )
            return None
        path = (self._folder / name).resolve()
        if Path(name).is_absolute() or not path.is_relative_to(self._folder):
            self._problems.append(
                Problem("the picture lies outside the folder", where, allowed="a path inside it")
            )
            return None
        if name not in self._read:
            self._read[name] = _bytes_of(path)
        if self._read[name] is None:
            what = "there is no such picture" if not path.exists() else "not a readable file"
            self._problems.append(Problem(what, where))
        return self._read[name]


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
