"""What can be asked and said about scenes and about faces of nobody: questions and captions.

Questions of general ability have MMBench's form. Every answer is one word, so that the same
question can be asked with options or without. Captions are what the larger world's projector
learns to spell.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from .chance import Choice, sample
from .faces import HAIR, SHIRT, Face
from .scenes import (
    COLORS,
    DIGIT_GLYPHS,
    LETTER_GLYPHS,
    OPPOSITE,
    PLACES,
    RELATIONS,
    SHAPES,
    Scene,
    Thing,
)

CATEGORIES = (
    "attribute_recognition",
    "counting",
    "spatial_position",
    "spatial_relation",
    "comparison",
    "ocr",
    "face_attribute",
)
NUMBERS = ("one", "two", "three", "four", "five", "six")
YES_NO = ("yes", "no")
_BESIDE = {"left": "left of", "right": "right of", "above": "above", "below": "below"}


@dataclass(frozen=True, slots=True)
class Query:
    """A question before its options are drawn."""

    category: str
    question: str
    answer: str
    pool: tuple[str, ...]
    """Wrong options come from here; the answer may be among them."""
    hint: str = ""
    likely: tuple[str, ...] = ()
    """Wrong options that the picture suggests; taken first."""


def draw_options(rng: np.random.Generator, query: Query, *, count: int, place: int) -> Choice:
    """Draw `count` options with the answer at `place`; a small pool gives fewer options."""
    wrong = [value for value in query.pool if value != query.answer]
    count = min(count, len(wrong) + 1)
    first = [value for value in query.likely if value != query.answer][: count - 1]
    rest = [value for value in wrong if value not in first]
    options = first + sample(rng, rest, count - 1 - len(first))
    options = sample(rng, options, len(options))
    place %= count
    options.insert(place, query.answer)
    return Choice(tuple(options), place)


def _object_queries(scene: Scene) -> list[Query]:
    colors = tuple(thing.color for thing in scene.things)
    shapes = tuple(thing.shape for thing in scene.things)
    category = "attribute_recognition"
    if len(scene.things) == 1:
        return [
            Query(category, "What color is the shape?", colors[0], tuple(COLORS)),
            Query(category, "Which shape is shown?", shapes[0], SHAPES),
        ]
    hint = "The picture shows several shapes."
    queries = []
    for thing in scene.things:
        queries.append(
            Query(
                category,
                f"What color is the {thing.shape}?",
                thing.color,
                tuple(COLORS),
                hint,
                likely=colors,
            )
        )
        queries.append(
            Query(category, f"Which shape is {thing.color}?", thing.shape, SHAPES, likely=shapes)
        )
    return queries


def _count_queries(scene: Scene) -> list[Query]:
    answer = NUMBERS[len(scene.things) - 1]
    shape = scene.things[0].shape
    return [
        Query("counting", "How many shapes are there?", answer, NUMBERS),
        Query(
            "counting",
            "What is the number of shapes?",
            answer,
            NUMBERS,
            hint=f"Count every {shape}.",
        ),
    ]


def _group_queries(scene: Scene) -> list[Query]:
    few = sum(thing.color == scene.things[0].color for thing in scene.things)
    many = len(scene.things) - few
    rare, common = scene.things[0].color, scene.things[-1].color
    hint = "There are two colors."
    queries = [
        Query("comparison", "Which color has more shapes?", common, (rare, common)),
        Query("comparison", "Which color has fewer shapes?", rare, (rare, common), hint),
    ]
    for color, number in ((rare, few), (common, many)):
        question = f"How many {color} shapes are there?"
        queries.append(Query("counting", question, NUMBERS[number - 1], NUMBERS, hint))
    return queries


def _place_queries(scene: Scene) -> list[Query]:
    shape = scene.things[0].shape
    return [
        Query("spatial_position", "Where is the shape?", scene.place, PLACES),
        Query("spatial_position", f"Where is the {shape}?", scene.place, PLACES),
    ]


def _pair_queries(scene: Scene) -> list[Query]:
    first, second = scene.things
    queries = []
    for one, other, relation in (
        (first, second, scene.relation),
        (second, first, OPPOSITE[scene.relation]),
    ):
        likely = (OPPOSITE[relation],)
        question = f"Where is the {one.color} shape relative to the {other.color} shape?"
        queries.append(Query("spatial_relation", question, relation, RELATIONS, likely=likely))
        side = {"left": "on the left", "right": "on the right"}.get(relation, relation)
        queries.append(
            Query(
                "spatial_relation",
                f"Which shape is {side}?",
                one.shape,
                SHAPES,
                "The picture shows two shapes.",
                likely=(other.shape,),
            )
        )
    return queries


def _size_queries(scene: Scene) -> list[Query]:
    large, small = scene.things
    hint = "One shape is larger."
    return [
        Query("comparison", "Which shape is larger?", large.shape, (large.shape, small.shape)),
        Query("comparison", "Which shape is smaller?", small.shape, (large.shape, small.shape)),
        Query(
            "comparison", "Which color is larger?", large.color, (large.color, small.color), hint
        ),
        Query(
            "comparison", "Which color is smaller?", small.color, (large.color, small.color), hint
        ),
    ]


def _glyph_queries(scene: Scene) -> list[Query]:
    letter = scene.glyph in LETTER_GLYPHS
    word, pool = ("letter", LETTER_GLYPHS) if letter else ("digit", DIGIT_GLYPHS)
    return [
        Query("ocr", f"Which {word} is shown?", scene.glyph, pool),
        Query("ocr", f"Read the {word}.", scene.glyph, pool, f"The picture shows one {word}."),
    ]


_ASKERS = {
    "objects": _object_queries,
    "count": _count_queries,
    "groups": _group_queries,
    "place": _place_queries,
    "pair": _pair_queries,
    "sizes": _size_queries,
    "glyph": _glyph_queries,
}


def scene_queries(scene: Scene) -> list[Query]:
    """Return everything that can be asked about a scene."""
    return _ASKERS[scene.kind](scene)


def face_queries(face: Face) -> list[Query]:
    """Return everything that can be asked about a face's looks."""
    category = "face_attribute"
    glasses = "no" if face.glasses == "none" else "yes"
    hint = "Look at the face."
    queries = [
        Query(category, "What color is the hair?", face.hair, tuple(HAIR)),
        Query(category, "Which hair color is shown?", face.hair, tuple(HAIR), hint),
        Query(category, "What color is the shirt?", face.shirt, tuple(SHIRT)),
        Query(category, "Which shirt color is shown?", face.shirt, tuple(SHIRT), hint),
        Query(category, "Does the person wear glasses?", glasses, YES_NO),
        Query(category, "Are there glasses?", glasses, YES_NO, hint),
    ]
    if face.rings != "none":
        queries.append(
            Query(category, "What color are the earrings?", face.rings, ("gold", "cyan"))
        )
    return queries


def vocabulary_sample() -> tuple[str, ...]:
    """Return the option values of all pools, for the tokenizer."""
    pools = (COLORS, SHAPES, PLACES, RELATIONS, NUMBERS, YES_NO, HAIR, SHIRT)
    return (*(value for pool in pools for value in pool), *LETTER_GLYPHS, *DIGIT_GLYPHS)


def face_caption(face: Face) -> str:
    """Describe the face of nobody."""
    glasses = "" if face.glasses == "none" else f", {face.glasses} glasses"
    return f"{face.hair} hair, {face.shirt} shirt{glasses}"


def scene_caption(scene: Scene) -> str:
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
