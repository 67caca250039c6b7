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
from pulse_unlearn.data.examples import circular
from pulse_unlearn.data.mmbench import load_scored
from pulse_unlearn.data.mmbench_table import COPY
from pulse_unlearn.data.options import orders_of
from pulse_unlearn.errors import DataError


def load_mmbench(path):
    return load_scored(path).general


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


def test_circular_copies_are_the_orders_that_are_asked(tmp_path):
    """Fault: the file's copies dropped, and options rotated that the file keeps in place."""
    copies = [
        tsv_row(5 + COPY, image="5", A="square", B="ring", C="circle", D="star", answer="A"),
        tsv_row(5 + 2 * COPY, image="5", A="ring", B="circle", C="square", D="star", answer="C"),
    ]
    base = tsv_row(5, A="circle", B="square", C="ring", D="star", answer="B")
    path = write_tsv(tmp_path / "dev.tsv", [*copies, base, tsv_row(6)])
    first, second = load_mmbench(path)
    assert (first.id, first.options[0].text, second.id) == ("5", "circle", "6")
    assert first.orders == ((0, 1, 2, 3), (1, 2, 0, 3), (2, 0, 1, 3))
    assert (second.orders, len(orders_of(second))) == ((), 4)
    asked = circular([first], profile="mmbench_llava")
    shown = [[option.text for option in one.options] for one in asked]
    assert shown[1] == ["square", "ring", "circle", "star"]
    assert [one.answer for one in asked] == ["B", "A", "C"]
    (note,) = load_scored(path).notes
    assert note == "1 question asked in the orders of the file's own circular copies"


def test_a_copy_must_be_one_of_its_question(tmp_path):
    rows = [
        tsv_row(5),
        tsv_row(5 + COPY, image="5", A="cube"),
        tsv_row(6, A="circle", B="square", answer="A"),
        tsv_row(6 + COPY, image="6", A="square", B="circle", answer="A"),
    ]
    told = {p.where: p.what for p in problems_of(write_tsv(tmp_path / "dev.tsv", rows))}
    assert told == {
        "dev.tsv:3": "a circular copy has other options than its question",
        "dev.tsv:5": "a circular copy has another answer than its question",
    }


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
        ("dev.tsv:7", "the row its image refers to comes back to itself"),
        ("dev.tsv:8", "the row its image refers to comes back to itself"),
        ("dev.tsv:9", "the image is not base64"),
        ("dev.tsv:10", "not a usable picture"),
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


@settings(max_examples=80)
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


# --- files as they are in the wild


def test_equal_options_are_taken_and_told(tmp_path):
    rows = [
        tsv_row(1),
        tsv_row(2, A="two", B="two", C="three", D="", answer="C"),
        tsv_row(3, A="grey", B="grey", C="red", D="blue", answer="B"),
    ]
    path = write_tsv(tmp_path / "dev.tsv", rows)
    assert [q.truth for q in load_mmbench(path)][1:] == ["three", "grey"]
    assert load_scored(path).notes == (
        "2 questions with equal options, taken as they are (2, 3)",
        "1 question where an option equal to the true one counts as true, too (3)",
    )
    alike = write_tsv(tmp_path / "own.tsv", [tsv_row(4, A="x", B="x", C="", D="", answer="A")])
    assert [problem.what for problem in problems_of(alike)] == ["options are the same"]


def test_options_about_others_stay_where_the_file_has_no_copies(tmp_path):
    rows = [
        tsv_row(1, D="None of these", answer="A"),
        tsv_row(2, A="grey", B="round", C="both A and B", D="Neither of the above", answer="C"),
        tsv_row(3, A="以上都不是", B="月饼", C="粽子", D="", answer="B"),
    ]
    path = write_tsv(tmp_path / "dev.tsv", rows)
    found = [orders_of(question) for question in load_mmbench(path)]
    assert found[0] == ((0, 1, 2, 3), (1, 2, 0, 3), (2, 0, 1, 3))
    assert found[1] == ((0, 1, 2, 3),)
    assert found[2] == ((0, 1, 2), (0, 2, 1))
    stays, named = load_scored(path).notes
    assert stays == "2 questions whose options about other options stay in place (1, 3)"
    assert named == "1 question asked in the file's order only: options name letters (2)"


def test_other_spellings_of_header_index_and_answer(tmp_path):
    image = base64.b64encode(encoded(noise(1))).decode()
    names = ("Index", "Question", "A", "B", "answer", "L2-category", "Category", "image")
    cells = ("1.0", "Is it grey?", "yes", "no", "a", "perception", "colour", image)
    path = tmp_path / "own.tsv"
    path.write_text("\t".join(names) + "\n" + "\t".join(cells) + "\n", encoding="utf-8")
    (question,) = load_mmbench(path)
    assert (question.id, question.answer) == ("1", "A")
    assert (question.category, question.l2_category) == ("colour", "perception")


