"""Your own people: three kinds of files, options drawn from others, every fault in one pass."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_cases import picture, png
from pulse_unlearn.data.checks import SHOWN, WIDTH, gathered
from pulse_unlearn.data.datasets import load_people
from pulse_unlearn.data.naming import same_answer
from pulse_unlearn.data.options import Fact, Pool
from pulse_unlearn.data.source import Source
from pulse_unlearn.data.starter import write_starter
from pulse_unlearn.errors import ConfigError, DataError, Problem

JOBS = ("judge", "baker", "pilot", "nurse", "chef", "tailor")


def ask(answer: str, modality: str = "text_only", **more):
    return {"modality": modality, "question": f"Job, {modality}?", "answer": answer, **more}


def job(answer: str, modality: str = "text_only"):
    return ask(answer, modality, attribute="job")


def row(number: int, *questions, **more):
    base = {"id": f"p{number}", "name": f"Name{number} Hayes", "image": f"p{number}.png"}
    return {**base, "questions": list(questions), **more}


def write(folder: Path, rows, *, pictures: int = 8) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        (folder / f"p{number}.png").write_bytes(png(number))
    lines = [one if isinstance(one, str) else json.dumps(one) for one in rows]
    (folder / "people.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def load(folder: Path, **choices):
    return load_people("people", Source(str(folder), **choices)).individuals


def problems_of(folder: Path, **choices):
    with pytest.raises(DataError) as caught:
        load(folder, **choices)
    return caught.value.problems


def shown(person):
    """What is asked, without the place it stands at."""
    return [
        (q.id, q.question, q.options, q.answer, q.picture and q.picture.digest)
        for q in person.questions
    ]


def by_job(folder: Path, jobs=JOBS, **choices):
    rows = [row(n, job(one, "multimodal"), job(one)) for n, one in enumerate(jobs)]
    return load(write(folder, rows), **choices)


def test_multiple_choice_in_every_spelling(tmp_path):
    rows = [
        row(0, ask("B", options=["x", "y"]), ask("y", "multimodal", options={"A": "x", "C": "y"})),
        row(1, ask("nine", A="nine", B=9), group="celebrity", comment="mine"),
    ]
    first, second = load(write(tmp_path, rows))
    assert [(q.answer, q.truth) for q in first.questions] == [("B", "y"), ("C", "y")]
    assert [q.modality for q in first.questions] == ["text_only", "multimodal"]
    assert [q.picture and q.picture.digest for q in first.questions] == [None, picture(0).digest]
    assert (first.group, second.group, second.name) == ("fictional", "celebrity", "Name1 Hayes")
    assert [option.text for option in second.questions[0].options] == ["nine", "9"]
    assert first.short_answers == second.short_answers == ()


def test_pictures_have_the_roles_the_file_gives_them(tmp_path):
    more = {"training_images": ["p1.png", "p2.png", "p1.png"], "other_images": "p3.png; p4.png"}
    (person,) = load(write(tmp_path, [row(0, ask("A", options=["x", "y"]), **more)]))
    views = [[p.digest for p in part] for part in (person.training_pictures, person.other_pictures)]
    assert views == [[picture(n).digest for n in part] for part in ((1, 2), (3, 4))]
    digests = load_people("people", str(tmp_path)).digests
    assert set(digests) == {"people.jsonl", "as read", *(f"p{n}.png" for n in range(5))}
    assert digests["p3.png"] == picture(3).digest


def test_options_are_other_peoples_answers(tmp_path):
    people = by_job(tmp_path)
    for person, true in zip(people, JOBS, strict=True):
        for question in person.questions:
            texts = [option.text for option in question.options]
            assert question.truth == true
            assert len(texts) == len(set(texts)) == 4
            assert set(texts) <= set(JOBS)
        # Both modalities ask the same fact, so they offer the same answers.
        shown = [{option.text for option in q.options} for q in person.questions]
        assert shown[0] == shown[1]
        assert [(a.modality, a.answer) for a in person.short_answers] == [
            ("multimodal", true),
            ("text_only", true),
        ]
    assert len({q.answer for person in people for q in person.questions}) > 1


def test_options_depend_on_their_seed_and_number_alone(tmp_path):
    def texts(people):
        return {q.id: [o.text for o in q.options] for p in people for q in p.questions}

    first = texts(by_job(tmp_path / "a"))
    assert texts(by_job(tmp_path / "b")) == first
    assert texts(load(tmp_path / "a", options_seed=1)) != first
    assert {len(shown) for shown in texts(load(tmp_path / "a", options=3)).values()} == {3}
    digests = [
        load_people("people", Source(str(tmp_path / "a"), options_seed=seed)).digests["as read"]
        for seed in (0, 1)
    ]
    assert digests[0] != digests[1]
    # Another order of the rows, and a person whose answer is known already, change nothing.
    lines = (tmp_path / "a/people.jsonl").read_text(encoding="utf-8").splitlines()
    again = write(tmp_path / "c", [*reversed(lines), row(7, job("judge"))])
    assert texts(load(again)).items() >= first.items()


def test_the_true_answer_is_never_offered_twice(tmp_path):
    jobs = ("judge", "The Judge.", "JUDGE", "júdge", "a baker", "baker", "pilot")
    for person, true in zip(by_job(tmp_path, jobs, options=8), jobs, strict=True):
        texts = [option.text for option in person.questions[0].options]
        assert texts.count(true) == 1
        # Three different jobs there are, so three options, each in one spelling only.
        assert len({same_answer(text) for text in texts}) == len(texts) == 3


def test_what_else_is_true_of_a_person_is_no_wrong_option():
    facts = [
        Fact("p", "speaks", "Dutch"),
        Fact("p", "speaks", "Greek"),
        Fact("q", "speaks", "Thai"),
    ]
    options, answer = Pool([*facts, Fact("q", "born", "Oslo")]).draw(
        facts[0], count=4, seed=0, order="p/1"
    )
    assert {option.text for option in options} == {"Dutch", "Thai"}
    assert next(option.text for option in options if option.letter == answer) == "Dutch"


ANSWERS = st.lists(st.text(max_size=6), min_size=1, max_size=12)


@settings(max_examples=100)
@given(ANSWERS, st.integers(2, 8), st.integers())
def test_drawn_options_are_different_and_hold_the_truth_once(answers, count, seed):
    facts = [Fact(f"p{n}", "job", answer) for n, answer in enumerate(answers)]
    options, letter = Pool(facts).draw(facts[0], count=count, seed=seed, order="q")
    keys = [same_answer(option.text) for option in options]
    assert len(keys) == len(set(keys)) == min(count, len({same_answer(a) for a in answers}))
    truth = next(option.text for option in options if option.letter == letter)
    assert truth == answers[0]
    assert keys.count(same_answer(answers[0])) == 1


def test_csv_with_a_question_per_row_says_the_same_as_json_lines(tmp_path):
    expected = by_job(tmp_path / "lines")
    write(tmp_path / "flat", [])
    (tmp_path / "flat/people.jsonl").unlink()
    columns = ("id", "name", "image", "modality", "question", "attribute", "answer", "A", "B")
    with (tmp_path / "flat/people.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        for n, one in enumerate(JOBS):
            said = {"id": f"p{n}", "name": f"Name{n} Hayes", "image": f"p{n}.png"}
            for modality in ("multimodal", "text_only"):
                table.writerow({**said, **job(one, modality)})
                said = {"id": f"p{n}"}
    found = load(tmp_path / "flat")
    assert [shown(p) for p in found] == [shown(p) for p in expected]
    assert [(p.id, p.name, p.short_answers) for p in found] == [
        (p.id, p.name, p.short_answers) for p in expected
    ]


def test_parquet_with_pictures_inside(tmp_path):
    rows = [
        {**row(n, job(one)), "image": {"bytes": png(n), "path": None}} for n, one in enumerate(JOBS)
    ]
    tmp_path.joinpath("own").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "own/people.parquet")
    found = load(tmp_path / "own")
    expected = [row(n, job(one, "text_only")) for n, one in enumerate(JOBS)]
    assert [p.questions for p in found] == [
        p.questions for p in load(write(tmp_path / "lines", expected))
    ]


def test_every_fault_is_told_in_one_pass(tmp_path):
    two = {"options": ["x", "y"]}
    (tmp_path / "outside.png").write_bytes(png(1))
    rows = [
        row(0, ask("A", **two)),
        '{"id": "p1", ',
        "[1, 2]",
        row(0, ask("A", **two)),
        row(1, ask("A", **two), id=" "),
        row(2, ask("A", **two), colour="red"),
        row(3, ask("A", **two), image="../outside.png"),
        row(4, ask("A", "multimodal", **two), image="none.png"),
        row(5, ask("A", "spoken", **two)),
        row(6, ask("C", **two)),
        row(7, ask("A", options=["x", "x"])),
        row(8, ask("A", options=["x"]), image="p1.png"),
        row(9, job("judge"), image="p1.png"),
        row(10, ask("judge"), image="p1.png"),
        row(11, image="p1.png"),
        row(12, ask("A", **two), ask("B", **two), image="p1.png"),
        row(13, ask("A", **two), image="people.jsonl"),
        row(14, ask("A", **two), image="p1.png", group="real"),
        row(15, ask("A", options={"A": "x", "Ä": "y", "B": "z"}), image="p1.png"),
        row(16, ask("A", question={"text": "Who?"}, **two), image="p1.png"),
        row(17, ask("A", question="Who\0?", **two), "Who?", image="p1.png"),
        row(18, ask("A", **two), image=["p1.png", "p2.png"]),
        row(19, ask("A", A="x", **two), image="p1.png"),
        row(20, ask(" ", attribute="town"), image="p1.png"),
    ]
    found = {}
    for problem in problems_of(write(tmp_path / "own", rows)):
        found.setdefault(problem.where.split(" ")[0], []).append(problem.what)
    assert found == {
        "people.jsonl:2": ["not a line of JSON"],
        "people.jsonl:3": ["not a person"],
        "people.jsonl:4": ["the id stands twice"],
        "people.jsonl:5": ["the id is empty"],
        "people.jsonl:6": ["unknown field"],
        "people.jsonl:7": ["the picture lies outside the folder"],
        "people.jsonl:8": ["there is no such picture"],
        "people.jsonl:9": ["unknown modality", "a person of whom nothing is asked"],
        "people.jsonl:10": ["the answer is not among the options"],
        "people.jsonl:11": ["options are the same"],
        "people.jsonl:12": ["fewer than two options"],
        "people.jsonl:13": ["there is no other answer to draw options from"],
        "people.jsonl:14": ["neither options nor an attribute"],
        "people.jsonl:15": ["a person of whom nothing is asked"],
        "people.jsonl:16": ["the question is asked twice"],
        "people.jsonl:17": ["not a usable picture"],
        "people.jsonl:18": ["unknown group"],
        "people.jsonl:19": ["unknown option letter"],
        "people.jsonl:20": ["question is no text"],
        "people.jsonl:21": ["not a question", "the question holds a control character"],
        "people.jsonl:22": ["more than one scored picture"],
        "people.jsonl:23": ["options stand twice"],
        "people.jsonl:24": [
            "there is no other answer to draw options from",
            "the answer is empty",
        ],
    }


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "an empty folder"),
        ({"people.jsonl": "", "people.csv": ""}, "people.jsonl, people.csv"),
        ({"people.jsonl": ""}, "there are no people"),
        ({"people.parquet": "text"}, "not a readable file of people"),
        ({"people.csv": 'id,name\n"a'}, "not a readable file of people"),
        ({"people.csv": "id,name\na\n"}, "other columns than the header"),
    ],
)
def test_folders_that_hold_no_people(tmp_path, files, told):
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert told in "\n".join(map(str, problems_of(tmp_path)))


def test_no_folder_at_all(tmp_path):
    assert "no such folder" in problems_of(tmp_path / "none")[0].got
    with pytest.raises(ConfigError, match="needs a path"):
        load_people("people")


def test_rows_of_one_person_may_repeat_but_not_contradict(tmp_path):
    said = {"id": "p0", "name": "Lara Hayes", "image": "p0.png"}
    rows = [
        {**said, **ask("A", options=["x", "y"])},
        {**said, **ask("A", question="And?", options=["x", "y"])},
    ]
    assert len(load(write(tmp_path, rows))[0].questions) == 2
    rows[1] |= {"name": "Clara Hayes", "image": "p1.png", "group": "celebrity"}
    found = problems_of(write(tmp_path, rows))
    assert [(p.what, p.where) for p in found] == [
        (f"the rows of one person disagree on {what}", "people.jsonl:2 id p0")
        for what in ("name", "group", "image")
    ]


CELL = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.text(max_size=3), max_size=3)


@settings(max_examples=100)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["id", "name", "image", "questions", "question", "answer", "A", "B"]),
            CELL,
        ),
        max_size=3,
    )
)
def test_any_rows_are_people_or_a_typed_error(tmp_path_factory, rows):
    folder = write(tmp_path_factory.mktemp("any"), rows, pictures=1)
    try:
        people = load(folder)
    except DataError as error:
        told = all(problem.where for problem in error.problems)
    else:
        told = all(person.questions for person in people)
    assert told


def test_the_example_is_whole_and_says_so(tmp_path):
    write_starter(tmp_path / "own")
    people = load(tmp_path / "own")
    assert len({person.name for person in people}) == len(people) == 12
    for person in people:
        assert [q.modality for q in person.questions].count("text_only") == 3
        assert len(person.training_pictures) == 2
        assert len(person.other_pictures) == 1
    readme = (tmp_path / "own/README.md").read_text(encoding="utf-8")
    first = json.loads((tmp_path / "own/people.jsonl").read_text("utf-8").splitlines()[0])
    assert all(f"`{name}`" in readme for name in {*first, *first["questions"][0], "options"})
    with pytest.raises(DataError, match="not empty"):
        write_starter(tmp_path / "own")


@pytest.mark.parametrize(
    ("options", "answer", "told"),
    [
        # By letter the answer is O, by its text D.
        (["AB", "O", "A", "B"], "B", "the answer is one option's letter, another one's text"),
        (["B", "B "], "B", "options are the same"),
        (["Paris", " paris", "Rome"], "Rome", "options differ in nothing but their spelling"),
        (["New York", "new  york"], "A", "options differ in nothing but their spelling"),
        # A letter that is its own text is one option, whichever way it is meant.
        (["A", "B", "C"], "B", ""),
        (["C", "C++", "C#"], "C#", ""),
    ],
)
def test_options_that_could_be_read_in_two_ways(tmp_path, options, answer, told):
    (tmp_path / "own").mkdir()
    rows = write(tmp_path / "own", [row(0, ask(answer, options=options))])
    if told:
        assert told in [problem.what for problem in problems_of(rows)]
    else:
        (person,) = load(rows)
        assert person.questions[0].truth == answer


def uri(seed, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(png(seed)).decode()}"


def test_pictures_as_data_uris_bytes_and_lists(tmp_path):
    two = {"options": ["x", "y"]}
    rows = [
        row(0, ask("A", "multimodal", **two), image=uri(1), training_images=[uri(2), "p3.png"]),
        row(1, ask("A", "multimodal", **two), image=["p4.png"], other_images=f"{uri(5)}; p6.png"),
    ]
    first, second = load(write(tmp_path / "lines", rows))
    assert first.questions[0].picture.digest == picture(1).digest
    assert [p.digest for p in first.training_pictures] == [picture(n).digest for n in (2, 3)]
    assert second.questions[0].picture.digest == picture(4).digest
    assert [p.digest for p in second.other_pictures] == [picture(n).digest for n in (5, 6)]
    digests = load_people("people", str(tmp_path / "lines")).digests
    assert set(digests) == {"people.jsonl", "as read", "p3.png", "p4.png", "p6.png"}
    (tmp_path / "own").mkdir()
    bare = [row(n, ask("A", "multimodal", **two), image=png(n)) for n in range(2)]
    pq.write_table(pa.Table.from_pylist(bare), tmp_path / "own/people.parquet")
    found = load(tmp_path / "own")
    assert [p.questions[0].picture.digest for p in found] == [picture(n).digest for n in range(2)]


@pytest.mark.parametrize(
    ("cell", "what", "got"),
    [
        (3, "not the name of a picture file", "3, the index of another row"),
        ("3", "there is no such picture", ""),
        (True, "not the name of a picture file", "True"),
        ({"path": None, "bytes": None}, "not the name of a picture file", "None"),
        ("https://example.org/a.png", "not the name of a picture file", "nothing is downloaded"),
        ("a" * 400, "not the name of a picture file", "400 characters of base64"),
        ("a-" * 2000, "not the name of a picture file", "4000 characters"),
        ("a-" * 200, "there is no such picture", ""),
        ("data:image/png;base64,@@@", "not a data URI of base64", "data:image/png"),
        ("data:image/svg+xml,<svg/>", "not a data URI of base64", "svg"),
        ("data:image/png;base64,AAAA", "not a usable picture", "3 bytes"),
        ("/p1.png", "the picture lies outside the folder", ""),
        (["p1.png", "p2.png"], "more than one scored picture", "2"),
    ],
)
def test_a_cell_that_shows_nothing_is_told_once_and_says_how_to_mend_it(tmp_path, cell, what, got):
    rows = [row(0, ask("A", "multimodal", options=["x", "y"]), image=cell)]
    (problem,) = problems_of(write(tmp_path / "own", rows))
    assert problem.what == what
    assert got in problem.got
    assert problem.fix


def test_an_answer_by_number_is_refused_with_what_to_write(tmp_path):
    rows = [row(0, ask(1, options=["x", "y"]))]
    (problem,) = problems_of(write(tmp_path / "own", rows))
    assert problem.what == "the answer is not among the options"
    assert "the letter" in problem.fix


def test_poses_are_no_choice_for_ones_own_people(tmp_path):
    folder = write(tmp_path / "own", [row(0, ask("A", options=["x", "y"]))])
    (problem,) = problems_of(folder, scored_picture="other_pose")
    assert problem.where == "data.people.scored_picture"
    assert "image" in problem.fix


def test_hundreds_of_bad_pictures_stay_readable_and_every_row_is_named(tmp_path):
    bad = {"options": ["x", "y"]}
    rows = [row(n, ask("A", "multimodal", **bad), image="p0.png") for n in range(400)]
    for good in (100, 300):
        rows[good]["image"] = "p1.png"
    folder = write(tmp_path / "own", rows)
    (folder / "p0.png").write_bytes(b"no picture")
    told = problems_of(folder)
    assert len(told) == SHOWN + 1
    assert told[-1].what == "not a usable picture (373 more)"
    assert told[-1].got == "people.jsonl:26-100, 102-300, 302-400"
    assert max(map(len, str(told[-1]).splitlines())) <= 110


def test_places_that_are_no_rows_are_wrapped_and_all_there():
    places = [f"person {number}" for number in range(200)]
    last = gathered([Problem("odd", place) for place in places])[-1]
    lines = last.got.splitlines()
    assert max(map(len, lines)) <= WIDTH + 4
    assert "; ".join(places[SHOWN:]) == " ".join(line.strip() for line in lines)
