"""Pictures as they come from strangers: checked whole before anything is spent, decoded to RGB."""

from __future__ import annotations

import io
import warnings
from hashlib import sha256

from PIL import Image, ImageOps, UnidentifiedImageError

from pulse_unlearn.errors import DataError, Problem
from pulse_unlearn.records import Picture

PIXEL_CAP = 64_000_000
"""Most pixels accepted: Pillow itself only raises above 179 million, after a 48 kB file fits."""
_SIXTEEN_BIT = {"I;16", "I;16B", "I;16L", "I"}


def picture_from_bytes(data: bytes, where: str) -> Picture:
    """Wrap an encoded image file; `where` (file and row) is what errors will point at."""
    return Picture(data, sha256(data).hexdigest(), where)


def picture_problems(picture: Picture) -> list[Problem]:
    """Decode the whole picture and return what is wrong with it, if anything.

    Opening alone is not enough: it accepts a truncated file.
    """
    try:
        decode(picture)
    except DataError as error:
        return list(error.problems)
    return []


def decode(picture: Picture) -> Image.Image:
    """Return the picture as RGB, upright by its EXIF orientation; raises DataError.

    CMYK, palette, transparent and 16-bit pictures are converted; of an animation the first frame
    is taken.
    """
    if not picture.data:
        raise DataError(Problem("the picture is empty", picture.where, "0 bytes"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(picture.data))
        _refuse_bomb(image, picture)
        image.load()
        upright = ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise DataError(
            Problem(
                "the picture cannot be decoded",
                picture.where,
                got=f"{type(error).__name__}, begins {picture.data[:12]!r}",
                allowed="a whole PNG, JPEG, WebP, GIF, BMP or TIFF file",
            )
        ) from error
    return _to_rgb(upright)


def _refuse_bomb(image: Image.Image, picture: Picture) -> None:
    width, height = image.size
    if width * height > PIXEL_CAP:
        raise DataError(
            Problem(
                "the picture has too many pixels",
                picture.where,
                got=f"{width} x {height}",
                allowed=f"at most {PIXEL_CAP:,}",
                fix="scale it down",
            )
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in _SIXTEEN_BIT:
        return image.point(lambda value: value / 256, "L").convert("RGB")
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        opaque.alpha_composite(image.convert("RGBA"))
        return opaque.convert("RGB")
    return image.convert("RGB")
