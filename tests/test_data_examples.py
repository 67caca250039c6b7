"""Views, orders and rotations: what must never meet does not, and order depends on ids alone."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_cases import person, picture, question
from pulse_unlearn.data import examples as make
from pulse_unlearn.data.prompts import PROFILES
from pulse_unlearn.records import Individual

PEOPLE = [person("p1", seed=10), person("p2", seed=20), person("p3", seed=30)]


def order(example):
    return tuple(option.text for option in example.options)


@pytest.mark.parametrize("forms", ["multiple_choice", "short_answer", "both"])
def test_what_an_epoch_trains_on_is_counted_without_making_it(forms):
    silent = replace(PEOPLE[0], id="p4", short_answers=())
    terse = replace(PEOPLE[1], id="p5", questions=PEOPLE[1].questions[:1])
    people = [*PEOPLE, silent, terse]
    made = make.training(people, profile="short", seed=0, epoch=0, forms=forms)
    assert make.training_count(people, forms) == len(made)


def truth(example):
    return next(option.text for option in example.options if option.letter == example.answer)


def of(questions) -> Individual:
    return Individual("p", "P", "fictional", tuple(questions), (), ())


@st.composite
def asked(draw, least: int = 2, most: int = 7):
    count = draw(st.integers(least, most))
    answer = draw(st.sampled_from("ABCDEFG"[:count]))
    return question(draw(st.text(min_size=1, max_size=8)), count, answer=answer)


def test_scored_is_the_question_as_the_file_has_it():
    first = PEOPLE[0].questions[0]
    (example,) = make.scored([first], profile="short")
    assert example.options == first.options
    assert example.answer == first.answer
    assert example.picture == first.picture
    assert example.prompt == (
        "What does Lara Hayes do?\nA. jobA\nB. jobB\nC. jobC\nD. jobD\nLetter?"
    )
    assert (example.question_id, example.individual, example.rotation) == ("p1/m", "p1", 0)


@given(asked())
def test_circular_shows_each_text_under_each_letter_once(shown):
    examples = make.circular([shown], profile="short")
    assert [example.rotation for example in examples] == list(range(len(shown.options)))
    assert examples[0] == make.scored([shown], profile="short")[0]
    assert {truth(example) for example in examples} == {shown.truth}
    letters = [option.letter for option in shown.options]
    for example in examples:
        assert [option.letter for option in example.options] == letters
        assert example.options[0].text == shown.options[example.rotation].text
    pairs = Counter(option for example in examples for option in example.options)
    assert len(pairs) == len(letters) ** 2
    assert set(pairs.values()) == {1}
    assert sorted(example.answer for example in examples) == letters


@settings(max_examples=200)
@given(asked(least=3), st.integers(), st.integers(), st.integers(0, 50))
def test_scored_reserved_and_training_orders_never_meet(shown, view_seed, seed, epoch):
    """Scored are all cyclic orders of the file's; each of them is a number in the report."""
    as_scored = make.circular([shown], profile="short")
    (other,) = make.other_view([of([shown])], profile="short", seed=view_seed)
    turned = make.other_view([of([shown])], profile="short", seed=view_seed, turned=True)
    (trained,) = make.training(
        [of([shown])], profile="short", seed=seed, epoch=epoch, forms="multiple_choice"
    )
    count = len(shown.options)
    orders = {order(one) for one in as_scored}
    assert len({*orders, order(other), order(trained)}) == count + 2
    assert turned[0] == other
    assert len({*orders, *map(order, turned)}) == 2 * count
    assert count == 3 or order(trained) not in set(map(order, turned))
    assert {truth(one) for one in (*as_scored, *turned, trained)} == {shown.truth}
    assert sorted(order(trained)) == sorted(order(other)) == sorted(order(as_scored[0]))


@given(asked())
def test_turned_views_show_each_text_under_each_letter_once(shown):
    turned = make.other_view([of([shown])], profile="short", seed=0, turned=True)
    assert [one.rotation for one in turned] == list(range(len(shown.options)))
    pairs = Counter(option for example in turned for option in example.options)
    assert len(pairs) == len(shown.options) ** 2
    assert len({one.example_id for one in turned}) == len(turned)


def test_two_options_are_trained_in_the_one_order_that_is_not_scored():
    shown = question("q", 2)
    trained = make.training([of([shown])], profile="short", seed=0, epoch=0, forms="both")[0]
    other = make.other_view([of([shown])], profile="short", seed=0)[0]
    assert order(trained) == order(other) == ("jobB", "jobA")
    assert trained.answer == "A"


def test_training_meets_every_free_order_and_every_letter():
    shown = question("q", 4)
    seen = [
        make.training([of([shown])], profile="short", seed=1, epoch=epoch, forms="both")[0]
        for epoch in range(600)
    ]
    # Six cycles of four orders: one is scored, one reserved.
    assert len({order(example) for example in seen}) == math.factorial(4) - 2 * 4
    letters = Counter(example.answer for example in seen)
    assert set(letters) == set("ABCD")
    assert min(letters.values()) > 90


def test_reserved_orders_are_spread_over_the_letters():
    people = [of([question(f"q{number}", 4)]) for number in range(400)]
    letters = Counter(
        example.answer for example in make.other_view(people, profile="short", seed=0)
    )
    assert min(letters.values()) > 65


