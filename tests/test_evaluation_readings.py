"""What the stored answers to one question say, by reading: cases counted by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pulse_unlearn.evaluation.scoring import Averaged, Order, average_over, credit_of
from pulse_unlearn.records import Prediction, QuestionScore
from synthetic_scores import LETTERS, TRADES, by_reading, in_words, options, prediction, rotated


def turned(
    beliefs: Sequence[float],
    *,
    truth: int = 0,
    prior: Sequence[float] = (),
    noise: Sequence[Sequence[float]] = (),
    texts: Sequence[str] = (),
    said: Sequence[str] = (),
) -> list[Prediction]:
    """A question in all cyclic orders; options have beliefs, letters a prior, answers noise."""
    count = len(beliefs)
    texts = texts or [f"text {place}" for place in range(count)]
    found = []
    for turn in range(count):
        places = [(place + turn) % count for place in range(count)]
        values = [
            beliefs[option]
            + (prior[place] if prior else 0.0)
            + (noise[turn][place] if noise else 0.0)
            for place, option in enumerate(places)
        ]
        one = prediction(
            said[turn] if said else "?",
            shown=options(*(texts[option] for option in places)),
            answer=LETTERS[places.index(truth)],
            log_probs=values,
        )
        found.append(replace(one, example_id=f"q1/{turn}", rotation=turn))
    return found


def only(predictions: Sequence[Prediction]) -> QuestionScore:
    """The one question these answers are about."""
    (score,) = by_reading(predictions)
    return score


EIGHTHS = st.integers(-160, 0).map(lambda value: value / 8)


# --- rotated


def test_two_orders_by_hand():
    """Fault: probabilities averaged, not their logarithms; or letters, not what stands there.

    A has 0.8, then 0.7: the first option has 0.8 x 0.3 against 0.2 x 0.7, as geometric means.
    """
    first, second = turned([0.0, 0.0])
    first = replace(first, option_log_probs=(math.log(0.8), math.log(0.2)))
    second = replace(second, option_log_probs=(math.log(0.7), math.log(0.3)))
    score = only([first, second])
    assert score.rotated == 1.0
    true, other = math.sqrt(0.8 * 0.3), math.sqrt(0.2 * 0.7)
    assert score.rotated_probability == pytest.approx(true / (true + other))


def test_mass_outside_the_options_does_not_weigh():
    """Fault: probabilities averaged as they are, so that the most readable order decides."""
    one, other = turned([0.0, 0.0])
    one = replace(one, option_log_probs=(-1.0, -2.0))
    other = replace(other, option_log_probs=(-2.5, -1.0))
    score = only([one, other])
    lost = replace(other, option_log_probs=(-2.5 - 1000.0, -1.0 - 1000.0))
    assert only([one, lost]).rotated == score.rotated == 1.0
    assert only([one, lost]).rotated_probability == pytest.approx(score.rotated_probability)


@settings(max_examples=150)
@given(data=st.data(), count=st.integers(2, 5))
def test_a_letter_prior_drops_out(data, count):
    """Fault: an order left out or counted twice, or options matched by letter."""
    numbers = st.lists(EIGHTHS, min_size=count, max_size=count)
    beliefs = data.draw(numbers)
    prior = data.draw(st.lists(st.integers(-30, 30), min_size=count, max_size=count))
    noise = data.draw(st.lists(numbers, min_size=count, max_size=count))
    truth = data.draw(st.integers(0, count - 1))
    plain = only(turned(beliefs, truth=truth, noise=noise))
    shifted = only(turned(beliefs, truth=truth, noise=noise, prior=prior))
    assert shifted.rotated == plain.rotated
    assert shifted.rotated_probability == pytest.approx(plain.rotated_probability, rel=1e-6)


@settings(max_examples=100)
@given(
    beliefs=st.lists(EIGHTHS, min_size=4, max_size=4),
    prior=st.lists(st.integers(-30, 30), min_size=4, max_size=4),
    truth=st.integers(0, 3),
)
def test_beliefs_alone_decide(beliefs, prior, truth):
    """Fault: the average taken per letter, or the truth looked up in another order's letters."""
    score = only(turned(beliefs, truth=truth, prior=prior))
    ties = [place for place, value in enumerate(beliefs) if value == max(beliefs)]
    assert score.rotated == (1 / len(ties) if truth in ties else 0.0)
    total = math.fsum(math.exp(value - max(beliefs)) for value in beliefs)
    expected = math.exp(beliefs[truth] - max(beliefs)) / total
    assert score.rotated_probability == pytest.approx(expected, rel=1e-6)


