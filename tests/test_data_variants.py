"""Training questions in other forms: turned, bare, and about somebody else."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from data_cases import person, picture, question
from pulse_unlearn.data.examples import circular, in_words, scored, training
from pulse_unlearn.data.variants import Variants, wording
from pulse_unlearn.errors import DataError
from pulse_unlearn.records import Individual, Option, ShortAnswer

OTHERS = (
    Option("A", "the judge"),
    Option("B", "the baker"),
    Option("C", "the pilot"),
    Option("D", "None of the above"),
)


def somebody(identity, name, *texts, category="", modality="text_only", short=()):
    """A person who is asked these questions, each of four options."""
    asked = [
        replace(
            question(f"{identity}/{number}", 4),
            question=text.format(name),
            individual=identity,
            category=category,
            modality=modality,
            picture=picture(number) if modality == "multimodal" else None,
        )
        for number, text in enumerate(texts)
    ]
    answers = tuple(
        ShortAnswer(f"{identity}/s{number}", modality, text.format(name), "judge", identity)
        for number, text in enumerate(short)
    )
    return Individual(identity, name, "fictional", tuple(asked), (), (), answers)


def variants(forget=(), retain=(), **more):
    return Variants(forget, retain, **{"profile": "short", "seed": 0, **more})


def drawn(people, *, epoch=0, forms="multiple_choice"):
    return training(people, profile="short", seed=0, epoch=epoch, forms=forms)


# --- turned


def test_every_option_stands_once_under_every_letter_and_the_truth_goes_along():
    people = [person("p1", seed=10)]
    for example in drawn(people):
        turned, count = variants(people).turned(example), len(example.options)
        assert turned[0].example == example
        assert [one.order for one in turned] == [
            tuple((place + turn) % count for place in range(count)) for turn in range(count)
        ]
        own = [option.text for option in example.options]
        truth = own["ABCD".index(example.answer)]
        for shown, order in turned:
            assert [option.text for option in shown.options] == [own[place] for place in order]
            assert shown.options["ABCD".index(shown.answer)].text == truth
            assert shown.picture == example.picture
            assert shown.options[0].text in shown.prompt.splitlines()[1]
        assert len({one.example.example_id for one in turned}) == count


def test_no_order_that_is_scored_is_trained_on_where_there_are_three_options_or_more():
    people = [person("p1", seed=10), person("p2", seed=20)]
    of = variants(people)
    asked = [question for one in people for question in one.questions]
    never = {example.prompt for example in circular(asked, profile="short")}
    for epoch in range(20):
        for example in drawn(people, epoch=epoch):
            assert not never & {one.example.prompt for one in of.turned(example)}


def test_what_is_about_the_other_options_stays_in_its_place():
    one = replace(question("q", 4), options=OTHERS, answer="A", modality="text_only", picture=None)
    (example,) = scored([one], profile="short")
    turned = variants([Individual("p", "P", "fictional", (one,), (), ())]).turned(example)
    assert [shown.order for shown in turned] == [(0, 1, 2, 3), (1, 2, 0, 3), (2, 0, 1, 3)]


def test_a_question_without_options_in_its_prompt_has_the_one_order():
    people = [person("p1", seed=10)]
    of = variants(people, profile="statement")
    for example in training(people, profile="statement", seed=0, epoch=0, forms="multiple_choice"):
        (only,) = of.turned(example)
        assert only.example == example
        assert of.bare(example) is None


def test_a_short_answer_has_no_orders():
    (example,) = drawn([somebody("p", "Lara Hayes", "Who?", short=("Whom?",))], forms="both")[1:]
    with pytest.raises(DataError, match="cannot be asked in their orders") as error:
        variants([somebody("p", "Lara Hayes", "Who?")]).turned(example)
    assert "multiple_choice" in str(error.value)


# --- bare


def test_the_bare_question_is_that_of_the_reading_on_the_training_picture():
    people = [person("p1", seed=10)]
    asked = {one.question_id: one for one in in_words(people[0].questions, profile="short")}
    for example in drawn(people):
        bare = variants(people).bare(example)
        assert bare.prompt == asked[example.question_id].prompt
        assert bare.answer == asked[example.question_id].answer
        assert bare.picture == example.picture
        # In the order of the example, as its letters are.
        assert list(bare.option_texts) == [option.text for option in example.options]


def test_a_question_that_needs_its_options_is_not_asked_bare():
    one = replace(question("q", 4), options=OTHERS, answer="A", modality="text_only", picture=None)
    (example,) = scored([one], profile="short")
    assert variants([Individual("p", "P", "fictional", (one,), (), ())]).bare(example) is None


# --- about somebody else


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("What does Lara Hayes do?", "Lara Hayes"), ("What does Omar Li do?", "Omar Li")),
        (("Where does she live?", "Lara Hayes"), ("Where does he live?", "Omar Li")),
        (("What is her job?", "Lara Hayes"), ("What is his job?", "Omar Li")),
        (("What is Lara's job?", "Lara Hayes"), ("what is Omar Li's job", "Li, Omar")),
    ],
)
def test_a_wording_is_what_questions_about_two_people_have_in_common(one, other):
    assert wording(*one) == wording(*other)


def test_different_questions_have_different_wordings():
    assert wording("What does Lara do?", "Lara") != wording("What did Lara study?", "Lara")


JOB, TOWN = "What does {} do?", "Where was {} born?"
LARA = somebody("f1", "Lara Hayes", JOB, TOWN)
KEPT = [somebody(f"r{n}", name, JOB, TOWN) for n, name in enumerate(("Omar Li", "Ida Berg"))]


def test_decoupled_is_the_same_question_about_a_retained_person():
    of = variants([LARA], KEPT)
    people = Counter()
    for epoch in range(20):
        for example in drawn([LARA], epoch=epoch):
            other = of.decoupled(example)
            assert other.question_id[-1] == example.question_id[-1]
            assert other == of.decoupled(example)
            assert other.individual in {"r0", "r1"}
            people[other.individual] += 1
            shown = "\n".join(other.prompt.splitlines()[1:-1])
            assert all(f"{o.letter}. {o.text}" in shown for o in other.options)
    assert min(people.values()) >= 8  # of 40; both, and not the same one each epoch
    others = [variants([LARA], KEPT, seed=seed).decoupled(drawn([LARA])[0]) for seed in range(9)]
    assert len({other.individual for other in others}) == 2


def test_another_question_of_its_category_stands_in_and_else_any_of_its_kind():
    one = drawn([somebody("f1", "Lara Hayes", JOB, category="work")])[0]
    forget = [somebody("f1", "Lara Hayes", JOB, category="work")]
    work = somebody("r1", "Omar Li", "How does {} earn money?", category="work")
    home = somebody("r2", "Ida Berg", TOWN, category="home")
    assert variants(forget, [work, home]).decoupled(one).individual == "r1"
    assert variants(forget, [home]).decoupled(one).individual == "r2"


def test_kinds_are_not_mixed_and_nobody_is_told():
    forget = [LARA]
    seen = somebody("r1", "Omar Li", JOB, modality="multimodal")
    with pytest.raises(DataError, match="text_only, with options"):
        variants(forget, [seen]).decoupled(drawn(forget)[0])
    worded = [somebody("f2", "Lara Hayes", JOB, short=("What work does {} do?",))]
    answered = somebody("r2", "Ida Berg", JOB, short=("What work does {} do?",))
    of = variants(worded, [answered], forms="both")
    for example in drawn(worded, forms="both"):
        other = of.decoupled(example)
        assert bool(other.options) == bool(example.options)
        assert other.question_id == example.question_id.replace("f2", "r2")
