"""Pictures: taken from a cell or file as they are, checked by decoding them fully, decoded to RGB.

`Album` reads what cells of a data set show: bytes, data URIs, or files inside its folder.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pulse_unlearn.data.checks import Problems
from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Individual, Picture

MAX_PIXELS = 64_000_000
"""Cap on width x height. Pillow raises only above 179 Mpx, and a 48 kB file can hold 400 Mpx."""
MIN_SIDE = 8
"""Pixels; a smaller picture shows nothing, and processors take its 1x1 axes for channels."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM")
"""The only decoders that may run; others start programs (EPS) or are hard to trust (TIFF).

PPM also stands for PGM and PBM; data sets of faces come as PGM."""
Look = Callable[[Picture, Image.Image], None]
"""Is shown a picture and its pixels, upright RGB."""
CHUNK = 128
"""Pictures one thread checks in a row; decoding leaves the interpreter lock."""

_ALLOWED = f"{', '.join(FORMATS)}, {MIN_SIDE} px to {MAX_PIXELS // 1_000_000} Mpx, complete"
# Damaged headers and EXIF blocks make Pillow raise more than its own errors.
_DECODE_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, TypeError),
    *(MemoryError, struct.error, zlib.error),
    *(Image.DecompressionBombError, Image.DecompressionBombWarning),
)
# First bytes (lower case, spaces dropped) of files that are often mistaken for pictures.
_IMPOSTORS = (
    (b"<svg", "an SVG drawing, which has no pixels"),
    (b"<?xml", "an XML or SVG file, which has no pixels"),
    (b"<!doctypehtml", "an HTML page, probably an error page saved by a download"),
    (b"<html", "an HTML page, probably an error page saved by a download"),
    (b"versionhttps://git-lfs", "a Git LFS pointer, not the file (run `git lfs pull`)"),
)


_URI = re.compile(r"data:[^,;]*(?P<coding>;base64)?,(?P<text>.*)", re.DOTALL)
_URL = re.compile(r"(?:https?|ftp|s3|gs|hf|file)://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{200,}={0,2}\s*")
_LONGEST = 1_000
"""Bytes of a path; systems take 255 a name and about 4,000 in all."""
_INSIDE = "name a file inside the folder, or write data:image/png;base64,..."


class Album:
    """Reads each picture file once; what cannot be read goes to `problems`."""

    def __init__(self, folder: Path, problems: Problems) -> None:
        self._folder, self._problems = folder.resolve(), problems
        # A snapshot in the hub's cache has links to a folder of its own.
        hub = [place.parent for place in (self._folder, *self._folder.parents)]
        blobs = (place.parent / "blobs" for place in hub if place.name == "snapshots")
        self._roots = tuple(os.path.join(root, "") for root in (self._folder, *blobs))
        self._real: dict[str, str] = {}
        self._files: dict[str, bytes | None] = {}
        self.digests: dict[str, str] = {}
        """Picture file, relative to the folder -> SHA-256."""
        self.read: list[Picture] = []
        """Every picture that was read, also those that nothing shows."""

    def pictures(self, cells: Iterable[Any], where: str) -> tuple[Picture, ...]:
        """Return the different pictures that cells show, in order."""
        shown = (self.picture(cell, where) for cell in cells)
        found: dict[str, Picture] = {}
        for picture in filter(None, shown):
            found.setdefault(picture.digest, picture)
        return tuple(found.values())

    def picture(self, cell: Any, where: str) -> Picture | None:
        """Return what a cell shows: bytes, a data URI, the name of a file; as struct or bare."""
        data = cell.get("bytes") if isinstance(cell, Mapping) else cell
        if isinstance(data, bytes):
            return self._taken(data, where)
        name = cell.get("path") if isinstance(cell, Mapping) else cell
        if isinstance(name, str) and name.startswith("data:"):
            where = f"{where} data URI"
            return self._taken(self._inline(name, where), where)
        wrong = _no_name(name)
        if wrong or not isinstance(name, str):
            self._problems.add("not the name of a picture file", where, wrong, "text", _INSIDE)
            return None
        where = f"{where} {name}"
        found = self._taken(self._file(name, where), where)
        if found:
            self.digests[name] = found.digest
        return found

    def _taken(self, data: bytes | None, where: str) -> Picture | None:
        if data is None:
            return None
        self.read.append(picture_from_bytes(data, where))
        return self.read[-1]

    def _inline(self, uri: str, where: str) -> bytes | None:
        found, got = _URI.fullmatch(uri), repr(uri[:30])
        try:
            if found and found["coding"]:
                return base64.b64decode("".join(found["text"].split()), validate=True)
        except ValueError as error:
            got = f"{got}; {error}"
        allowed, fix = "data:image/png;base64,...", "write it anew from the file, or name the file"
        self._problems.add("not a data URI of base64", where, got, allowed, fix)
        return None

    def _file(self, name: str, where: str) -> bytes | None:
        path, is_file = self._followed(name)
        if os.path.isabs(name) or not os.path.join(path, "").startswith(self._roots):
            fix = "copy it into the folder, and name it from there"
            what, allowed = "the picture lies outside the folder", "a path inside it"
            self._problems.add(what, where, allowed=allowed, fix=fix)
            return None
        if name not in self._files:
            # A pipe or a device would be waited for, or read without end.
            self._files[name] = _bytes_of(path) if is_file else None
        data = self._files[name]
        if data is None:
            # `exists` raises where a name is longer than the system's.
            what = "not a readable file" if os.path.lexists(path) else "there is no such picture"
            self._problems.add(what, where, fix=_INSIDE)
        return data

    def _followed(self, name: str) -> tuple[str, bool]:
        """Return where a name leads, links followed, and whether a file is there.

        Each folder is followed once. A link that leads to itself stays one.
        """
        folder, last = os.path.split(os.path.join(self._folder, name))
        if folder not in self._real:
            self._real[folder] = os.path.realpath(folder)
        path = os.path.join(self._real[folder], last)
        mode = _mode(path)
        if last in ("", os.curdir, os.pardir) or stat.S_ISLNK(mode):
            path = os.path.realpath(path)
            mode = _mode(path)
        return path, stat.S_ISREG(mode)


