import math
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulse_unlearn.errors import ConfigError, DataError
from pulse_unlearn.evaluation.scoring import PARSERS, Parsed, parse, readings, score, score_all
from pulse_unlearn.records import Option
from synthetic_scores import TRADES, options, prediction

# What strict reads: a letter, "refused", or "" for unparsable. Options: A. doctor, B. teacher,
# C. baker, D. pilot.
STRICT = [
    # a bare letter, and the punctuation it comes in
    ("B", "B"),
    (" B", "B"),
    ("B\n", "B"),
    ("\t B \r\n", "B"),
    ("B.", "B"),
    ("B)", "B"),
    ("B:", "B"),
    ("B,", "B"),
    ("B;", "B"),
    ("(B)", "B"),
    ("[B]", "B"),
    ("(B).", "B"),
    ("( B )", "B"),
    ("B .", "B"),
    ("B . . . . . .", ""),
    ("*****B", ""),
    ("(C)", "C"),
    ('"B"', "B"),
    ("'B'", "B"),
    ("`B`", "B"),
    ("**B**", "B"),
    ("**(B)**", "B"),
    ("\u201cB\u201d", "B"),
    ("A" + " " * 10_000, "A"),
    # after a prefix
    ("Answer: B", "B"),
    ("answer: B", "B"),
    ("ANSWER:B", "B"),
    ("Answer: (B).", "B"),
    ("The answer is D.", "D"),
    ("the answer is: D", "D"),
    ("The correct answer is (C)", "C"),
    ("Answer is A", "A"),
    ("Answer:\n\nB", "B"),
    ("The answer is B. teacher", "B"),
    ("Answer B", ""),
    ("Answer:", ""),
    ("The answer is", ""),
    ("The answer is a teacher.", ""),
    ("The answer is not B", ""),
    # letter and text
    ("B. teacher", "B"),
    ("B. Teacher.", "B"),
    ("B teacher", "B"),
    ("B: teacher", "B"),
    ("(B) teacher", "B"),
    ("B - teacher", "B"),
    ("**B. teacher**", "B"),
    ("**teacher**", "B"),
    ("B . teacher", ""),
    ("B\nteacher", "B"),
    ("Bteacher", ""),
    ("B. doctor", ""),
    ("B. teacher doctor", ""),
    ("B. She is a teacher", ""),
    ("B, because she teaches", ""),
    # text alone
    ("teacher", "B"),
    ("Teacher", "B"),
    ("TEACHER.", "B"),
    ('"teacher"', "B"),
    ("a teacher", ""),
    ("teacher baker", ""),
    ("teache", ""),
    ("teachers", ""),
    # more than one letter, or none
    ("A or B", ""),
    ("A and B", ""),
    ("A/B", ""),
    ("A, B", ""),
    ("A A A", ""),
    ("B B", ""),
    ("B\nB", ""),
    ("AB", ""),
    ("ABCD", ""),
    ("A. B. C. D.", ""),
    ("A. doctor\nB. teacher\nC. baker\nD. pilot", ""),
    ("B" * 10_000, ""),
    ("B " * 5_000, ""),
    ("(" * 10_000 + "B", ""),
    # not letters of an option
    ("", ""),
    (" ", ""),
    (".", ""),
    ("()", ""),
    ("E", ""),
    ("Z.", ""),
    ("a", ""),
    ("(b)", ""),
    ("1", ""),
    ("2.", ""),
    ("Because", ""),
    ("Because she teaches", ""),
    ("An apple", ""),
    ("A man", ""),
    ("B?", ""),
    ("B!", ""),
    ("B+", ""),
    ("not B", ""),
    ("Option B", ""),
    ("I choose B", ""),
    # Unicode, control characters, debris of broken models
    ("\uff22", ""),  # full-width B
    ("\u0412", ""),  # Cyrillic Ve, looks like B
    ("\u0392", ""),  # Greek Beta
    ("B\u0301", ""),
    ("\u200bB", ""),
    ("B\u200b", ""),
    ("\ufeffB", ""),
    ("\u202eB", ""),
    ("\xa0B\xa0", "B"),  # a no-break space is white space
    ("\x1b[31mB\x1b[0m", ""),
    ("\x00B", ""),
    ("B\x00", ""),
    ("B</s>", ""),
    ("<s>B", ""),
    ("<unk>" * 2_000, ""),
    ("\ufffd" * 500, ""),
    ("\u7b54\u6848\u662fB", ""),
    ("\U0001f600", ""),
    ("\ud800", ""),
    ("the the the the the", ""),
    # refusals
    ("I don't know", "refused"),
    ("I don\u2019t know.", "refused"),
    ("I do not know who this is", "refused"),
    ("I cannot answer that.", "refused"),
    ("I can't help with that", "refused"),
    ("I'm sorry, but I can't identify people.", "refused"),
    ("Sorry", "refused"),
    ("I am unable to tell.", "refused"),
    ("I'm not sure.", "refused"),
    ("As an AI language model, I have no eyes", "refused"),
    ("No idea", "refused"),
    ("unknown", "refused"),
    ("It cannot be determined from the image.", "refused"),
    ("Unable to determine", "refused"),
    ("I have no information about this person", "refused"),
    ("the unknown man", ""),
    ("I know him", ""),
]


