import math
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulse_unlearn.errors import ConfigError, DataError
from pulse_unlearn.evaluation.parsers import PARSERS, parse
from pulse_unlearn.evaluation.scoring import parser_descriptions, score, score_all
from pulse_unlearn.records import Option
from synthetic_scores import TRADES, in_words, options, prediction


@given(
    shown=st.lists(
        st.text(alphabet=string.ascii_lowercase, min_size=2, max_size=8),
        min_size=2,
        max_size=5,
        unique=True,
    ),
    data=st.data(),
)
def test_moving_options_with_the_answer_changes_no_verdict(shown, data):
    count = len(shown)
    order = data.draw(st.permutations(range(count)))
    truth, said = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    form = data.draw(st.sampled_from(["{letter}", "({letter})", "{letter}. {text}", "{text}", "?"]))
    log_probs = data.draw(
        st.lists(
            st.integers(-40, 0).map(lambda value: value / 2),
            min_size=count,
            max_size=count,
            unique=True,
        )
    )

    def judged(places):
        letters = {option: string.ascii_uppercase[place] for place, option in enumerate(places)}
        return score(
            prediction(
                form.format(letter=letters[said], text=shown[said]),
                shown=options(*(shown[option] for option in places)),
                answer=letters[truth],
                log_probs=[log_probs[option] for option in places],
            )
        )

    first, second = judged(range(count)), judged(order)
    assert first.verdict == second.verdict
    assert (first.likeliest == first.answer) == (second.likeliest == second.answer)
    assert math.isclose(first.true_probability, second.true_probability, rel_tol=1e-9)
    assert form == "?" or (first.verdict == "correct") == (said == truth)


def test_score_reads_both_answers_apart():
    judged = score(prediction("B", log_probs=[math.log(0.3), math.log(0.2), -math.inf, -math.inf]))
    assert judged.verdict == "correct"
    assert judged.choice == "B"
    assert judged.likeliest == "A"
    # 0.2 / (0.3 + 0.2): renormalised over the options
    assert judged.true_probability == pytest.approx(0.4)
    assert judged.chance == 0.25
    assert judged.answer == "B"


@pytest.mark.parametrize(
    ("text", "verdict", "choice"),
    [("A", "wrong", "A"), ("no idea", "refused", ""), ("Because", "unparsable", "")],
)
def test_verdicts(text, verdict, choice):
    judged = score(prediction(text))
    assert (judged.verdict, judged.choice) == (verdict, choice)


@pytest.mark.parametrize(("text", "verdict"), [("B", "correct"), ("Looking at the", "cut_off")])
def test_an_answer_that_was_cut_off_is_told_apart_unless_it_was_read(text, verdict):
    assert score(replace(prediction(text), cut_off=True)).verdict == verdict


def test_tiny_probabilities_do_not_underflow():
    judged = score(prediction("B", log_probs=[-2000.0, -1999.0, -3000.0, -3000.0]))
    assert judged.likeliest == "B"
    assert judged.true_probability == pytest.approx(math.e / (1 + math.e))


def test_equal_letters_go_to_the_first():
    assert score(prediction("B", log_probs=[-1.0] * 4)).likeliest == "A"


def test_every_unusable_prediction_is_named_at_once():
    broken = [
        prediction("B", log_probs=[math.nan, 0.0, 0.0, 0.0]),
        prediction("B", log_probs=[-math.inf] * 4),
        prediction("B", log_probs=[-1.0]),
        prediction("B", answer="E"),
        prediction("B", shown=(Option("B", "x"), Option("B", "y"))),
    ]
    with pytest.raises(DataError) as caught:
        score_all([prediction("B"), *broken])
    assert len(caught.value.problems) == 5


def test_score_all_keeps_the_order_and_an_empty_list():
    assert [row.choice for row in score_all([prediction("C"), prediction("A")])] == ["C", "A"]
    assert score_all([]) == ()


# --- by likelihood


@pytest.mark.parametrize("text", ["C", "", "I am sorry", "x" * 1000])
def test_the_likeliest_option_is_the_answer_whatever_was_said(text):
    right = score(prediction(text, log_probs=[-3, -1, -2, -9]), parser="likelihood")
    assert (right.verdict, right.choice) == ("correct", "B")
    wrong = score(prediction(text, log_probs=[-3, -2, -9, -1]), parser="likelihood")
    assert (wrong.verdict, wrong.choice) == ("wrong", "D")


def test_of_equally_likely_options_the_first_is_taken():
    tied = score(prediction("B", log_probs=[-2, -1, -1, -2]), parser="likelihood")
    assert (tied.choice, tied.likeliest) == ("B", "B")


def test_likelihood_is_listed_with_the_parsers_and_reads_no_text():
    assert list(parser_descriptions()) == [*PARSERS.names(), "likelihood"]
    assert all(parser_descriptions().values())
    with pytest.raises(ConfigError, match="unknown answer parser"):
        parse("B", TRADES, parser="likelihood")


def test_likelihood_judges_nothing_it_has_no_numbers_for():
    with pytest.raises(DataError, match="log-prob"):
        score(prediction("B", log_probs=[math.nan, -1, -1, -2]), parser="likelihood")


@pytest.mark.parametrize(
    "broken",
    [
        in_words("x", [-1.0] * 4, ends=[math.nan] * 4),
        in_words("x", [-1.0] * 4, ends=[-math.inf] * 4),
        in_words("x", [-1.0] * 4, ends=[-1.0] * 3),
        in_words("x", [-1.0] * 4, tokens=[1] * 3),
        replace(in_words("x", [-1.0] * 4), option_tokens=()),
    ],
    ids=["end not a number", "end impossible", "ends lack one", "tokens lack one", "no tokens"],
)
def test_unusable_numbers_of_an_answer_in_words_are_named(broken):
    """Fault: NaN as a probability in `scores.parquet`, or an error that names no example."""
    with pytest.raises(DataError, match="q1/words"):
        score(broken)
