"""Pictures of one's own people: files inside the folder, data URIs, or bytes in a parquet file."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pulse_unlearn.data.images import picture_from_bytes
from pulse_unlearn.data.people_rows import Draft
from pulse_unlearn.errors import Problem
from pulse_unlearn.records import Picture

_URI = re.compile(r"data:(?P<kind>[^,;]*)(?P<coding>;base64)?,(?P<text>.*)", re.DOTALL)
_URL = re.compile(r"(?:https?|ftp|s3|gs|hf|file)://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{200,}={0,2}\s*")
_LONGEST = 1_000
"""Bytes of a path; systems take 255 a name and about 4,000 in all."""
_INSIDE = "name a file inside the folder, or write data:image/png;base64,..."


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
        """Return what a cell shows: bytes, a data URI, the name of a file; as struct or bare."""
        picture = self._picture(cell, where)
        if picture is not None:
            self.read.append(picture)
        return picture

    def _picture(self, cell: Any, where: str) -> Picture | None:
        inside = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if isinstance(inside, bytes):
            return picture_from_bytes(inside, where)
        name: Any = cell.get("path") if isinstance(cell, Mapping) else cell
        if isinstance(name, str) and name.startswith("data:"):
            where = f"{where} data URI"
            data = self._inline(name, where)
            return None if data is None else picture_from_bytes(data, where)
        wrong = _no_name(name)
        if wrong:
            self._problems.append(
                Problem("not the name of a picture file", where, wrong, "text", _INSIDE)
            )
            return None
        where = f"{where} {name}"
        data = self._file(name, where)
        if data is None:
            return None
        picture = picture_from_bytes(data, where)
        self.digests[name] = picture.digest
        return picture

    def _inline(self, uri: str, where: str) -> bytes | None:
        found = _URI.fullmatch(uri)
        try:
            if found and found["coding"]:
                return base64.b64decode("".join(found["text"].split()), validate=True)
            wrong = f"{uri[:30]!r}"
        except ValueError as error:
            wrong = f"{uri[:30]!r}; {error}"
        self._problems.append(
            Problem(
                "not a data URI of base64",
                where,
                wrong,
                "data:image/png;base64,...",
                "write it anew from the file, or name the file",
            )
        )
        return None

    def _file(self, name: str, where: str) -> bytes | None:
        path = (self._folder / name).resolve()
        inside = any(path.is_relative_to(root) for root in self._roots)
        if Path(name).is_absolute() or not inside:
            self._problems.append(
                Problem(
                    "the picture lies outside the folder",
                    where,
                    allowed="a path inside it",
                    fix="copy it into the folder, and name it from there",
                )
            )
            return None
        if name not in self._read:
            self._read[name] = _bytes_of(path)
        if self._read[name] is None:
            # `exists` raises where a name is longer than the system's.
            what = "not a readable file" if os.path.exists(path) else "there is no such picture"
            self._problems.append(Problem(what, where, fix=_INSIDE))
        return self._read[name]


def _no_name(name: Any) -> str:
    """Return what stands in place of a file's name; empty if it is one."""
    if not isinstance(name, str) or not name or "\0" in name:
        kind = ", the index of another row, which is not followed" if _is_number(name) else ""
        return f"{name!r:.60}{kind}"
    if _URL.match(name):
        return f"{name[:60]}, an address; nothing is downloaded"
    if _BASE64.fullmatch(name):
        return f"{len(name)} characters of base64 ({name[:12]}...)"
    if len(name.encode("utf-8", "replace")) > _LONGEST:
        return f"{len(name)} characters"
    return ""


def _is_number(name: Any) -> bool:
    return isinstance(name, int | float) and not isinstance(name, bool)


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
