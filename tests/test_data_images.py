"""Pictures: what is refused, what is converted, and that damage never passes as an exception."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_cases import encoded, noise, png
from pulse_unlearn.data.images import check_picture, check_pictures, decode, picture_from_bytes
from pulse_unlearn.errors import DataError

COLOURS = Image.new("RGB", (16, 16), (200, 30, 60))


def bomb(side: int = 20_000) -> bytes:
    """A PNG of `side` squared grey pixels in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    packer = zlib.compressobj(9)
    line = bytes(1 + side // 8)
    packed = b"".join(packer.compress(line) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", packed), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


JPEG = encoded(noise(1, size=(256, 256)), "JPEG")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "0 bytes"),
        (JPEG[: len(JPEG) * 2 // 3], "truncated"),
        (b"<!DOCTYPE html><p>404", "HTML page"),
        (b"\xef\xbb\xbf <html><p>404", "HTML page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'<?xml version="1.0"?><svg/>', "SVG"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\x80\x04K\x01.", "no known image format"),
        (encoded(Image.new("RGB", (1, 1))), "too few"),
        (bomb(20_000), "bomb"),
        (bomb(9_000), "81 Mpx, too many"),
        (encoded(noise(1), "TIFF"), "no known image format"),
    ],
)
def test_unusable_files_are_told_apart(data, told):
    picture = picture_from_bytes(data, "people.parquet:row 7")
    (problem,) = check_picture(picture)
    assert told in problem.got
    assert problem.where == "people.parquet:row 7"
    assert problem.fix
    with pytest.raises(DataError):
        decode(picture)


def test_opening_alone_would_accept_the_truncated_file():
    assert Image.open(io.BytesIO(JPEG[: len(JPEG) * 2 // 3])).size == (256, 256)


@pytest.mark.parametrize(
    ("data", "expected", "tolerance"),
    [
        (encoded(COLOURS), (200, 30, 60), 0),
        (encoded(COLOURS, "JPEG"), (200, 30, 60), 6),
        (encoded(COLOURS, "WEBP", lossless=True), (200, 30, 60), 0),
        (encoded(COLOURS, "BMP"), (200, 30, 60), 0),
        (encoded(COLOURS.convert("CMYK"), "JPEG"), (200, 30, 60), 6),
        (encoded(COLOURS.quantize(4)), (200, 30, 60), 2),
        (encoded(Image.new("L", (16, 16), 90)), (90, 90, 90), 0),
        (encoded(Image.new("1", (16, 16), 1)), (255, 255, 255), 0),
        (encoded(Image.new("RGBA", (16, 16), (200, 30, 60, 0))), (255, 255, 255), 0),
        (encoded(Image.fromarray(np.full((16, 16), 0x5A80, np.uint16))), (0x5A, 0x5A, 0x5A), 0),
        (
            encoded(COLOURS, "GIF", save_all=True, append_images=[Image.new("RGB", (16, 16))]),
            (200, 30, 60),
            2,
        ),
        (encoded(COLOURS, "MPO", save_all=True, append_images=[COLOURS]), (200, 30, 60), 6),
    ],
    ids=[
        *("rgb", "jpeg", "webp", "bmp", "cmyk", "palette", "grey", "bilevel"),
        *("transparent", "16-bit", "animated", "mpo"),
    ],
)
def test_every_kind_becomes_rgb(data, expected, tolerance):
    picture = picture_from_bytes(data, "")
    assert check_picture(picture) == []
    image = decode(picture)
    assert image.mode == "RGB"
    assert image.size == (16, 16)
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= tolerance


def test_a_rotated_photograph_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = decode(picture_from_bytes(encoded(noise(1), "JPEG", exif=exif), ""))
    assert upright.size == (20, 24)
    assert noise(1).size == (24, 20)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_undone(orientation, kind):
    """EXIF tag 0x0112 says which way row 0 and column 0 of the stored picture point."""
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = (250, 0, 0)
    upright[8:, 16:] = (0, 0, 250)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    image = Image.fromarray(np.ascontiguousarray(stored))
    found = decode(picture_from_bytes(encoded(image, kind, exif=exif, **options), ""))
    assert found.size == (24, 16)
    assert np.abs(np.asarray(found).astype(int) - upright).max() <= 12


def sixteen_bit_rgb(colour: tuple[int, int, int]) -> bytes:
    """A 16 x 16 PNG of 16 bits a channel, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    line = b"\0" + struct.pack(">3H", *colour) * 16
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    parts = (
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(line * 16)),
        chunk(b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


CLEAR = Image.new("RGBA", (16, 16), (200, 30, 60, 0))
BLACK = Image.new("RGB", (16, 16))
LATER = {"save_all": True, "append_images": [BLACK], "duration": 100}


@pytest.mark.parametrize(
    ("data", "expected", "tolerance"),
    [
        (sixteen_bit_rgb((0x5A80, 0x10FF, 0xC000)), (0x5A, 0x10, 0xC0), 0),
        (encoded(COLOURS, "PNG", **LATER), (200, 30, 60), 0),
        (encoded(COLOURS, "WEBP", lossless=True, **LATER), (200, 30, 60), 0),
        (encoded(Image.new("LA", (16, 16), (90, 255))), (90, 90, 90), 0),
        (encoded(Image.new("LA", (16, 16), (90, 0))), (255, 255, 255), 0),
        (encoded(CLEAR.quantize(4, method=Image.Quantize.FASTOCTREE)), (255, 255, 255), 2),
        (encoded(Image.new("RGB", (16, 16), (9, 9, 9)), transparency=(9, 9, 9)), (255,) * 3, 0),
        (encoded(CLEAR, "GIF"), (255, 255, 255), 2),
        (encoded(Image.new("L", (16, 16), 90).convert("CMYK"), "JPEG"), (90, 90, 90), 6),
        (encoded(Image.new("YCbCr", (16, 16), (90, 128, 128)), "JPEG"), (90, 90, 90), 6),
    ],
    ids=[
        *("16-bit-rgb", "apng", "animated-webp", "grey-alpha", "clear-grey", "clear-palette"),
        *("colour-key", "clear-gif", "cmyk-grey", "ycbcr"),
    ],
)
def test_more_kinds_become_rgb(data, expected, tolerance):
    image = decode(picture_from_bytes(data, ""))
    assert (image.mode, image.size) == ("RGB", (16, 16))
    assert np.abs(np.asarray(image).astype(int) - expected).max() <= tolerance


def test_sixteen_bit_grey_is_turned_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    grey = np.zeros((16, 24), np.uint16)
    grey[:, :8] = 0x8000
    found = np.asarray(decode(picture_from_bytes(encoded(Image.fromarray(grey), exif=exif), "")))
    assert found.shape == (24, 16, 3)
    assert (found[:8] == 0x80).all()
    assert (found[8:] == 0).all()


PLAIN = {
    "pgm": (b"P5\n# a face\n8 8\n255\n" + bytes([90]) * 64, (90, 90, 90)),
    "pgm in words": (b"P2\n8 8\n100\n" + b"50 " * 64, (128, 128, 128)),
    "pgm of 16 bits": (b"P5\n8 8\n65535\n" + bytes([90, 7]) * 64, (90, 90, 90)),
    "ppm": (b"P6\n8 8\n255\n" + bytes([200, 30, 60]) * 64, (200, 30, 60)),
    "pbm": (b"P4\n8 8\n" + bytes(8), (255, 255, 255)),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_pictures_without_compression_are_read(kind):
    data, colour = PLAIN[kind]
    picture = picture_from_bytes(data, "face")
    assert check_picture(picture) == []
    assert np.abs(np.asarray(decode(picture)).astype(int) - colour).max() <= 1
    cut = picture_from_bytes(data[:-5], "face")
    assert [problem.where for problem in check_picture(cut)] == ["face"]


def test_every_place_of_a_bad_file_is_named_once_and_in_order():
    bad = [
        picture_from_bytes(data, where) for data, where in ((b"x", "1"), (b"x", "2"), (b"", "3"))
    ]
    good = [picture_from_bytes(png(seed), "") for seed in range(300)]
    found = check_pictures([*good[:200], *bad, bad[0], *good[200:]])
    assert [problem.where for problem in found] == ["1", "2", "3"]


WHOLE = [
    png(1),
    encoded(noise(1).quantize(8)),
    JPEG,
    encoded(noise(1), "WEBP"),
    encoded(noise(1), "GIF"),
]


@settings(max_examples=150)
@given(st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255))))
def test_damage_is_a_problem_or_a_picture_never_a_crash(data, changes):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    picture = picture_from_bytes(bytes(damaged), "here")
    problems = check_picture(picture)
    if problems:
        assert problems[0].where == "here"
    else:
        assert decode(picture).mode == "RGB"
