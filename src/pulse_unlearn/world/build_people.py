"""Writes the people of the world as MLLMU-Bench parquet files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .corpus import SCORED_VIEW, SHIPPED_VIEWS, STOPPING_VIEWS, Pixels, faces_of
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
    _write_parquet(out / "Full_Set", full, (*SCORED_COLUMNS[:5], "Directory", *SCORED_COLUMNS[5:]))
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
