"""Writes the world's data files: MLLMU-Bench parquet, MMBench TSV, manifest; same bytes each time."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .chance import pick, spread, stream
from .corpus import (
    SCORED_VIEW,
    SHIPPED_VIEWS,
    STOPPING_VIEWS,
    Pixels,
    faces_of,
    scenes,
    strangers_of,
)
from .faces import render
from .people import (
    ATTRIBUTES,
    LETTERS,
    Choice,
    Person,
    ask,
    biography,
    celebrities,
    fictional,
    make_people,
    scored_choices,
)
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


def png(pixels: Pixels) -> bytes:
    """Encode RGB pixels (48, 48, 3) as PNG."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", optimize=True)
    return target.getvalue()


def _quiz(person: Person, choices: Sequence[Choice], *, by_name: bool) -> list[dict[str, Any]]:
    """Word the scored questions of a person in MLLMU-Bench's form."""
    return [
        {
            "Question": ask(attribute.scored, person, by_name=by_name),
            "Options": dict(zip(LETTERS, choice.options, strict=True)),
            "Correct_Answer": LETTERS[choice.answer_index],
        }
        for attribute, choice in zip(ATTRIBUTES, choices, strict=True)
    ]


def _free_forms(person: Person) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Word generation questions and cloze sentences of a person, both modalities."""
    generation, mask = [], []
    for kind, by_name in (("Image_Textual", False), ("Pure_Text", True)):
        subject = person.name if by_name else person.pronoun.capitalize()
        for attribute in ATTRIBUTES:
            truth = person.attributes[attribute.name]
            question = ask(attribute.scored, person, by_name=by_name)
            generation.append({"Type": kind, "Question": question, "Ground_Truth": truth})
            cloze = attribute.statement.format(name=subject, who=subject, value="__")
            mask.append({"Type": kind, "Question": cloze, "Ground_Truth": truth})
    return generation, mask


def _training_pairs(person: Person) -> str:
    """List the short-answer training pairs as MLLMU-Bench does: a JSON string.

    `Type` says whether a pair needs the picture (pronoun) or stands alone (name).
    """
    pairs = [
        {
            "Question": ask(template, person, by_name=by_name),
            "Answer": person.attributes[attribute.name],
            "Type": kind,
        }
        for kind, by_name in (("Image_Textual", False), ("Pure_Text", True))
        for attribute in ATTRIBUTES
        for template in attribute.trained
    ]
    return json.dumps(pairs)


def _tasks(person: Person, choices: Sequence[Choice]) -> dict[str, Any]:
    generation, mask = _free_forms(person)
    return {
        "Classification_Task": {
            "Image_Textual_Questions": _quiz(person, choices, by_name=False),
            "Pure_Text_Questions": _quiz(person, choices, by_name=True),
        },
        "Generation_Task": generation,
        "Mask_Task": mask,
    }


def _base(person: Person) -> dict[str, Any]:
    first = ATTRIBUTES[0]
    return {
        "ID": person.id,
        "biography": biography(person),
        "question": ask(first.scored, person, by_name=False),
        "answer": person.attributes[first.name],
    }


def _schema(*columns: str) -> Any:
    """Build the arrow schema of the named MLLMU-Bench columns."""
    import pyarrow as pa

    text = pa.string()
    picture = pa.struct([("bytes", pa.binary()), ("path", text)])
    options = pa.struct([(letter, text) for letter in LETTERS])
    question = pa.struct([("Question", text), ("Options", options), ("Correct_Answer", text)])
    free = pa.list_(pa.struct([(name, text) for name in ("Type", "Question", "Ground_Truth")]))
    types = {
        "image": picture,
        "images": pa.list_(picture),
        "Classification_Task": pa.struct(
            [
                ("Image_Textual_Questions", pa.list_(question)),
                ("Pure_Text_Questions", pa.list_(question)),
            ]
        ),
        "Generation_Task": free,
        "Mask_Task": free,
    }
    return pa.schema([(name, types.get(name, text)) for name in columns])


SCORED_COLUMNS = (
    *("ID", "image", "biography", "question", "answer"),
    *("Classification_Task", "Generation_Task", "Mask_Task"),
)


def _write_parquet(folder: Path, rows: list[dict[str, Any]], columns: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows, schema=_schema(*columns))
    pq.write_table(table, folder / "train-00000-of-00001.parquet", compression="zstd")


def write_people(out: Path, *, seed: int) -> None:
    """Write the four MLLMU-Bench configurations under `out`."""
    everybody = make_people(seed)
    faces = faces_of(everybody, seed)
    scored = scored_choices(seed)
    stopping = scored_choices(seed, purpose="stopping options")

    def picture(person: Person, view: int) -> dict[str, Any]:
        return {
            "bytes": png(render(faces[person.id], view)),
            "path": f"{person.id}_{view:02d}.png",
        }

    def scored_row(person: Person) -> dict[str, Any]:
        row = {**_base(person), **_tasks(person, scored[person.id])}
        return {**row, "image": picture(person, SCORED_VIEW), "Directory": f"people/{person.id}"}

    full = [scored_row(person) for person in fictional(seed)]
    _write_parquet(
        out / "Full_Set", full, (*SCORED_COLUMNS[:5], "Directory", *SCORED_COLUMNS[5:])
    )
    _write_parquet(out / "Retain_Set", list(map(scored_row, celebrities(seed))), SCORED_COLUMNS)
    training = [
        {**_base(person), "metadata": _training_pairs(person), "image": picture(person, view)}
        for person in everybody
        for view in SHIPPED_VIEWS
    ]
    _write_parquet(out / "ft_Data", training, ("ID", "image", "biography", "metadata"))
    poses = [
        {
            **_base(person),
            **_tasks(person, stopping[person.id]),
            "images": [picture(person, view) for view in STOPPING_VIEWS],
        }
        for person in everybody
    ]
    _write_parquet(out / "Test_Set", poses, ("ID", "images", *SCORED_COLUMNS[2:]))


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
    write_people(out / "people", seed=seed)
    general = out / "general"
    test = general_rows(test=True, per_category=TEST_PER_CATEGORY, seed=seed)
    write_general(general / "mmbench_world.tsv", test, first_index=1, split="dev")
    train = general_rows(test=False, per_category=TRAIN_PER_CATEGORY, seed=seed)
    write_general(
        general / "mmbench_world_train.tsv", train, first_index=TRAIN_FIRST_INDEX, split="train"
    )
    return write_manifest(out)
