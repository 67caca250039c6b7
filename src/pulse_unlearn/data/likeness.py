"""Copies of pictures that are other files: rescaled, saved anew, brighter, cropped, mirrored.

Two pictures are laid over one another as well as cuts of up to 15 % a side, one gain and an offset
of each channel allow; what is left, root mean square over the contrast, is their difference.

| 95 of 100 copies differ by at most (share found as `NEAR`) | world, 273 people | 100 faces |
|---|---|---|
| rescaled to half, to twice the size | 0.11 (100 %) | 0.08 (100 %) |
| JPEG, quality 75 | 0.14 (100 %) | 0.01 (100 %) |
| 20 % brighter, 20 % darker | 0.16 (99 %), 0.01 (100 %) | 0.05, 0.01 (100 %) |
| contrast +-30 %; red +10 %, blue -10 % | 0.09; 0.11 (100 %) | 0.04; 0.08 (100 %) |
| 5, 7 or 10 % cropped from every side | 0.08 (100 %) | 0.07 (100 %) |
| 10 % cropped from one side; mirrored | 0.02; 0.00 (100 %) | 0.04; 0.00 (100 %) |
| 7 % cropped, 20 % brighter and JPEG at once | 0.26 (80 %) | 0.05 (100 %) |
| 10, 2, 5 and 8 % cropped from the four sides | (55 %) | (93 %) |
| 40 % brighter | 0.28 (72 %) | 0.10 (100 %) |
| half the colour's strength | 0.39 (18 %) | has none |
| 15 % cropped from every side | (16 %) | (33 %) |
| nearest two of different people | 0.32 | 0.38 |
| nearest two poses of one person | 0.13 | |

The world's pictures are drawings of 48 pixels, whose light backgrounds are burnt out when they get
brighter. The faces are those of scikit-image's part of Labeled Faces in the Wild: photographs,
grey, scaled from 25 to 100 pixels. The drawings of `pulse data init`, alike on purpose, differ by
0.21.

Not found either: a colour picture made grey, turned, or drawn over. Two photographs of one moment
cannot be told from a copy, nor can poses of a person who hardly moves: of one person's own pictures
only those up to `OWN` count as copies, which leaves out 17 % of the JPEG copies and 20 % of the
brighter ones of the world's drawings, and none of the faces.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pulse_unlearn.data.images import decode
from pulse_unlearn.records import Picture

NEAR = 0.2
"""Largest difference of nearly identical pictures of different people."""
OWN = 0.12
"""The same for one person's own pictures, which resemble each other as they are."""

_SIDE = 48
"""Side of the reduced RGB picture that everything is computed from."""
_COARSE, _FINE = 8, 12
"""Cells a side at which pairs are sought out, and at which a pair is decided."""
_SOUGHT, _SOUGHT_OWN = 0.45, 0.35
"""Coarse differences above which pictures of two people, and of one, are not looked at again."""
_FLAT = 4.0
"""Contrast in grey levels below which a picture shows nothing to compare."""
_SEEN = (6.0, 249.0)
"""Levels at which nothing was clipped."""
_GAIN = (0.4, 2.5)
_EDGE = 0.15
"""Largest share that is taken off a side in the search."""
_STEPS = (0.03, 0.03, 0.015, 0.007)
_BLOCK = 128
"""Pictures, or pairs, looked at together; bounds the memory."""
_TILE = 512
"""Whole pictures a block is laid beside at once: so many stay in a processor's cache."""
_SLACK = 1e-4
"""What rounding may take from a product of two sketches, many times over."""
_FEW, _MORE = 47, 63
"""Directions in which pictures are told apart, and in which those are that remain."""
_SKETCHES = 2**17
"""Sketches that are kept, of 3 kB: those of a data set are asked for twice."""

# What may be left of one axis: share taken off its beginning and its end.
_CUTS = ((0.0, 0.0), (0.035, 0.035), (0.07, 0.07), (0.1, 0.1), (0.09, 0.0), (0.0, 0.09))
# Which cut of the rows goes with which of the columns; the whole picture comes first.
_VIEWS = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 0), (5, 0), (0, 4), (0, 5))
_MIRRORED = len(_VIEWS)
_EVERY = tuple(range(len(_VIEWS) + 1))
# One picture's whole or mirror image is like another's whole if the other's is like its own.
_CUT = tuple(view for view in _EVERY if view not in (0, _MIRRORED))

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]


class _Sketch(NamedTuple):
    """A picture in little, of which two are at least as much alike as the views themselves.

    Each view in the first directions, the length of all else, each in further directions, the
    length of what those leave out too.
    """

    views: Floats
    """[V, K], rows of length one in `_FEW` and in `_MORE` directions."""
    whole: Floats
    """[D], the picture itself."""


