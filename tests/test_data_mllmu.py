"""MLLMU-Bench folders: the quirks of the real files, and every malformed row named in one pass."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_cases import (
    asked,
    benchmark,
    encoded,
    noise,
    person_row,
    picture,
    png,
    poses_row,
    task,
    training_row,
    write_config,
)
from pulse_unlearn.data.checks import MAX_CHARACTERS, SHOWN
from pulse_unlearn.data.datasets import load_people as load
from pulse_unlearn.data.naming import find_name, mentions, normalised
from pulse_unlearn.errors import DataError

OPTIONS = {"A": "baker", "B": "judge", "C": "pilot", "D": "nurse"}


def load_people(folder: Path):
    return load("mllmu", str(folder)).individuals


def problems_of(folder: Path) -> dict[str, str]:
    """Kind of problem -> where it is, for one problem of each kind."""
    with pytest.raises(DataError) as caught:
        load_people(folder)
    return {problem.what: problem.where for problem in caught.value.problems}


def test_questions_pictures_and_roles(tmp_path):
    first, second, celebrity = load_people(benchmark(tmp_path))
    assert (first.id, first.name, first.group) == ("001", "Lara Hayes001", "fictional")
    assert [q.modality for q in first.questions] == ["multimodal"] * 5 + ["text_only"] * 5
    assert len({q.id for q in first.questions}) == 10
    assert {q.individual for q in first.questions} == {"001"}
    assert {q.picture.digest for q in first.questions if q.picture} == {picture(10).digest}
    assert [p.digest for p in first.training_pictures] == [picture(11).digest, picture(12).digest]
    # The second pose is a copy of the scored picture, so it is no other pose.
    assert [p.digest for p in first.other_pictures] == [picture(13).digest]
    assert [p.digest for p in second.other_pictures] == [picture(23).digest]
    assert second.training_pictures == second.short_answers == ()
    assert (celebrity.group, celebrity.name) == ("celebrity", "Ada Lake")


def test_a_null_option_key_is_an_option_the_question_lacks(tmp_path):
    person = load_people(benchmark(tmp_path))[0]
    assert [option.letter for option in person.questions[2].options] == ["A", "B", "C"]
    assert [option.letter for option in person.questions[1].options] == ["A", "B", "C", "D"]
    assert person.questions[2].truth == "pilot"


def test_fewer_questions_than_five_and_five(tmp_path):
    rows = [
        person_row("001", 1, Classification_Task=task("Lara Hayes", multimodal=2, text_only=3)),
        person_row("002", 2, Classification_Task={**task("Mo Ray"), "Pure_Text_Questions": None}),
    ]
    write_config(tmp_path, "Full_Set", rows)
    assert [len(person.questions) for person in load_people(tmp_path)] == [5, 5]


@pytest.mark.parametrize("answer", ["B", " b", "B.", "(B)", "B:"])
def test_answers_written_loosely(tmp_path, answer):
    only = {"Image_Textual_Questions": [asked("What?", OPTIONS, answer)]}
    write_config(tmp_path, "Full_Set", [person_row("001", 1, Classification_Task=only)])
    assert load_people(tmp_path)[0].questions[0].answer == "B"


def test_structs_stored_as_json_text(tmp_path):
    row = person_row("001", 1, Classification_Task=json.dumps(task("Lara Hayes")))
    write_config(tmp_path, "Full_Set", [row])
    assert len(load_people(tmp_path)[0].questions) == 10


def test_plain_bytes_and_numeric_ids(tmp_path):
    row = person_row("x", 1, ID=7, image=encoded(noise(1)))
    write_config(tmp_path, "Full_Set", [row])
    (person,) = load_people(tmp_path)
    assert person.id == "7"
    assert person.questions[0].picture.digest == picture(1).digest


def test_short_answers_of_several_rows_are_merged(tmp_path):
    pairs = [
        {"Question": "Which job does she have?", "Answer": "judge"},
        {"Question": "Which job does LARA HAYES001 have?", "Answer": "judge"},
        {"Question": "Who is this?", "Answer": "Lara", "Type": "Pure_Text"},
    ]
    benchmark(tmp_path)
    rows = [training_row("001", seed, json.dumps(pairs)) for seed in (11, 12)]
    write_config(tmp_path, "ft_Data", [*rows, training_row("001", 14, json.dumps(pairs[:1]))])
    answers = load_people(tmp_path)[0].short_answers
    assert [answer.modality for answer in answers] == ["multimodal", "text_only", "text_only"]
    assert len({answer.id for answer in answers}) == 3


def test_every_bad_row_is_named_in_one_pass(tmp_path):
    def row(number, **changes):
        return person_row(f"{number:03d}", 40 + number, **changes)

    def only(*entry):
        return {"Image_Textual_Questions": [asked(*entry)], "Pure_Text_Questions": []}

    rows = [
        row(0, images=None),
        row(1, ID="000"),
        row(2, ID=None),
        row(3, image={"bytes": b"<html>404", "path": ""}),
        row(4, image={"bytes": None, "path": "faces/004.jpg"}),
        row(5, Classification_Task=only("", OPTIONS, "A")),
        row(6, Classification_Task=only("Who?", OPTIONS, "E")),
        row(7, Classification_Task=only("Who?", {"A": "one", "B": " one "}, "A")),
        row(8, Classification_Task=only("Who?", {"A": "one"}, "A")),
        row(9, Classification_Task=only("Who\0?", OPTIONS, "A")),
        row(10, Classification_Task=only("x" * 1_000_000, OPTIONS, "A")),
        row(11, Classification_Task=only("Who is <image>?", OPTIONS, "A")),
        row(12, Classification_Task={"Image_Textual_Questions": [], "Pure_Text_Questions": []}),
        row(13, Classification_Task=only("Who?", {"A": "one", "B": "two", "Ä": "three"}, "A")),
        row(14, image=None, images=[{"bytes": png(1), "path": ""}, {"bytes": png(2), "path": ""}]),
    ]
    write_config(tmp_path, "Full_Set", rows)
    write_config(
        tmp_path,
        "ft_Data",
        [
            training_row("000", 90, '[{"Question": "Who?", "Answer"'),
            training_row("000", 91, '{"Question": "Who?"}'),
            training_row("000", 92, '[{"Question": "Who?", "Answer": ""}]'),
            training_row("000", 93, '["Who?"]'),
        ],
    )
    found = problems_of(tmp_path)
    expected = {
        "the ID stands twice": "row 1",
        "the ID is empty": "row 2",
        "not a usable picture": "row 3",
        "the picture holds no bytes": "row 4",
        "the question needs a picture": "row 4",
        "the question is empty": "row 5",
        "the answer is not among the options": "row 6",
        "options are the same": "row 7",
        "fewer than two options": "row 8",
        "the question holds a control character": "row 9",
        "the question is too long": "row 10",
        "the question holds the image placeholder": "row 11",
        "a person of whom nothing is asked": "row 12",
        "unknown option letter": "row 13",
        "more than one scored picture": "row 14",
        "the answer is empty": "row 2",
    }
    assert found.keys() - {"metadata is malformed"} == expected.keys()
    for what, where in expected.items():
        assert f".parquet:{where}" in found[what], what
    with pytest.raises(DataError) as caught:
        load_people(tmp_path)
    metadata = [p for p in caught.value.problems if p.what == "metadata is malformed"]
    assert [problem.where[:38] for problem in metadata] == [
        f"ft_Data/train-00000-of-00001.parquet:{row}"[:38] for row in ("row 0", "row 1", "row 3")
    ]


def test_questions_under_a_misspelt_name_are_not_lost_in_silence(tmp_path):
    right = task("Lara Hayes")
    listed = {**asked("", OPTIONS, "A"), "Question": ["Who?", "What?"]}
    tasks = [
        {"Image_Text_Questions": right["Image_Textual_Questions"], "Pure_Text_Questions": []},
        {**right, "Pure_Text_Questions": [listed]},
        {**right, "Mask_Questions": None},
    ]
    rows = [
        person_row(f"{number}", number, Classification_Task=json.dumps(one))
        for number, one in enumerate(tasks)
    ]
    write_config(tmp_path, "Full_Set", rows)
    with pytest.raises(DataError) as caught:
        load_people(tmp_path)
    told = {(problem.what, problem.where[-40:].split(":")[-1]) for problem in caught.value.problems}
    assert told == {
        ("unknown kind of question", "row 0 ID 0"),
        ("a person of whom nothing is asked", "row 0 ID 0"),
        ("not a question", "row 1 ID 1 Pure_Text_Questions 1"),
    }
    assert any("did you mean 'Image_Textual_Questions'" in p.fix for p in caught.value.problems)


def test_a_flood_of_the_same_problem_is_gathered_but_every_place_is_named(tmp_path):
    bad = {"bytes": b"", "path": ""}
    rows = [person_row(f"{n:03d}", 1, image=bad) for n in range(SHOWN + 7)]
    write_config(tmp_path, "Full_Set", rows)
    with pytest.raises(DataError) as caught:
        load_people(tmp_path)
    assert len(caught.value.problems) == SHOWN + 1
    assert "7 more" in caught.value.problems[-1].what
    for number in range(SHOWN):
        assert f"row {number} ID" in str(caught.value)
    assert caught.value.problems[-1].got == (
        f"Full_Set/train-00000-of-00001.parquet:row {SHOWN}-{SHOWN + 6}"
    )


@pytest.mark.parametrize(
    "text", ["مرحبا؟", "🙂👩‍🚀?", "Z̸͝a̷l̴g̵o̴?", "a\tb\nc?", "日本語ですか", "{} %s <b>?"]
)
def test_unusual_writing_is_fine(tmp_path, text):
    only = {"Pure_Text_Questions": [asked(text, {"A": text + "1", "B": text + "2"}, "A")]}
    write_config(tmp_path, "Full_Set", [person_row("é1", 1, Classification_Task=only)])
    assert load_people(tmp_path)[0].questions[0].question == text


def test_missing_folders_columns_and_damaged_files(tmp_path):
    assert "there is no Full_Set here" in problems_of(tmp_path)
    (tmp_path / "Full_Set").mkdir()
    broken = tmp_path / "Full_Set" / "train-00000-of-00002.parquet"
    broken.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    rows = [{"ID": "1", "biography": ""}]
    write_config(tmp_path / "other", "Full_Set", rows)
    (tmp_path / "other/Full_Set/train-00000-of-00001.parquet").rename(
        broken.with_name("train-00001-of-00002.parquet")
    )
    assert problems_of(tmp_path).keys() == {"not a readable parquet file", "columns are missing"}


def test_a_pickle_is_never_loaded(tmp_path):
    class Gadget:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "Full_Set").mkdir()
    (tmp_path / "Full_Set" / "train.parquet").write_bytes(pickle.dumps(Gadget()))
    (tmp_path / "Full_Set" / "train.pkl").write_bytes(pickle.dumps(Gadget()))
    assert "not a readable parquet file" in problems_of(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_rows_of_other_people_are_left_alone(tmp_path):
    write_config(tmp_path, "Full_Set", [person_row("002", 2)])
    write_config(tmp_path, "ft_Data", [training_row("001", 3, "not json"), training_row("002", 4)])
    write_config(tmp_path, "Test_Set", [poses_row("001", [5])])
    (person,) = load_people(tmp_path)
    assert (person.id, len(person.training_pictures), person.group) == ("002", 1, "fictional")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Image_Textual_Questions", "Pure_Text_Questions", "Question", "Options", "A", "B"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(JSON, JSON)
def test_any_json_is_people_or_a_typed_error(tmp_path_factory, questions, metadata):
    folder = tmp_path_factory.mktemp("any")
    row = person_row("001", 1, Classification_Task=json.dumps(questions))
    write_config(folder, "Full_Set", [row])
    write_config(folder, "ft_Data", [training_row("001", 2, json.dumps(metadata))])
    try:
        people = load_people(folder)
    except DataError as error:
        told = all(problem.where for problem in error.problems)
    else:
        told = bool(people[0].questions)
    assert told


@pytest.mark.parametrize(
    ("biography", "questions", "name"),
    [
        ('{"Name": "Lara Hayes", "Born": "Oslo"}', [], "Lara Hayes"),
        ({"Name:": "Lara Hayes"}, [], "Lara Hayes"),
        ('{"Name": ', ["What does Lara Hayes do?"], "Lara Hayes"),
        ("", ["Where was Lara Hayes born?", "What is Lara Hayes's job in Oslo?"], "Lara Hayes"),
        ("", ["What did J. K. Rowling write?", "Where did J. K. Rowling live?"], "J. K. Rowling"),
        ("", ["Does Ludwig van Beethoven play?"], "Ludwig van Beethoven"),
        ("", ["Where does she live?"], ""),
        (None, [], ""),
    ],
)
def test_names_are_found(biography, questions, name):
    assert find_name(biography, questions) == name


def test_names_are_compared_without_spelling():
    assert normalised("Hayes, LÁRA") == normalised("lara  hayes") != normalised("Lara Hayer")
    assert normalised("Jean-Luc O'Neil") == normalised("jean luc o neil")
    assert mentions("What does Lára Hayes’s dog do?", "lara hayes")
    assert not mentions("What does Lara Hayesworth do?", "Lara Hayes")
    assert not mentions("Anything", "")


def test_the_longest_text_is_a_limit_not_a_guess(tmp_path):
    only = {"Pure_Text_Questions": [asked("x" * MAX_CHARACTERS, OPTIONS, "A")]}
    write_config(tmp_path, "Full_Set", [person_row("1", 1, Classification_Task=only)])
    assert load_people(tmp_path)


def test_problems_of_every_file_are_told_together(tmp_path):
    bad = {"bytes": b"", "path": ""}
    write_config(tmp_path, "Full_Set", [person_row("001", 1, image=bad)], [person_row("002", 2)])
    (tmp_path / "Full_Set/train-00001-of-00002.parquet").write_bytes(b"damaged")
    write_config(tmp_path, "ft_Data", [{"name": "no ID here"}])
    write_config(tmp_path, "Test_Set", [poses_row("001", [3])], [poses_row("001", [4])])
    (tmp_path / "Test_Set/train-00000-of-00002.parquet").unlink()
    assert problems_of(tmp_path) == {
        "not a readable parquet file": "Full_Set/train-00001-of-00002.parquet",
        "columns are missing": "ft_Data/train-00000-of-00001.parquet",
        "a shard is missing": "Test_Set/train-00000-of-00002.parquet",
        "not a usable picture": "Full_Set/train-00000-of-00002.parquet:row 0 ID 001",
    }
