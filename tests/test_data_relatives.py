"""UMU-Bench, FIUBench and CLEAR: what is asked, what is left out and told, every fault at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from data_cases import benchmark, picture, png, write_config
from pulse_unlearn.cli import pulse
from pulse_unlearn.data.datasets import load_general, load_people
from pulse_unlearn.data.examples import scored, training
from pulse_unlearn.data.review import recognise
from pulse_unlearn.data.source import Source
from pulse_unlearn.data.tables import MAX_LITERAL, Malformed, literal
from pulse_unlearn.errors import DataError
from relative_cases import (
    JOBS,
    NAMES,
    cell,
    clear_folder,
    clear_row,
    fiubench_folder,
    fiubench_person,
    tofu_row,
    umu_folder,
    umu_row,
)


def load(name: str, folder: Path, **choices):
    return load_people(name, Source(str(folder), **choices))


def problems_of(name: str, folder: Path, **choices):
    with pytest.raises(DataError) as caught:
        load(name, folder, **choices)
    return caught.value.problems


def told(problems) -> set[tuple[str, str]]:
    """Kind of problem and the last words of where it is."""
    return {(problem.what, problem.where.split(":")[-1]) for problem in problems}


def check(folder: Path, *more: str) -> str:
    done = CliRunner().invoke(
        pulse,
        ["data", "check", str(folder), "--allow-overlap", "same_person,trained_on_scored", *more],
    )
    assert (done.exit_code, done.exception) == (0, None)
    return done.output


# UMU-Bench


def test_umu_asks_classify_in_both_modalities(tmp_path):
    found = load("umu", umu_folder(tmp_path))
    first, second, real = found.individuals
    assert [(p.id, p.name, p.group) for p in found.individuals] == [
        ("001", NAMES[0], "fictional"),
        ("002", NAMES[1], "fictional"),
        ("celebrity-001", NAMES[2], "celebrity"),
    ]
    assert [q.modality for q in first.questions] == ["multimodal", "text_only"]
    assert [q.truth for q in second.questions] == ["baker", "baker"]
    assert first.questions[0].picture.digest == picture(100).digest
    assert [(a.modality, a.answer) for a in real.short_answers] == [
        ("multimodal", "it's 1"),
        ("multimodal", "it's 2"),
        ("text_only", "it's 1"),
    ]
    assert found.notes == ()
    assert set(found.digests) == {
        "Full_Set/train-00000-of-00001.parquet",
        "Real_Person_Set/train-00000-of-00001.parquet",
        "as read",
    }


def test_umu_checked_and_shown_as_examples(tmp_path):
    umu_folder(tmp_path)
    assert recognise(tmp_path) == "umu"
    output = check(tmp_path)
    assert "2 people, fictional: 2 questions with a picture, 2 in text only" in output
    person = load("umu", tmp_path).individuals[1]
    shown = scored(person.questions, profile="mllmu")
    assert [(one.modality, one.answer) for one in shown] == [
        ("multimodal", "B"),
        ("text_only", "B"),
    ]
    assert "Which job does this person have?\nA: judge\nB: baker" in shown[0].prompt
    assert shown[0].picture.digest == picture(101).digest
    assert shown[1].picture is None
    words = training([person], profile="mllmu", seed=0, epoch=0, forms="short_answer")
    assert {one.answer for one in words} <= {"it's 1", "it's 2"}


def test_umu_names_questions_whose_truth_differs_between_the_modalities(tmp_path):
    ask = {"question": "Which job?", "options": {"A": "judge", "B": "baker"}}
    task = {"unimodal": {**ask, "answer": "A"}, "muitimodal": {**ask, "answer": "B"}}
    lacking = {"unimodal": {**ask, "answer": "A. judge"}, "muitimodal": {**ask, "answer": None}}
    rows = [umu_row("1", 0, Classify=repr(task)), umu_row("2", 1, Classify=repr(lacking))]
    write_config(tmp_path, "Full_Set", rows)
    found = load("umu", tmp_path)
    assert [q.truth for q in found.individuals[0].questions] == ["baker", "judge"]
    assert [q.truth for q in found.individuals[1].questions] == ["judge", "judge"]
    (note,) = found.notes
    assert note.startswith("1 questions with a picture have another true option")
    assert note.endswith(": 1")


@pytest.mark.parametrize(
    "spelt",
    [
        lambda one: one,
        lambda one: [one],
        lambda one: {"1": one},
        lambda one: {name: {"1": value} for name, value in one.items()},
        lambda one: {name: [value] for name, value in one.items()},
    ],
)
def test_umu_questions_in_every_nesting(tmp_path, spelt):
    one = {"question": "Which job?", "options": {"A": "judge", "B": "baker"}, "answer": "(B)"}
    task = {"unimodal": spelt(one), "multimodal": spelt(one)}
    rows = [umu_row("1", 0, Classify=json.dumps(task)), umu_row("2", 1, Classify=repr(task))]
    write_config(tmp_path, "full_data", rows)
    for person in load("umu", tmp_path).individuals:
        assert [(q.modality, q.truth) for q in person.questions] == [
            ("multimodal", "baker"),
            ("text_only", "baker"),
        ]


def test_umu_tells_every_fault_at_once(tmp_path):
    touched = tmp_path / "touched"
    code = f"__import__('pathlib').Path({str(touched)!r}).touch()"
    ask = {"question": "Which job?", "options": {"A": "judge", "B": "baker"}, "answer": "A. baker"}
    rows = [
        umu_row("0", 0, Classify=code),
        umu_row("1", 0, MM_QA=code),
        umu_row("2", 0, Classify="{'both': {}}"),
        umu_row("3", 0, image={"bytes": b"<html>", "path": None}),
        umu_row("03", 1),
        umu_row(None, 0),
        umu_row("6", 0, Classify=repr({"unimodal": ask})),
        umu_row("7", 0, Classify=repr({"unimodal": {**ask, "answer": "E"}})),
        umu_row("8", 0, Classify=repr({"unimodal": {"question": "Which?", "answer": "A"}})),
        umu_row("9", 0, UM_QA="{}"),
    ]
    write_config(tmp_path, "Full_Set", rows)
    problems = problems_of("umu", tmp_path)
    assert told(problems) == {
        ("Classify is malformed", "row 0 ID 0 Classify"),
        ("a person of whom nothing is asked", "row 0 ID 0"),
        ("MM_QA is malformed", "row 1 ID 1 MM_QA"),
        ("Classify has no questions", "row 2 ID 2 Classify"),
        ("a person of whom nothing is asked", "row 2 ID 2"),
        ("not a usable picture", "row 3 ID 3 image"),
        ("the ID stands twice", "row 4 ID 03"),
        ("the ID is empty", "row 5"),
        ("the answer's letter and its text are two options", "row 6 ID 6 Classify text_only 1"),
        ("the answer is not among the options", "row 7 ID 7 Classify text_only 1"),
        ("the question has no options", "row 8 ID 8 Classify"),
        ("a person of whom nothing is asked", "row 8 ID 8"),
        ("UM_QA has no questions", "row 9 ID 9 UM_QA"),
    }
    assert not touched.exists()


@pytest.mark.parametrize(
    "text",
    ["f()", "[x for x in ()]", "{1: open('a')}", "(" * 5000, "-" * 9000 + "1", "{[]: 1}", "\0", ""],
)
def test_what_is_no_literal_is_refused_and_not_run(text):
    with pytest.raises(Malformed):
        literal(text)


def test_a_literal_may_be_python_or_json_but_not_endless():
    assert literal(" {'a': None, 'b': \"it's\"} ") == {"a": None, "b": "it's"}
    assert literal('{"a": null}') == {"a": None}
    with pytest.raises(Malformed, match="more than"):
        literal("1" * (MAX_LITERAL + 1))


def test_umu_leaves_out_equal_options_and_says_who_lacks_a_modality(tmp_path):
    ask = {"question": "Which job?", "options": {"A": "judge", "B": "Judge "}, "answer": "A"}
    right = {"question": "And?", "options": {"A": "judge", "B": "baker"}, "answer": "A"}
    rows = [umu_row("1", 0, Classify=repr({"unimodal": right, "muitimodal": ask}))]
    write_config(tmp_path, "Full_Set", rows)
    found = load("umu", tmp_path)
    assert [q.modality for q in found.individuals[0].questions] == ["text_only"]
    assert found.notes == (
        "1 questions with two equal options are left out, of 1",
        "1 people are asked nothing with their picture: 1",
    )


@pytest.mark.parametrize(
    "place",
    [
        "Full_Set/train/0000.parquet",
        "data/Full_Set-00000-of-00001.parquet",
        "data/Full_Set/x.parquet",
    ],
)
def test_layouts_of_the_hub(tmp_path, place):
    umu_folder(tmp_path / "made")
    target = tmp_path / "other" / place
    target.parent.mkdir(parents=True)
    shutil.copy(tmp_path / "made/Full_Set/train-00000-of-00001.parquet", target)
    found = load("umu", tmp_path / "other")
    assert [person.id for person in found.individuals] == ["001", "002"]
    assert place in found.digests


def test_a_gap_in_converted_files_and_a_part_are_told(tmp_path):
    umu_folder(tmp_path)
    config = tmp_path / "Full_Set"
    (config / "train").mkdir()
    (config / "train-00000-of-00001.parquet").rename(config / "train" / "0001.parquet")
    (problem,) = problems_of("umu", tmp_path)
    assert (problem.what, problem.where) == ("a shard is missing", "Full_Set/train/0000.parquet")
    (config / "train").rename(config / "partial-train")
    (config / "partial-train/0001.parquet").rename(config / "partial-train/0000.parquet")
    (problem,) = problems_of("umu", tmp_path)
    assert problem.what == "the hub converted only the beginning of this config"


def test_splits_stand_in_for_the_full_set_of_umu(tmp_path):
    write_config(tmp_path, "forget_5", [umu_row("001", 0)])
    assert "there is no Full_Set here" in str(problems_of("umu", tmp_path))
    write_config(tmp_path, "retain_95", [umu_row("002", 1)])
    assert [p.id for p in load("umu", tmp_path).individuals] == ["001", "002"]


# FIUBench


def test_fiubench_draws_options_from_other_peoples_answers(tmp_path):
    found = load("fiubench", fiubench_folder(tmp_path))
    assert [p.id for p in found.individuals] == [f"{n:08d}" for n in range(5)]
    person = found.individuals[1]
    assert (person.name, person.group) == (NAMES[1].lower(), "fictional")
    assert {q.truth for q in person.questions} == {
        "the person is a baker.",
        "the person lives in lima.",
    }
    for question in person.questions:
        texts = {option.text for option in question.options}
        assert len(texts) == 4
        assert question.picture.digest == picture(121).digest
    answers = {f"the person is a {job}." for job in JOBS}
    assert {option.text for option in person.questions[0].options} <= answers
    assert [a.answer for a in person.short_answers] == [q.truth for q in person.questions]
    assert "SFHQ/00000001.png" in found.digests
    assert found.notes == (
        "split.json is not followed, as PULSE draws its own sets by seed: forget1 1, forget5 2",
        "split.json names 1 people whom full.json lacks: 00000077",
        "1 questions are left out, as nobody else has another answer to draw options from: "
        "Is the person in the image real? (5)",
        "5 people are asked nothing in text only: " + ", ".join(f"{n:08d}" for n in range(5)),
    )


def test_fiubench_is_the_same_as_a_list_and_line_by_line(tmp_path):
    as_list = load("fiubench", fiubench_folder(tmp_path / "a"))
    as_lines = load("fiubench", fiubench_folder(tmp_path / "b", lines=True))
    assert as_lines.digests["as read"] == as_list.digests["as read"]
    turned = load("fiubench", tmp_path / "a", options_seed=1)
    assert turned.digests["as read"] != as_list.digests["as read"]
    three = load("fiubench", tmp_path / "a", options=3).individuals
    assert {len(q.options) for p in three for q in p.questions} == {3}


def test_fiubench_checked_and_shown_as_examples(tmp_path):
    fiubench_folder(tmp_path)
    assert recognise(tmp_path) == "fiubench"
    output = check(tmp_path)
    assert "5 people, fictional: 10 questions with a picture, 0 in text only" in output
    assert "note: 5 people are asked nothing in text only" in output
    person = load("fiubench", tmp_path).individuals[2]
    shown = scored(person.questions, profile="mllmu")
    assert [one.modality for one in shown] == ["multimodal"] * 2
    for one, question in zip(shown, person.questions, strict=True):
        assert f"{one.answer}: {question.truth}" in one.prompt
        assert one.picture.digest == picture(122).digest


def test_people_of_one_name_are_told_apart(tmp_path):
    people = [fiubench_person(n) for n in range(5)]
    people[3]["name"] = people[0]["name"].upper()
    found = load("fiubench", fiubench_folder(tmp_path, people))
    assert [p.name for p in found.individuals if "(" in p.name] == [
        "lara hayes (00000000)",
        "LARA HAYES (00000003)",
    ]
    assert "2 people are named lara hayes, told apart by id: 00000000, 00000003" in found.notes
    assert "allowed: the same person" not in check(tmp_path)


def test_who_is_left_with_nothing_to_be_asked_is_left_out(tmp_path):
    people = [fiubench_person(n) for n in range(4)]
    people[2]["qa_list"] = [{"question": "Who else?", "answer": "nobody."}]
    found = load("fiubench", fiubench_folder(tmp_path, people))
    assert [p.id for p in found.individuals] == ["00000000", "00000001", "00000003"]
    assert "1 people of whom nothing is left to ask are left out: 00000002" in found.notes


@pytest.mark.parametrize("people", [[], [fiubench_person(0)]])
def test_nobody_who_can_be_asked_is_a_fault(tmp_path, people):
    (problem,) = problems_of("fiubench", fiubench_folder(tmp_path, people))
    assert problem.what == "there are no people who can be asked"


def test_fiubench_takes_the_first_four_hundred(tmp_path):
    people = [fiubench_person(n % 5, unique_id=str(n)) for n in range(401)]
    found = load("fiubench", fiubench_folder(tmp_path, people))
    assert len(found.individuals) == 400
    assert "1 entries after the first 400 are left out" in found.notes


def test_fiubench_tells_every_fault_at_once(tmp_path):
    (tmp_path / "secret.png").write_bytes(png(1))
    folder = tmp_path / "own"
    people = [
        *(fiubench_person(n) for n in range(5)),
        fiubench_person(1),
        {"unique_id": "x", "qa_list": []},
        "a text",
        fiubench_person(0, unique_id="u8", image_path="../secret.png"),
        fiubench_person(0, unique_id="u9", image_path=str(tmp_path / "secret.png")),
        fiubench_person(0, unique_id="u10", image_path="none.png"),
        fiubench_person(0, unique_id="u11", image_path="broken.png"),
        fiubench_person(0, unique_id="u12", qa_list="[1"),
        fiubench_person(0, unique_id="u13", qa_list={"question": "?"}),
        fiubench_person(0, unique_id="u14", qa_list=[{"question": "What?"}, 3]),
        fiubench_person(0, unique_id="u15", image_path={"path": "../secret.png"}),
    ]
    fiubench_folder(folder, people)
    (folder / "broken.png").write_bytes(png(1)[:40])
    found = {}
    for problem in problems_of("fiubench", folder):
        entry = int(problem.where.split("entry ")[1].split(" ")[0])
        found.setdefault(entry, []).append(problem.what)
    nothing = "a person of whom nothing is asked"
    assert {entry: sorted(set(what)) for entry, what in found.items()} == {
        5: ["the unique_id stands twice"],
        6: ["image_path missing"],
        7: ["not an object"],
        8: ["the picture lies outside the folder"],
        9: ["the picture lies outside the folder"],
        10: ["there is no such picture"],
        11: ["not a usable picture"],
        12: [nothing, "qa_list is malformed"],
        13: [nothing, "qa_list is not a list"],
        14: [nothing, "not a question with its answer"],
        15: ["the picture lies outside the folder"],
    }


def test_an_archive_that_is_not_unpacked_is_named(tmp_path):
    fiubench_folder(tmp_path)
    shutil.rmtree(tmp_path / "SFHQ")
    (tmp_path / "SFHQ.zip").touch()
    problem = problems_of("fiubench", tmp_path)[0]
    assert problem.what == "pictures are missing, and there are archives"
    assert (problem.got, "unpack SFHQ.zip" in problem.fix) == ("SFHQ.zip", True)


@pytest.mark.parametrize("split", ["[1", "[]", '{"forget1": 3}', "\xff"])
def test_a_split_that_cannot_be_read_is_told(tmp_path, split):
    fiubench_folder(tmp_path)
    (tmp_path / "split.json").write_bytes(split.encode("latin-1"))
    assert [p.what for p in problems_of("fiubench", tmp_path)] == ["split.json cannot be read"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["unimodal", "muitimodal", "question", "options", "answer", "A", "B", "bytes"]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=60)
@given(JSON, JSON, JSON)
def test_any_json_is_people_or_a_typed_error(tmp_path_factory, one, other, third):
    folder = tmp_path_factory.mktemp("any")
    row = umu_row("1", 0, Classify=repr(one), MM_QA=json.dumps(other), Biography=repr(third))
    write_config(folder, "Full_Set", [row])
    person = fiubench_person(0, qa_list=one, name=other, image_path=third)
    fiubench_folder(folder, [person, fiubench_person(1)])
    for name in ("umu", "fiubench"):
        try:
            people = load(name, folder).individuals
        except DataError as error:
            right = all(problem.where for problem in error.problems)
        else:
            right = all(person.questions for person in people)
        assert right


def test_a_picture_with_a_name_too_long_for_a_file_is_told(tmp_path):
    people = [fiubench_person(0), fiubench_person(1, image_path="x" * 5000)]
    whats = [p.what for p in problems_of("fiubench", fiubench_folder(tmp_path, people))]
    assert "not the name of a picture file" in whats


# CLEAR


def test_clear_asks_name_and_caption_as_the_benchmark_does(tmp_path):
    found = load("clear", clear_folder(tmp_path))
    people = {person.id: person for person in found.individuals}
    assert list(people) == [*NAMES[:4]]
    first, second, celebrity = people[NAMES[0]], people[NAMES[1]], people[NAMES[3]]
    by_file, caption, text = first.questions
    assert by_file.truth == NAMES[0]
    assert {o.text for o in by_file.options} - {NAMES[0]} <= {f"Wrong Name{n}" for n in range(5)}
    assert caption.truth == f"{NAMES[0]} stands before view 1."
    assert all(o.text == caption.truth or "wrong place" in o.text for o in caption.options)
    assert (text.modality, text.truth) == ("text_only", "fact 0 it is.")
    assert {o.text for o in text.options} - {text.truth} <= {f"wrong {n}" for n in range(5)}
    assert {len(q.options) for q in first.questions} == {4}
    # The perturbed view is scored; the others would be shown with a caption that is not theirs.
    assert caption.picture.digest == picture(141).digest
    assert first.training_pictures == first.other_pictures == ()
    assert {o.text for o in second.questions[0].options} == {*NAMES[:4]}
    assert (celebrity.group, celebrity.questions[0].truth) == ("celebrity", NAMES[3])
    assert found.notes == (
        "4 questions with a picture have no wrong answers in the files; their options are other "
        "people's answers",
        "54 questions in text only do not name the person and are left out",
        "5 questions in text only are trained on in words but not asked, as there are no wrong "
        "answers: put TOFU's files with perturbed_answer into tofu/",
        f"3 people are asked nothing in text only: {', '.join(NAMES[1:4])}",
    )
    assert [a.modality for a in second.short_answers].count("text_only") == 2


def test_clear_on_another_picture_asks_the_name_only(tmp_path):
    found = load("clear", clear_folder(tmp_path), scored_picture="other_pose")
    first = found.individuals[0]
    assert [q.modality for q in first.questions] == ["multimodal", "text_only"]
    views = [[p.digest for p in part] for part in (first.training_pictures, first.other_pictures)]
    assert views == [[picture(142).digest, picture(143).digest], [picture(140).digest]]
    assert "captions are not asked, as one is true of one picture only" in found.notes
    celebrity = found.individuals[3]
    assert [p.digest for p in celebrity.training_pictures] == [picture(191).digest]


def test_clear_checked_and_shown_as_examples(tmp_path):
    clear_folder(tmp_path)
    assert recognise(tmp_path) == "clear"
    output = check(tmp_path, "--scored-picture", "other_pose")
    assert "3 people, fictional: 3 questions with a picture, 1 in text only, 6 pictures" in output
    assert "no fault found" in output
    person = load("clear", tmp_path).individuals[0]
    for one, question in zip(
        scored(person.questions, profile="mllmu"), person.questions, strict=True
    ):
        assert f"{one.answer}: {question.truth}" in one.prompt
    (general,) = load_general("clear_real_world", str(tmp_path)).general
    assert (general.truth, len(general.options), general.modality) == ("tower", 3, "multimodal")
    assert "1 general questions" in check(tmp_path, "--source", "clear_real_world")


def test_tofu_questions_that_do_not_come_in_twenties_go_by_the_name(tmp_path):
    clear_folder(tmp_path)
    shutil.rmtree(tmp_path / "full+tofu")
    rows = [tofu_row(0, 0, perturbed_answer=["no", "never"]), tofu_row(4, 0), tofu_row(1, 5)]
    write_config(tmp_path, "full+tofu", rows)
    found = load("clear", tmp_path)
    assert "2 questions in text only are of nobody with a face here" in found.notes
    text = [q for q in found.individuals[0].questions if q.modality == "text_only"]
    assert {o.text for q in text for o in q.options} >= {"fact 0 it is."}


def test_clear_tells_every_fault_at_once(tmp_path):
    rows = [
        clear_row(0, 0, image={"bytes": b"", "path": None}),
        clear_row(1, 0, name=None),
        clear_row(2, 0, caption="a\0b"),
        clear_row(3, 0, image={"bytes": None, "path": "../x.png"}),
        clear_row(4, 0),
    ]
    write_config(tmp_path, "full", rows)
    write_config(tmp_path, "real_faces", [{"image": cell(1), "answer": "Ada Lake"}])
    assert {
        (p.what, p.where.split(":")[0].split("/")[0]) for p in problems_of("clear", tmp_path)
    } >= {
        ("not a usable picture", "full"),
        ("the name is empty", "full"),
        ("the picture lies outside the folder", "full"),
        ("columns are missing", "real_faces"),
    }
    write_config(tmp_path, "real_world", [{"question": "", "answer": "x", "options": ["x"]}])
    with pytest.raises(DataError) as caught:
        load_general("clear_real_world", str(tmp_path))
    assert {p.what for p in caught.value.problems} == {
        "the question is empty",
        "fewer than two options",
    }


# All of them


@pytest.mark.parametrize("made", [umu_folder, fiubench_folder, clear_folder, benchmark])
@pytest.mark.parametrize("name", ["umu", "fiubench", "clear", "mllmu"])
def test_a_folder_of_another_benchmark_names_it_and_the_setting(tmp_path, made, name):
    titles = {
        umu_folder: "this is UMU-Bench: set data.people.source: umu",
        fiubench_folder: "this is FIUBench: set data.people.source: fiubench",
        clear_folder: "this is CLEAR: set data.people.source: clear",
        benchmark: "this is MLLMU-Bench: set data.people.source: mllmu",
    }
    folder = made(tmp_path / "data")
    if titles[made].endswith(name):
        assert load(name, folder).individuals
    elif (name, made) == ("clear", fiubench_folder):
        assert titles[made] in str(problems_of(name, folder)[0])
    else:
        assert any(titles[made] in problem.fix for problem in problems_of(name, folder))


@pytest.mark.parametrize(
    ("name", "wanted"), [("umu", "Full_Set"), ("fiubench", "full.json"), ("clear", "full")]
)
def test_what_was_looked_for_and_what_is_there(tmp_path, name, wanted):
    (tmp_path / "notes.txt").touch()
    (problem,) = problems_of(name, tmp_path)
    assert problem.what == f"there is no {wanted} here"
    assert problem.got == "notes.txt"
    assert wanted in problem.allowed
    assert problem.fix
    assert problems_of(name, tmp_path / "none")[0].got == "no such folder"
