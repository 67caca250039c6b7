"""The embedded world's data: disjoint sides, valid questions, stable bytes, readable files."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import pulse_unlearn
from recipes.world import build, corpus
from recipes.world.chance import LETTERS, stream
from recipes.world.curriculum import fame_weight
from recipes.world.faces import MIN_DISTANCE, render
from recipes.world.people import (
    ATTRIBUTES,
    CELEBRITIES,
    FICTIONAL,
    Person,
    celebrities,
    fictional,
    make_people,
    scored_choices,
)
from recipes.world.questions import draw_options, scene_queries
from recipes.world.scenes import KINDS, make_scene
from recipes.world.tokenizer import make_tokenizer

SEED = 0
ASSETS = Path(pulse_unlearn.__file__).parent / "assets" / "world"
needs_drawing = pytest.mark.skipif(
    not (importlib.util.find_spec("dicebear") and importlib.util.find_spec("resvg_py")),
    reason="dicebear-core, dicebear-styles and resvg-py are only needed to rebuild the world",
)
SAMPLE = """
import hashlib
from recipes.world.build import general_rows, png
from recipes.world.corpus import faces_of
from recipes.world.faces import render
from recipes.world.people import make_people
digest = hashlib.sha256()
people = make_people(0)
faces = faces_of(people, 0)
for person in people[::90]:
    digest.update(repr(person).encode() + png(render(faces[person.id], 1)))
for row in general_rows(test=True, per_category=1, seed=0):
    digest.update(png(row.picture) + repr((row.query, row.options, row.answer_index)).encode())