def picture_from_bytes(data: bytes, where: str) -> Picture:
    """Wrap an encoded image file as it was found; nothing is decoded or judged yet."""
    return Picture(data, hashlib.sha256(data).hexdigest(), where)


def check_picture(picture: Picture, look: Look | None = None) -> list[Problem]:
    """Decode the picture fully and return what is wrong with it; empty if it can be used.

    Opening alone would accept a truncated file. The size is judged before any pixel is decoded.
    `look` is shown what was decoded.
    """
    try:
        image = decode(picture)
    except DataError as error:
        return list(error.problems)
    if look:
        look(picture, image)
    return []


def check_pictures(pictures: Iterable[Picture], look: Look | None = None) -> list[Problem]:
    """Check many pictures; problems come in their order, one for each place.

    Identical files are decoded once, but each place where such a file stands is named. `look` is
    shown each usable picture as it was decoded, in several threads.
    """
    places = {(picture.digest, picture.where): picture for picture in pictures}.values()
    different = list({picture.digest: picture for picture in places}.values())
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        chunks = (different[n : n + CHUNK] for n in range(0, len(different), CHUNK))
        checked = pool.map(partial(_check_all, look=look), chunks)
        bad = dict(pair for pairs in checked for pair in pairs)
    return [
        replace(bad[picture.digest], where=picture.where)
        for picture in places
        if picture.digest in bad
    ]


def decode(picture: Picture) -> Image.Image:
    """Return the picture as RGB, upright: EXIF rotation applied, first frame of an animation.

    Transparency is laid over white, 16-bit grey keeps its upper 8 bits, CMYK and palettes are
    converted. Raises DataError if `check_picture` would complain.
    """
    try:
        with _open(picture) as image:
            return _to_rgb(ImageOps.exif_transpose(image))  # a copy, which outlives the file
    except _DECODE_ERRORS as error:
        raise DataError(_problem(picture, error)) from error


def scored_pictures(person: Individual) -> dict[str, Picture]:
    """Return the different pictures beside a person's questions, by digest."""
    shown = (question.picture for question in person.questions)
    return {picture.digest: picture for picture in shown if picture}


def pictures_of(person: Individual) -> tuple[Picture, ...]:
    """Return the pictures of a person, in whatever role."""
    scored = scored_pictures(person).values()
    return (*scored, *person.training_pictures, *person.other_pictures)


class _Unusable(ValueError):
    """The file is an image, but not one we take."""


def _open(picture: Picture) -> Image.Image:
    image = Image.open(io.BytesIO(picture.data), formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise _Unusable(f"{width} x {height} = {width * height / 1e6:.0f} Mpx, too many")
    if min(width, height) < MIN_SIDE:
        raise _Unusable(f"{width} x {height} pixels, too few")
    image.load()
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):
        # Pillow clips 16-bit grey at 255 on conversion, which turns almost everything white.
        wide = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray((wide >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")


def _problem(picture: Picture, error: BaseException) -> Problem:
    got = _describe(picture.data, error)
    fix = "replace the file, or take its row out of the data set"
    return Problem("not a usable picture", picture.where, got, _ALLOWED, fix)


def _describe(data: bytes, error: BaseException) -> str:
    if not data:
        return "0 bytes"
    head = b"".join(data[:256].removeprefix(b"\xef\xbb\xbf").split()).lower()
    for mark, kind in _IMPOSTORS:
        if head.startswith(mark):
            return kind
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "a decompression bomb: far more pixels than it has bytes for"
    if isinstance(error, UnidentifiedImageError):
        return f"{len(data)} bytes of no known image format"
    return f"{len(data)} bytes; {error or type(error).__name__}"


def _no_name(name: Any) -> str:
    """Return what stands in place of a file's name; empty if it is one."""
    if not isinstance(name, str) or not name or "\0" in name:
        number = isinstance(name, int | float) and not isinstance(name, bool)
        told = ", the index of another row, which is not followed" if number else ""
        return f"{name!r:.60}{told}"
    if _URL.match(name):
        return f"{name[:60]}, an address; nothing is downloaded"
    if _BASE64.fullmatch(name):
        return f"{len(name)} characters of base64 ({name[:12]}...)"
    if len(name.encode("utf-8", "replace")) > _LONGEST:
        return f"{len(name)} characters"
    return ""


def _mode(path: str) -> int:
    """Return what stands there, a link as a link; 0 if nothing does, or nothing can."""
    try:
        return os.lstat(path).st_mode
    except (OSError, ValueError):
        return 0


def _bytes_of(path: str) -> bytes | None:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.readall()
    except OSError:
        return None


def _check_all(pictures: Sequence[Picture], look: Look | None) -> list[tuple[str, Problem]]:
    return [
        (picture.digest, problem)
        for picture in pictures
        for problem in check_picture(picture, look)
    ]
