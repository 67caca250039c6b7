"""What the fuzzer changes: trees, texts, bytes, pictures and files, by hypothesis.

A change is drawn as a small record and carried out on a valid input, so that an input that is
refused can be told by its changes, and most inputs get past the first check.
"""

from __future__ import annotations

import copy
import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from PIL import Image

NASTY = (
    *("", " ", "\x00", "\x1b[2J\x1b]0;owned\x07", "a\u202eb\u2066", "\u200b", "\ud800", "e\u0301"),
    *(
        "../../outside/canary.txt",
        "/dev/zero",
        "/dev/stdin",
        "/",
        ".",
        "..",
        "~",
        "~no-such-user/x",
    ),
    *("x" * 300, "x" * 5000, "=HYPERLINK(1)", "<script>alert(1)</script>", "\\input{/etc/passwd}"),
    *("{{ 7 * 7 }}", "%s%n", "NaN", "1e999", "0x10", "null", "true", "-1", "A", "world", "ga"),
    *("line\nbreak", "tab\there", "\ufeff", "C:\\nul", "http://127.0.0.1:9/x", "owner/name"),
)
HUGE = (0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400)
FLOATS = (0.0, -0.0, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"))


def _deep(levels: int, bottom: object) -> object:
    value = bottom
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


texts = st.one_of(st.sampled_from(NASTY), st.text(max_size=12))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(HUGE),
    st.integers(-3, 70),
    st.sampled_from(FLOATS),
    st.floats(),
    texts,
)
values = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.dictionaries(texts, scalars, max_size=3),
    st.builds(_deep, st.sampled_from((3, 40, 60, 120)), scalars),
    st.builds(lambda value, count: [value] * count, scalars, st.sampled_from((2, 300))),
)


# --- trees: what YAML and JSON stand for


@dataclass(frozen=True, slots=True)
class TreeChange:
    """One change at one of a tree's places, counted through all of them."""

    how: str
    place: int
    other: int = 0
    value: Any = None


HOWS = ("replace", "drop", "rename", "swap", "type", "repeat", "itself", "add")
tree_changes = st.lists(
    st.builds(
        TreeChange,
        st.sampled_from(HOWS),
        st.integers(0, 2**16),
        st.integers(0, 2**16),
        values,
    ),
    min_size=1,
    max_size=3,
)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return (container, key) of everything below the root, each container once."""
    found: list[tuple[Any, Any]] = []
    seen, waiting = set(), [tree]
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, (dict, list)):
            continue
        seen.add(id(node))
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            found.append((node, key))
            waiting.append(node[key])
    return found


def change_tree(tree: Any, changes: list[TreeChange], *, cycles: bool = False) -> Any:
    """Return the tree with the changes carried out; the one given stays as it is.

    With `cycles` a value may hold itself; without, a copy of itself.
    """
    root = copy.deepcopy([tree])
    for change in changes:
        places = _places(root)
        node, key = places[change.place % len(places)]
        other, at = places[change.other % len(places)]
        match change.how:
            case "drop":
                del node[key]
            case "rename" if isinstance(node, dict):
                node[str(change.value)[:6000]] = node.pop(key)
            case "swap":
                node[key], other[at] = other[at], node[key]
            case "type":
                node[key] = _other_type(node[key])
            case "repeat":
                node[key] = [node[key], node[key]]
            case "itself":
                node[key] = root[0] if cycles else copy.deepcopy(root[0])
            case "add" if isinstance(node[key], dict):
                node[key][str(change.value)[:20]] = copy.deepcopy(change.value)
            case _:
                node[key] = copy.deepcopy(change.value)
        if not root:
            return None
    return root[0]


def _other_type(value: Any) -> Any:
    if isinstance(value, dict):
        return list(value.items())[:3]
    if isinstance(value, list):
        return {str(number): one for number, one in enumerate(value)}
    return str(value) if isinstance(value, (int, float)) else {str(value): value}


# --- bytes


@dataclass(frozen=True, slots=True)
class ByteChange:
    """One change of a file's bytes, at a place between 0 and 1 of its length."""

    how: str
    place: float
    data: bytes


