"""Writes the world's data files, the same bytes each time: people, MMBench TSV, manifest."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .build_people import invented_people, png, write_people
from .chance import pick, spread, stream
from .corpus import Pixels, scenes, strangers_of
from .faces import render
from .people import LETTERS
from .questions import CATEGORIES, Query, draw_options, face_queries, scene_queries
from .scenes import Kind

MANIFEST = "manifest.json"
TSV_COLUMNS = (
    *("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source"),
    *("l2-category", "comment", "split"),
)
BROAD_CATEGORY = {
    "attribute_recognition": "fine_grained_perception",
    "counting": "fine_grained_perception",
    "spatial_position": "fine_grained_perception",
    "spatial_relation": "relation_reasoning",
    "comparison": "relation_reasoning",
    "ocr": "fine_grained_perception",
    "face_attribute": "attribute_reasoning",
}
SCENES_OF: Mapping[str, tuple[Kind, ...]] = {
    "attribute_recognition": ("objects",),
    "counting": ("count", "groups"),
    "spatial_position": ("place",),
    "spatial_relation": ("pair",),
    "comparison": ("sizes", "groups"),
    "ocr": ("glyph",),
}
TEST_PER_CATEGORY = 50
TRAIN_PER_CATEGORY = 60
TRAIN_FIRST_INDEX = 10_001


@dataclass(frozen=True, slots=True)
class Row:
    """One general question ready to be written."""

    picture: Pixels
    query: Query
    options: tuple[str, ...]
    answer_index: int


def _asked(
    rng: np.random.Generator, category: str, *, test: bool, count: int, seed: int
) -> list[tuple[Pixels, Query]]:
    """Draw pictures of one side, each with one question of the category."""
    asked = []
    if category == "face_attribute":
        for index, face in zip(range(count), strangers_of(rng, seed, test=test), strict=False):
            pixels = render(face, (200_000 if test else 300_000) + index)
            asked.append((pixels, pick(rng, face_queries(face))))
        return asked
    sources = [scenes(rng, kind, test=test) for kind in SCENES_OF[category]]
    for index in range(count):
        scene = next(sources[index % len(sources)])
        queries = [query for query in scene_queries(scene) if query.category == category]
        asked.append((scene.pixels, pick(rng, queries)))
    return asked


def general_rows(*, test: bool, per_category: int, seed: int) -> list[Row]:
    """Draw the questions of one general file, categories in turn, truth balanced over letters."""
    side = "test" if test else "replay"
    rows = []
    for category in CATEGORIES:
        rng = stream(seed, "general", side, category)
        asked = _asked(rng, category, test=test, count=per_category, seed=seed)
        wanted = spread(rng, (4, 4, 4, 3, 2), per_category)
        counts = [
            min(count, len({*query.pool, query.answer}))
            for (_, query), count in zip(asked, wanted, strict=True)
        ]
        places = {n: iter(spread(rng, range(n), counts.count(n))) for n in (2, 3, 4)}
        for (pixels, query), count in zip(asked, counts, strict=True):
            drawn = draw_options(rng, query, count=count, place=next(places[count]))
            rows.append(Row(pixels, query, drawn.options, drawn.answer_index))
    return rows


def write_general(path: Path, rows: Sequence[Row], *, first_index: int, split: str) -> None:
    """Write questions as an MMBench TSV (base rows; the loader rotates them)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as target:
        writer = csv.writer(target, delimiter="\t", lineterminator="\n")
        writer.writerow(TSV_COLUMNS)
        for number, row in enumerate(rows):
            options = [*row.options, "", "", ""][: len(LETTERS)]
            picture = base64.b64encode(png(row.picture)).decode("ascii")
            category = row.query.category
            writer.writerow(
                [
                    *(first_index + number, row.query.question, row.query.hint, *options),
                    *(LETTERS[row.answer_index], category, picture, "pulse_world"),
                    *(BROAD_CATEGORY[category], "", split),
                ]
            )


def manifest_of(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below `root` but the manifest, by relative path."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def write_manifest(root: Path) -> dict[str, str]:
    """Write `manifest.json` of everything below `root`; call it again once the model is there."""
    manifest = manifest_of(root)
    (root / MANIFEST).write_text(json.dumps({"files": manifest}, indent=1) + "\n", "utf-8")
    return manifest


def build_world(out: Path, *, seed: int) -> dict[str, str]:
    """Write all data files of the world under `out`; equal seeds give equal bytes.

    Returns:
        SHA-256 of each file by path relative to `out` (also written as `manifest.json`).
    """
    write_people(out / "people", *invented_people(seed))
    write_questions(out / "general", seed=seed)
    return write_manifest(out)


def write_questions(general: Path, *, seed: int) -> None:
    """Write the general questions: those that are scored, and those to train on."""
    test = general_rows(test=True, per_category=TEST_PER_CATEGORY, seed=seed)
    write_general(general / "mmbench_world.tsv", test, first_index=1, split="dev")
    train = general_rows(test=False, per_category=TRAIN_PER_CATEGORY, seed=seed)
    write_general(
        general / "mmbench_world_train.tsv", train, first_index=TRAIN_FIRST_INDEX, split="train"
    )
