"""MMBench files: quoting, references, circular copies, and every bad row by line."""

from __future__ import annotations

import base64
import csv
import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_cases import TSV_COLUMNS, encoded, noise, picture, tsv_row, write_tsv
from pulse_unlearn.data import mmbench
from pulse_unlearn.data.mmbench import load_mmbench, load_scored
from pulse_unlearn.errors import DataError


def problems_of(path):
    with pytest.raises(DataError) as caught:
        load_mmbench(path)
    return caught.value.problems


def test_a_quoted_hint_of_several_lines_and_two_options(tmp_path):
    hint = 'The passage says:\n\t"Kathmandu" is cold.\r\nRead it.'
    rows = [tsv_row(241, hint=hint, C="", D=""), tsv_row(252)]
    first, second = load_mmbench(write_tsv(tmp_path / "dev.tsv", rows))
    assert first.hint == 'The passage says:\n\t"Kathmandu" is cold.\nRead it.'
    assert [option.letter for option in first.options] == ["A", "B"]
    assert (first.id, first.truth, first.category) == ("241", "square", "shape")
    assert (first.modality, first.individual) == ("multimodal", "")
    assert (second.hint, len(second.options)) == ("", 4)


def test_an_image_may_be_the_index_of_another_row(tmp_path):
    rows = [tsv_row(1, image="3"), tsv_row(2, image="1"), tsv_row(3)]
    found = load_mmbench(write_tsv(tmp_path / "dev.tsv", rows))
    assert {question.picture.digest for question in found} == {picture(3).digest}


def test_circular_copies_are_left_to_our_own_rotation(tmp_path):
    copies = [
        tsv_row(5 + turn * 1_000_000, image="5", A="square", B="star", C="ring", D="circle")
        for turn in (1, 2, 3)
    ]
    found = load_mmbench(write_tsv(tmp_path / "dev.tsv", [*copies, tsv_row(5), tsv_row(6)]))
    assert [question.id for question in found] == ["5", "6"]
    assert found[0].options[0].text == "circle"
    (note,) = load_scored(tmp_path / "dev.tsv").notes
    assert note.startswith("3 circular copies are left out")


def test_pictures_larger_than_the_csv_module_reads_by_default(tmp_path):
    before = csv.field_size_limit()
    big = encoded(noise(1, size=(900, 900)), "BMP")
    row = tsv_row(1, image=base64.b64encode(big).decode())
    assert len(row["image"]) > before
    (question,) = load_mmbench(write_tsv(tmp_path / "dev.tsv", [row]))
    assert question.picture.data == big
    assert csv.field_size_limit() == before


def test_cells_a_table_library_wrote_as_nan_are_empty(tmp_path):
    rows = [tsv_row(1, hint="nan", C="nan", D="nan", category="nan"), tsv_row(2)]
    path = write_tsv(tmp_path / "dev.tsv", rows)
    question, _ = load_mmbench(path)
    assert (question.hint, len(question.options), question.category) == ("", 2, "")
    (note,) = load_scored(path).notes
    assert "options that say nan are empty" in note


@pytest.mark.parametrize("text", ["nan", "NaN", "N/A", "NA", "None", "null", "0", "-"])
def test_an_option_may_say_what_others_take_for_nothing(tmp_path, text):
    """The second row has options that are truly empty, so the file writes nothing for nothing."""
    rows = [tsv_row(1, D=text, answer="D"), tsv_row(2, C="", D="")]
    path = write_tsv(tmp_path / "dev.tsv", rows)
    question, other = load_mmbench(path)
    assert (question.truth, len(question.options), len(other.options)) == (text, 4, 2)
    assert load_scored(path).notes == ()


@pytest.mark.parametrize("missing", ["", "nan"])
def test_an_option_before_others_is_not_left_out_in_silence(tmp_path, missing, monkeypatch):
    path = write_tsv(tmp_path / "dev.tsv", [tsv_row(1), tsv_row(2, A=missing, answer="D")])
    (problem,) = problems_of(path)
    assert (problem.where, problem.got) == ("dev.tsv:3", "A")
    assert problem.what == "an option before others is empty"
    # Of the public file itself nothing was lost.
    public = path.rename(tmp_path / "CCBench.tsv")
    found = hashlib.md5(public.read_bytes()).hexdigest()
    monkeypatch.setitem(mmbench.PUBLIC_MD5, "CCBench", found)
    assert [option.letter for option in load_mmbench(public)[1].options] == ["B", "C", "D"]


@pytest.mark.parametrize("cell", ["", "nan"])
def test_a_test_split_with_an_empty_column_of_answers_is_told_once(tmp_path, cell):
    rows = [tsv_row(number, answer=cell) for number in range(40)]
    (problem,) = problems_of(write_tsv(tmp_path / "MMBench_TEST.tsv", rows))
    assert (problem.what, problem.where) == ("no question has an answer", "MMBench_TEST.tsv")
    assert "dev" in problem.fix


def test_windows_line_ends_and_both_kinds_of_category(tmp_path):
    hint = "One.\nTwo."
    rows = [tsv_row(1, hint=hint, **{"l2-category": "finegrained_perception"}), tsv_row(2, D="")]
    path = write_tsv(tmp_path / "dev.tsv", rows)
    plain = load_mmbench(path)
    assert [q.l2_category for q in plain] == ["finegrained_perception", ""]
    assert [q.category for q in plain] == ["shape", "shape"]
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    windows = load_mmbench(path)
    assert [replace(q, picture=None) for q in windows] == [replace(q, picture=None) for q in plain]