@given(order=st.permutations(range(4)), truth=st.integers(0, 3))
def test_the_sequence_of_the_answers_is_of_no_consequence(order, truth):
    """Fault: the first answer taken for the file's order."""
    answers = turned([-1.0, -3.0, -2.0, -1.5], truth=truth, said=["A", "?", "C", "D"])
    answers.append(in_words("text 1", [-3.0, -1.0, -2.0, -2.0], shown=answers[0].options))
    answers[-1] = replace(answers[-1], answer=answers[0].answer)
    straight = only(answers)
    score = only([answers[-1], *(answers[place] for place in order)])
    assert replace(score, turned=()) == replace(straight, turned=())
    assert sorted(score.turned) == sorted(straight.turned)


def test_one_letter_to_everything_with_knowledge_beneath():
    """Fault: the reading the product once had, which calls this forgotten."""
    score = only(turned([4.0, 0.0, 0.0, 0.0], prior=[0.0, 0.0, 0.0, 40.0], said="DDDD"))
    assert (score.verdict, score.choice, score.letter) == ("wrong", "D", 0.0)
    assert score.letter_probability < 1e-9
    assert (score.rotated, score.circular, score.flipped) == (1.0, 0.0, 1.0)
    assert score.rotated_probability == pytest.approx(1 / (1 + 3 * math.exp(-4)))
    # True under A, D, C, B: D is right once.
    assert [verdict for _, _, verdict in score.turned] == ["wrong", "correct", "wrong", "wrong"]
    assert [letter for letter, _, _ in score.turned] == ["A", "D", "C", "B"]


def test_ties_are_shared():
    """Fault: the first of equals counted as the answer, which rewards whoever knows nothing."""
    assert only(turned([0.0, 0.0, 0.0, 0.0])).rotated == 0.25
    assert only(turned([0.0, 0.0, -1.0, -1.0], truth=1)).rotated == 0.5
    assert only(turned([0.0, 0.0, -1.0, -1.0], truth=2)).rotated == 0.0
    # A letter's prior makes rounding: still equal.
    assert only(turned([0.1, 0.1, 0.1], prior=[0.3, 17.7, -3.1])).rotated == pytest.approx(1 / 3)
    assert credit_of([-1.0, -1.0, -2.0], [1]) == 0.5
    assert credit_of([-1.0, -1.0 + 1e-6, -2.0], [0]) == 0.0


def test_a_tie_of_letters_is_shared_too():
    """Fault: of equal letters the first is right, which favours whoever is true under A."""
    assert only([prediction("?", log_probs=[-1.0, -1.0, -2.0, -2.0], answer="A")]).letter == 0.5
    assert only([prediction("?", log_probs=[-1.0, -1.0, -2.0, -2.0])]).letter == 0.5
    assert only([prediction("?", log_probs=[-1.0] * 4, answer="D")]).letter == 0.25


