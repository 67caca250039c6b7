"""How a model answers, apart from what it knows: by hand, and where nothing is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pulse_unlearn.evaluation.intervals import clustered_mean
from pulse_unlearn.evaluation.metrics import letter_bias, letter_habit
from pulse_unlearn.evaluation.verdicts import one_sided, strict_against_chance
from pulse_unlearn.records import QuestionScore
from synthetic_scores import person_score


def said(person: str, number: int, truth: str, choice: str, *, chance: float = 0.25):
    """One question in the file's order; an empty choice cannot be read."""
    verdict = "correct" if choice == truth else "wrong" if choice else "unparsable"
    one = person_score(person, number, verdict=verdict, chance=chance)
    return replace(one, answer=truth, choice=choice, turned=((truth, choice, verdict),))


def people(count: int, truths: str, choices: str, *, chance: float = 0.25) -> list[QuestionScore]:
    """As many people with the same truths and answers; `_` cannot be read."""
    return [
        said(f"p{place:02d}", number, truth, choice.strip("_"), chance=chance)
        for place in range(count)
        for number, (truth, choice) in enumerate(zip(truths, choices, strict=True))
    ]


# --- one letter


def test_one_letter_by_hand():
    """Fault: the share taken of all answers, or the base rate of 1 / options."""
    habit = letter_habit(people(20, "ABCD", "AAAA"))
    assert (habit.letter, habit.share.value, habit.base_rate) == ("A", 1.0, 0.25)
    assert (habit.excess, habit.entropy, habit.readable) == (1.0, 0.0, 1.0)
    assert habit.above_base_rate
    assert habit.is_one_letter


def test_the_letter_is_the_one_furthest_above_its_own_base_rate():
    """Fault: the most frequent letter, which may be the most frequent truth."""
    habit = letter_habit(people(20, "AAAAAABC", "AAAAACCC"))
    assert (habit.letter, habit.share.value, habit.base_rate) == ("C", 3 / 8, 1 / 8)
    assert habit.excess == pytest.approx((3 / 8 - 1 / 8) / (7 / 8))
    shares = [5 / 8, 3 / 8]  # B is never said
    entropy = -sum(share * math.log(share) for share in shares) / math.log(3)
    assert habit.entropy == pytest.approx(entropy)


def test_knowing_all_of_a_skewed_set_is_no_habit():
    """Fault: a share of 70 % taken for a habit where 70 % are true."""
    habit = letter_habit(people(20, "AAAAAAABCD", "AAAAAAABCD"))
    assert not habit.above_base_rate
    assert not habit.is_one_letter
    assert habit.excess == 0.0
    habit = letter_habit(people(20, "AAAA", "AAAA"))
    assert (habit.base_rate, habit.excess, habit.is_one_letter) == (1.0, 0.0, False)


def test_half_of_the_way_to_one_letter_is_the_bound():
    """Fault: half of the answers, or any share that is surely above the base rate."""
    # A is true in two of eight; said in five: (5/8 - 1/4) / (3/4) = 1/2; in four: 1/3.
    half = letter_habit(people(20, "AABBCCDD", "AAAAACCD"))
    assert (half.excess, half.is_one_letter) == (pytest.approx(0.5), True)
    less = letter_habit(people(50, "AABBCCDD", "AABACACD"))
    assert (less.excess, less.above_base_rate) == (pytest.approx(1 / 3), True)
    assert not less.is_one_letter


def test_answers_that_cannot_be_read_count_for_no_letter():
    """Fault: junk counted among the letters, or a habit claimed from the few that can be read."""
    habit = letter_habit(people(20, "ABCDABCD", "AAAA____"))
    assert (habit.share.value, habit.base_rate, habit.readable) == (1.0, 0.25, 0.5)
    assert habit.is_one_letter
    habit = letter_habit(people(20, "ABCDABCD", "AAA_____"))
    assert (habit.readable, habit.above_base_rate, habit.is_one_letter) == (3 / 8, True, False)
    none = letter_habit(people(20, "ABCD", "____"))
    assert (none.letter, none.share.value, none.entropy) == ("", None, None)
    assert not none.is_one_letter
    assert none.share.reason == "no readable answers"


def test_every_order_counts():
    """Fault: the file's order alone, where D may be true in 20 %."""
    orders = tuple(
        (truth, "D", "correct" if truth == "D" else "wrong") for truth in ("A", "D", "C", "B")
    )
    scores = [replace(one, turned=orders) for one in people(20, "AB", "DD")]
    habit = letter_habit(scores)
    assert (habit.letter, habit.base_rate, habit.share.value) == ("D", 0.25, 1.0)


