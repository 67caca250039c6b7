"""What the data tests share: pictures, an MLLMU-Bench folder and an MMBench file as they come."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pulse_unlearn.data.images import decode, picture_from_bytes
from pulse_unlearn.records import Individual, Option, Picture, Question, ShortAnswer

TSV_COLUMNS = (
    *("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source"),
    *("l2-category", "comment", "split"),
)
LETTERS = "ABCDEFGH"


def noise(seed: int, *, size: tuple[int, int] = (24, 20)) -> Image.Image:
    """A picture of coarse blocks: unlike any other seed's, yet it survives JPEG."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(seed: int) -> bytes:
    return encoded(noise(seed))


def changed(shown: Picture, kind: str = "PNG", change: Any = None, **options: Any) -> Picture:
    """A picture with something done to it, saved anew."""
    image = decode(shown)
    data = encoded(change(image) if change else image, kind, **options)
    return picture_from_bytes(data, f"changed {shown.where}")


def picture(seed: int) -> Picture:
    return picture_from_bytes(png(seed), f"picture {seed}")


def question(
    identity: str = "p1/text_only/1",
    options: int = 4,
    *,
    answer: str = "B",
    shown: Picture | None = None,
    **fields: Any,
) -> Question:
    return Question(
        id=identity,
        modality="multimodal" if shown else "text_only",
        question="What does Lara Hayes do?",
        options=tuple(Option(letter, f"job{letter}") for letter in LETTERS[:options]),
        answer=answer,
        individual=fields.pop("individual", "p1"),
        picture=shown,
        **fields,
    )


def person(identity: str, *, seed: int, name: str = "") -> Individual:
    """A person with two questions, two training views and another view."""
    return Individual(
        id=identity,
        name=name or f"Name{identity} Hayes",
        group="fictional",
        questions=(
            question(f"{identity}/m", shown=picture(seed), individual=identity, category=identity),
            Question(
                f"{identity}/t",
                "text_only",
                f"What does {identity} do?",
                (Option("A", "baker"), Option("B", "judge"), Option("C", "pilot")),
                "C",
                identity,
            ),
        ),
        training_pictures=(picture(seed + 1), picture(seed + 2)),
        other_pictures=(picture(seed + 3),),
        short_answers=(
            ShortAnswer(f"{identity}/s", "multimodal", "Which job?", "judge", identity),
            ShortAnswer(f"{identity}/n", "text_only", "Which job has she?", "judge", identity),
        ),
    )


def asked(text: str, options: Mapping[str, str | None], answer: str) -> dict[str, Any]:
    return {"Question": text, "Options": dict(options), "Correct_Answer": answer}


def task(name: str, *, multimodal: int = 5, text_only: int = 5) -> dict[str, Any]:
    """Questions as the benchmark stores them, the third with three options."""

    def ask(template: str, count: int) -> list[dict[str, Any]]:
        return [
            asked(
                template.format(number),
                {"A": "baker", "B": "judge", "C": "pilot", "D": None if number == 2 else "nurse"},
                "ABC"[number % 3],
            )
            for number in range(count)
        ]

    return {
        "Image_Textual_Questions": ask("What does she do in year {}?", multimodal),
        "Pure_Text_Questions": ask(f"What does {name} do in year {{}}?", text_only),
    }


def person_row(identity: str, seed: int, **changes: Any) -> dict[str, Any]:
    name = changes.pop("name", f"Lara Hayes{identity}")
    row = {
        "ID": identity,
        "image": {"bytes": png(seed), "path": f"{identity}.png"},
        "biography": f"{name} works as judge.",
        "question": "",
        "answer": "",
        "Classification_Task": task(name),
    }
    return {**row, **changes}


def training_row(identity: str, seed: int, metadata: Any = None) -> dict[str, Any]:
    pairs = [{"Question": "Which job does she have?", "Answer": "judge"}]
    return {
        "ID": identity,
        "image": {"bytes": png(seed), "path": ""},
        "biography": "",
        "metadata": json.dumps(pairs) if metadata is None else metadata,
    }


def poses_row(identity: str, seeds: Sequence[int]) -> dict[str, Any]:
    return {"ID": identity, "images": [{"bytes": png(seed), "path": ""} for seed in seeds]}


def write_config(folder: Path, config: str, *shards: Sequence[Mapping[str, Any]]) -> None:
    (folder / config).mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(shards):
        name = f"train-{number:05d}-of-{len(shards):05d}.parquet"
        pq.write_table(pa.Table.from_pylist(list(rows)), folder / config / name)


def benchmark(folder: Path) -> Path:
    """A small MLLMU-Bench: two fictional people with further views, one celebrity without."""
    write_config(folder, "Full_Set", [person_row("001", 10), person_row("002", 20)])
    write_config(folder, "Retain_Set", [person_row("c1", 30, name="Ada Lake")])
    write_config(folder, "ft_Data", [training_row("001", 11), training_row("001", 12)])
    write_config(folder, "Test_Set", [poses_row("001", [13, 10])], [poses_row("002", [23])])
    return folder


def tsv_row(index: int, seed: int | None = None, **changes: Any) -> dict[str, Any]:
    row = dict.fromkeys(TSV_COLUMNS, "")
    row |= {
        "index": index,
        "question": "Which is it?",
        "A": "circle",
        "B": "square",
        "C": "star",
        "D": "ring",
        "answer": "B",
        "category": "shape",
        "image": base64.b64encode(png(index if seed is None else seed)).decode(),
    }
    return row | changes


def write_tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, TSV_COLUMNS, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path