@given(st.permutations(PEOPLE), st.integers(), st.integers(0, 9))
def test_the_list_order_changes_no_example(people, seed, epoch):
    def all_of(individuals):
        settings = {"profile": "short", "seed": seed}
        return {
            example.example_id: example
            for example in (
                *make.training(individuals, **settings, epoch=epoch, forms="both"),
                *make.other_view(individuals, **settings),
            )
        }

    together = all_of(people)
    assert together == all_of(PEOPLE)
    assert all_of(people[:1]).items() <= together.items()


def test_the_orders_of_one_seed_are_pinned():
    """A change here changes every result: raise the store's scheme version with it."""
    examples = make.training(PEOPLE[:1], profile="short", seed=7, epoch=3, forms="both")
    assert [(e.answer, [o.text for o in e.options]) for e in examples[:2]] == PINNED


PINNED = [("D", ["jobD", "jobC", "jobA", "jobB"]), ("C", ["judge", "baker", "pilot"])]


def test_views_keep_to_their_role_and_take_turns():
    settings = {"profile": "short", "seed": 0}
    for individual in PEOPLE:
        views = set()
        for epoch in range(4):
            drawn = make.training([individual], **settings, epoch=epoch, forms="both")
            views |= {(e.question_id, e.picture) for e in drawn if e.modality == "multimodal"}
        shown = {shown for name, shown in views if name == f"{individual.id}/m"}
        assert shown == set(individual.training_pictures)
        other = make.other_view([individual], **settings)
        assert {e.picture for e in other if e.picture} == set(individual.other_pictures)


def test_text_only_examples_never_carry_a_picture():
    settings = {"profile": "short", "seed": 0}
    everything = [
        *make.scored([q for p in PEOPLE for q in p.questions], profile="short"),
        *make.training(PEOPLE, **settings, epoch=0, forms="both"),
        *make.other_view(PEOPLE, **settings),
    ]
    for example in everything:
        assert (example.picture is None) == (example.modality == "text_only")


def test_of_a_person_with_one_picture_that_one_is_used():
    shown = picture(5)
    lone = of([question("q", shown=shown)])
    settings = {"profile": "short", "seed": 0}
    assert make.training([lone], **settings, epoch=0, forms="both")[0].picture == shown
    assert make.other_view([lone], **settings)[0].picture == shown


@pytest.mark.parametrize(
    ("forms", "answers"),
    [
        ("multiple_choice", {"A", "B", "C", "D"}),
        ("short_answer", {"judge"}),
        ("both", {"A", "B", "C", "D", "judge"}),
    ],
)
def test_forms_choose_what_is_trained_on(forms, answers):
    drawn = [
        example
        for epoch in range(30)
        for example in make.training(PEOPLE, profile="short", seed=0, epoch=epoch, forms=forms)
    ]
    assert {example.answer for example in drawn} == answers
    ids = [example.example_id for example in drawn]
    assert len(ids) == len(set(ids))


def test_general_training_reaches_all_orders_of_all_sizes():
    questions = [question("a", 2, shown=picture(1)), question("b", 3, shown=picture(2))]
    seen: dict[str, set[tuple[str, ...]]] = {"a": set(), "b": set()}
    for epoch in range(100):
        for example in make.general_training(questions, profile="short", seed=0, epoch=epoch):
            seen[example.question_id].add(order(example))
            assert truth(example) == "jobB"
            assert example.picture is not None
    assert {name: len(orders) for name, orders in seen.items()} == {"a": 2, "b": 6}


@pytest.mark.parametrize("profile", ["mmbench_llava_vicuna", "mmbench_llava"])
def test_every_kind_of_example_carries_the_profiles_system_sentence(profile):
    questions = PEOPLE[0].questions
    trained = make.training(PEOPLE, profile=profile, seed=0, epoch=0, forms="both")
    assert {bool(one.options) for one in trained} == {True, False}, "short answers are among them"
    kinds = [
        make.scored(questions, profile=profile),
        make.circular(questions, profile=profile),
        make.other_view(PEOPLE, profile=profile, seed=0),
        make.general_training(questions, profile=profile, seed=0, epoch=0),
        trained,
    ]
    for examples in kinds:
        assert {one.system for one in examples} == {PROFILES.get(profile).system}


# --- answered in words


@given(asked())
def test_in_words_every_order_asks_the_same_and_the_true_text_is_the_answer(shown):
    first, *turned = make.circular([shown], profile="statement")
    assert first.prompt == shown.question
    for example in (first, *turned):
        assert example.prompt == first.prompt
        assert example.option_texts == tuple(option.text for option in example.options)
        assert example.answer == shown.truth
        by_letter = {option.letter: option.text for option in example.options}
        assert by_letter[example.letter] == shown.truth
    letters = sorted(option.letter for option in shown.options)
    assert sorted(example.letter for example in (first, *turned)) == letters


def test_with_letters_the_answer_is_the_letter_and_nothing_else_is_said():
    for example in make.scored(PEOPLE[0].questions, profile="short"):
        assert example.option_texts == ()
        assert example.letter == example.answer


def test_every_view_is_answered_in_words():
    of_training = {"seed": 0, "epoch": 0, "forms": "multiple_choice"}
    views = [
        make.other_view(PEOPLE, profile="statement", seed=0),
        make.training(PEOPLE, profile="statement", **of_training),
        make.general_training(PEOPLE[0].questions, profile="statement", seed=0, epoch=0),
    ]
    questions = {q.id: q for one in PEOPLE for q in one.questions}
    for example in (example for view in views for example in view):
        assert example.answer == questions[example.question_id].truth
        assert "A." not in example.prompt
