"""What answers say: letters bare and declared, refusals, options named in passing."""

import json
import string
import time
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pulse_unlearn.errors import ConfigError
from pulse_unlearn.evaluation.parsers import (
    PARSERS,
    UNPARSABLE,
    Parsed,
    mentioned,
    named_in_words,
    parse,
)
from pulse_unlearn.records import Option
from synthetic_scores import TRADES, options

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


# Letters declared somewhere in a longer text, and what takes a declaration back.
DECLARED = [
    ("The answer is A or B", ""),
    ("The answer is A and B.", ""),
    ("The answer is B and C", ""),
    ("The answer is A, B or C", ""),
    ("The answer is A/B", ""),
    ("The answer is B. teacher", "B"),
    ("The answer is C. teacher", ""),
    ("The answer is C. A teacher.", ""),
    ("The answer is C: a teacher", ""),
    ("The answer is C (teacher)", ""),
    ("The answer is C, the baker, not the teacher", "C"),
    ("The answer is B. A pilot would wear a cap.", "B"),
    ("The answer is A man who teaches", ""),
    ("The answer is A because of the hat", "A"),
    ("The answer is A.", "A"),
    ("The answer is a teacher", ""),
    ("Answer: A. doctor\nB. teacher\nC. baker\nD. pilot", ""),
    ("A. doctor\nB. teacher\nC. baker\nD. pilot\nAnswer: D", "D"),
    ("The answer is A. The answer is B.", ""),
    ("The answer is B. The answer is B.", "B"),
    ("The answer isn't B.", ""),
    ("The answer is definitely not B", ""),
    ("The answer is neither A nor B", ""),
    ("The answer cannot be B", ""),
    ("The answer is not B. The answer is C.", ""),
    ("I don't think the answer is B.", ""),
    ("I'm not sure if the answer is B", ""),
    ("If the answer is B, then she teaches.", ""),
    ("The wrong answer is A.", ""),
    ("The wrong answer is A, so the correct answer is B.", "B"),
    ("The first option is A, the second option is B", ""),
    ("The correct option is B.", "B"),
    ("The best choice is (D).", "D"),
    ("The right answer is: option C", "C"),
    ("Correct answer: option C.", "C"),
    ("The correct answer to the question is B.", "B"),
    ("B is the correct answer.", "B"),
    ("Option B is the correct answer.", "B"),
    ("(A) or (B) is the correct answer", ""),
    ("Neither A nor B is the answer", ""),
    ("B is not the answer. The answer is C.", ""),
    ("B is the correct answer. The answer is C.", ""),
    ("Therefore, B is the best answer.", "B"),
    ("The answer is B?", ""),
    ("The answer is B!", "B"),
    ("The answer is B, I think.", "B"),
    ("The answer is B. I think she is one.", "B"),
    ("The answer is E.", ""),
    ("The answer is D.C.", ""),
    ("The answer is B. B. King", ""),
    ("The answer is A B C D", ""),
    ("The answer is B-type", ""),
    ("The answer is A+", ""),
    ("Answer: Because A is common, the answer is (C).", "C"),
    ('{"answer": "B"}', "B"),
    ("The answer is **B. teacher**.", "B"),
    ("The answer is **B**: teacher", "B"),
    ("The answer is (B) teacher, since she teaches.", "B"),
    ("The answer is B. teacher or baker", ""),
    ("The answer is B. teacher, baker", ""),
    ("The answer is B teacher", "B"),
    ("The answer is B baker", ""),
    ("I can't wait until tomorrow! She has a class. The answer is A.", "A"),
    ("It is not possible to determine the person's identity", "refused"),
    ("The image does not provide any information.", "refused"),
    (
        "The image does not provide any information about the person's occupation, so I cannot say",
        "refused",
    ),
    ("Sorry, I think it is B", ""),
    ("I cannot say, maybe a teacher", ""),
    ("I'm sorry, but I can't tell whether A or B", "refused"),
    ("The answer is A, though I don't know why.", "A"),
    ("Answer: B\nAnswer: C", ""),
    ("B.\nAnswer: B", "B"),
    ("A. doctor. The answer is B.", "B"),
    ("A. doctor", "A"),
    ("The answer’s B.", "B"),
    ("Answer : (B)", "B"),
    ("My answer: B", "B"),
    ("So the answer is B, not A.", "B"),
    ("The answer is A not B", "A"),
    ("The answer is not A but B", ""),
    ("The answer is B (or C)", ""),
    ("The answer is B, possibly C", ""),
    ("The answer is B, and possibly C", ""),
    ("The answer is B\nA is wrong.", "B"),
    ("The answer is (B)/(C)", ""),
    ("The answer is either A or B.", ""),
    ("It is not true that the answer is B.", ""),
    ("Is the answer B?", ""),
    ("The answer: B", "B"),
    ("Question: who? Answer: B Question: who? Answer: B", ""),
    ("（Ｂ）", "B"),
    ("Ｂ．", "B"),
    ("Ａ，Ｂ", ""),
    ("The answer is Ｂ。", "B"),
    ("Answer: I don't know", "refused"),
    ("The answer is I am not sure.", "refused"),
    ("I cannot tell whether the answer is A or B.", "refused"),
    ("Suppose the answer is A. No: the answer is B.", "B"),
    ("The answer is unknown", "refused"),
    ("The answer is B teacher baker", ""),
    ("The answer is B. teacher of children", "B"),
]

