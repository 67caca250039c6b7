"""Writes the world's data files, the same bytes each time.

People as MLLMU-Bench parquet files, general questions as MMBench TSV, and a manifest of hashes.
"""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulse_unlearn.data.source import digest

from .chance import LETTERS, pick, spread, stream
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
from .people import Person, celebrities, fictional, make_people, scored_choices
from .questions import CATEGORIES, Query, draw_options, face_queries, scene_queries
from .scenes import Kind
from .sheets import Sheet, of_person

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


MODALITIES = ("Image_Textual", "Pure_Text")
"""The benchmark's names of the two modalities, in the order of `sheets.Worded`."""


def png(pixels: Pixels) -> bytes:
    """Encode RGB pixels (48, 48, 3) as PNG."""
    from PIL import Image

    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "PNG", optimize=True)
    return target.getvalue()


def _questions(sheet: Sheet, place: int, *, stopping: bool) -> list[dict[str, Any]]:
    """Word the multiple-choice questions of one modality (a place in `Worded`) as the benchmark."""
    asked = []
    for fact in sheet.facts:
        quiz = fact.stopping if stopping else fact.scored
        options = [option[place] for option in quiz.options]
        asked.append(
            {
                "Question": fact.question[place],
                "Options": dict(zip(LETTERS, options, strict=True)),
                "Correct_Answer": LETTERS[quiz.answer_index],
            }
        )
    return asked


def _free_forms(sheet: Sheet) -> dict[str, Any]:
    """Word generation questions and cloze sentences, both modalities."""
    generation, mask = [], []
    for place, kind in enumerate(MODALITIES):
        for fact in sheet.facts:
            row = {"Type": kind, "Ground_Truth": fact.truth}
            generation.append({**row, "Question": fact.question[place]})
            mask.append({**row, "Question": fact.cloze[place]})
    return {"Generation_Task": generation, "Mask_Task": mask}


def _training_pairs(sheet: Sheet) -> str:
    """List the short-answer training pairs as MLLMU-Bench does: a JSON string.

    `Type` says whether a pair needs the picture (pronoun) or stands alone (name).
    """
    pairs = [
        {"Question": question[place], "Answer": fact.answer[place], "Type": kind}
        for place, kind in enumerate(MODALITIES)
        for fact in sheet.facts
        for question in fact.trained
    ]
    return json.dumps(pairs)


def _tasks(sheet: Sheet, *, stopping: bool) -> dict[str, Any]:
    return {
        "Classification_Task": {
            f"{kind}_Questions": _questions(sheet, place, stopping=stopping)
            for place, kind in enumerate(MODALITIES)
        },
        **_free_forms(sheet),
    }


def _base(sheet: Sheet) -> dict[str, Any]:
    first = sheet.facts[0]
    return {
        "ID": sheet.id,
        "biography": sheet.biography,
        "question": first.question.by_picture,
        "answer": first.truth,
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


def invented_people(seed: int) -> tuple[list[Sheet], list[Sheet]]:
    """Return what is written of the world's celebrities and of its fictional people."""
    faces = faces_of(make_people(seed), seed)
    scored = scored_choices(seed)
    stopping = scored_choices(seed, purpose="stopping options")

    def sheets(people: Sequence[Person]) -> list[Sheet]:
        return [of_person(p, faces[p.id], scored[p.id], stopping[p.id]) for p in people]

    return sheets(celebrities(seed)), sheets(fictional(seed))


def write_people(out: Path, known: Sequence[Sheet], new: Sequence[Sheet]) -> None:
    """Write the four MLLMU-Bench configurations under `out`.

    `known` are the individuals of `Retain_Set`, known from pre-training; `new` those of `Full_Set`.
    """
    everybody = [*known, *new]

    def picture(sheet: Sheet, view: int) -> dict[str, Any]:
        return {"bytes": png(render(sheet.face, view)), "path": f"{sheet.id}_{view:02d}.png"}

    def scored_row(sheet: Sheet) -> dict[str, Any]:
        row = {**_base(sheet), **_tasks(sheet, stopping=False)}
        return {**row, "image": picture(sheet, SCORED_VIEW), "Directory": f"people/{sheet.id}"}

    columns = (*SCORED_COLUMNS[:5], "Directory", *SCORED_COLUMNS[5:])
    _write_parquet(out / "Full_Set", list(map(scored_row, new)), columns)
    _write_parquet(out / "Retain_Set", list(map(scored_row, known)), SCORED_COLUMNS)
    training = [
        {**_base(sheet), "metadata": _training_pairs(sheet), "image": picture(sheet, view)}
        for sheet in everybody
        for view in SHIPPED_VIEWS
    ]
    _write_parquet(out / "ft_Data", training, ("ID", "image", "biography", "metadata"))
    poses = [
        {
            **_base(sheet),
            **_tasks(sheet, stopping=True),
            "images": [picture(sheet, view) for view in STOPPING_VIEWS],
        }
        for sheet in everybody
    ]
    _write_parquet(out / "Test_Set", poses, ("ID", "images", *SCORED_COLUMNS[2:]))


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


def write_manifest(root: Path) -> None:
    """Write `manifest.json`, the SHA-256 of every other file below `root` by relative path."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and path.name != MANIFEST)
    text = json.dumps({"files": digest(files, root=root)}, indent=1)
    (root / MANIFEST).write_text(text + "\n", "utf-8")


def build_world(out: Path, *, seed: int) -> None:
    """Write all data files of the world and their manifest; equal seeds give equal bytes."""
    write_people(out / "people", *invented_people(seed))
    write_questions(out / "general", seed=seed)
    write_manifest(out)


def write_questions(general: Path, *, seed: int) -> None:
    """Write the general questions: those that are scored, and those to train on."""
    test = general_rows(test=True, per_category=TEST_PER_CATEGORY, seed=seed)
    write_general(general / "mmbench_world.tsv", test, first_index=1, split="dev")
    train = general_rows(test=False, per_category=TRAIN_PER_CATEGORY, seed=seed)
    write_general(
        general / "mmbench_world_train.tsv", train, first_index=TRAIN_FIRST_INDEX, split="train"
    )
