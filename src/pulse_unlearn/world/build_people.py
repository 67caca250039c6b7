"""Writes the people of the world as MLLMU-Bench parquet files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .corpus import SCORED_VIEW, SHIPPED_VIEWS, STOPPING_VIEWS, Pixels, faces_of
from .faces import render
from .people import LETTERS, Person, celebrities, fictional, make_people, scored_choices
from .sheets import Sheet, of_person

KINDS = ("Image_Textual", "Pure_Text")
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
    for place, kind in enumerate(KINDS):
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
        for place, kind in enumerate(KINDS)
        for fact in sheet.facts
        for question in fact.trained
    ]
    return json.dumps(pairs)


def _tasks(sheet: Sheet, *, stopping: bool) -> dict[str, Any]:
    return {
        "Classification_Task": {
            f"{kind}_Questions": _questions(sheet, place, stopping=stopping)
            for place, kind in enumerate(KINDS)
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