# The same in Chinese. Options: doctor, teacher, baker, pilot.
CHINESE_TRADES = options("医生", "教师", "面包师", "飞行员")
CHINESE = [
    ("选项B", "B"),
    ("选项B。", "B"),
    ("选项B：教师", "B"),
    ("选项B：医生", ""),
    ("选项B教师", "B"),
    ("答案是B教师", "B"),
    ("答案是B。教师", "B"),
    ("答案是B医生", ""),
    ("答案是B型血", ""),
    ("答案是C语言", ""),
    ("答案：B", "B"),
    ("答案：B. 教师", "B"),
    ("答案为 B。", "B"),
    ("正确答案是（B）", "B"),
    ("正确答案是（Ｂ）。", "B"),
    ("正确答案：B", "B"),
    ("正确的答案是B", "B"),
    ("正确选项是B", "B"),
    ("正确选项为B。", "B"),
    ("答案应该是B", "B"),
    ("答案选B", "B"),
    ("答案是选项B", "B"),
    ("选B", "B"),
    ("选 B。", "B"),
    ("我选择B", "B"),
    ("我选B", "B"),
    ("我选择选项B", "B"),
    ("所以选B", "B"),
    ("应该选择B", "B"),
    ("故选B。", "B"),
    ("因为A很常见，所以答案是（C）。", "C"),
    ("因为A很常见，所以选C。", "C"),
    ("因为图中有黑板，选B。", "B"),
    ("答案不是B", ""),
    ("答案并不是B", ""),
    ("不选B", ""),
    ("我不选B", ""),
    ("答案是A或B", ""),
    ("答案是A和B", ""),
    ("答案是A、B", ""),
    ("答案是A还是B", ""),
    ("选A还是选B", ""),
    ("选A，B", ""),
    ("错误的答案是A", ""),
    ("错误答案是A", ""),
    ("我认为答案是B", "B"),
    ("我不认为答案是B", ""),
    ("如果答案是B", ""),
    ("选项A不对，选项B也不对，所以答案是C。", "C"),
    ("选项A和选项B", ""),
    ("B是正确答案", "B"),
    ("A和B是正确答案", ""),
    ("可选A", ""),
    ("候选B", ""),
    ("答案是B，因为她在教书。", "B"),
    ("答案是B因为她在教书", "B"),
    ("我的答案是B", "B"),
    ("这道题的答案是B", "B"),
    ("選擇B", "B"),
    ("正確答案是B", "B"),
    ("B选项", ""),
    ("答案是B选项", "B"),
    ("答案是：B", "B"),
    ("教师", "B"),
    ("Ｂ教师", "B"),
    ("B 教师", "B"),
    ("B、教师", "B"),
    ("A、B", ""),
    ("答案是ab", ""),
]


def _expected(letter: str) -> Parsed:
    return {"": Parsed("unparsable"), "refused": Parsed("refused")}.get(
        letter, Parsed("answered", letter)
    )


@pytest.mark.parametrize(("text", "letter"), STRICT + DECLARED, ids=lambda value: repr(value)[:60])
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


@pytest.mark.parametrize(("text", "letter"), CHINESE)
def test_strict_in_chinese(text, letter):
    assert parse(text, CHINESE_TRADES) == _expected(letter)


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
    hostile += ["The answer is A. " * 600, "teacher " * 1250, "\u9009" * 10_000, "'" * 10_000]
    hostile += ["the answer " + "is " * 3000, "the answer is A not " * 500, "final " * 1600]
    start = time.perf_counter()
    for text in hostile:
        for name in PARSERS.names():
            parse(text, TRADES, parser=name)
        mentioned(text, TRADES)
    assert time.perf_counter() - start < 2.0


def test_a_hundred_thousand_letters_are_read_at_once():
    start = time.process_time()
    for _ in range(50_000):
        parse("B", TRADES)
        parse("B.", TRADES)
    assert time.process_time() - start < 1.5


TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet="ABCDE abcd.():'\"*\n-answeri", max_size=30),
    st.text(alphabet="AＢ（）是不答案选项或，。 not or", max_size=30),
    st.sampled_from([text for text, _ in STRICT + DECLARED + CHINESE]),
)
OPTIONS = st.lists(
    st.one_of(st.text(max_size=12), st.sampled_from(["A", "B", "a b", "teacher", "I don't know"])),
    min_size=2,
    max_size=5,
).map(lambda texts: options(*texts))


@given(text=TEXTS, shown=OPTIONS, parser=st.sampled_from(PARSERS.names()))
def test_no_parser_raises_or_picks_what_is_no_option(text, shown, parser):
    parsed = parse(text, shown, parser=parser)
    if parsed.outcome == "answered":
        assert parsed.letter in {option.letter for option in shown}
    else:
        assert parsed.letter == ""
    assert mentioned(text, shown) <= {option.letter for option in shown}
    assert named_in_words(text, shown) in {"", *mentioned(text, shown)}


BETWEEN = [" ", ", ", "/", "\n", " or ", " and ", " & ", "; ", ". ", ") ", "\n- ", "、", "和", "或"]


@given(
    pair=st.lists(st.sampled_from("ABCD"), min_size=2, max_size=2, unique=True),
    between=st.one_of(
        st.sampled_from(BETWEEN), st.text(alphabet=" ,;/|&+-\n.:()*。，", min_size=1, max_size=6)
    ),
    wide=st.booleans(),
)
def test_two_letters_without_a_declaration_are_never_read(pair, between, wide):
    text = between.join(pair)
    if wide:
        text = text.translate({ord(letter): ord(letter) + 0xFEE0 for letter in "ABCD"})
    assert parse(text, TRADES) == Parsed("unparsable")


FORMS = [
    "The answer is {}",
    "The answer is: {}",
    "the correct answer is {}",
    "The right option is option {}",
    "The best choice is {}",
    "My final answer is {}",
    "Answer: {}",
    "**Answer:** {}",
    "Correct answer: {}",
    "Because A and B are common, the answer is {}",
    "I looked at it twice. So the answer is {}",
    "答案是{}",
    "答案：{}",
    "答案为 {}",
    "正确答案是{}",
    "正确选项是{}",
    "选{}",
    "我选择{}",
    "因为A很常见，所以答案是{}",
]
SAID = ["{0}", "({0})", "{0}.", "**{0}**", "（{0}）", "{0}。", "{0}. {1}", "{0}: {1}", "({0}) {1}."]
WORDS = st.text(
    alphabet=string.ascii_letters + string.digits + " .-(%é教师ß", min_size=1, max_size=9
)


@settings(max_examples=400)
@given(
    form=st.sampled_from(FORMS),
    texts=st.lists(WORDS, min_size=2, max_size=6),
    said=st.sampled_from(SAID),
    wide=st.booleans(),
    data=st.data(),
)
def test_every_declaration_of_every_letter_is_read(form, texts, said, wide, data):
    texts = [" ".join(text.split()) for text in texts]
    folded = [text.casefold().strip(" .") for text in texts]
    assume(all(folded) and len(set(folded)) == len(folded))
    shown = options(*texts)
    option = data.draw(st.sampled_from(shown))
    letter = chr(ord(option.letter) + 0xFEE0) if wide else option.letter
    text = form.format(said.format(letter, option.text))
    assert parse(text, shown) == Parsed("answered", option.letter)


@settings(max_examples=400)
@given(
    form=st.sampled_from(FORMS),
    pair=st.lists(st.sampled_from("ABCD"), min_size=2, max_size=2, unique=True),
    hedge=st.sampled_from([" or ", " and ", ", ", "/", "或", "和", "、", ", or ", " or maybe "]),
    other=st.sampled_from(FORMS),
)
def test_what_leaves_a_choice_or_changes_its_mind_is_not_read(form, pair, hedge, other):
    first, second = pair
    assert parse(form.format(first + hedge + second), TRADES) == Parsed("unparsable")
    changed = f"{form.format(first)}. {other.format(second)}"
    assert parse(changed, TRADES) == Parsed("unparsable")


# --- what is named anywhere


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("", ""),
        ("B", "B"),
        ("（Ｂ）。", "B"),
        ("It could be A, B or C.", "ABC"),
        ("A/B", "AB"),
        ("A or B", "AB"),
        ("A is common.", "A"),
        ("选项A和B", "AB"),
        ("AB", ""),
        ("b", ""),
        ("Because", ""),
        ("A-frame, D-day, vitamin-C", ""),
        ("U.S.A. and Washington D.C.", ""),
        ("B's", ""),
        ("E or Z", ""),
        # an article at the beginning of a sentence
        ("A man with a hat", ""),
        ('She smiles. "A woman', ""),
        ("It is A man", "A"),
        ("A", "A"),
        # by text
        ("She is a teacher.", "B"),
        ("A TEACHER", "AB"),
        ("a judge or a pilot", "D"),
        ("teachers bakery", ""),
        ("No, not a\nteacher", "B"),
        ("A. doctor\nB. teacher", "AB"),
        ("I cannot say whether the baker is C or D", "CD"),
        ("她是teacher吗", "B"),
    ],
)
def test_mentioned(text, letters):
    assert mentioned(text, TRADES) == frozenset(letters)