class Glance:
    """Sketches pictures that are decoded anyway, so that a search for copies need not decode them.

    A context manager: the last ones are sketched at its end.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._waiting: list[tuple[Picture, npt.NDArray[np.uint8]]] = []

    def __enter__(self) -> Glance:
        return self

    def __exit__(self, *_: object) -> None:
        if self._waiting:
            _sketched(self._waiting)
        _forget()

    def look(self, picture: Picture, image: Image.Image) -> None:
        """Take a picture as it was decoded; may be called in several threads."""
        shrunk = _shrunk(image)
        with self._lock:
            self._waiting.append((picture, shrunk))
            if len(self._waiting) == _BLOCK:
                _sketched(self._waiting)
                self._waiting = []


def close_pairs(
    pictures: Sequence[Picture], parts: Sequence[Hashable]
) -> list[tuple[int, int, float]]:
    """Return (one, other, difference) of nearly identical pictures of different parts.

    Pictures are named by their place; those whose bytes are the same are left out.
    """
    pairs = [
        (i, j)
        for i, j in sorted(set(_sought(pictures)))
        if parts[i] != parts[j] and pictures[i].digest != pictures[j].digest
    ]
    apart = _differences([(pictures[i], pictures[j]) for i, j in pairs], _SOUGHT)
    return [(i, j, value) for (i, j), value in zip(pairs, apart, strict=True) if value <= NEAR]


def own_copies(pairs: Sequence[tuple[Picture, Picture]]) -> list[float | None]:
    """Return the difference of those pairs of one person's pictures that are copies, else None."""
    return [value if value <= OWN else None for value in _differences(pairs, _SOUGHT_OWN)]


def _differences(pairs: Sequence[tuple[Picture, Picture]], sought: float) -> list[float]:
    """Return how much the pictures of each pair differ; infinite if they do at a glance."""
    found = [float("inf")] * len(pairs)
    made = _sketches([picture for pair in pairs for picture in pair])
    begun = (
        (number, _start(*pair, sought))
        for number, pair in enumerate(pairs)
        if _may_resemble(made[2 * number], made[2 * number + 1], sought)
    )
    starts = {number: start for number, start in begun if start is not None}
    numbers = list(starts)
    for begin in range(0, len(numbers), _BLOCK):
        some = numbers[begin : begin + _BLOCK]
        for number, value in zip(some, _searched([starts[n] for n in some]), strict=True):
            found[number] = float(value)
    return found


def _sought(pictures: Sequence[Picture]) -> Iterator[tuple[int, int]]:
    """Yield pairs of which a part of one resembles the whole of the other.

    Nearly all others are told apart by their sketches.
    """
    made = {n: sketch for n, sketch in enumerate(_sketches(pictures)) if sketch is not None}
    if not made:
        return
    shown = np.array([*made])
    sketches = np.stack([sketch.views for sketch in made.values()])
    wholes = np.ascontiguousarray(sketches[:, 0, : _FEW + 1].T)
    # Products of matrices leave the interpreter lock.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        blocks = pool.map(partial(_near, sketches, wholes), range(0, len(shown), _BLOCK))
        for ones, views, others in blocks:
            for one in np.unique(ones).tolist():
                seen = _views(pictures[shown[one]])
                same = ones == one
                beside = np.stack([made[n].whole for n in shown[others[same]].tolist()])
                if seen is None:
                    continue
                apart = ((seen[views[same]] - beside) ** 2).sum(1)
                for other in shown[others[same][apart <= _SOUGHT**2]].tolist():
                    yield min(shown[one].item(), other), max(shown[one].item(), other)


def _near(sketches: Floats, wholes: Floats, begin: int) -> tuple[Places, Places, Places]:
    """Return (one, view of it, other) of what sketches leave open, of a block of pictures."""
    some = sketches[begin : begin + _BLOCK, :, : _FEW + 1]
    blocks = {views: some[:, list(views)].reshape(-1, _FEW + 1) for views in (_EVERY, _CUT)}
    found = [np.zeros((3, 0), dtype=np.int64)]
    for tile in range(0, len(sketches), _TILE):
        asked = _EVERY if tile + _TILE > begin else _CUT
        alike = blocks[asked] @ wholes[:, tile : tile + _TILE] >= _least(_SOUGHT)
        rows = np.flatnonzero(alike.any(1))  # few: looking through all of them takes long
        if len(rows):
            places, columns = np.nonzero(alike[rows])
            ones, places = np.divmod(rows[places], len(asked))
            found.append(np.stack([begin + ones, np.array(asked)[places], tile + columns]))
    ones, views, others = np.concatenate(found, 1)
    told = _alike(sketches[ones, views], sketches[others, 0]) >= _least(_SOUGHT)
    told &= ones != others
    return ones[told], views[told], others[told]


