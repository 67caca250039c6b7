"""Pictures: taken as bytes, checked by decoding them fully, decoded to RGB when they are needed."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Picture

MAX_PIXELS = 64_000_000
"""Cap on width x height. Pillow raises only above 179 Mpx, and a 48 kB file can hold 400 Mpx."""
MIN_SIDE = 8
"""Pixels; a smaller picture shows nothing, and processors take its 1x1 axes for channels."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "PPM")
"""The only decoders that may run; others start programs (EPS) or are hard to trust (TIFF).

PPM also stands for PGM and PBM; data sets of faces come as PGM."""
CHUNK = 128
"""Pictures one thread checks in a row; decoding leaves the interpreter lock."""

_ALLOWED = f"{', '.join(FORMATS)}, {MIN_SIDE} px to {MAX_PIXELS // 1_000_000} Mpx, complete"
# Damaged headers and EXIF blocks make Pillow raise more than its own errors.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    OverflowError,
    TypeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
# First bytes (lower case, spaces dropped) of files that are often mistaken for pictures.
_IMPOSTORS = (
    (b"<svg", "an SVG drawing, which has no pixels"),
    (b"<?xml", "an XML or SVG file, which has no pixels"),
    (b"<!doctypehtml", "an HTML page, probably an error page saved by a download"),
    (b"<html", "an HTML page, probably an error page saved by a download"),
    (b"versionhttps://git-lfs", "a Git LFS pointer, not the file (run `git lfs pull`)"),
)


def picture_from_bytes(data: bytes, where: str) -> Picture:
    """Wrap an encoded image file as it was found; nothing is decoded or judged yet."""
    return Picture(data, hashlib.sha256(data).hexdigest(), where)


def check_picture(picture: Picture) -> list[Problem]:
    """Decode the picture fully and return what is wrong with it; empty if it can be used.

    Opening alone would accept a truncated file. The size is judged before any pixel is decoded.
    """
    try:
        decode(picture)
    except DataError as error:
        return list(error.problems)
    return []


def check_pictures(pictures: Iterable[Picture]) -> list[Problem]:
    """Check many pictures; problems come in their order, one for each place.

    Identical files are decoded once, but each place where such a file stands is named.
    """
    places = {(picture.digest, picture.where): picture for picture in pictures}.values()
    different = list({picture.digest: picture for picture in places}.values())
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        checked = pool.map(_check_all, _chunks(different))
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
            return _to_rgb(ImageOps.exif_transpose(image))
    except _DECODE_ERRORS as error:
        raise DataError(_problem(picture, error)) from error


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
        return image.copy()
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
    return Problem(
        "not a usable picture",
        picture.where,
        got=_describe(picture.data, error),
        allowed=_ALLOWED,
        fix="replace the file, or take its row out of the data set",
    )


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


def _chunks(pictures: Sequence[Picture]) -> Iterator[Sequence[Picture]]:
    for start in range(0, len(pictures), CHUNK):
        yield pictures[start : start + CHUNK]


def _check_all(pictures: Sequence[Picture]) -> list[tuple[str, Problem]]:
    return [(picture.digest, problem) for picture in pictures for problem in check_picture(picture)]
