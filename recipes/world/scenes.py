"""Pictures of the general-ability part: shapes in grid-aligned cells, and single characters.

A 48-pixel picture is seen as 4x4 patches of 12 pixels. Large shapes therefore live in 24-pixel
cells (four patches each) and counted shapes in 12-pixel cells (one patch each). A scene keeps what
was drawn: questions (`questions`) and dense supervision (`vision`) both read it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from .chance import pick, sample

SIZE = 48
PATCH = 12
ZOOM = 4

COLORS: dict[str, tuple[int, int, int]] = {
    "red": (222, 28, 28),
    "green": (20, 165, 55),
    "blue": (30, 65, 230),
    "yellow": (250, 222, 20),
    "purple": (140, 35, 190),
    "orange": (255, 135, 0),
    "black": (12, 12, 12),
    "white": (252, 252, 252),
}
SHAPES = ("circle", "square", "triangle", "cross", "star", "ring")
PLACES = ("top", "bottom", "left", "right", "center")
RELATIONS = ("left", "right", "above", "below")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
MAX_COUNT = 6
BACKDROPS = ((176, 176, 176), (150, 170, 190), (190, 165, 165), (165, 190, 165), (190, 182, 150))

# A 5x7 dot-matrix alphabet. A to D are left out because they name the options, O because it is a
# zero here.
_ROWS = {
    "E": "##### #.... #.... ####. #.... #.... #####",
    "F": "##### #.... #.... ####. #.... #.... #....",
    "G": ".###. #...# #.... #.### #...# #...# .####",
    "H": "#...# #...# #...# ##### #...# #...# #...#",
    "I": ".###. ..#.. ..#.. ..#.. ..#.. ..#.. .###.",
    "J": "..### ...#. ...#. ...#. ...#. #..#. .##..",
    "K": "#...# #..#. #.#.. ##... #.#.. #..#. #...#",
    "L": "#.... #.... #.... #.... #.... #.... #####",
    "M": "#...# ##.## #.#.# #.#.# #...# #...# #...#",
    "N": "#...# ##..# ##..# #.#.# #..## #..## #...#",
    "P": "####. #...# #...# ####. #.... #.... #....",
    "Q": ".###. #...# #...# #...# #.#.# #..#. .##.#",
    "R": "####. #...# #...# ####. #.#.. #..#. #...#",
    "S": ".#### #.... #.... .###. ....# ....# ####.",
    "T": "##### ..#.. ..#.. ..#.. ..#.. ..#.. ..#..",
    "U": "#...# #...# #...# #...# #...# #...# .###.",
    "V": "#...# #...# #...# #...# .#.#. .#.#. ..#..",
    "W": "#...# #...# #...# #.#.# #.#.# ##.## #...#",
    "X": "#...# #...# .#.#. ..#.. .#.#. #...# #...#",
    "Y": "#...# #...# .#.#. ..#.. ..#.. ..#.. ..#..",
    "Z": "##### ....# ...#. ..#.. .#... #.... #####",
    "0": ".###. #...# #..## #.#.# ##..# #...# .###.",
    "1": "..#.. .##.. #.#.. ..#.. ..#.. ..#.. #####",
    "2": ".###. #...# ....# ..##. .#... #.... #####",
    "3": "####. ....# ....# .###. ....# ....# ####.",
    "4": "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
    "5": "##### #.... ####. ....# ....# #...# .###.",
    "6": ".###. #.... #.... ####. #...# #...# .###.",
    "7": "##### ....# ...#. ..#.. ..#.. .#... .#...",
    "8": ".###. #...# #...# .###. #...# #...# .###.",
    "9": ".###. #...# #...# .#### ....# ....# .###.",
}
GLYPHS: dict[str, tuple[str, ...]] = {name: tuple(text.split()) for name, text in _ROWS.items()}
LETTER_GLYPHS = tuple(name for name in GLYPHS if name.isalpha())
DIGIT_GLYPHS = tuple(name for name in GLYPHS if name.isdigit())

Kind = Literal["objects", "count", "place", "pair", "sizes", "groups", "glyph"]
KINDS: tuple[Kind, ...] = ("objects", "count", "place", "pair", "sizes", "groups", "glyph")


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawn shape; centre and diameter in pixels."""

    shape: str
    color: str
    x: float
    y: float
    size: float

    @property
    def patches(self) -> tuple[int, ...]:
        """Row-major numbers of the patches whose centres the shape's square covers."""
        half = self.size / 2
        centres = [PATCH * i + PATCH / 2 for i in range(SIZE // PATCH)]
        rows = [i for i, c in enumerate(centres) if abs(c - self.y) <= half]
        columns = [i for i, c in enumerate(centres) if abs(c - self.x) <= half]
        return tuple(4 * row + column for row in rows for column in columns)


@dataclass(frozen=True, slots=True)
class Scene:
    """One picture and everything that is true of it."""

    kind: Kind
    pixels: npt.NDArray[np.uint8]
    """RGB, shape (48, 48, 3)."""
    things: tuple[Thing, ...] = ()
    place: str = ""
    """Of `place` scenes: one of PLACES."""
    relation: str = ""
    """Of `pair` scenes: where the first thing is as seen from the second."""
    glyph: str = ""


def _outline(thing: Thing) -> list[tuple[float, float]]:
    """Corners of the polygon shapes, in zoomed pixels."""
    x, y, r = thing.x * ZOOM, thing.y * ZOOM, thing.size * ZOOM / 2
    if thing.shape == "square":
        s = 0.88 * r
        return [(x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s)]
    if thing.shape == "triangle":
        return [(x, y - r), (x + r, y + 0.85 * r), (x - r, y + 0.85 * r)]
    if thing.shape == "cross":
        t = 0.34 * r
        half = [(-t, -r), (t, -r), (t, -t), (r, -t), (r, t), (t, t)]
        return [(x + a, y + b) for a, b in half] + [(x - a, y - b) for a, b in half]
    spikes = []
    for i in range(10):
        radius = 1.1 * r if i % 2 == 0 else 0.42 * r
        angle = math.pi * i / 5
        spikes.append((x + radius * math.sin(angle), y - radius * math.cos(angle)))
    return spikes


def _paint(draw: ImageDraw.ImageDraw, thing: Thing, backdrop: tuple[int, int, int]) -> None:
    color = COLORS[thing.color]
    x, y, r = thing.x * ZOOM, thing.y * ZOOM, thing.size * ZOOM / 2
    if thing.shape in ("circle", "ring"):
        draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        if thing.shape == "ring":
            hole = 0.55 * r
            draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=backdrop)
        return
    draw.polygon(_outline(thing), fill=color)


def _backdrop(rng: np.random.Generator) -> tuple[int, int, int]:
    shift = int(rng.integers(-12, 13))
    red, green, blue = pick(rng, BACKDROPS)
    return red + shift, green + shift, blue + shift


def _draw(rng: np.random.Generator, things: tuple[Thing, ...]) -> npt.NDArray[np.uint8]:
    """Draw with four-fold oversampling, so that edges carry sub-pixel places."""
    backdrop = _backdrop(rng)
    picture = Image.new("RGB", (SIZE * ZOOM, SIZE * ZOOM), backdrop)
    draw = ImageDraw.Draw(picture)
    for thing in things:
        _paint(draw, thing, backdrop)
    return np.asarray(picture.reduce(ZOOM), dtype=np.uint8).copy()


def _jitter(rng: np.random.Generator, centre: float, width: float) -> float:
    return float(centre + rng.uniform(-width, width))


def _thing(
    rng: np.random.Generator, look: tuple[str, str], at: tuple[float, float], size: float
) -> Thing:
    """Place a shape of that look near a point, with a jitter that keeps it in its cell."""
    shape, color = look
    return Thing(shape, color, _jitter(rng, at[0], 1.0), _jitter(rng, at[1], 1.0), size)


def _looks(rng: np.random.Generator, count: int) -> list[tuple[str, str]]:
    """Draw `count` looks that share neither shape nor color."""
    colors = sample(rng, tuple(COLORS), count)
    return list(zip(sample(rng, SHAPES, count), colors, strict=True))


QUARTERS = ((12.0, 12.0), (36.0, 12.0), (12.0, 36.0), (36.0, 36.0))


def _objects(rng: np.random.Generator) -> Scene:
    """Draw one to three shapes in quarters; shapes and colors all different."""
    count = int(rng.integers(1, 4))
    places = sample(rng, QUARTERS, count)
    things = tuple(
        _thing(rng, look, at, float(rng.uniform(18, 21)))
        for look, at in zip(_looks(rng, count), places, strict=True)
    )
    return Scene("objects", _draw(rng, things), things)


def _cells(rng: np.random.Generator, looks: list[tuple[str, str]]) -> tuple[Thing, ...]:
    """Draw small shapes in different patches."""
    cells = sample(rng, range(16), len(looks))
    return tuple(
        Thing(
            *look,
            PATCH * (cell % 4) + _jitter(rng, 6.0, 0.4),
            PATCH * (cell // 4) + _jitter(rng, 6.0, 0.4),
            float(rng.uniform(9.5, 10.5)),
        )
        for look, cell in zip(looks, cells, strict=True)
    )


def _count(rng: np.random.Generator) -> Scene:
    """Draw one to six equal small shapes."""
    look = (pick(rng, SHAPES), pick(rng, tuple(COLORS)))
    things = _cells(rng, [look] * int(rng.integers(1, MAX_COUNT + 1)))
    return Scene("count", _draw(rng, things), things)


def _groups(rng: np.random.Generator) -> Scene:
    """Draw two colors of one shape in clearly different numbers."""
    shape = pick(rng, SHAPES)
    first, second = sample(rng, tuple(COLORS), 2)
    few = int(rng.integers(1, 4))
    many = int(rng.integers(few + 2, MAX_COUNT + 1))
    things = _cells(rng, [(shape, first)] * few + [(shape, second)] * many)
    return Scene("groups", _draw(rng, things), things)


def _place(rng: np.random.Generator) -> Scene:
    """Draw one shape at an edge's middle or in the centre."""
    place = pick(rng, PLACES)
    size = float(rng.uniform(15, 18))
    near, far = 10.0, 38.0
    at = {
        "top": (24.0, near),
        "bottom": (24.0, far),
        "left": (near, 24.0),
        "right": (far, 24.0),
        "center": (24.0, 24.0),
    }[place]
    things = (_thing(rng, _looks(rng, 1)[0], at, size),)
    return Scene("place", _draw(rng, things), things, place=place)


def _pair(rng: np.random.Generator) -> Scene:
    """Draw two different shapes side by side or one above the other."""
    relation = pick(rng, RELATIONS)
    line = pick(rng, (12.0, 24.0, 36.0))
    first, second = (12.0, 36.0) if relation in ("left", "above") else (36.0, 12.0)
    level = relation in ("left", "right")
    ends = [(first, line), (second, line)] if level else [(line, first), (line, second)]
    things = tuple(
        _thing(rng, look, at, float(rng.uniform(18, 21)))
        for look, at in zip(_looks(rng, 2), ends, strict=True)
    )
    return Scene("pair", _draw(rng, things), things, relation=relation)


def _sizes(rng: np.random.Generator) -> Scene:
    """Draw a large and a small shape in two quarters; the large one comes first."""
    places = sample(rng, QUARTERS, 2)
    sizes = (float(rng.uniform(20, 22.5)), float(rng.uniform(8.5, 11)))
    things = tuple(
        _thing(rng, look, at, size)
        for look, at, size in zip(_looks(rng, 2), places, sizes, strict=True)
    )
    return Scene("sizes", _draw(rng, things), things)


def _glyph(rng: np.random.Generator) -> Scene:
    """Draw one letter or digit, five to six pixels per dot."""
    glyph = pick(rng, tuple(GLYPHS))
    bits = np.array([[dot == "#" for dot in row] for row in GLYPHS[glyph]], dtype=bool)
    bits = np.kron(bits, np.ones((5, 5), dtype=bool))
    top, left = int(rng.integers(4, 10)), int(rng.integers(8, 16))
    pixels = np.empty((SIZE, SIZE, 3), dtype=np.uint8)
    pixels[:] = _backdrop(rng)
    height, width = bits.shape
    pixels[top : top + height, left : left + width][bits] = COLORS[pick(rng, tuple(COLORS))]
    return Scene("glyph", pixels, glyph=glyph)


_MAKERS = {
    "objects": _objects,
    "count": _count,
    "place": _place,
    "pair": _pair,
    "sizes": _sizes,
    "groups": _groups,
    "glyph": _glyph,
}


def make_scene(rng: np.random.Generator, kind: Kind) -> Scene:
    """Draw one scene of that kind."""
    return _MAKERS[kind](rng)