def _alike(one: Floats, other: Floats) -> Floats:
    """Return the products of sketched views in all directions; both [..., K]."""
    whole = np.einsum("...k,...k->...", one, other)
    return np.asarray(whole - one[..., _FEW] * other[..., _FEW], dtype=np.float32)


def _may_resemble(one: _Sketch | None, other: _Sketch | None, sought: float) -> bool:
    """Return whether sketches leave it open that two pictures differ by no more than `sought`."""
    if one is None or other is None:
        return False
    ways = _alike(one.views, other.views[:1]), _alike(other.views, one.views[:1])
    return bool(max(way.max() for way in ways) >= _least(sought))


def _least(sought: float) -> float:
    """Return the smallest product of two sketches of pictures whose difference is `sought`."""
    return 1 - sought**2 / 2 - _SLACK


def _start(
    one: Picture, other: Picture, sought: float
) -> tuple[Floats, Floats, tuple[float, ...]] | None:
    """Return the picture to cut from, the whole one, and the cut at which they are most alike."""
    views, others = _views(one), _views(other)
    if views is None or others is None:
        return None
    ways = [(views @ others[0], one, other), (others @ views[0], other, one)]
    alike, larger, smaller = max(ways, key=lambda way: float(way[0].max()))
    view = int(alike.argmax())
    if 2 - 2 * float(alike[view]) > sought**2:
        return None
    base = _reduced(larger).astype(np.float32)
    base = base[:, :, ::-1] if view == _MIRRORED else base
    rows, columns = _VIEWS[view % _MIRRORED]
    return base, _reduced(smaller).astype(np.float32), (*_CUTS[rows], *_CUTS[columns])


def _searched(starts: Sequence[tuple[Floats, Floats, tuple[float, ...]]]) -> Floats:
    """Return the smallest difference of each pair over cuts near the one it starts from."""
    bases = np.stack([start[0] for start in starts])
    cuts = np.array([start[2] for start in starts], dtype=np.float32)
    wholes = _cells(np.stack([start[1] for start in starts]), np.zeros_like(cuts))
    best = _apart(_cells(bases, cuts), wholes)
    for step in _STEPS:
        for side in range(4):
            for change in (-step, step):
                moved = cuts.copy()
                moved[:, side] = np.clip(moved[:, side] + change, 0, _EDGE)
                apart = _apart(_cells(bases, moved), wholes)
                better = apart < best
                cuts[better], best[better] = moved[better], apart[better]
    return best


def _apart(one: Floats, other: Floats) -> Floats:
    return np.minimum(_unlike(one, other), _unlike(other, one))


def _unlike(given: Floats, wanted: Floats) -> Floats:
    """Return what is left of a picture's contrast after the best gain, and offset of each channel.

    What was clipped in either says nothing about gain and offset.
    """
    x, y = (cells.reshape(*cells.shape[:2], -1) for cells in (given, wanted))
    low, high = _SEEN
    used = (x > low) & (x < high) & (y > low) & (y < high)
    used |= used.mean(-1, keepdims=True) < 0.1
    count = used.sum(-1, keepdims=True)
    middle, target = ((v * used).sum(-1, keepdims=True) / count for v in (x, y))
    spread = ((x - middle) ** 2 * used).sum((1, 2)) / used.sum((1, 2))
    shared = ((x - middle) * (y - target) * used).sum((1, 2)) / used.sum((1, 2))
    gain = np.clip(shared / np.maximum(spread, 1), *_GAIN)[:, None, None]
    told = np.clip(target + gain * (x - middle), 0, 255)
    contrast = (y - y.mean(-1, keepdims=True)).std((1, 2))
    left = np.sqrt(((told - y) ** 2).mean((1, 2))) / np.maximum(contrast, 1)
    return np.asarray(left, dtype=np.float32)


def _cells(bases: Floats, cuts: Floats) -> Floats:
    """Return the mean colours [N, 3, G, G] of what cuts [N, 4] leave of pictures."""
    rows = _shares(cuts[:, 0], 1 - cuts[:, 1], _FINE)[:, None]
    columns = _shares(cuts[:, 2], 1 - cuts[:, 3], _FINE)[:, None]
    return np.asarray(rows @ bases @ columns.transpose(0, 1, 3, 2), dtype=np.float32)


def _shares(low: Floats, high: Floats, cells: int) -> Floats:
    """Return matrices [N, cells, side] that average an axis between low and high into cells."""
    edges = _SIDE * (low[:, None] + (high - low)[:, None] * np.arange(cells + 1) / cells)
    pixel = np.arange(_SIDE)
    begin, end = edges[:, :-1, None], edges[:, 1:, None]
    covered = np.clip(np.minimum(end, pixel + 1) - np.maximum(begin, pixel), 0, None)
    return np.asarray(covered / (end - begin), dtype=np.float32)


