"""Data sets by name: every registered entry keeps its promises; the world is whole and fast."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from data_cases import (
    benchmark,
    person_row,
    picture,
    poses_row,
    task,
    training_row,
    tsv_row,
    write_config,
    write_tsv,
)
from pulse_unlearn.data.datasets import (
    DATASETS,
    WORLD_QUESTIONS,
    load_general,
    load_general_training,
    load_people,
)
from pulse_unlearn.data.source import Dataset, Source, local_path
from pulse_unlearn.data.starter import write_starter
from pulse_unlearn.errors import ConfigError, DataError
from relative_cases import clear_folder, fiubench_folder, umu_folder

WORLD = Path(str(files("pulse_unlearn"))) / "assets" / "world"


@pytest.fixture(scope="module")
def people():
    return load_people("world").individuals


@pytest.fixture
def sources(tmp_path):
    """A path for every registered source; None where it brings its own files."""
    rows = [tsv_row(1), tsv_row(2, category="count")]
    write_tsv(tmp_path / "dev_train.tsv", [tsv_row(11)])
    write_starter(tmp_path / "own")
    return {
        "world": None,
        "mllmu": str(benchmark(tmp_path / "mllmu")),
        "people": str(tmp_path / "own"),
        "umu": str(umu_folder(tmp_path / "umu")),
        "fiubench": str(fiubench_folder(tmp_path / "fiubench")),
        "clear": str(clear_folder(tmp_path / "clear")),
        "clear_real_world": str(tmp_path / "clear"),
        "mmbench": str(write_tsv(tmp_path / "dev.tsv", rows)),
    }


def test_none_has_no_questions_and_reads_no_file():
    found = load_general("none", None)
    assert (found.general, found.digests) == ((), {})


@pytest.mark.parametrize("name", [name for name in DATASETS.names() if name != "none"])
def test_every_entry_loads_the_parts_it_says_it_has(name, sources):
    entry, path = DATASETS.get(name), sources[name]
    assert entry.description
    parts = [
        (entry.people, load_people, "individuals"),
        (entry.general, load_general, "general"),
        (entry.general_training, load_general_training, "general_training"),
    ]
    assert any(loader for loader, _, _ in parts)
    for loader, load, part in parts:
        if loader:
            found = load(name, path)
            assert getattr(found, part)
            assert found.digests
            assert all(len(value) == 64 for value in found.digests.values())
            ids = [entry.id for entry in getattr(found, part)]
            assert len(ids) == len(set(ids))


def test_people_and_questions_of_the_world(people):
    assert Counter(person.group for person in people) == {"fictional": 120, "celebrity": 153}
    assert len({person.name for person in people}) == 273
    assert all(len(person.name.split()) == 2 for person in people)
    for person in people:
        assert Counter(q.modality for q in person.questions) == {"multimodal": 5, "text_only": 5}
        assert len(person.training_pictures) == 4
        assert 1 <= len(person.other_pictures) <= 2
        assert {q.truth for q in person.questions} >= {a.answer for a in person.short_answers}
        assert {answer.modality for answer in person.short_answers} == {"multimodal", "text_only"}
        pairs = zip(person.questions[:5], person.questions[5:], strict=True)
        assert all(with_face.truth == by_name.truth for with_face, by_name in pairs)
        assert all(person.name in q.question for q in person.questions[5:])
    general = load_general("world").general
    assert len(general) >= 300
    assert len({question.category for question in general}) >= 6
    assert {len(question.options) for question in general} == {2, 3, 4}


def test_the_world_loads_in_time():
    """The budget is 1.5 s; process time, because the machine may be busy with other work."""
    load_people("world")
    started = time.process_time()
    load_people("world")
    load_general("world")
    load_general_training("world")
    assert time.process_time() - started < 1.5


def test_digests_are_those_of_the_files(sources):
    found = load_people("mllmu", sources["mllmu"]).digests
    on_disk = {
        path.relative_to(sources["mllmu"]).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(sources["mllmu"]).rglob("*.parquet")
    }
    assert dict(found) == on_disk


def test_a_changed_or_missing_world_file_is_refused(tmp_path):
    shutil.copytree(WORLD, tmp_path / "world", ignore=shutil.ignore_patterns("model"))
    load_general("world", str(tmp_path / "world"))
    changed = tmp_path / "world" / WORLD_QUESTIONS
    text = changed.read_text(encoding="utf-8")
    changed.write_text(text.replace("square", "circle", 1), encoding="utf-8")
    with pytest.raises(DataError, match="the embedded file was changed"):
        load_general("world", str(tmp_path / "world"))
    changed.unlink()
    with pytest.raises(DataError, match="not complete"):
        load_general("world", str(tmp_path / "world"))
    with pytest.raises(DataError, match="not complete"):
        load_people("world", str(tmp_path / "nowhere"))


def test_groups_that_use_the_same_ids_are_kept_apart(tmp_path):
    benchmark(tmp_path)
    write_config(tmp_path, "Retain_Set", [person_row("001", 40, name="Ada Lake")])
    found = {person.id: person for person in load_people("mllmu", str(tmp_path)).individuals}
    assert list(found) == ["001", "002", "celebrity-001"]
    assert found["celebrity-001"].name == "Ada Lake"
    assert found["celebrity-001"].training_pictures == ()
    assert len(found["001"].training_pictures) == 2
    assert {q.individual for q in found["celebrity-001"].questions} == {"celebrity-001"}


def test_problems_of_both_groups_are_told_together(tmp_path):
    benchmark(tmp_path)
    bad = {"bytes": b"", "path": ""}
    write_config(tmp_path, "Full_Set", [person_row("001", 1, image=bad)])
    write_config(tmp_path, "Retain_Set", [person_row("c1", 1, image=bad)])
    with pytest.raises(DataError) as caught:
        load_people("mllmu", str(tmp_path))
    assert {problem.where.split("/")[0] for problem in caught.value.problems} == {
        "Full_Set",
        "Retain_Set",
    }


def test_rows_of_nobody_and_repeated_questions_are_noted(tmp_path):
    benchmark(tmp_path)
    again = task("Lara Hayes001")
    again["Pure_Text_Questions"] += again["Pure_Text_Questions"][:2]
    write_config(tmp_path, "Full_Set", [person_row("001", 10, Classification_Task=again)])
    write_config(tmp_path, "ft_Data", [training_row("001", 11), training_row("002", 21)])
    found = load_people("mllmu", str(tmp_path))
    assert len(found.individuals[0].questions) == 12
    assert found.notes == (
        "ft_Data: 1 rows are left out, of people in no group: 002",
        "Test_Set: 1 rows are left out, of people in no group: 002",
        "person 001 is asked 2 questions again",
    )
    assert load_people("mllmu", str(benchmark(tmp_path / "whole"))).notes == ()


def test_one_group_alone_is_a_data_set(tmp_path):
    write_config(tmp_path, "Retain_Set", [person_row("c1", 1)])
    assert [p.group for p in load_people("mllmu", str(tmp_path)).individuals] == ["celebrity"]


def test_no_training_file_is_no_training_material(sources, tmp_path):
    (tmp_path / "dev_train.tsv").unlink()
    assert load_general_training("mmbench", sources["mmbench"]) == Dataset()
    assert load_general_training("mllmu", sources["mllmu"]) == Dataset()


@pytest.mark.parametrize(
    ("load", "source", "told"),
    [
        (load_people, "wrld", "did you mean 'world'"),
        (load_people, "mmbench", "clear, fiubench, mllmu, people, umu, world"),
        (load_general, "mllmu", "mmbench, none, world"),
        (load_people, "mllmu", "needs a path"),
        (load_general, "mmbench", "needs a path"),
    ],
)
def test_wrong_names_say_what_would_be_right(load, source, told):
    with pytest.raises(ConfigError, match=told):
        load(source, None)


def test_a_further_pose_can_be_the_scored_view(tmp_path):
    benchmark(tmp_path)
    own = load_people("mllmu", str(tmp_path))
    turned = load_people("mllmu", Source(str(tmp_path), scored_picture="other_pose"))
    before, after = own.individuals, turned.individuals
    # Person 001: poses 13 and 10, of which 10 is the picture beside the questions.
    assert {q.picture.digest for q in after[0].questions if q.picture} == {picture(13).digest}
    assert [q.modality for q in after[0].questions] == [q.modality for q in before[0].questions]
    trained = {view.digest for view in after[0].training_pictures}
    assert trained == {picture(seed).digest for seed in (10, 11, 12)}
    assert after[0].other_pictures == ()
    # Nobody poses among the celebrities, so they stay as they are.
    assert after[2] == before[2]
    assert turned.digests.items() > own.digests.items()
    other = load_people("mllmu", Source(str(tmp_path), scored_picture="own")).digests
    assert other == own.digests


def test_people_without_a_pose_are_named_when_poses_are_scored(tmp_path):
    benchmark(tmp_path)
    shutil.rmtree(tmp_path / "Test_Set")
    write_config(tmp_path, "Test_Set", [poses_row("002", [23])])
    with pytest.raises(DataError) as caught:
        load_people("mllmu", Source(str(tmp_path), scored_picture="other_pose"))
    assert [problem.where for problem in caught.value.problems] == ["Test_Set, person 001"]


def test_splits_stand_in_for_ft_data(tmp_path):
    benchmark(tmp_path)
    shutil.rmtree(tmp_path / "ft_Data")
    write_config(tmp_path, "forget_10", [training_row("001", 51)])
    assert load_people("mllmu", str(tmp_path)).individuals[0].training_pictures == ()
    write_config(tmp_path, "retain_90", [training_row("002", 52)])
    found = load_people("mllmu", str(tmp_path))
    assert [[p.digest for p in person.training_pictures] for person in found.individuals] == [
        [picture(51).digest],
        [picture(52).digest],
        [],
    ]
    assert any(name.startswith("retain_90/") for name in found.digests)


HUB = Source("MLLMMU/MLLMU-Bench", "0" * 40)


def cached(root, repository, commit):
    """A data set as the hub's cache holds it."""
    folder = root / f"datasets--{repository.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_hub_data_set_is_read_from_the_cache_when_offline(hub_cache):
    benchmark(cached(hub_cache, HUB.path, HUB.revision))
    found = load_people("mllmu", HUB)
    assert [person.id for person in found.individuals] == ["001", "002", "c1"]
    assert "Full_Set/train-00000-of-00001.parquet" in found.digests
    folder = cached(hub_cache, "me/mmbench", HUB.revision)
    write_tsv(folder / "dev.tsv", [tsv_row(1)])
    source = Source("me/mmbench/dev.tsv", HUB.revision)
    assert [question.id for question in load_general("mmbench", source).general] == ["1"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("MLLMMU/MLLMU-Bench", "hf download MLLMMU/MLLMU-Bench --repo-type dataset --revision 000"),
        ("me/mmbench/dev.tsv", "hf download me/mmbench dev.tsv --repo-type dataset"),
        ("/home/data", "leave data.<part>.revision out"),
    ],
)
def test_a_hub_data_set_that_cannot_be_had_says_how_to_fetch_it(hub_cache, path, told):
    with pytest.raises(DataError) as caught:
        local_path(Source(path, "0" * 40), "mllmu", "a folder", patterns=("*/*.parquet",))
    (problem,) = caught.value.problems
    assert told in problem.fix
