"""Overlaps: planted ones are found, different people are not taken for one another."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from PIL import Image, ImageOps

from data_cases import changed, encoded, person, picture, question
from pulse_unlearn.data.datasets import load_general, load_general_training, load_people
from pulse_unlearn.data.images import decode, picture_from_bytes
from pulse_unlearn.data.leaks import (
    Part,
    about_people,
    find_declared,
    find_duplicates,
    find_overlaps,
    find_trained_on_scored,
    left_out,
)
from pulse_unlearn.data.likeness import NEAR
from pulse_unlearn.data.naming import same_answer
from pulse_unlearn.records import Option


def find_both(forget, retain):
    return find_overlaps([Part("forget", forget), Part("retain", retain)])


FORGET = [person(f"f{n}", seed=100 + 10 * n) for n in range(3)]
RETAIN = [person(f"r{n}", seed=200 + 10 * n) for n in range(3)]


@pytest.fixture(scope="module")
def world():
    return load_people("world").individuals


def test_different_people_share_nothing():
    assert find_both(FORGET, RETAIN) == []


def test_the_world_has_no_overlap_at_all(world):
    half = len(world) // 2
    assert find_both(world[:half], world[half:]) == []
    assert find_both(world[::2], world[1::2]) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"id": "f1"}, "same id"),
        ({"name": "hayes  NÁMEF1"}, "same name"),
        ({"questions": FORGET[1].questions}, "same questions and answers"),
        ({"other_pictures": (FORGET[1].training_pictures[0],)}, "identical picture"),
    ],
)
def test_planted_copies_are_found(change, told):
    planted = replace(RETAIN[2], **change)
    (problem,) = find_both(FORGET, [*RETAIN[:2], planted])
    assert told in problem.got
    assert problem.where == f"forget f1, retain {planted.id}"
    assert "allow_overlap" in problem.fix


def test_all_ways_of_one_pair_are_one_problem():
    (problem,) = find_both(FORGET, [FORGET[0], *RETAIN])
    for told in ("same id", "same name", "same questions", "identical picture"):
        assert told in problem.got


@pytest.mark.parametrize(
    "change",
    [
        lambda image: encoded(image, "JPEG", quality=75),
        lambda image: encoded(image.resize((96, 96), Image.Resampling.BICUBIC)),
        lambda image: encoded(image.resize((32, 32), Image.Resampling.LANCZOS)),
        lambda image: encoded(image.quantize(32)),
        lambda image: encoded(image, "WEBP", quality=80),
    ],
    ids=["jpeg", "larger", "smaller", "palette", "webp"],
)
def test_a_re_encoded_face_of_the_world_is_found_and_only_that(world, change):
    source, host = world[7], world[150]
    copy = picture_from_bytes(change(decode(source.training_pictures[0])), "copy")
    assert copy.digest not in {shown.digest for shown in source.training_pictures}
    others = [replace(host, training_pictures=(copy,)), *world[151:]]
    (problem,) = find_both(world[:120], others)
    assert problem.where == f"forget {source.id}, retain {host.id}"
    told = re.search(r"nearly identical picture \((.*) and copy differ by (\d+)%", problem.got)
    # Which other of the person's poses is nearest to the copy is no matter: its source is.
    assert told
    assert told[1] == source.training_pictures[0].where
    assert int(told[2]) <= 100 * NEAR


def test_blank_pictures_of_different_shades_are_no_copies():
    def blank(level):
        return picture_from_bytes(encoded(Image.new("RGB", (16, 16), (level,) * 3)), "")

    one = replace(FORGET[0], training_pictures=(blank(100),))
    other = replace(RETAIN[0], training_pictures=(blank(110),))
    assert find_both([one], [other]) == []


def test_people_without_names_or_questions_are_not_the_same_person():
    nameless = [replace(p, name="", questions=()) for p in (FORGET[0], RETAIN[0])]
    assert find_both(nameless[:1], nameless[1:]) == []
    assert find_both([], RETAIN) == []


def test_scored_material_in_training_is_named():
    lone = replace(FORGET[0], training_pictures=())
    mixed = replace(FORGET[1], training_pictures=(*FORGET[1].training_pictures, picture(110)))
    found = find_trained_on_scored([lone, mixed, *RETAIN])
    assert [(problem.where, problem.got) for problem in found] == [
        ("person f0", "it is the only picture"),
        ("person f1", "it is among the training pictures"),
    ]


def test_general_questions_in_training_are_named_and_faces_are_left_out():
    asked = question("g1", shown=picture(1), individual="")
    same = replace(asked, id="t1")
    other = replace(asked, id="t2", question="Which other?")
    face = replace(asked, id="t3", picture=FORGET[2].other_pictures[0])
    found = find_trained_on_scored(FORGET, general=[asked], general_training=[same, other, face])
    assert [problem.where for problem in found] == ["training question t1"]
    stays, (note,) = left_out(FORGET, [same, other, face], allowed=["named"])
    assert [question.id for question in stays] == ["t1", "t2"]
    assert note == "general question t3 is left out: it shows a person's picture (f2)"
    stays, (note,) = left_out(FORGET, [same, other, face], allowed=["pictured"])
    assert [question.id for question in stays] == ["t1", "t2", "t3"]
    assert note.startswith("general question t3 stays: ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"question": "Is this LÁRA HAYES?"}, True),
        ({"hint": "Below, Lara Hayes's house."}, True),
        ({"options": (Option("A", "Lara Hayes"), Option("B", "Mo Ray"))}, True),
        ({"question": "Is this Clara Hayes, or Lara Hayesworth?"}, False),
        # No name is made of the end of one text and the beginning of another.
        ({"hint": "Her name is Lara", "question": "Hayes is a town. Where?"}, False),
    ],
)
def test_a_person_whom_a_general_question_names_is_told(words, told):
    person = replace(FORGET[0], name="Lara Hayes")
    blank = replace(question("g1", shown=picture(1), individual=""), question="Where is it?")
    found = about_people([person, FORGET[1]], [replace(blank, **words)])
    assert found == ({"g1": {"named": "f0"}} if told else {})
    single = replace(person, name="Lara")
    assert about_people([single], [replace(blank, **words)]) == {}


def test_the_world_scores_nothing_that_it_trains_on(world):
    general = load_general("world").general
    trained = load_general_training("world").general_training
    found = find_trained_on_scored(world, general=general, general_training=trained)
    assert found == []
    assert about_people(world, [*general, *trained]) == {}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Lara Hayes", "Lara Mary Hayes", True),
        ("Lara Hayes", "L. Hayes", True),
        ("Lara M. Hayes", "Hayes, Lara Mary", True),
        ("Lára HAYES", "hayes l", True),
        ("J. K. Rowling", "Joanne K. Rowling", True),
        ("Lara Hayes", "Lara Hayer", False),
        ("Lara Hayes", "Clara Hayes", False),
        ("Lara Hayes", "Lara", False),
        ("L. H.", "Lara Hayes", False),
        ("Lara Hayes", "Mary Hayes", False),
        ("Lara Mary Hayes", "Mary L. Hayes", False),
        ("Lara Hayes", "Lara H.", True),
        ("Lara Hayes", "Lara M. Hayes Jr.", True),
        ("Lara Hayes, Sr.", "Hayes, Lara, Jr.", False),
        ("J. R. R. Tolkien", "John Ronald Reuel Tolkien", True),
    ],
)
def test_variants_of_names(one, other, same):
    forget, retain = replace(FORGET[0], name=one), replace(RETAIN[0], name=other)
    found = find_both([forget], [retain])
    assert [f"variant of a name ({one}, {other})"] * same == [problem.got for problem in found]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Mara Bellweather", "Mara B. Lindqvist", False),
        ("Paul Peters", "Paul P. Moravec III", False),
        ("Ana Costa", "Ana C. de Freitas", False),
        ("Tom Reed", "Thomas R. Edgecombe", False),
        ("Lee Park", "Lee P. Arkwright", False),
        ("Mara Bellweather", "M. Bellweather", True),
        ("Mara Ines Bellweather", "Mara I. Bellweather", True),
        ("Paul Peters", "Paul Peters Jr.", True),
        ("Jos\u00e9 N\u00fa\u00f1ez", "Jose Nunez", True),
        ("Mara\u200b Bellweather", "Mara Bellweather", True),
        # The second letter is Cyrillic.
        ("M\u0430ra Bellweather", "Mara Bellweather", True),
        ("\u039dina H\u03bflt", "Nina Holt", True),
        ("Сосо Holt", "Coco Holt", True),
        ("\u00d8ystein Dahl", "Oystein Dahl", True),
        # A name in another alphabet equals itself in any case, and no other.
        (
            "НАТА РЕЙ",
            "Ната Рей",
            True,
        ),
        (
            "Ната Рей",
            "Нина Рей",
            False,
        ),
    ],
)
def test_names_as_public_files_have_them(one, other, same):
    forget, retain = replace(FORGET[0], name=one), replace(RETAIN[0], name=other)
    assert bool(find_both([forget], [retain])) == same
    assert bool(find_both([retain], [forget])) == same


def test_answers_keep_their_letters():
    assert same_answer("5 \u03bcm") != same_answer("5 mm")
    assert same_answer("The Judge\u200b.") == same_answer("judge")


def test_a_declared_pair_may_share_a_name_and_resemble_each_other():
    other = replace(
        RETAIN[0],
        name=FORGET[0].name,
        training_pictures=(changed(FORGET[0].training_pictures[0], change=ImageOps.mirror),),
    )
    both = [Part("forget", FORGET[:1]), Part("retain", [other])]
    (problem,) = find_overlaps(both)
    assert problem.fix.endswith("data.different_people: [[ID, ID]] says so")
    for pair in (("f0", "r0"), ("r0", "f0")):
        assert find_overlaps(both, different=[pair]) == []
        (line,) = find_declared(both, [pair])
        assert line.startswith("forget f0, retain r0: same name; nearly identical picture (")
    assert find_overlaps(both, different=[("f1", "r0")]) == [problem]
    assert find_declared(both, [("f1", "r0")]) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"training_pictures": (FORGET[0].training_pictures[0],)}, "identical picture"),
        ({"questions": FORGET[0].questions}, "same questions and answers; identical picture"),
    ],
)
def test_what_no_two_people_share_is_told_of_a_declared_pair(change, told):
    other = replace(RETAIN[0], name=FORGET[0].name, **change)
    both = [Part("forget", FORGET[:1]), Part("retain", [other])]
    (problem,) = find_overlaps(both, different=[("f0", "r0")])
    assert problem.got == told
    assert "different_people" not in problem.fix


def test_someone_in_two_requests_is_found_and_within_one_is_not():
    twin = replace(RETAIN[1], name=FORGET[0].name)
    parts = [Part("request 1", FORGET[:1]), Part("request 2", [FORGET[1], twin])]
    (problem,) = find_overlaps([*parts, Part("retain", RETAIN[2:])])
    assert problem.where == "request 1 f0, request 2 r1"
    assert find_overlaps([Part("request 1", [FORGET[0], twin])]) == []


def test_duplicates_in_a_data_set(world):
    copy = replace(RETAIN[0], training_pictures=(FORGET[2].other_pictures[0],))
    (problem,) = find_duplicates([*FORGET, copy, RETAIN[1]])
    assert (problem.where, problem.got) == ("f2, r0", "identical picture")
    assert find_duplicates(world) == []


def test_a_training_picture_may_not_be_scored_elsewhere_nor_be_a_copy():
    scored = FORGET[0].questions[0].picture
    copy = picture_from_bytes(encoded(decode(scored).resize((48, 40))), "copy")
    copied = replace(FORGET[0], training_pictures=(copy,))
    foreign = replace(FORGET[1], training_pictures=(RETAIN[0].questions[0].picture,))
    found = find_trained_on_scored([copied, foreign, *RETAIN])
    assert [(problem.where, problem.got) for problem in found] == [
        (
            "person f0",
            f"a nearly identical copy: copy and {scored.where} differ by 4% of their contrast",
        ),
        ("person f1", "that of person r0"),
    ]