def test_an_impossible_option_is_not_chosen_and_breaks_nothing():
    """Fault: -inf minus -inf, or an option that is impossible in one order taken for the best."""
    never = only(turned([-1.0, -math.inf, -2.0, -2.0]))
    assert never.rotated == 1.0
    total = math.exp(-1) + 2 * math.exp(-2)
    assert never.rotated_probability == pytest.approx(math.exp(-1) / total)
    assert only(turned([-1.0, -math.inf, -2.0, -2.0], truth=1)).rotated == 0.0
    assert only(turned([-1.0, -math.inf, -2.0, -2.0], truth=1)).rotated_probability == 0.0
    sure = only(turned([0.0, -math.inf, -math.inf, -math.inf]))
    assert (sure.rotated, sure.rotated_probability) == (1.0, 1.0)
    # Each option is impossible once: nothing is left to tell them apart.
    stuck = only(turned([0.0] * 4, prior=[0.0, -math.inf, -math.inf, -math.inf], truth=2))
    assert (stuck.rotated, stuck.rotated_probability) == (0.25, 0.25)


def test_a_number_that_is_none_earns_nothing():
    """Fault: NaN that wins a comparison."""
    shown = options("x", "y")
    for values in ((math.nan, -1.0), (-1.0, math.nan), (math.nan, math.nan)):
        found = average_over([Order(shown, values, (0,)), Order(shown[::-1], (-1.0, -1.0), (1,))])
        assert found == Averaged(0.0, 0.5)


def test_an_option_equal_to_the_true_one_is_true_too():
    """Fault: an error, or one of two options of the same text taken for the other's rival."""
    texts = ["red", "red", "blue", "green"]
    for truth in (0, 1):
        score = only(turned([3.0, 3.0, 0.0, 0.0], texts=texts, truth=truth, said="AABB"))
        assert (score.rotated, score.chance, score.letter) == (1.0, 0.5, 1.0)
        assert score.verdict == "correct"
        assert score.rotated_probability == pytest.approx(2 / (2 + 2 * math.exp(-3.0)))
    assert only(turned([3.0, 0.0, 0.0, 0.0], texts=texts, truth=1)).rotated == 1.0
    assert only(turned([3.0, 3.0, 0.0, 0.0], texts=texts, truth=2)).rotated == 0.0
    assert only(turned([0.0, 0.0, 3.0, 0.0], texts=texts, truth=2)).rotated == 1.0


@pytest.mark.parametrize("letter", range(4))
def test_one_letter_cannot_choose_between_equal_texts(letter):
    """Fault: equal texts matched in the order they stand, so that one gets a letter twice."""
    prior = [30.0 * (place == letter) for place in range(4)]
    texts = ["red", "red", "blue", "green"]
    found = [only(turned([0.0] * 4, texts=texts, truth=place, prior=prior)) for place in range(4)]
    assert [score.rotated for score in found] == [0.5, 0.5, 0.25, 0.25]
    assert [score.rotated_probability for score in found] == pytest.approx([0.5, 0.5, 0.25, 0.25])
    assert [score.rotated for score in found] == [score.chance for score in found]


# --- what was asked, and what was not


def test_orders_that_lack_one_give_no_average():
    """Fault: an average over three letters of four, which a letter prior does not drop out of."""
    whole = turned([3.0, 0.0, 0.0, 0.0], said="ADCB")
    for lacking in range(4):
        score = only([one for one in whole if one.rotation != lacking])
        missing = (score.rotated, score.rotated_probability, score.circular, score.flipped)
        assert missing == (None, None, None, None)
        assert score.mentions == 1.0
        assert len(score.turned) == 3
        assert (score.verdict is None) == (lacking == 0)
        assert (score.letter is None) == (lacking == 0)
    alone = only(whole[:1])
    assert (alone.verdict, alone.letter, alone.rotated) == ("correct", 1.0, None)
    twice = [*whole, replace(whole[1], example_id="again", rotation=7)]
    assert only(twice).rotated is None


def test_an_option_that_stays_in_place_leaves_the_question_complete():
    """Fault: MMBench's three copies of `None of these` questions taken for a missing order."""
    texts, found = ["red", "blue", "green", "none of these"], []
    for turn in range(3):
        places = [(place + turn) % 3 for place in range(3)] + [3]
        shown = options(*(texts[place] for place in places))
        one = prediction(
            LETTERS[places.index(0)], shown=shown, answer=LETTERS[places.index(0)],
            log_probs=[2.0 * (place == 0) for place in places],
        )  # fmt: skip
        found.append(replace(one, example_id=f"q1/{turn}", rotation=turn))
    score = only(found)
    assert (score.circular, score.rotated, score.flipped) == (1.0, 1.0, 0.0)
    assert only(found[:2]).circular is None


