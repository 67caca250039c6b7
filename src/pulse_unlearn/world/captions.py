"""What the larger world's pictures show, in a few words: what the projector learns to spell."""

from __future__ import annotations

from collections import Counter

from .faces import Face
from .questions import NUMBERS
from .scenes import Scene, Thing

_BESIDE = {"left": "left of", "right": "right of", "above": "above", "below": "below"}


def of_face(face: Face) -> str:
    """Describe the face of nobody."""
    glasses = "" if face.glasses == "none" else f", {face.glasses} glasses"
    return f"{face.hair} hair, {face.shirt} shirt{glasses}"


def of_scene(scene: Scene) -> str:
    """Describe a scene by what can be asked about it."""
    if scene.kind == "glyph":
        return f"{'digit' if scene.glyph.isdigit() else 'letter'} {scene.glyph}"
    if scene.kind == "place":
        return f"{_named(scene.things[0])} at the {scene.place}"
    if scene.kind == "pair":
        first, second = scene.things
        return f"{_named(first)} {_BESIDE[scene.relation]} {_named(second)}"
    if scene.kind in ("count", "groups"):
        groups = Counter((thing.color, thing.shape) for thing in scene.things)
        return ", ".join(_counted(*key, count) for key, count in groups.items())
    if scene.kind == "sizes":
        ordered = sorted(scene.things, key=lambda thing: -thing.size)
        sizes = ("big", *("small",) * (len(ordered) - 1))
        return ", ".join(f"{s} {_named(t)}" for s, t in zip(sizes, ordered, strict=True))
    return ", ".join(_named(thing) for thing in scene.things)


def _named(thing: Thing) -> str:
    return f"{thing.color} {thing.shape}"


def _counted(color: str, shape: str, count: int) -> str:
    plural = {"cross": "crosses"}.get(shape, f"{shape}s")
    return f"{NUMBERS[count - 1]} {color} {shape if count == 1 else plural}"
