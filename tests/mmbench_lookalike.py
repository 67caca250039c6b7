"""A file like MMBench's dev split, with every quirk at its real frequency, made of noise."""

from __future__ import annotations

import base64
import csv
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from data_cases import TSV_COLUMNS, encoded

COPY = 1_000_000
WORDS = ("grey", "red", "blue", "green", "star", "ring", "square", "circle", "round", "small")
ABILITIES = ("attribute_reasoning", "coarse_perception", "finegrained_perception", "logic")


@dataclass(frozen=True)
class Counts:
    """How many questions are of which kind; defaults are those of the public dev file."""

    two: int = 60
    three: int = 154
    four: int = 950
    stays: int = 53
    """Of those with four options: the last one stays in place, three orders instead of four."""
    equal: int = 4
    celebrity: int = 40
    named: int = 8
    """Of the celebrity questions: they name somebody of the run."""
    hints: int = 300

    @property
    def questions(self) -> int:
        return self.two + self.three + self.four

    @property
    def rows(self) -> int:
        return 2 * self.two + 3 * self.three + 4 * self.four - self.stays


SMALL = Counts(two=4, three=8, four=40, stays=4, equal=1, celebrity=4, named=2, hints=10)


def write(path: Path, counts: Counts, *, people: list[str], side: int = 300) -> Path:
    """Write the file: pictures on every base row, copies refer to them, some hints of lines."""
    draw, rows = random.Random(7), []
    sizes = [2] * counts.two + [3] * counts.three + [4] * counts.four
    for place, size in enumerate(sizes):
        index, kind = 200 + 3 * place, place - counts.two - counts.three
        texts = draw.sample(WORDS, size)
        if size == 4 and 0 <= kind < counts.stays:
            texts[3] = draw.choice(["None of these", "All of the above"])
        elif size == 4 and kind < counts.stays + counts.equal:
            texts[1] = texts[0]
        elif size == 4 and kind < counts.stays + counts.equal + counts.celebrity:
            number = kind - counts.stays - counts.equal
            texts = [f"Somebody Else{n}{number}" for n in range(4)]
            texts[2] = people[number] if number < counts.named else texts[2]
        true = draw.randrange(size)
        hint = 'It says:\n"two" lines,\tand a tab.' if place < counts.hints else ""
        base = {
            **dict.fromkeys(TSV_COLUMNS, ""),
            "question": f"Which of the {place} is it?",
            "hint": hint,
            "category": f"kind_{place % 20}",
            "l2-category": ABILITIES[place % 4],
            "split": "dev",
        }
        moving = 3 if texts[-1] in ("None of these", "All of the above") else size
        for turn in range(moving):
            order = [(n + turn) % moving for n in range(moving)] + list(range(moving, size))
            shown = dict(zip("ABCD", (texts[n] for n in order), strict=False))
            answer = "ABCD"[order.index(true)]
            image = str(index) if turn else base64.b64encode(_jpeg(place, side)).decode()
            rows.append(
                {**base, **shown, "index": index + turn * COPY, "answer": answer, "image": image}
            )
    draw.shuffle(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, TSV_COLUMNS, delimiter="\t", lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return path


def _jpeg(seed: int, side: int) -> bytes:
    blocks = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    picture = Image.fromarray(blocks).resize((side * 4 // 3, side), Image.Resampling.BICUBIC)
    return encoded(picture, "JPEG", quality=85)