def test_every_bad_row_is_named_by_its_line(tmp_path):
    rows = [
        tsv_row(1, hint="two\nlines"),
        tsv_row(1, seed=90),
        tsv_row(3, answer="D", D=""),
        tsv_row(4, image="77"),
        tsv_row(5, image="6"),
        tsv_row(6, image="5"),
        tsv_row(7, image="no base64!"),
        tsv_row(8, image=base64.b64encode(b"<svg></svg>").decode()),
        tsv_row(9, A="ring"),
        tsv_row(10, question=""),
        tsv_row(3_000_011),
        tsv_row(12) | {"index": "12.5"},
        tsv_row(13, image=""),
        tsv_row(14, B="", C="", D="", answer="A"),
    ]
    path = write_tsv(tmp_path / "dev.tsv", rows)
    found = [(problem.where, problem.what) for problem in problems_of(path)]
    # The first row takes lines 2 and 3.
    assert set(found) == {
        ("dev.tsv:4", "the index stands twice"),
        ("dev.tsv:5", "the answer is not among the options"),
        ("dev.tsv:6", "the row its image refers to is not there"),
        ("dev.tsv:6", "the question needs a picture"),
        ("dev.tsv:7", "the row its image refers to comes back to itself"),
        ("dev.tsv:7", "the question needs a picture"),
        ("dev.tsv:8", "the row its image refers to comes back to itself"),
        ("dev.tsv:8", "the question needs a picture"),
        ("dev.tsv:9", "the image is not base64"),
        ("dev.tsv:9", "the question needs a picture"),
        ("dev.tsv:10", "not a usable picture"),
        ("dev.tsv:11", "options are the same"),
        ("dev.tsv:12", "the question is empty"),
        ("dev.tsv:13", "a circular copy of a question that is not there"),
        ("dev.tsv:14", "the index is not a number"),
        ("dev.tsv:15", "the question needs a picture"),
        ("dev.tsv:16", "fewer than two options"),
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "an empty file"),
        ("index\tquestion\n", "lacks A, B, answer, image"),
        ("\t".join(c for c in TSV_COLUMNS if c != "answer") + "\n", "take a split with answers"),
        ("\t".join(TSV_COLUMNS) + "\n", "there are no questions"),
        ("\t".join(TSV_COLUMNS) + '\n1\t"never closed\t\n', "dev.tsv:2"),
        ("\t".join(TSV_COLUMNS) + "\n1\ttoo few\n", "other columns than the header"),
        ("\t".join(TSV_COLUMNS) + "\n" + "x\t" * 20 + "\n", "other columns than the header"),
        ("\t".join(TSV_COLUMNS) + "\n" + "9" * 5000 + "\t" * 13 + "\n", "not a number"),
    ],
)
def test_files_that_are_no_mmbench_table(tmp_path, text, told):
    path = tmp_path / "dev.tsv"
    path.write_text(text, encoding="utf-8")
    assert told in "\n".join(map(str, problems_of(path)))


def test_missing_binary_and_foreign_files(tmp_path):
    assert "No such file" in problems_of(tmp_path / "none.tsv")[0].got
    assert problems_of(tmp_path)[0].what == "not a readable MMBench file"

    class Gadget:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "dev.tsv").write_bytes(pickle.dumps(Gadget()))
    assert problems_of(tmp_path / "dev.tsv")
    assert not (tmp_path / "ran").exists()


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path):
    path = write_tsv(tmp_path / "dev.tsv", [tsv_row(1)])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(load_mmbench(path)) == 1


CELL = st.text(st.characters(codec="utf-8"), max_size=8)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from(TSV_COLUMNS), CELL))
def test_any_cells_are_a_question_or_a_typed_error(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("any") / "dev.tsv"
    write_tsv(path, [tsv_row(1), tsv_row(2) | cells])
    try:
        questions = load_mmbench(path)
    except DataError as error:
        told = all(problem.where for problem in error.problems)
    else:
        told = 1 <= len(questions) <= 2
    assert told


def test_a_file_under_a_public_name_must_be_the_public_file(tmp_path, monkeypatch):
    path = write_tsv(tmp_path / "MMBench_DEV_EN.tsv", [tsv_row(1)])
    (problem,) = problems_of(path)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    assert (problem.where, problem.got) == ("MMBench_DEV_EN.tsv", f"MD5 {found}")
    monkeypatch.setitem(mmbench.PUBLIC_MD5, "MMBench_DEV_EN", found)
    assert len(load_mmbench(path)) == 1
    assert len(load_mmbench(path.rename(tmp_path / "MMBench_DEV_EN_small.tsv"))) == 1


def test_a_torn_download_of_a_public_file_is_told_as_one(tmp_path):
    path = write_tsv(tmp_path / "MMBench_DEV_EN.tsv", [tsv_row(1, hint="two\nlines")])
    path.write_bytes(path.read_bytes().split(b"\nlines")[0])
    assert [problem.what for problem in problems_of(path)] == [
        "not the public file of this name",
        "not a readable MMBench file",
    ]


def test_a_table_of_fewer_columns_and_more_options_is_one_too(tmp_path):
    """CCBench has no hint and no l2-category; other makers go up to H."""
    image = base64.b64encode(encoded(noise(1))).decode()
    names = ("index", "question", "A", "B", "C", "D", "E", "answer", "category", "image")
    cells = ("7", "这是什么？", "月饼", "粽子", "汤圆", "豆腐", "面", "E", "food_clothes", image)
    path = tmp_path / "own.tsv"
    path.write_text("\t".join(names) + "\n" + "\t".join(cells) + "\n", encoding="utf-8")
    (question,) = load_mmbench(path)
    assert (question.truth, question.hint, len(question.options)) == ("面", "", 5)