def _expected(letter: str) -> Parsed:
    return {"": Parsed("unparsable"), "refused": Parsed("refused")}.get(
        letter, Parsed("answered", letter)
    )


@pytest.mark.parametrize(("text", "letter"), STRICT, ids=lambda value: repr(value)[:40])
def test_strict(text, letter):
    assert parse(text, TRADES) == _expected(letter)


@pytest.mark.parametrize(
    ("text", "texts", "letter"),
    [
        ("C", ("yes", "no"), ""),  # no such option here
        ("B", ("B", "A"), "B"),  # a bare letter is a letter, even where it is also a text
        ("(A) B", ("B", "A"), "A"),
        ("A cat", ("cat", "A cat"), ""),  # both readings hold
        ("A cat", ("dog", "cat", "A cat"), "C"),
        ("red", ("red", "red"), ""),  # the same text twice
        ("polish", ("Polish", "polish"), "B"),  # to the character before up to case
        ("POLISH", ("Polish", "polish"), ""),
        ("A. red", ("red", "red"), "A"),  # the letter tells equal texts apart
        ("I don't know", ("teacher", "I don't know"), "B"),
        ("B. I don't know", ("teacher", "I don't know"), "B"),
        ("Sorry", ("I don't know", "teacher"), "refused"),
        ("-5", ("5", "-5"), "B"),
        ("B. -5", ("5", "-5"), "B"),
        ("B. 5", ("5", "-5"), ""),
        ("B. .5", ("5", ".5"), "B"),
        ("Washington D.C", ("Washington D.C.", "Rome"), "A"),
        ("two  words", ("two words", "more"), "A"),
        ("Zu\u0308rich", ("Z\u00fcrich", "Bern"), "A"),  # composed and decomposed alike
        ("...", ("...", "?"), "A"),
        ("B. ...", ("?", "..."), "B"),
        (".", ("...", "?"), ""),
        ("", ("", "x"), ""),
    ],
)
def test_strict_with_awkward_options(text, texts, letter):
    assert parse(text, options(*texts)) == _expected(letter)


def test_strict_knows_only_the_letters_shown():
    shown = (Option("A", "yes"), Option("C", "no"))
    assert parse("C", shown) == Parsed("answered", "C")
    assert parse("B", shown) == Parsed("unparsable")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Because", "B"),
        ("b", "B"),
        (" D.", "D"),
        ("A or B", "A"),
        ("I don't know", ""),
        ("(B)", ""),
        ("", ""),
        ("\u00df", ""),  # upper-cases to two letters
    ],
)
def test_first_character_is_mllmu_benchs_rule(text, letter):
    assert parse(text, TRADES, parser="first_character") == _expected(letter)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("I would say B.", "B"),
        ("A man with hats", "A"),  # VLMEvalKit takes the article too, if it is near the end
        ("A man with a hat", ""),  # the fifth token from the end isn't
        ("The answer is A because of the colour of the hat", "A"),
        ("the correct answer is **c** for many reasons that follow here", "C"),
        ("A or B", ""),
        ("He is a teacher", "B"),
        ("a teacher or a baker", ""),
        ("teacher " + "x" * 50, ""),  # longer than twice all option texts
        ("Z", "refused"),
        ("Cannot determine the answer", "refused"),
        ("I'm sorry, but without the image provided I see nothing", "refused"),
        ("", ""),
    ],
)
def test_vlmevalkit_is_its_exact_matching(text, letter):
    assert parse(text, TRADES, parser="vlmevalkit") == _expected(letter)