def test_questions_with_two_options():
    """Fault: a base rate of a quarter where it is a half."""
    habit = letter_habit(people(20, "ABAB", "AAAA", chance=0.5))
    assert (habit.base_rate, habit.excess, habit.is_one_letter) == (0.5, 1.0, True)
    # Three of four: (3/4 - 1/2) / (1/2) is half of the way.
    assert letter_habit(people(20, "ABAB", "ABAA", chance=0.5)).excess == pytest.approx(0.5)
    mixed = [*people(20, "ABAB", "AAAA", chance=0.5), *people(20, "ABCD", "AAAA")]
    assert letter_habit(mixed).base_rate == 3 / 8


def test_the_bound_is_simultaneous_over_the_letters():
    """Fault: each letter tested at 5 %, so that one of four stands out in 12 % of samples."""
    # Half of the people say A once more than is true: gap 1/8, alone above 0 at 95 %, not at 98.75.
    found = []
    for more in range(21):
        scores = people(more, "ABCD", "AACD") + [
            replace(one, individual=f"q{one.individual}")
            for one in people(20 - more, "ABCD", "ABCD")
        ]
        gaps = [float(s.choice == "A") - float(s.answer == "A") for s in scores]
        who = [score.individual for score in scores]
        alone, four = (
            clustered_mean(gaps, who, bounds=(-1, 1), level=level).low for level in (0.95, 0.9875)
        )
        found.append((alone > 0, four > 0))
        assert letter_habit(scores).above_base_rate == (four > 0), more
    assert (True, False) in found


def test_a_letter_seldom_stands_out_where_none_is_preferred():
    """Fault: a bound that ignores that people differ, or that the largest of four is looked at."""
    generator = np.random.default_rng(3)
    hits = 0
    for _ in range(200):
        # Each person has a favourite letter; over all people there is none.
        favourites = generator.integers(0, 4, 16)
        scores = [
            said(
                f"p{person}",
                number,
                "ABCD"[generator.integers(4)],
                "ABCD"[favourites[person] if generator.random() < 0.5 else generator.integers(4)],
            )
            for person in range(16)
            for number in range(4)
        ]
        hits += letter_habit(scores).above_base_rate
    assert hits / 200 <= 0.08


def test_few_people_have_no_bound():
    """Fault: a habit claimed of nine people, of whom no interval is given."""
    habit = letter_habit(people(9, "ABCD", "AAAA"))
    assert (habit.share.value, habit.share.low, habit.above_base_rate) == (1.0, None, False)
    for count, truths in ((10, "ABCD"), (10, "ABC"), (12, "AB")):
        assert letter_habit(people(count, truths, "A" * len(truths))).is_one_letter


def test_letter_bias_needs_two_letters_and_takes_all_orders():
    """Fault: recall over questions, not letters, or in one order alone."""
    assert letter_bias([]).reason == "no questions"
    assert letter_bias(people(10, "AA", "AB")).value is None
    # Recall: A 1, B 1/2, C 0.
    assert letter_bias(people(10, "ABBC", "ABAA")).value == pytest.approx(np.std([1, 0.5, 0]))


# --- strict above what the letters alone would score


def test_strict_against_chance_by_hand():
    """Fault: 1 / options expected, or the letters of one side alone.

    Of 8 answers a person: A said 4, B 2, C 1, none 1; A true 2, B 3, C 2, D 1:
    expected (4*2 + 2*3 + 1*2) / 64 = 1/4; right: A twice, B once = 3/8.
    """
    truths, choices = "AABBBCCD", "AABACAB_"
    assert sum(a == b for a, b in zip(truths, choices, strict=True)) == 3
    found = strict_against_chance(people(20, truths, choices))
    assert (found.estimate.value, found.chance) == (3 / 8, pytest.approx(1 / 4))


@given(
    truths=st.text("ABCD", min_size=12, max_size=60),
    letter=st.sampled_from("ABCD"),
)
def test_a_constant_letter_stands_exactly_at_its_habit(truths, letter):
    """Fault: a base rate held against a sampled one, so that skewed truths look like knowledge."""
    scores = [said(f"p{place % 12}", place, truth, letter) for place, truth in enumerate(truths)]
    found = strict_against_chance(scores)
    assert found.estimate.value == pytest.approx(found.chance, abs=1e-12)
    assert (found.p_above, found.p_below) == (1.0, 1.0)


def test_silence_stands_at_its_habit_too():
    """Fault: nothing said counted as below chance."""
    found = strict_against_chance(people(20, "AABC", "____"))
    assert (found.estimate.value, found.chance, found.p_above, found.p_below) == (
        0.0,
        0.0,
        1.0,
        1.0,
    )