byte_changes = st.lists(
    st.builds(
        ByteChange,
        st.sampled_from(("flip", "cut", "insert", "delete", "over", "double")),
        st.floats(0, 1),
        st.one_of(
            st.binary(min_size=1, max_size=8),
            st.sampled_from((b"\xff\xfe", b"\x00" * 64, b"\n", b'"', b"\t", b"\r\n,", b"\xc3")),
            texts.map(lambda text: text.encode("utf-8", "surrogatepass") or b"x"),
        ),
    ),
    min_size=1,
    max_size=4,
)


def change_bytes(data: bytes, changes: list[ByteChange]) -> bytes:
    """Return the bytes with the changes carried out."""
    for change in changes:
        at = int(change.place * max(len(data) - 1, 0))
        size = len(change.data)
        match change.how:
            case "flip" if data:
                bit = 1 << (change.data[0] % 8)
                data = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            case "cut":
                data = data[:at]
            case "insert":
                data = data[:at] + change.data + data[at:]
            case "delete":
                data = data[:at] + data[at + size :]
            case "over":
                data = data[:at] + change.data + data[at + size :]
            case "double":
                data = data[:at] + data[at : at + 200] + data[at:]
    return data


# --- pictures


def _picture(
    mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (24, 20), **how: Any
) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, 1).save(buffer, kind, **how)
    return buffer.getvalue()


@cache
def _bomb() -> bytes:
    """400 million pixels in 50 kB."""
    side = 20_000

    def chunk(name: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + data))
        return struct.pack(">I", len(data)) + name + data + check

    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(b"\x00" * (side // 8 + 1) * side, 9)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _animated() -> bytes:
    buffer, frames = io.BytesIO(), [Image.new("P", (9, 9), colour) for colour in (1, 2, 3)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _picture(kind="JPEG", exif=exif)


PICTURES: dict[str, Callable[[], bytes]] = {
    "truncated": lambda: _picture(kind="JPEG", size=(200, 200))[:400],
    "html": lambda: b"<!DOCTYPE html><html><body>404</body></html>",
    "empty": lambda: b"",
    "bomb": _bomb,
    "cmyk": lambda: _picture("CMYK", "JPEG"),
    "16 bit": lambda: _picture("I;16"),
    "palette": lambda: _picture("P"),
    "alpha": lambda: _picture("LA"),
    "one bit": lambda: _picture("1"),
    "float": lambda: _picture("F", "TIFF"),
    "animated": _animated,
    "rotated": _rotated,
    "1x1": lambda: _picture(size=(1, 1)),
    "thin": lambda: _picture(size=(1, 3000)),
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
    "webp": lambda: _picture(kind="WEBP"),
    "bmp": lambda: _picture(kind="BMP"),
    "ico": lambda: _picture(kind="ICO"),
    "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "pickle": lambda: b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cos\nsystem\n",
}
"""What stands where a picture should; the faults of pictures and the kinds that are no fault."""

pictures = st.one_of(
    st.sampled_from(sorted(PICTURES)).map(lambda name: PICTURES[name]()),
    byte_changes.map(lambda changes: change_bytes(_picture(kind="JPEG", size=(60, 60)), changes)),
    byte_changes.map(lambda changes: change_bytes(_picture(), changes)),
)


# --- files as things

THINGS = ("missing", "folder", "link out", "link loop", "link in", "pipe", "device", "empty")
things = st.sampled_from(THINGS)


def put(path: Path, thing: str, outside: Path) -> None:
    """Put something else where a file or folder was."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    match thing:
        case "folder":
            path.mkdir()
        case "link out":
            path.symlink_to(outside)
        case "link loop":
            path.symlink_to(path.name)
        case "link in":
            path.symlink_to("..")
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "empty":
            path.touch()