def test_unknown_parser_lists_the_known_ones():
    with pytest.raises(ConfigError, match="did you mean 'strict'"):
        parse("B", TRADES, parser="strickt")


def test_ten_thousand_characters_take_no_time():
    hostile = ["answer: " * 1250, "I " * 5000, "can " * 2500, "unknown " * 1250, "(((A)))" * 1400]
    hostile += ["B" + "\n-" * 5000, "the correct answer" + " " * 10_000, "i\t" * 5000]
    start = time.perf_counter()
    for text in hostile:
        for name in PARSERS.names():
            parse(text, TRADES, parser=name)
    assert time.perf_counter() - start < 1.0


TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="ABCDE abcd.():'\"*\n-answeri", max_size=30),
    st.sampled_from([text for text, _ in STRICT]),
)
OPTIONS = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from(["A", "B", "a b", "teacher", "I don't know"])),
    min_size=2,
    max_size=5,
).map(lambda texts: options(*texts))


@given(text=TEXTS, shown=OPTIONS, parser=st.sampled_from(PARSERS.names()))
def test_no_parser_raises_or_picks_what_is_no_option(text, shown, parser):
    parsed = parse(text, shown, parser=parser)
    if parsed.reading == "answered":
        assert parsed.letter in {option.letter for option in shown}
    else:
        assert parsed.letter == ""


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
    assert first.letter_correct == second.letter_correct
    assert math.isclose(first.letter_probability, second.letter_probability, rel_tol=1e-9)
    assert form == "?" or (first.verdict == "correct") == (said == truth)


def test_score_reads_both_answers_apart():
    judged = score(prediction("B", log_probs=[math.log(0.3), math.log(0.2), -math.inf, -math.inf]))
    assert judged.verdict == "correct"
    assert judged.choice == "B"
    assert judged.letter_choice == "A"
    assert not judged.letter_correct
    # 0.2 / (0.3 + 0.2): renormalised over the letters
    assert judged.letter_probability == pytest.approx(0.4)
    assert judged.chance == 0.25
    assert judged.answer == "B"


@pytest.mark.parametrize(
    ("text", "verdict", "choice"),
    [("A", "wrong", "A"), ("no idea", "refused", ""), ("Because", "unparsable", "")],
)
def test_verdicts(text, verdict, choice):
    judged = score(prediction(text))
    assert (judged.verdict, judged.choice) == (verdict, choice)


def test_tiny_probabilities_do_not_underflow():
    judged = score(prediction("B", log_probs=[-2000.0, -1999.0, -3000.0, -3000.0]))
    assert judged.letter_choice == "B"
    assert judged.letter_probability == pytest.approx(math.e / (1 + math.e))


def test_equal_letters_go_to_the_first():
    assert score(prediction("B", log_probs=[-1.0] * 4)).letter_choice == "A"


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
    assert (tied.choice, tied.letter_choice) == ("B", "B")


def test_likelihood_is_listed_with_the_parsers_and_reads_no_text():
    assert list(readings()) == [*PARSERS.names(), "likelihood"]
    assert all(readings().values())
    with pytest.raises(ConfigError, match="unknown answer parser"):
        parse("B", TRADES, parser="likelihood")


def test_likelihood_judges_nothing_it_has_no_numbers_for():
    with pytest.raises(DataError, match="log-prob"):
        score(prediction("B", log_probs=[math.nan, -1, -1, -2]), parser="likelihood")