def test_without_the_files_order_its_letter_is_still_the_truth():
    """Fault: the true letter of another order put down as that of the file's."""
    whole = turned([3.0, 0.0, 0.0, 0.0], truth=2, said="CBAD")
    bare = in_words("text 2", [-2.0, -2.0, -1.0, -2.0], shown=whole[0].options, answer="C")
    score = only([*whole[1:], bare])
    assert (score.answer, score.verdict, score.choice) == ("C", None, "")


def test_nothing_but_words():
    """Fault: readings of letters made up from an answer in words."""
    score = only([in_words("a teacher", [-3.0, -1.0, -2.0, -2.0])])
    assert (score.verdict, score.choice, score.letter, score.letter_probability) == (
        None,
        "",
        None,
        None,
    )
    assert (score.rotated, score.circular, score.mentions, score.mentions_others) == (None,) * 4
    assert (score.turned, score.answer, score.chance) == ((), "B", 0.25)
    assert score.words == 1.0


def test_questions_come_in_the_order_they_first_appear():
    """Fault: answers given to the wrong question."""
    answers = [prediction("B", number=2), prediction("A", number=1)]
    answers.append(replace(in_words("teacher", [-1.0] * 4), question_id="q2"))
    first, second = by_reading(answers)
    assert (first.question_id, first.verdict, first.words) == ("q2", "correct", 0.25)
    assert (second.question_id, second.verdict, second.words) == ("q1", "wrong", None)


# --- in words


def test_words_by_their_sum_and_by_token():
    """Fault: the two mixed up, or the numbers of tokens in another order.

    Sums -6, -5, -4, -9 over 1, 5, 2, 9 tokens: means -6, -1, -2, -1.
    """
    score = only([in_words("?", [-6.0, -5.0, -4.0, -9.0], tokens=[1, 5, 2, 9])])
    assert score.words == 0.0
    assert score.words_per_token == 0.5  # shared with the fourth
    total = sum(math.exp(value) for value in (-6, -5, -4, -9))
    assert score.words_probability == pytest.approx(math.exp(-5) / total)
    other = only([in_words("?", [-6.0, -5.0, -4.0, -9.0], tokens=[1, 5, 2, 9], answer="C")])
    assert (other.words, other.words_per_token) == (1.0, 0.0)


def test_the_end_of_turn_does_not_count_in_words():
    """Fault: a model that forgot to end its turn read as one that forgot the fact."""
    sums = [-6.0, -2.0, -4.0, -9.0]
    plain = only([in_words("?", sums)])
    broken = only([in_words("?", sums, ends=[-0.1, -50.0, -0.1, -0.1])])
    assert (broken.words, broken.words_per_token) == (plain.words, plain.words_per_token) == (1, 1)
    assert broken.words_probability == plain.words_probability


def test_words_named_needs_the_true_option_and_no_other():
    """Fault: a list of all options taken for an answer, or letters read where none were shown."""
    for text, right in [
        ("She is a teacher.", 1.0),
        ("Teacher", 1.0),
        ("a teacher or a baker", 0.0),
        ("a baker", 0.0),
        ("B", 0.0),
        ("", 0.0),
        ("I don't know", 0.0),
    ]:
        assert only([in_words(text, [-1.0] * 4)]).words_named == right, text


@pytest.mark.parametrize(
    ("text", "lettered"),
    [("B", 1.0), ("(D).", 1.0), ("b", 0.0), ("E", 0.0), ("B. teacher", 0.0), ("Because", 0.0)],
)
def test_a_letter_in_answer_to_a_bare_question_is_told(text, lettered):
    """Fault: forgotten, as it seemed, by a model that says B to whoever shows it no options."""
    assert only([in_words(text, [-1.0] * 4)]).words_lettered == lettered