print(digest.hexdigest())
"""


def _table(config: str) -> list[dict[str, Any]]:
    return pq.read_table(ASSETS / "people" / config / "train-00000-of-00001.parquet").to_pylist()


def _tsv(name: str) -> list[dict[str, str]]:
    with (ASSETS / "general" / name).open(encoding="utf-8", newline="") as source:
        return list(csv.DictReader(source, delimiter="\t"))


def test_people_are_unique_and_split() -> None:
    people = make_people(SEED)
    assert len(celebrities(SEED)) == CELEBRITIES == 153
    assert len(fictional(SEED)) == FICTIONAL == 120
    assert len({person.id for person in people}) == len({person.name for person in people}) == 273


def test_attribute_vocabularies_are_disjoint() -> None:
    values = [value for attribute in ATTRIBUTES for value in attribute.values]
    assert len(values) == len(set(values))
    assert all(16 <= len(attribute.values) <= 20 for attribute in ATTRIBUTES)


def test_scored_phrasings_are_never_trained() -> None:
    scored = {attribute.scored for attribute in ATTRIBUTES}
    assert not scored & {phrase for attribute in ATTRIBUTES for phrase in attribute.trained}


def test_fictional_name_tokens_all_belong_to_celebrities() -> None:
    def tokens(people: tuple[Person, ...]) -> set[str]:
        return {token for person in people for token in (person.first, person.last)}

    assert tokens(fictional(SEED)) <= tokens(celebrities(SEED))


def test_fame_falls_with_rank() -> None:
    ranked = sorted(celebrities(SEED), key=lambda person: person.fame_rank)
    fames = [fame_weight(person) for person in ranked]
    assert fames == sorted(fames, reverse=True)
    assert fames[0] / fames[-1] > 20


def test_scored_options_hold_the_truth_once_and_are_balanced() -> None:
    people = {person.id: person for person in make_people(SEED)}
    places: Counter[int] = Counter()
    for person_id, choices in scored_choices(SEED).items():
        for attribute, choice in zip(ATTRIBUTES, choices, strict=True):
            truth = people[person_id].attributes[attribute.name]
            assert choice.options[choice.answer_index] == truth
            assert len(set(choice.options)) == 4
            assert set(choice.options) <= set(attribute.values)
            places[choice.answer_index] += 1
    assert max(places.values()) - min(places.values()) <= 1


def test_faces_keep_their_distance() -> None:
    faces = corpus.faces_of(make_people(SEED), SEED).values()
    assert min(a.distance(b) for a, b in combinations(faces, 2)) >= MIN_DISTANCE


def test_strangers_are_nobody_and_sides_are_disjoint() -> None:
    known = set(corpus.faces_of(make_people(SEED), SEED).values())
    train = set(corpus.training_strangers(SEED, 300))
    source = corpus.strangers_of(stream(SEED, "a test"), SEED, test=True)
    test = {next(source) for _ in range(50)}
    assert not train & test
    assert not train & known
    assert not test & known


@needs_drawing
def test_pretraining_faces_hold_no_fictional_person_and_no_scored_view() -> None:
    drawn = corpus.training_faces(SEED, 200)
    hidden = set(corpus.faces_of(fictional(SEED), SEED).values())
    assert not hidden & {face for face, _ in drawn}
    held_out = {corpus.SCORED_VIEW, *corpus.STOPPING_VIEWS}
    assert not held_out & {view for _, view in drawn}


@pytest.mark.parametrize("kind", KINDS)
def test_scenes_yield_valid_questions(kind: str) -> None:
    for index in range(20):
        rng = stream(SEED, "valid", kind, index)
        scene = make_scene(rng, kind)
        assert scene.pixels.shape == (48, 48, 3)
        assert scene.pixels.dtype == np.uint8
        for query in scene_queries(scene):
            for count in (2, 3, 4):
                drawn = draw_options(rng, query, count=count, place=index)
                assert drawn.options[drawn.answer_index] == query.answer
                assert len(set(drawn.options)) == len(drawn.options) >= 2


@needs_drawing
def test_views_of_a_person_differ_but_repeat_exactly() -> None:
    face = corpus.faces_of(make_people(SEED), SEED)["f001"]
    first, again, other = render(face, 0), render(face, 0), render(face, 1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.slow  # seconds of a core; parts of it are tested quickly
@needs_drawing
def test_two_processes_draw_the_same_bytes() -> None:
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SAMPLE],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].strip()) == 64


def test_manifest_matches_the_files(tmp_path: Path) -> None:
    copy = tmp_path / "world"
    shutil.copytree(ASSETS, copy)
    (copy / build.MANIFEST).unlink()
    build.write_manifest(copy)
    assert (copy / build.MANIFEST).read_bytes() == (ASSETS / build.MANIFEST).read_bytes()


@needs_drawing
@pytest.mark.slow
def test_the_built_data_are_those_that_ship(tmp_path: Path) -> None:
    build.build_world(tmp_path, seed=0)
    shipped = json.loads((ASSETS / build.MANIFEST).read_text("utf-8"))["files"]
    built = json.loads((tmp_path / build.MANIFEST).read_text("utf-8"))["files"]
    assert len(built) == 6
    assert built == {name: shipped[name] for name in built}


def test_shipped_people_have_the_mllmu_schema() -> None:
    for config, count in (("Full_Set", FICTIONAL), ("Retain_Set", CELEBRITIES)):
        rows = _table(config)
        assert len(rows) == len({row["ID"] for row in rows}) == count
        for row in rows:
            assert row["image"]["bytes"].startswith(b"\x89PNG")
            for kind in ("Image_Textual_Questions", "Pure_Text_Questions"):
                questions = row["Classification_Task"][kind]
                assert len(questions) == 5
                for question in questions:
                    assert tuple(question["Options"]) == LETTERS
                    assert question["Correct_Answer"] in LETTERS
    assert "Directory" in _table("Full_Set")[0]


def test_both_modalities_ask_the_same_attributes() -> None:
    for row in _table("Full_Set"):
        task = row["Classification_Task"]
        pairs = zip(
            task["Image_Textual_Questions"],
            task["Pure_Text_Questions"],
            strict=True,
        )
        for shown, named in pairs:
            assert shown["Options"] == named["Options"]
            assert shown["Question"] != named["Question"]


def test_training_pictures_are_other_views_than_scored_and_stopping_ones() -> None:
    def digest(picture: dict[str, bytes]) -> str:
        return hashlib.sha256(picture["bytes"]).hexdigest()

    train = [digest(row["image"]) for row in _table("ft_Data")]
    scored = [
        digest(row["image"]) for config in ("Full_Set", "Retain_Set") for row in _table(config)
    ]
    stopping = [digest(picture) for row in _table("Test_Set") for picture in row["images"]]
    assert len(train) == 273 * 4
    assert len(scored) == 273
    assert len(stopping) == 273 * 2
    everything = [*train, *scored, *stopping]
    assert len(set(everything)) == len(everything)


def test_training_pairs_are_json_with_both_kinds() -> None:
    for row in _table("ft_Data"):
        pairs = json.loads(row["metadata"])
        assert Counter(pair["Type"] for pair in pairs) == {"Image_Textual": 20, "Pure_Text": 20}
        assert all(pair["Question"] and pair["Answer"] for pair in pairs)


def test_general_files_are_valid_and_disjoint() -> None:
    test, train = _tsv("mmbench_world.tsv"), _tsv("mmbench_world_train.tsv")
    assert len(test) >= 300
    assert len({row["category"] for row in test}) >= 6
    assert {2, 3, 4} == {sum(bool(row[letter]) for letter in LETTERS) for row in test}
    assert any(row["hint"] for row in test)
    assert any(not row["hint"] for row in test)
    for row in [*test, *train]:
        options = [row[letter] for letter in LETTERS if row[letter]]
        assert len(options) == len(set(options))
        assert row[row["answer"]] in options
    assert not {row["image"] for row in test} & {row["image"] for row in train}
    four = Counter(row["answer"] for row in test if row["D"])
    assert max(four.values()) - min(four.values()) <= len({row["category"] for row in test})


def _shipped_texts() -> Iterator[str]:
    for name in ("mmbench_world.tsv", "mmbench_world_train.tsv"):
        for row in _tsv(name):
            yield from (row["question"], row["hint"], *(row[letter] for letter in LETTERS))
    for row in _table("Full_Set") + _table("Retain_Set"):
        yield row["biography"]
        for questions in row["Classification_Task"].values():
            for question in questions:
                yield from (question["Question"], *question["Options"].values())
    for row in _table("ft_Data"):
        for pair in json.loads(row["metadata"]):
            yield from (pair["Question"], pair["Answer"])


def test_tokenizer_knows_every_shipped_word() -> None:
    pytest.importorskip("transformers")
    tokenizer = make_tokenizer(SEED)
    text = " ".join(sorted(set(_shipped_texts())))
    assert tokenizer.unk_token_id not in tokenizer(text)["input_ids"]


def test_option_letter_is_the_answer_token() -> None:
    pytest.importorskip("transformers")
    tokenizer = make_tokenizer(SEED)
    prompt = tokenizer.tokenize("What does she do?\nA. teacher\nB. pilot\nLetter?\nASSISTANT: B")
    assert prompt.count("B") == 2
    assert prompt[-1] == "B"
    assert "<unk>" not in prompt


def test_picture_encoding_is_lossless() -> None:
    from PIL import Image

    pixels = make_scene(stream(SEED, "png"), "pair").pixels
    with Image.open(io.BytesIO(build.png(pixels))) as picture:
        assert np.array_equal(np.asarray(picture), pixels)


@pytest.mark.parametrize(
    ("able", "dtype"),
    [({"avx512_bf16"}, "bfloat16"), ({"amx_bf16"}, "bfloat16"), (set(), "float32")],
)
def test_training_takes_bfloat16_only_where_the_cpu_multiplies_it(monkeypatch, able, dtype):
    import torch

    from recipes.world.loop import cpu_dtype, mixed_precision

    known = dict.fromkeys(torch.cpu.get_capabilities(), False) | dict.fromkeys(able, True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert cpu_dtype() == getattr(torch, dtype)
    with mixed_precision():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, dtype)


@pytest.mark.parametrize("shape", [(24, 16), (16, 24), (16, 16)])
def test_muon_in_float32_is_pytorchs_but_for_rounding(shape):
    """Mutation: the rate of tall matrices, or the look ahead, left out."""
    import torch

    from recipes.world.muon import Muon

    torch.manual_seed(0)
    start, pulls = torch.randn(shape), torch.randn(5, *shape)
    moved, states = [], []
    for made in (torch.optim.Muon, Muon):
        weight = torch.nn.Parameter(start.clone())
        optimiser = made([weight], lr=0.1, weight_decay=0.01)
        for pull in pulls:
            weight.grad = pull.clone()
            optimiser.step()
        moved.append(weight.detach() - start)
        states.append(optimiser.state_dict()["state"][0]["momentum_buffer"])
    torch.testing.assert_close(*states)
    assert (moved[0] - moved[1]).norm() < 0.02 * moved[0].norm()
