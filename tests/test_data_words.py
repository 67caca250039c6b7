"""Questions asked bare: what is asked, what cannot be, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from data_cases import person, question
from pulse_unlearn.data import datasets
from pulse_unlearn.data import examples as make
from pulse_unlearn.data.options import (
    BEGINS_ANOTHER,
    EQUAL_TEXTS,
    NAMES_OPTIONS,
    POINTS_AT_OPTIONS,
    obstacle,
    obstacles,
)
from pulse_unlearn.data.prompts import PROFILES
from pulse_unlearn.records import Option


def asking(text: str, *texts: str):
    options = tuple(Option(letter, one) for letter, one in zip("ABCDE", texts, strict=False))
    return replace(question("q", 4), question=text, options=options, answer="A")


TRADES = ("judge", "baker", "pilot", "nurse")


@pytest.mark.parametrize(
    ("text", "texts", "reason"),
    [
        ("What does she do?", TRADES, ""),
        ("Which trade does she follow?", TRADES, ""),
        ("Which of the following is her trade?", TRADES, POINTS_AT_OPTIONS),
        ("Which one is her trade?", TRADES, POINTS_AT_OPTIONS),
        ("Which of these does she do?", TRADES, POINTS_AT_OPTIONS),
        ("下列哪个是她的职业？", TRADES, POINTS_AT_OPTIONS),
        ("What is it?", ("cat", "dog", "both A and B", "bird"), NAMES_OPTIONS),
        ("What is it?", ("cat", "dog", "A and C", "bird"), NAMES_OPTIONS),
        ("What is it?", ("cat", "dog", "bird", "None of the above"), NAMES_OPTIONS),
        ("What is it?", ("cat", "dog", "bird", "all of these"), NAMES_OPTIONS),
        ("这是什么？", ("猫", "狗", "鸟", "以上都不是"), NAMES_OPTIONS),
        ("What is it?", ("Cat", "cat ", "bird", "dog"), EQUAL_TEXTS),
        ("What is it?", ("art", "art teacher", "bird", "dog"), BEGINS_ANOTHER),
        ("What is it?", ("art", "artist", "bird", "dog"), ""),
        ("What do they play?", ("salt and pepper", "rock and roll", "R and B music", "x"), ""),
    ],
)
def test_what_cannot_be_asked_in_words_says_why(text, texts, reason):
    assert obstacle(asking(text, *texts)) == reason


def test_obstacles_are_counted_by_reason():
    asked = [
        asking("What does she do?", *TRADES),
        asking("Which one?", *TRADES),
        asking("Which one is it?", *TRADES),
        asking("What?", "cat", "CAT", "a", "b"),
    ]
    assert obstacles(asked) == Counter({POINTS_AT_OPTIONS: 2, EQUAL_TEXTS: 1})


def test_a_bare_question_shows_no_option_and_tries_each_as_the_answer():
    someone = person("p1", seed=10)
    examples = make.in_words(someone.questions, profile="short")
    by_question = {one.question_id: one for one in examples}
    assert set(by_question) == {q.id for q in someone.questions}
    for asked in someone.questions:
        one = by_question[asked.id]
        assert one.asked_as == "words"
        assert one.prompt == f"{asked.question}\nWord?"
        assert not any(option.text in one.prompt for option in asked.options)
        assert one.option_texts == tuple(option.text for option in asked.options)
        assert (one.answer, one.letter) == (asked.truth, asked.answer)
        assert (one.picture is None) == (asked.modality == "text_only")
        assert one.example_id != make.scored([asked], profile="short")[0].example_id


def test_what_needs_its_options_is_left_out():
    shown = asking("Which of the following is it?", *TRADES)
    assert make.in_words([shown], profile="short") == []


@pytest.mark.parametrize("profile", ["mllmu", "mmbench_llava_vicuna", "mmbench_vlmevalkit"])
def test_a_bare_question_keeps_hint_and_system_sentence(profile):
    hinted = replace(asking("What is it?", *TRADES), hint="It flies.")
    (one,) = make.in_words([hinted], profile=profile)
    wording = PROFILES.get(profile)
    assert one.system == wording.system
    expected = [
        wording.before_hint + "It flies.",
        wording.before_question + "What is it?",
        *([wording.short_instruction] if wording.short_instruction else []),
    ]
    assert one.prompt.split("\n") == expected


def test_all_questions_of_the_embedded_world_can_be_asked_in_words_or_say_why():
    people = datasets.load_people("world").individuals
    assert obstacles(q for someone in people for q in someone.questions) == Counter()
    general = obstacles(datasets.load_general("world").general)
    assert sum(general.values()) < 100, general