def test_up_to_twenty_six_options(tmp_path):
    image = base64.b64encode(encoded(noise(1))).decode()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = ("index", "question", *letters, "answer", "image")
    cells = ("1", "Which letter is last?", *letters.lower(), "Z", image)
    path = tmp_path / "own.tsv"
    path.write_text("\t".join(names) + "\n" + "\t".join(cells) + "\n", encoding="utf-8")
    (question,) = load_mmbench(path)
    assert (question.truth, len(question.options), len(orders_of(question))) == ("z", 26, 26)


def test_pictures_by_path_and_as_data_uris(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/41.png").write_bytes(encoded(noise(1)))
    (tmp_path.parent / "outside.png").write_bytes(encoded(noise(2)))
    uri = "data:image/png;base64," + base64.b64encode(encoded(noise(3))).decode()
    columns = ("index", "question", "A", "B", "answer", "image", "image_path")

    def written(*pictures):
        lines = ["\t".join(columns)]
        for number, (image, place) in enumerate(pictures):
            lines.append("\t".join((str(number), "Grey?", "yes", "no", "A", image, place)))
        (tmp_path / "own.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "own.tsv"

    first, second = load_mmbench(written(("", "pictures/41.png"), (uri, "")))
    assert (first.picture.data, second.picture.data) == (encoded(noise(1)), encoded(noise(3)))
    # A picture that is changed must not find the stages of the old one.
    digests = load_scored(tmp_path / "own.tsv").digests
    assert digests["pictures/41.png"] == first.picture.digest
    assert set(digests) == {"own.tsv", "pictures/41.png"}
    bad = written(("", "../outside.png"), ("", "none.png"), ("", "['a.png', 'b.png']"), ("[1]", ""))
    assert [(p.where, p.what) for p in problems_of(bad) if "needs" not in p.what] == [
        ("own.tsv:2 ../outside.png", "the picture lies outside the folder"),
        ("own.tsv:3 none.png", "there is no such picture"),
        ("own.tsv:4", "a question with a list of pictures"),
        ("own.tsv:5", "a question with a list of pictures"),
    ]


@pytest.mark.parametrize("name", ["dev.parquet", "dev.xlsx", "dev.jsonl"])
def test_other_file_formats_are_told(tmp_path, name):
    (tmp_path / name).write_bytes(b"PAR1")
    (problem,) = problems_of(tmp_path / name)
    assert problem.what == "MMBench files are read as TSV"
    assert "export the table" in problem.fix


@pytest.mark.parametrize("answer", ["1", "yes", "AB"])
def test_an_answer_that_is_no_letter_is_told_with_the_letters(tmp_path, answer):
    (problem,) = problems_of(write_tsv(tmp_path / "dev.tsv", [tsv_row(1, answer=answer)]))
    assert (problem.got, problem.allowed) == (repr(answer), "A, B, C, D")


# Columns of the public files, as their own pages and VLMEvalKit's readers name them.
LETTERED = ("A", "B", "C", "D")
VARIANTS = {
    "MMBench dev EN, V1.0": ("index", "question", "hint", *LETTERED, "answer", "category", "image",
                             "source", "l2-category", "comment", "split"),
    "MMBench dev CN, V1.0": ("index", "question", "hint", *LETTERED, "answer", "category", "image",
                             "source", "l2-category", "comment", "split"),
    "MMBench V1.1": ("index", "question", "hint", *LETTERED, "answer", "category", "image",
                     "l2-category", "split"),
    "CCBench": ("index", "question", *LETTERED, "answer", "category", "image"),
    "dev_20230712 of LLaVA": ("index", "question", "hint", *LETTERED, "answer", "category", "image",
                              "source", "l2-category", "comment", "split"),
    "lmms-lab, as TSV": ("index", "question", "hint", "answer", *LETTERED, "category", "image",
                         "source", "L2-category", "comment", "split"),
}  # fmt: skip


@pytest.mark.parametrize("columns", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_public_variant_is_read_by_its_columns(tmp_path, columns):
    image = base64.b64encode(encoded(noise(1))).decode()
    row = {"index": "3", "question": "哪一个？", "A": "圆", "B": "方", "C": "星", "D": "",
           "answer": "B", "category": "shape", "image": image, "l2-category": "perception",
           "L2-category": "perception", "split": "dev"}  # fmt: skip
    copy = {**row, "index": "1000003", "A": "方", "B": "星", "C": "圆", "answer": "A", "image": "3"}
    last = {**copy, "index": "2000003", "A": "星", "B": "圆", "C": "方", "answer": "C"}
    lines = ["\t".join(columns)]
    lines += ["\t".join(one.get(name, "") for name in columns) for one in (row, copy, last)]
    path = tmp_path / "variant.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    (question,) = load_mmbench(path)
    assert (question.truth, len(question.orders), question.category) == ("方", 3, "shape")
    told = {"l2-category", "L2-category"} & {*columns}
    assert question.l2_category == ("perception" if told else "")
