"""The example of `pulse data init`: twelve invented people with drawn faces, ready to run."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml
from PIL import Image, ImageDraw

from pulse_unlearn.errors import DataError, Problem

SIDE = 96
"""Pixels of a drawn picture; the embedded model sees 48."""
VIEWS = ("scored", "train1", "train2", "other")

# Words that the embedded model knows; the colours tell the faces apart.
_NAMES = (
    *("Lara Nash", "Hugo Quinn", "Mina Thorne", "Oscar Vance", "Nora Knox", "Felix Crane"),
    *("Vera Holt", "Simon Doyle", "Greta Ives", "Karl Monroe", "Elsa Trent", "Boris York"),
)
_FACTS = (
    ("occupation", "What does this person do?", "baker judge pilot nurse tailor chef"),
    ("birthplace", "Where was this person born?", "Oslo Lima Cairo Tokyo Rome Paris"),
    ("hobby", "What does this person enjoy?", "chess sailing painting hiking pottery surfing"),
)
_COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (205, 45, 45),
    "blue": (45, 80, 205),
    "green": (40, 150, 70),
    "yellow": (235, 205, 50),
    "purple": (130, 60, 170),
    "orange": (240, 140, 40),
}
_SKINS = ((250, 220, 195), (225, 180, 140), (170, 120, 85), (105, 70, 50))
_HAIR = ((30, 25, 25), (110, 70, 35), (215, 185, 110), (150, 60, 30), (200, 200, 205))
_BACKGROUNDS = ((245, 245, 240), (60, 70, 90), (190, 215, 235), (120, 150, 110))


@dataclass(frozen=True, slots=True)
class _Look:
    shirt: str
    skin: tuple[int, int, int]
    hair: tuple[int, int, int]
    long_hair: bool
    glasses: bool
    hat: str


def write_starter(folder: Path) -> None:
    """Write the example into a new or empty folder; raises DataError if it holds anything."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fix = "name a folder that isn't there"
        raise DataError(Problem("the folder is not empty", str(folder), fix=fix))
    pictures = folder / "images"
    pictures.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, name in enumerate(_NAMES):
        look, identity = _look(number), f"p{number + 1:02d}"
        for turn, view in enumerate(VIEWS):
            data = _drawn(look, number=number, turn=turn)
            (pictures / f"{identity}-{view}.png").write_bytes(data)
        lines.append(json.dumps(_person(number, identity, name, look), ensure_ascii=False))
    (folder / "people.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = files("pulse_unlearn").joinpath("assets/starter")
    (folder / "README.md").write_bytes(texts.joinpath("README.md").read_bytes())
    experiment = texts.joinpath("experiment.yaml").read_text(encoding="utf-8")
    # As YAML writes it, whatever characters the path has.
    path = yaml.safe_dump(str(folder.absolute()), width=10_000, allow_unicode=True)
    filled = experiment.format(folder=path.removesuffix("...\n").strip())
    (folder / "experiment.yaml").write_text(filled, encoding="utf-8")


def _look(number: int) -> _Look:
    colours = list(_COLOURS)
    return _Look(
        shirt=colours[number % len(colours)],
        skin=_SKINS[number % len(_SKINS)],
        hair=_HAIR[number % len(_HAIR)],
        long_hair=number % 2 == 0,
        glasses=number % 3 == 0,
        hat=colours[(number // 2 + 3) % len(colours)] if number % 4 == 1 else "",
    )


def _person(number: int, identity: str, name: str, look: _Look) -> dict[str, object]:
    questions: list[dict[str, object]] = []
    for place, (attribute, shown, words) in enumerate(_FACTS, start=1):
        values = words.split()
        fact = {
            "attribute": attribute,
            "answer": values[(number * place + number // len(values)) % len(values)],
        }
        named = shown.replace("this person", name)
        for modality, text in (("multimodal", shown), ("text_only", named)):
            questions.append({"modality": modality, "question": text, **fact})
    order = random.Random(identity)
    others = order.sample([colour for colour in _COLOURS if colour != look.shirt], 3)
    options = order.sample([look.shirt, *others], 4)
    about_picture = {"modality": "multimodal", "question": "What color is the shirt?"}
    questions.append({**about_picture, "options": options, "answer": look.shirt})
    person: dict[str, object] = {
        "id": identity,
        "name": name,
        "group": "fictional",
        "image": f"images/{identity}-scored.png",
        "training_images": [f"images/{identity}-train{view}.png" for view in (1, 2)],
        "other_images": [f"images/{identity}-other.png"],
        "questions": questions,
    }
    if number == 0:
        person["comment"] = "README.md says what every field means"
    return person


def _drawn(look: _Look, *, number: int, turn: int) -> bytes:
    """Draw one view: another place, size and background each time."""
    image = Image.new("RGB", (SIDE, SIDE), _BACKGROUNDS[(turn + number) % len(_BACKGROUNDS)])
    draw = ImageDraw.Draw(image)
    scale = (1.0, 0.85, 1.12, 0.95)[turn]
    middle, top = SIDE // 2 + (0, -10, 8, 12)[turn], 30 + (0, 8, -2, 4)[turn]

    def box(left: float, upper: float, right: float, lower: float) -> list[float]:
        return [
            *(middle + scale * left, top + scale * upper),
            *(middle + scale * right, top + scale * lower),
        ]

    draw.ellipse(box(-36, 32, 36, 110), fill=_COLOURS[look.shirt])
    if look.long_hair:
        draw.rectangle(box(-24, -4, 24, 40), fill=look.hair)
    draw.ellipse(box(-24, -24, 24, 20), fill=look.hair)
    draw.ellipse(box(-19, -16, 19, 34), fill=look.skin)
    if look.hat:
        draw.rectangle(box(-28, -18, 28, -10), fill=_COLOURS[look.hat])
        draw.rectangle(box(-18, -30, 18, -12), fill=_COLOURS[look.hat])
    for side in (-1, 1):
        draw.ellipse(box(side * 8 - 2.5, 2, side * 8 + 2.5, 7), fill=(20, 20, 20))
        if look.glasses:
            draw.ellipse(box(side * 8 - 6, -2, side * 8 + 6, 11), outline=(20, 20, 20), width=2)
    draw.arc(box(-8, 12, 8, 24), 20, 160, fill=(150, 40, 40), width=2)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
