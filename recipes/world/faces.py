"""Faces of the embedded world: dicebear pixel-art drawn from named fields and rasterised by resvg.

A face is nine fields with closed vocabularies; two people differ in at least `MIN_DISTANCE` of
them, so that a small vision tower can tell everybody apart. A *view* changes only what is not
identity: expression, place, scale, rotation, flip, background. The fields are at the same time the
ground truth of questions about faces. Variants that hide other fields (hats, visors, masks) or that
cannot be told apart at 48 pixels are not used.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from pulse_unlearn.errors import DataError, Problem

from .chance import pick, stream
from .people import Pronoun

SIZE = 48
MIN_DISTANCE = 4

SKIN = {"pale": "#ffe3c9", "tan": "#dfa468", "brown": "#9a5f30", "dark": "#58331a"}
STYLE = {
    "she": {
        "straight": "long13",
        "bun": "long05",
        "bob": "long20",
        "pigtails": "long18",
        "fringe": "long08",
        "curls": "short11",
    },
    "he": {
        "tuft": "short05",
        "full": "short16",
        "bald": "short07",
        "strands": "short12",
        "fringe": "long08",
        "curls": "short11",
    },
}
_COLORS = {
    "yellow": "#f5d533",
    "red": "#d8260f",
    "blue": "#2348e0",
    "green": "#1fae3c",
    "purple": "#8a2bc4",
    "white": "#fbfbfb",
}
HAIR = {"black": "#141414", "brown": "#7a4210", **_COLORS}
SHIRT = {"black": "#141414", "orange": "#ff8a00", **_COLORS}
PATTERN = {
    "plain": "variant03",
    "checked": "variant06",
    "striped": "variant13",
    "open": "variant18",
}
GLASSES: dict[str, tuple[str, str] | None] = {
    "none": None,
    "black": ("light07", "#101010"),
    "red": ("light07", "#d8260f"),
    "blue": ("light07", "#2348e0"),
    "green": ("light07", "#1fae3c"),
    "sun": ("dark02", "#101010"),
}
BEARD = {"none": None, "beard": "variant05"}
RINGS = {"none": None, "gold": "#ffd000", "cyan": "#00d5ff"}

BACKGROUNDS = ("#c9c9c9", "#b7d3e8", "#d9c7ea", "#c4e3c8", "#efd9b8", "#f0c8cf", "#e9e9d2")
EYES = {
    "wide": ("variant01", "variant07", "variant08", "variant09"),
    "small": ("variant03", "variant04"),
}
MOUTHS = (
    *("happy01", "happy06", "happy07", "happy08", "happy09", "happy10", "happy12"),
    *("sad01", "sad02", "sad04", "sad05", "sad06"),
)


@dataclass(frozen=True, slots=True)
class Face:
    """The identity-bearing fields of a face; every value is a key of its vocabulary."""

    skin: str
    style: str
    hair: str
    shirt: str
    pattern: str
    glasses: str
    beard: str
    rings: str
    eyes: str

    def distance(self, other: Face) -> int:
        """Count the fields that differ."""
        return sum(a != b for a, b in zip(self.values(), other.values(), strict=True))

    def values(self) -> tuple[str, ...]:
        """Return the field values in declaration order."""
        return tuple(getattr(self, field.name) for field in fields(self))


FIELD_VALUES: Mapping[str, tuple[str, ...]] = {
    "skin": tuple(SKIN),
    "style": tuple(dict.fromkeys([*STYLE["she"], *STYLE["he"]])),
    "hair": tuple(HAIR),
    "shirt": tuple(SHIRT),
    "pattern": tuple(PATTERN),
    "glasses": tuple(GLASSES),
    "beard": tuple(BEARD),
    "rings": tuple(RINGS),
    "eyes": tuple(EYES),
}


def random_face(rng: np.random.Generator, pronoun: Pronoun) -> Face:
    """Draw a face; only men have beards."""
    return Face(
        skin=pick(rng, tuple(SKIN)),
        style=pick(rng, tuple(STYLE[pronoun])),
        hair=pick(rng, tuple(HAIR)),
        shirt=pick(rng, tuple(SHIRT)),
        pattern=pick(rng, tuple(PATTERN)),
        glasses=pick(rng, ("none", *GLASSES)),
        beard=pick(rng, tuple(BEARD)) if pronoun == "he" else "none",
        rings=pick(rng, tuple(RINGS)),
        eyes=pick(rng, tuple(EYES)),
    )


@lru_cache(maxsize=4)
def draw_faces(pronouns: tuple[Pronoun, ...], seed: int) -> tuple[Face, ...]:
    """Draw one face per pronoun, all at least `MIN_DISTANCE` fields apart."""
    rng = stream(seed, "faces")
    chosen: list[Face] = []
    for pronoun in pronouns:
        for _ in range(50_000):
            face = random_face(rng, pronoun)
            if all(face.distance(other) >= MIN_DISTANCE for other in chosen):
                chosen.append(face)
                break
        else:
            raise DataError(
                Problem(
                    "no room for another face at this distance",
                    where="recipes.world.faces",
                    got=f"{len(chosen)} of {len(pronouns)} faces, distance {MIN_DISTANCE}",
                    fix="add values to a field of faces.Face",
                )
            )
    return tuple(chosen)


def strangers(rng: np.random.Generator, known: Sequence[Face]) -> Iterator[Face]:
    """Yield random faces of nobody: at least two fields away from every known one."""
    taken = {hole for face in known for hole in _holes(face)}
    while True:
        face = random_face(rng, pick(rng, ("she", "he")))
        if taken.isdisjoint(_holes(face)):
            yield face


def _holes(face: Face) -> list[tuple[str | None, ...]]:
    """Blank each field in turn; faces at most one field apart share a result."""
    values = face.values()
    return [(*values[:i], None, *values[i + 1 :]) for i in range(len(values))]


@lru_cache(maxsize=1)
def _drawing() -> tuple[Any, Any, Any]:
    """Import the drawing packages on first use: only rebuilding the world needs them."""
    try:
        import resvg_py
        from dicebear import Avatar, Style

        text = (resources.files("dicebear_styles") / "pixel-art.json").read_text("utf-8")
    except ImportError as error:
        raise DataError(
            Problem(
                "drawing faces needs packages that are not installed",
                where="recipes.world.faces",
                got=str(error),
                allowed="dicebear-core 10.7, dicebear-styles 10.6, resvg-py 0.5",
                fix="pip install dicebear-core dicebear-styles resvg-py",
            )
        ) from error
    return Avatar, Style(json.loads(text)), resvg_py.svg_to_bytes


def _chosen(component: str, variant: str | None) -> dict[str, object]:
    """Switch a dicebear component to one variant or off; chance is left to this package."""
    if variant is None:
        return {f"{component}Probability": 0}
    return {f"{component}Variant": variant, f"{component}Probability": 100}


def _options(face: Face, rng: np.random.Generator) -> dict[str, object]:
    """Turn a face and the stream of one view into dicebear options."""
    styles = {**STYLE["she"], **STYLE["he"]}
    glasses = GLASSES[face.glasses]
    rings = RINGS[face.rings]
    options: dict[str, object] = {
        "seed": "pulse",
        "size": SIZE,
        "skinColor": [SKIN[face.skin]],
        "hairColor": [HAIR[face.hair]],
        "clothingColor": [SHIRT[face.shirt]],
        "glassesColor": [glasses[1] if glasses else "#101010"],
        "accessoriesColor": [rings or "#ffd000"],
        "mouthColor": [pick(rng, ("#c98276", "#de0f0d"))],
        "backgroundColor": [pick(rng, BACKGROUNDS)],
        "flip": pick(rng, ("none", "horizontal")),
        "scale": round(float(rng.uniform(0.92, 1.06)), 3),
        "rotate": round(float(rng.uniform(-6, 6)), 2),
        "translateX": round(float(rng.uniform(-5, 5)), 2),
        "translateY": round(float(rng.uniform(-3, 3)), 2),
    }
    for component, variant in (
        ("hair", styles[face.style]),
        ("clothes", PATTERN[face.pattern]),
        ("glasses", glasses[0] if glasses else None),
        ("beard", BEARD[face.beard]),
        ("accessories", "variant01" if rings else None),
        ("hat", None),
        ("eyes", pick(rng, EYES[face.eyes])),
        ("mouth", pick(rng, MOUTHS)),
    ):
        options.update(_chosen(component, variant))
    return options


def render(face: Face, view: int, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Draw one view of a face; equal arguments give equal pixels.

    Returns:
        RGB pixels, shape (48, 48, 3).
    """
    from PIL import Image

    avatar, style, rasterise = _drawing()
    options = _options(face, stream(seed, "view", *face.values(), view))
    png = rasterise(
        svg_string=str(avatar(style, options)), width=SIZE, height=SIZE, skip_system_fonts=True
    )
    with Image.open(io.BytesIO(png)) as picture:
        return np.asarray(picture.convert("RGB"), dtype=np.uint8).copy()
