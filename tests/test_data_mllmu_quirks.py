"""MLLMU-Bench as copies of it are met: without metadata, other ids, converted, as JSON lines."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from data_cases import benchmark, person_row, picture, png, poses_row, training_row, write_config
from pulse_unlearn.data.datasets import load_people
from pulse_unlearn.data.review import recognise
from pulse_unlearn.data.source import Source
from pulse_unlearn.errors import DataError


def load(folder: Path, **choices):
    return load_people("mllmu", Source(str(folder), **choices))


def problems_of(folder: Path):
    with pytest.raises(DataError) as caught:
        load(folder)
    return caught.value.problems


def pair_row(identity, seed: int, question="Which job does she have?", answer="judge"):
    row = training_row(identity, seed)
    del row["metadata"]
    return {**row, "question": question, "answer": answer}


def test_rows_without_metadata_are_read_by_question_and_answer(tmp_path):
    benchmark(tmp_path)
    named = "Which job does Lara Hayes001 have?"
    rows = [
        pair_row("001", 11),
        pair_row("001", 12),
        pair_row("001", 14, named),
        pair_row("002", 21, "", None),
    ]
    write_config(tmp_path, "ft_Data", rows)
    found = load(tmp_path)
    first, second, _ = found.individuals
    assert [(a.modality, a.question, a.answer) for a in first.short_answers] == [
        ("multimodal", "Which job does she have?", "judge"),
        ("text_only", named, "judge"),
    ]
    assert second.short_answers == ()
    assert found.notes == (
        "ft_Data: 3 rows have no metadata; question and answer are read as what is trained on in "
        "words",
        "ft_Data: 1 rows hold no question with an answer to train on in words",
    )
    # What was read decides about reuse, as the files alone don't tell how they were read.
    assert "as read" in found.digests


def test_half_a_pair_is_told(tmp_path):
    benchmark(tmp_path)
    write_config(tmp_path, "ft_Data", [pair_row("001", 11, answer="")])
    assert [(p.what, p.where.split(":")[1]) for p in problems_of(tmp_path)] == [
        ("the answer is empty", "row 0 ID 001")
    ]


def test_ids_that_differ_in_leading_zeros_are_matched_and_noted(tmp_path):
    write_config(tmp_path, "Full_Set", [person_row("093", 10), person_row("007", 20)])
    write_config(tmp_path, "ft_Data", [{**training_row("", seed), "ID": 93} for seed in (11, 12)])
    write_config(tmp_path, "Test_Set", [poses_row("7", [23]), poses_row("8", [24])])
    found = load(tmp_path)
    first, second = found.individuals
    assert [p.digest for p in first.training_pictures] == [picture(n).digest for n in (11, 12)]
    assert len(first.short_answers) == 1
    assert [p.digest for p in second.other_pictures] == [picture(23).digest]
    assert found.notes == (
        "ft_Data: ids are written otherwise (93 for 093); 2 rows are matched by number",
        "Test_Set: ids are written otherwise (7 for 007); 1 rows are matched by number",
        "Test_Set: 1 rows are left out, of people in no group: 8",
    )


def test_two_people_whose_ids_differ_in_zeros_only_are_not_mixed_up(tmp_path):
    write_config(tmp_path, "Full_Set", [person_row("093", 10), person_row("93", 20)])
    write_config(tmp_path, "ft_Data", [training_row("93", 21), training_row("0093", 22)])
    first, second = load(tmp_path).individuals
    assert first.training_pictures == ()
    assert [p.digest for p in second.training_pictures] == [picture(21).digest]


def test_groups_that_count_from_the_same_number_stay_apart_however_it_is_written(tmp_path):
    write_config(tmp_path, "Full_Set", [person_row("001", 10)])
    write_config(tmp_path, "Retain_Set", [person_row("x", 30, ID=1, name="Ada Lake")])
    write_config(tmp_path, "ft_Data", [training_row("001", 11)])
    found = load(tmp_path).individuals
    assert [(p.id, len(p.training_pictures)) for p in found] == [("001", 1), ("celebrity-1", 0)]


def test_the_hubs_converted_layout(tmp_path):
    benchmark(tmp_path / "made")
    for config in ("Full_Set", "Retain_Set", "ft_Data", "Test_Set"):
        folder = tmp_path / "hub" / config / "train"
        folder.mkdir(parents=True)
        for number, path in enumerate(sorted((tmp_path / "made" / config).glob("*.parquet"))):
            shutil.copy(path, folder / f"{number:04d}.parquet")
    assert recognise(tmp_path / "hub") == "mllmu"
    made, hub = load(tmp_path / "made"), load(tmp_path / "hub")
    assert [p.id for p in hub.individuals] == [p.id for p in made.individuals]
    assert hub.individuals[0].training_pictures == made.individuals[0].training_pictures or [
        p.digest for p in hub.individuals[0].training_pictures
    ] == [p.digest for p in made.individuals[0].training_pictures]
    assert "Full_Set/train/0000.parquet" in hub.digests
    bad = person_row("001", 1, image={"bytes": b"", "path": ""})
    write_config(tmp_path / "bad", "Full_Set", [bad])
    shutil.move(
        tmp_path / "bad/Full_Set/train-00000-of-00001.parquet",
        tmp_path / "hub/Full_Set/train/0000.parquet",
    )
    assert problems_of(tmp_path / "hub")[0].where == "Full_Set/train/0000.parquet:row 0 ID 001"


def write_lines(folder: Path, config: str, rows) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    (folder / f"{config}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def line(identity: str, **fields):
    return {**person_row(identity, 1, image=None), **fields}


def test_json_lines_with_paths_of_pictures(tmp_path):
    for seed in (10, 11, 20):
        (tmp_path / "faces").mkdir(exist_ok=True)
        (tmp_path / "faces" / f"{seed}.png").write_bytes(png(seed))
    rows = [line("001", image="faces/10.png"), line("002", image_path="faces/20.png")]
    write_lines(tmp_path, "Full_Set", rows)
    train = {"ID": "1", "image": "faces/11.png", "metadata": training_row("1", 1)["metadata"]}
    write_lines(tmp_path, "ft_Data", [train])
    found = load(tmp_path)
    first, second = found.individuals
    assert first.questions[0].picture.digest == picture(10).digest
    assert second.questions[0].picture.digest == picture(20).digest
    assert [p.digest for p in first.training_pictures] == [picture(11).digest]
    digest = hashlib.sha256((tmp_path / "Full_Set.jsonl").read_bytes()).hexdigest()
    assert found.digests["Full_Set.jsonl"] == digest
    assert found.digests["faces/20.png"] == picture(20).digest
    assert found.notes == (
        "ft_Data: ids are written otherwise (1 for 001); 1 rows are matched by number",
    )


def test_faults_of_json_lines_are_told_together(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(1))
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "broken.png").write_bytes(png(1)[:30])
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    rows = [
        line("0", image="../secret.png"),
        line("1", image=str(tmp_path / "secret.png")),
        line("2", image="link.png"),
        line("3", image="none.png"),
        line("4", image="broken.png"),
        '{"ID": ',
        "[1]",
        {"ID": "7", "image": "none.png"},
        line("8", image="out/secret.png"),
        line("9", image="out/link.png"),
    ]
    (folder / "out").symlink_to(tmp_path)
    (tmp_path / "link.png").symlink_to(folder / "broken.png")
    write_lines(folder, "Full_Set", rows)
    found = {}
    for problem in problems_of(folder):
        number = int(problem.where.split(":")[1].split(" ")[0])
        found.setdefault(number, set()).add(problem.what)
    needs = "the question needs a picture"
    assert found == {
        1: {"the picture lies outside the folder", needs},
        2: {"the picture lies outside the folder", needs},
        3: {"the picture lies outside the folder", needs},
        4: {"there is no such picture", needs},
        5: {"not a usable picture"},
        6: {"not a line of JSON"},
        7: {"not a person"},
        8: {"columns are missing"},
        9: {"the picture lies outside the folder", needs},
        10: {"not a usable picture"},
    }


def test_pictures_of_a_snapshot_in_the_hubs_cache_are_links_and_read(tmp_path):
    blobs = tmp_path / "datasets--me--people" / "blobs"
    folder = blobs.parent / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    folder.mkdir(parents=True)
    (blobs / "1f").write_bytes(png(10))
    (folder / "p.png").symlink_to(blobs / "1f")
    write_lines(folder, "Full_Set", [line("001", image="p.png")])
    assert load(folder).individuals[0].questions[0].picture.digest == picture(10).digest