@lru_cache(maxsize=1)
def _cut_shares() -> Floats:
    low, high = np.array([(begin, 1 - end) for begin, end in _CUTS], dtype=np.float32).T
    return _shares(low, high, _COARSE).reshape(-1, _SIDE)


_kept: dict[str, _Sketch | None] = {}
"""Sketches by the picture's digest, the oldest first."""


def _sketches(pictures: Sequence[Picture]) -> list[_Sketch | None]:
    """Return the sketch of every picture; None of what shows nothing."""
    made = {p.digest: _kept[p.digest] for p in pictures if p.digest in _kept}
    new = list({p.digest: p for p in pictures if p.digest not in made}.values())
    for begin in range(0, len(new), _BLOCK):
        some = new[begin : begin + _BLOCK]
        made |= _sketched([(picture, _reduction(picture)) for picture in some])
    _forget()
    return [made[picture.digest] for picture in pictures]


def _sketched(
    some: Sequence[tuple[Picture, npt.NDArray[np.uint8]]],
) -> dict[str, _Sketch | None]:
    """Return the sketches of reduced pictures by digest, and keep them."""
    views, shows = _seen(np.stack([reduced for _, reduced in some]))
    few = views @ _directions()
    squares = few**2
    rest = [1 - squares[..., :count].sum(-1, keepdims=True) for count in (_FEW, _MORE)]
    near, far = (np.sqrt(np.clip(left, 0, None)) for left in rest)
    sketches = np.concatenate([few[..., :_FEW], near, few[..., _FEW:], far], -1)
    made = {
        picture.digest: _Sketch(sketches[n].copy(), views[n, 0].copy()) if shows[n] else None
        for n, (picture, _) in enumerate(some)
    }
    _kept.update(made)
    return made


def _forget() -> None:
    """Drop the oldest sketches beyond as many as are kept."""
    for digest in list(_kept)[: max(len(_kept) - _SKETCHES, 0)]:
        del _kept[digest]


@lru_cache(maxsize=1)
def _directions() -> Floats:
    """Return the slowest waves [D, K] over brightness and two colours: most of what is seen."""
    place = np.arange(_COARSE)
    waves = np.cos(np.pi * place[:, None] * (place + 0.5) / _COARSE)
    # Brightness varies most: the fastest of its waves that are kept are faster by three.
    colours = {(1, 1, 1): 0, (1, 0, -1): 3, (1, -2, 1): 3}
    made = sorted(
        (later + row + column, n, row, column)
        for n, later in enumerate(colours.values())
        for row in range(_COARSE)
        for column in range(_COARSE)
        if row + column
    )
    kept = [
        np.einsum("c,i,j", [*colours][n], waves[row], waves[column]).ravel()
        for _, n, row, column in made[:_MORE]
    ]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    return np.asarray((kept / lengths).T, dtype=np.float32)


@lru_cache(maxsize=4096)
def _views(picture: Picture) -> Floats | None:
    """Return each view [V, D] of a picture at one mean and contrast; None if it shows nothing."""
    views, shows = _seen(_reduced(picture)[None])
    return views[0] if shows[0] else None


def _seen(pictures: npt.NDArray[np.uint8]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return each view [N, V, D] of reduced pictures at one mean and contrast, and which show any.

    A length below one, of what shows nothing anyway, is left as it is.
    """
    shares, count = _cut_shares(), len(pictures)
    every = shares @ pictures.astype(np.float32) @ shares.T
    every = every.reshape(count, 3, len(_CUTS), _COARSE, len(_CUTS), _COARSE)
    views = [every[:, :, rows, :, columns, :] for rows, columns in _VIEWS]
    views.append(every[:, :, 0, :, 0, ::-1])
    cells = np.stack(views, 1).reshape(count, len(views), 3, -1)
    cells = (cells - cells.mean(-1, keepdims=True)).reshape(count, len(views), -1)
    size = np.linalg.norm(cells, axis=-1, keepdims=True)
    shows = size.min((1, 2)) >= _FLAT * np.sqrt(cells.shape[-1])
    return np.asarray(cells / np.maximum(size, 1), dtype=np.float32), shows


@lru_cache(maxsize=4096)
def _reduced(picture: Picture) -> npt.NDArray[np.uint8]:
    return _reduction(picture)


def _reduction(picture: Picture) -> npt.NDArray[np.uint8]:
    return _shrunk(decode(picture))


def _shrunk(image: Image.Image) -> npt.NDArray[np.uint8]:
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))
