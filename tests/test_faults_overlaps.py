"""The same person twice, disguised: told by `pulse data check` by the ways of a careless copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import ImageEnhance

from pulse_unlearn.data.datasets import load_people
from pulse_unlearn.data.images import decode, pictures_of


@pytest.fixture
def own(server, tmp_path) -> Path:
    assert server.pulse("data", "init", str(tmp_path / "own")).code == 0
    return tmp_path / "own"


def row(own: Path, number: int, **fields) -> dict:
    """Change a person's row of the example; return it as it then is."""
    path = own / "people.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    found = json.loads(lines[number]) | fields
    lines[number] = json.dumps(found)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return found


NAMES = {
    "zero-width space": lambda name: name[:2] + "\u200b" + name[2:],
    "Cyrillic letters": lambda name: name.translate(str.maketrans("aeo", "\u0430\u0435\u043e")),
    "full-width letters": lambda name: "".join(
        chr(ord(c) + 0xFEE0) if c.isalpha() and c.isascii() else c for c in name
    ),
    "direction mark": lambda name: "\u202e" + name,
}


@pytest.mark.parametrize("how", NAMES)
def test_a_name_that_looks_the_same_is_the_same(how, own, server):
    """Mutations: `_LATIN` is not used; `_invisible` returns False (the space is not seen)."""
    name = NAMES[how](row(own, 0)["name"])
    assert name != row(own, 0)["name"]
    row(own, 5, name=name)
    ended = server.pulse("data", "check", str(own))
    assert ended.code == 1, ended.output
    assert "same name" in ended.output
    assert "Traceback" not in ended.output


def off(left, upper, right, lower):
    return lambda image: image.crop((left, upper, image.width - right, image.height - lower))


def brighter(image):
    return ImageEnhance.Brightness(image).enhance(1.2)


PICTURES = {
    "3 pixels off every side": off(3, 3, 3, 3),
    "3 pixels off the left": off(3, 0, 0, 0),
    "3 pixels off below": off(0, 0, 0, 3),
    "brighter": brighter,
    "both": lambda image: brighter(off(3, 3, 3, 3)(image)),
}


@pytest.mark.parametrize("how", PICTURES)
def test_a_picture_that_was_cut_or_made_brighter_is_the_same(how, own, server):
    """Mutation: `_CUTS` has the whole picture alone: none that was cut is found."""
    person = load_people("world").individuals[7]
    shown = decode(pictures_of(person)[0])
    victim, other = own / row(own, 0)["image"], own / row(own, 5)["image"]
    shown.save(victim)
    PICTURES[how](shown).save(other)
    ended = server.pulse("data", "check", str(own))
    assert ended.code == 1, ended.output
    assert "nearly identical picture" in " ".join(ended.output.split())