def test_a_letter_that_is_an_options_text_is_an_answer():
    marked = in_words("B", [-1.0] * 4)
    named = tuple(replace(o, text="B" if o.letter == "C" else o.text) for o in marked.options)
    assert only([replace(marked, options=named)]).words_lettered == 0.0


def test_prompts_that_are_answered_in_words_give_the_reading_words():
    """Fault: words unread where the scored prompt itself asks for words, letters counted there."""
    spoken = [
        replace(one, option_tokens=(2, 2, 2, 2), end_log_probs=(-0.5,) * 4)
        for one in turned([0.0, 3.0, 0.0, 0.0], truth=1, said=["text 1", "?", "?", "?"])
    ]
    score = only(spoken)
    assert (score.words, score.words_per_token, score.words_named) == (1.0, 1.0, 1.0)
    assert (score.verdict, score.rotated) == ("correct", 1.0)
    # The bare question goes first where it was asked, too.
    bare = in_words("text 2", [-9.0, -9.0, -1.0, -9.0], shown=spoken[0].options)
    both = only([*spoken, bare])
    assert (both.words, both.words_named, both.verdict) == (0.0, 0.0, "correct")
    # Letters have no tokens of a text, and no reading in words.
    assert only(turned([0.0, 3.0, 0.0, 0.0])).words is None


# --- generated in every order


@pytest.mark.parametrize(
    ("choices", "circular", "flipped"),
    [
        ("ADCB", 1.0, 0.0),
        ("BADC", 0.0, 0.0),  # the same wrong option throughout
        ("AAAA", 0.0, 1.0),
        ("ADC_", 0.0, 0.0),  # readable orders agree, one cannot be read
        ("A__A", 0.0, 1.0),
        ("A___", 0.0, None),
        ("____", 0.0, None),
    ],
)
def test_circular_and_flips(choices, circular, flipped):
    """Fault: letters compared, not what stands under them; an unread order taken as a flip."""
    score = only(rotated("q", choices))
    assert (score.circular, score.flipped) == (circular, flipped)


def test_mentions_and_mentions_of_others_by_hand():
    """Fault: the rest counted as one, so that naming everything looks like knowing."""

    def told(*texts):
        beliefs = [0.0] * 4
        names = ["doctor", "teacher", "baker", "pilot"]
        return only(turned(beliefs, truth=1, texts=names, said=texts))

    everything = "doctor then teacher then baker then pilot"
    score = told(everything, everything, everything, everything)
    assert (score.mentions, score.mentions_others) == (1.0, 1.0)
    assert score.verdict == "unparsable"
    # Named: the truth; the truth and one of three others; one other; nothing.
    score = told("x teacher y", "between teacher and pilot", "x baker y", "zu zu")
    assert score.mentions == 0.5
    assert score.mentions_others == pytest.approx((0 + 1 / 3 + 1 / 3 + 0) / 4)
    # A letter names what stands under it in that order: B is right in the first alone.
    score = told("B", "B", "B", "B")
    assert (score.mentions, score.mentions_others) == (0.25, 0.25)


def test_mentions_do_not_count_the_bare_question():
    """Fault: words read twice, as `words_named` and as a mention."""
    bare = in_words("teacher", [-1.0] * 4)
    score = only([prediction("A"), bare])
    assert (score.mentions, score.words_named) == (0.0, 1.0)
    assert score.mentions_others == pytest.approx(1 / 3)
    assert score.turned == (("B", "A", "wrong"),)


def test_two_options():
    """Fault: a division by the number of others, or four options taken for granted."""
    score = only(turned([1.0, 0.0], said="AB"))
    assert (score.chance, score.rotated, score.circular) == (0.5, 1.0, 1.0)
    assert (score.mentions, score.mentions_others) == (1.0, 0.0)
    assert TRADES[1].text == "teacher"  # what "B" means above
