"""Pictures and dense labels that supervise the vision tower.

Labels are class numbers; `IGNORE` marks what a picture does not have. *Patch* labels say what one
of the 16 patches shows, *picture* labels what is true of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .chance import stream
from .corpus import Corpus, Pixels, draw_faces_of, faces_of, scenes, strangers_of
from .faces import FIELD_VALUES, Face
from .people import fictional
from .scenes import COLORS, GLYPHS, KINDS, PLACES, SHAPES, Scene

IGNORE = -100
PATCHES = 16
MAX_THINGS = 10
EXTRA_FACES = 14_000
HELDOUT_PER_KIND = 300
HELDOUT_FACES = 1500
HELDOUT_VIEWS = (51, 52)
Labels = npt.NDArray[np.int64]

PATCH_CLASSES: Mapping[str, int] = {
    "patch_shape": len(SHAPES) + 1,
    "patch_color": len(COLORS) + 1,
}
PICTURE_CLASSES: Mapping[str, int] = {
    "kind": len(KINDS) + 1,
    "count": MAX_THINGS,
    "rare_count": MAX_THINGS,
    "place": len(PLACES),
    "level": 2,
    "glyph": len(GLYPHS),
    "large_shape": len(SHAPES),
    "large_color": len(COLORS),
    "small_shape": len(SHAPES),
    "small_color": len(COLORS),
    "first_shape": len(SHAPES),
    "first_color": len(COLORS),
    **{f"has_{shape}": 2 for shape in SHAPES},
    **{f"has_{color}": 2 for color in COLORS},
    **{f"face_{name}": len(values) for name, values in FIELD_VALUES.items()},
}


@dataclass(frozen=True, slots=True)
class Supervised:
    """Pictures with labels."""

    images: Pixels
    """RGB, shape (N, 48, 48, 3)."""
    patch: Mapping[str, Labels]
    """Each (N, 16)."""
    picture: Mapping[str, Labels]
    """Each (N,)."""


def _scene_patch(scene: Scene) -> dict[str, list[int]]:
    """Label each patch with the shape and color whose square covers its centre, 0 for none."""
    labels = {name: [0] * PATCHES for name in PATCH_CLASSES}
    for thing in scene.things:
        for patch in thing.patches:
            labels["patch_shape"][patch] = 1 + SHAPES.index(thing.shape)
            labels["patch_color"][patch] = 1 + tuple(COLORS).index(thing.color)
    return labels


def _scene_picture(scene: Scene) -> dict[str, int]:
    colors = tuple(COLORS)
    labels = {"kind": KINDS.index(scene.kind)}
    if scene.kind == "glyph":
        return {**labels, "glyph": tuple(GLYPHS).index(scene.glyph)}
    things = scene.things
    labels["count"] = len(things)
    labels.update({f"has_{name}": int(any(t.shape == name for t in things)) for name in SHAPES})
    labels.update({f"has_{name}": int(any(t.color == name for t in things)) for name in COLORS})
    if scene.kind == "groups":
        labels["rare_count"] = sum(thing.color == things[0].color for thing in things)
    if scene.kind == "place":
        labels["place"] = PLACES.index(scene.place)
    if scene.kind == "pair":
        upper_left = min(things, key=lambda thing: (round(thing.y / 6), thing.x))
        labels["first_shape"] = SHAPES.index(upper_left.shape)
        labels["first_color"] = colors.index(upper_left.color)
        labels["level"] = int(abs(things[0].x - things[1].x) > abs(things[0].y - things[1].y))
    if scene.kind == "sizes":
        for name, thing in zip(("large", "small"), things, strict=True):
            labels[f"{name}_shape"] = SHAPES.index(thing.shape)
            labels[f"{name}_color"] = colors.index(thing.color)
    return labels


def _face_picture(face: Face) -> dict[str, int]:
    fields = zip(FIELD_VALUES.items(), face.values(), strict=True)
    return {
        "kind": len(KINDS),
        **{f"face_{name}": values.index(value) for (name, values), value in fields},
    }


def _tables(
    patch: Sequence[Mapping[str, list[int]]], picture: Sequence[Mapping[str, int]]
) -> tuple[dict[str, Labels], dict[str, Labels]]:
    empty = [IGNORE] * PATCHES
    return (
        {name: np.array([row.get(name, empty) for row in patch]) for name in PATCH_CLASSES},
        {name: np.array([row.get(name, IGNORE) for row in picture]) for name in PICTURE_CLASSES},
    )


def _supervise(images: Pixels, drawn: Sequence[Scene], faces: Sequence[Face]) -> Supervised:
    """Label scenes, then faces, in the order of `images`."""
    patch: list[Mapping[str, list[int]]] = [
        {} if scene.kind == "glyph" else _scene_patch(scene) for scene in drawn
    ]
    patch += [{} for _ in faces]
    picture = [*map(_scene_picture, drawn), *map(_face_picture, faces)]
    return Supervised(images, *_tables(patch, picture))


def _extra_faces(seed: int) -> list[tuple[Face, int]]:
    """Return more faces of nobody than the questions need: identity is the tower's main work."""
    source = strangers_of(stream(seed, "vision", "strangers"), seed, test=False)
    return [(next(source), 400_000 + index) for index in range(EXTRA_FACES)]


def training_pictures(corpus: Corpus, work: Path, *, seed: int) -> Supervised:
    """Label the corpus pictures and the extra faces."""
    extra = _extra_faces(seed)
    drawn = draw_faces_of(extra, work / f"extra-faces-{seed}.npy")
    faces = [*corpus.faces, *(face for face, _ in extra)]
    return _supervise(np.concatenate([corpus.images, drawn]), corpus.scenes, faces)


def _heldout_scenes(seed: int) -> Iterator[Scene]:
    for kind in KINDS:
        source = scenes(stream(seed, "vision heldout", kind), kind, test=True)
        for _ in range(HELDOUT_PER_KIND):
            yield next(source)


def heldout_pictures(work: Path, *, seed: int) -> Supervised:
    """Draw test-side pictures: other scenes, other strangers, and people never trained on."""
    drawn = list(_heldout_scenes(seed))
    source = strangers_of(stream(seed, "vision heldout", "strangers"), seed, test=True)
    pairs = [(next(source), 500_000 + index) for index in range(HELDOUT_FACES)]
    people = faces_of(fictional(seed), seed)
    pairs += [(face, view) for face in people.values() for view in HELDOUT_VIEWS]
    faces = draw_faces_of(pairs, work / f"heldout-faces-{seed}.npy")
    images = np.concatenate([np.stack([scene.pixels for scene in drawn]), faces])
    return _supervise(images, drawn, [face for face, _ in pairs])