@pytest.mark.parametrize(
    ("text", "texts", "letters"),
    [
        ("a court judge", ("judge", "court judge"), "B"),
        ("a judge, no, a court judge", ("judge", "court judge"), "AB"),
        ("judge judge", ("judge", "judge judge"), "B"),
        ("red", ("red", "red", "blue"), "AB"),
        ("Both A and B", ("x1", "x2", "Both A and B"), "C"),
        ("Both A and B", ("x1", "x2", "both"), "ABC"),
        ("她是小学教师", ("教师", "小学教师", "医生"), "B"),
        ("教师、医生", ("教师", "小学教师", "医生"), "AC"),
        ("STRASSE", ("straße", "Weg"), "A"),
        ("a straße, Weg", ("strasse", "weg"), "AB"),
        ("two   words", ("two words", "words"), "A"),
        ("Washington D.C", ("Washington D.C.", "Rome"), "A"),
        ("I don’t know", ("I don't know", "yes"), "A"),
        ("3.5 of 15", ("3", "5", "15", "3.5"), "CD"),
        ("-5", ("5", "-5"), "B"),
        ("Well... yes", ("...", "yes"), "B"),
        ("so ...", ("...", "yes"), "A"),
        ("C++", ("C", "C++"), "B"),
        ("anything", ("", " "), ""),
        ("B", ("B", "A"), "AB"),
    ],
)
def test_mentioned_with_awkward_options(text, texts, letters):
    assert mentioned(text, options(*texts)) == frozenset(letters)


def test_a_pronoun_is_no_letter():
    shown = tuple(Option(letter, f"thing {letter.lower()}") for letter in string.ascii_uppercase)
    assert mentioned("Sorry, I don't know. I'm new.", shown) == frozenset()
    assert mentioned("It may be I or J.", shown) == frozenset("IJ")
    assert parse("Answer: I think not", shown) == Parsed("unparsable")
    assert parse("Answer: I don't know", shown) == Parsed("refused")
    assert parse("Answer: I", shown) == Parsed("answered", "I")


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("She is a teacher.", "B"),
        ("Teacher", "B"),
        ("teacher, a very good teacher", "B"),
        ("a teacher or a baker", ""),
        ("B", ""),
        ("A", ""),
        ("A teacher", "B"),
        ("nobody", ""),
        ("", ""),
    ],
)
def test_named_in_words(text, letter):
    assert named_in_words(text, TRADES) == letter


def test_equal_texts_are_several_and_a_longer_one_is_one():
    assert named_in_words("red", options("red", "red")) == ""
    assert named_in_words("a court judge", options("judge", "court judge")) == "B"


# --- declared: models that talk

FORMS = [
    json.loads(line)
    for line in Path(__file__).with_name("answer_forms.jsonl").read_text("utf-8").splitlines()
]


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form["text"])
def test_answers_as_public_models_give_them(form):
    shown = options(*form["options"])
    read = parse(form["text"], shown, parser="declared")
    assert (read.letter or ("refused" if read.outcome == "refused" else "")) == form["says"]
    # Strict reads fewer of them, and none otherwise.
    strict = parse(form["text"], shown, parser="strict")
    assert strict.letter in ("", form["says"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("The cap would fit a pilot, the robe fits a judge.\nB", "B"),
        ("B\nThe robe is that of a judge.", "B"),
        ("She is a judge, I think.", "B"),
        ("He is a pilot. B", ""),
        ("B\nC", ""),
        ("B\nShe flies, as a pilot.", ""),
        ("She is not a judge.", ""),
        ("Judge, not pilot", ""),
        ("I think she is a judge, as A would wear white.", ""),
        ("e", ""),
        ("The options are A, B, C and D.", ""),
        ("The answer is B. The answer is C.", ""),
    ],
)
def test_declared_never_chooses_between_two(text, says):
    shown = options("baker", "judge", "pilot", "nurse")
    assert parse(text, shown, parser="declared").letter == says


@given(st.text(max_size=40))
def test_declared_reads_all_that_strict_reads(text):
    shown = options("baker", "judge", "pilot", "nurse")
    strict, talking = (parse(text, shown, parser=name) for name in ("strict", "declared"))
    assert strict in (talking, UNPARSABLE)