@pytest.mark.parametrize("kind", ["letters by question", "letters by person", "seldom anything"])
def test_p_values_are_uniform_where_nothing_is_known(kind):
    """Fault: a test that is too bold (or blind) where letters are skewed on both sides.

    The letters said depend on the person or on nothing, never on the question.
    """
    generator = np.random.default_rng(11)
    truth_shares, said_shares = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.6, 0.2, 0.1, 0.1])
    above, below = [], []
    for _ in range(400):
        truths = generator.choice(4, (20, 5), p=truth_shares)
        choices = generator.choice(4, (20, 5), p=said_shares)
        if kind == "letters by person":
            choices = generator.choice(4, (20, 1), p=said_shares).repeat(5, 1)
        mute = generator.random((20, 5)) < (0.6 if kind == "seldom anything" else 0.0)
        found = strict_against_chance(
            [
                said(
                    f"p{person}",
                    number,
                    "ABCD"[truths[person, number]],
                    "" if mute[person, number] else "ABCD"[choices[person, number]],
                )
                for person in range(20)
                for number in range(5)
            ]
        )
        above.append(found.p_above)
        below.append(found.p_below)
    for values in (above, below):
        assert 0.02 <= np.mean(np.array(values) < 0.05) <= 0.09
        assert 0.42 <= np.mean(np.array(values) < 0.5) <= 0.58


def test_guessing_among_fewer_options_is_no_knowledge():
    """Fault: letters pooled over questions of two and of four options: C and D are said, and true,
    only where they are options, so that a guesser stands above the letters' pooled shares."""
    generator = np.random.default_rng(5)
    alarms = 0
    for _ in range(100):
        scores = []
        for person in range(20):
            for number in range(10):
                count = 2 if number < 5 else 4
                truth, choice = ("ABCD"[generator.integers(count)] for _ in range(2))
                scores.append(said(f"p{person}", number, truth, choice, chance=1 / count))
        alarms += strict_against_chance(scores).p_above < 0.05
    assert alarms <= 12


def test_knowledge_behind_a_preferred_letter_is_seen():
    """Fault: the habit's expectation taken off so that little knowledge vanishes with it."""
    truths = "ABCDABCD"
    found = strict_against_chance(people(19, truths, "AACAABAD") + people(1, truths, "ABCDABCD"))
    assert found.estimate.value > found.chance
    assert found.p_above < 0.01
    avoiding = strict_against_chance(people(19, truths, "BCDABCDA") + people(1, truths, "BCDABCDB"))
    assert avoiding.p_below < 0.01


# --- one-sided tests


@given(
    gaps=st.lists(
        st.lists(st.integers(-8, 8), min_size=3, max_size=3), min_size=4, max_size=15
    ).filter(lambda rows: len({sum(row) for row in rows}) > 1)
)
def test_one_sided_is_the_t_test_over_the_people(gaps):
    """Fault: questions taken for people, degrees of freedom, or the two sides swapped."""
    values = [value / 8 for row in gaps for value in row]
    clusters = [f"p{place}" for place, row in enumerate(gaps) for _ in row]
    above, below = one_sided(values, clusters)
    means = [sum(row) / 24 for row in gaps]
    expected = stats.ttest_1samp(means, 0.0, alternative="greater").pvalue
    assert above == pytest.approx(expected, abs=1e-9)
    assert above + below == pytest.approx(1.0)


def test_people_with_more_questions_weigh_more():
    """Fault: the mean of people's means tested where the mean of questions is reported.

    Sums 3, 1, 0 of 4, 2, 2 questions, mean 1/2; residuals 1, 0, -1: error sqrt(3/2 * 2) / 8.
    """
    gaps = [1, 1, 1, 0, 1, 0, 0, 0]
    clusters: Sequence[str] = "aaaabbcc"
    above, _ = one_sided(gaps, clusters)
    assert above == pytest.approx(stats.t.sf(0.5 / (math.sqrt(3) / 8), 2))


@pytest.mark.parametrize(
    ("gaps", "expected"),
    [
        ([0.5] * 6, (0.0, 1.0)),
        ([-0.5] * 6, (1.0, 0.0)),
        ([0.0] * 6, (1.0, 1.0)),
        ([0.5, -0.5] * 3, (1.0, 1.0)),
        ([0.1 + 0.2 - 0.3] * 6, (1.0, 1.0)),  # rounding is no evidence
    ],
)
def test_where_no_one_differs_the_sign_decides(gaps, expected):
    """Fault: a division by zero, or rounding taken for a difference."""
    assert one_sided(gaps, ["a", "a", "b", "b", "c", "c"]) == expected


def test_one_person_shows_nothing():
    """Fault: certainty from a single person, who has no variance."""
    assert one_sided([1.0, 1.0, 1.0], ["a", "a", "a"]) == (1.0, 1.0)
