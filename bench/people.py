"""What data checks and plans take by people: `python bench/people.py [PEOPLE ...]`.

Makes folders of people with four pictures of noise each, 500 and 5,000 unless told otherwise
(50,000 take 2 GB of disk, more of memory, and half an hour), and prints processor and wall seconds
and the peak of memory. Noise is the worst case of the search for copies: no picture tells where
not to look.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pulse_unlearn.data.starter import write_starter

SYLLABLES = [first + second for first in "bdfgklmnprst" for second in "aeiou"]
ASKED = {
    "occupation": ("baker", "judge", "pilot", "nurse", "actor", "farmer"),
    "birthplace": ("Oslo", "Cairo", "Rome", "Lima", "Quito", "Perth"),
    "hobby": ("chess", "hiking", "rowing", "baking", "judo", "golf"),
}


def make(folder: Path, people: int) -> None:
    """Write a folder of people as `pulse data init` does, with pictures of noise."""
    draw, noise = random.Random(0), np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)

    def name(count: int) -> str:
        return "".join(draw.choices(SYLLABLES, k=count)).title()

    def picture(place: str) -> str:
        pixels = noise.integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{place}.png")
        return f"images/{place}.png"

    with (folder / "people.jsonl").open("w") as file:
        for number in range(people):
            who, place = f"{name(3)} {name(4)}", f"p{number:05d}"
            questions = [
                {
                    "modality": modality,
                    "question": f"What is the {attribute} of {subject}?",
                    "attribute": attribute,
                    "answer": draw.choice(answers),
                }
                for attribute, answers in ASKED.items()
                for modality, subject in (("multimodal", "this person"), ("text_only", who))
            ]
            row = {
                "id": place,
                "name": who,
                "image": picture(f"{place}s"),
                "training_images": [picture(f"{place}a"), picture(f"{place}b")],
                "other_images": [picture(f"{place}o")],
                "questions": questions,
            }
            file.write(json.dumps(row) + "\n")


class Spent(NamedTuple):
    """What a command took."""

    processor: float
    """Seconds, in the program and the system; the machine may be busy with other work."""
    clock: float
    """Seconds."""
    peak: float
    """Memory, MB."""

    def __str__(self) -> str:
        return (
            f"{self.processor:7.1f} s of processor, {self.clock:7.1f} s on the clock, "
            f"{self.peak:6.0f} MB"
        )


def spent(*arguments: str) -> Spent:
    """Run Python with these arguments on one core and return what that took."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    command, began = [sys.executable, *arguments], time.perf_counter()
    started = subprocess.Popen(command, env=os.environ | one, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(started.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    clock = time.perf_counter() - began
    return Spent(used.ru_utime + used.ru_stime, clock, used.ru_maxrss / 1024)


def main(*counts: int) -> None:
    """Print a line for each number of people and each command."""
    for people in counts or (500, 5_000):
        with tempfile.TemporaryDirectory() as place:
            folder, starter = Path(place) / "people", Path(place) / "starter"
            make(folder, people)
            write_starter(starter)
            changes = (
                f"data.people.path={folder}",
                f"finetune.individuals={people}",
                f"scenarios.finetuned={{forget: {people // 10}, retain: {people - people // 10}}}",
            )
            settings = [part for change in changes for part in ("--set", change)]
            for words, arguments in (
                ("data check", ["data", "check", str(folder)]),
                ("plan", ["plan", str(starter / "experiment.yaml"), *settings]),
            ):
                took = spent("-m", "pulse_unlearn", *arguments)
                print(f"{people:6,} people: pulse {words:10} {took}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
