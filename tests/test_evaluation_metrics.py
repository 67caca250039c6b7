import math
from dataclasses import replace

import numpy as np
import pytest

from pulse_unlearn.errors import DataError
from pulse_unlearn.evaluation.intervals import wilson
from pulse_unlearn.evaluation.measures import MEASURES
from pulse_unlearn.evaluation.metrics import general_measures, people_measures
from pulse_unlearn.records import Measurement
from synthetic_scores import (
    by_reading,
    general_answer,
    general_score,
    people_scores,
    person_score,
    prediction,
    rotated,
    spread,
)

PEOPLE = frozenset(f"p{place:03d}" for place in range(50))


def find(rows: list[Measurement], measure: str, **where: str) -> Measurement:
    found = [
        row
        for row in rows
        if row.measure == measure and all(getattr(row, key) == v for key, v in where.items())
    ]
    assert len(found) == 1, f"{len(found)} rows for {measure} {where}"
    return found[0]


def test_all_is_the_mean_of_both_modalities_whatever_their_sizes():
    # p000 has 5 multimodal questions and 1 text-only one: (4/5 + 0/1) / 2, not 4/6.
    scores = [person_score("p000", number, right=number < 4) for number in range(5)]
    scores.append(person_score("p000", 0, right=False, modality="text_only"))
    rows = people_measures(scores, sets={"forget": frozenset({"p000"})})
    assert find(rows, "accuracy", modality="multimodal").value == pytest.approx(0.8)
    assert find(rows, "accuracy", modality="text_only").value == 0.0
    both = find(rows, "accuracy", modality="all")
    assert both.value == pytest.approx(0.4)
    assert (both.questions, both.individuals) == (6, 1)
    assert both.reason == "n/a (1 person)"


def test_the_first_row_of_table_3():
    # 78.0 and 76.8 % of 250 questions about 50 people
    scores = people_scores(spread(195, 50), spread(192, 50))
    rows = people_measures(scores, sets={"forget": PEOPLE})
    assert find(rows, "accuracy", modality="multimodal").value == pytest.approx(0.780)
    assert find(rows, "accuracy", modality="text_only").value == pytest.approx(0.768)
    both = find(rows, "accuracy", modality="all")
    assert both.value == pytest.approx(0.774)
    assert (both.questions, both.individuals, both.set) == (500, 50, "forget")
    assert both.low < 0.774 < both.high


def test_every_gauge_is_there_and_verdicts_add_up():
    verdicts = ["correct", "wrong", "refused", "unparsable", "unparsable"]
    scores = [
        person_score(
            f"p{place:03d}",
            number,
            verdict=verdict,
            modality=modality,
            letter_right=True,
            rotated=1.0,
        )
        for place in range(20)
        for number, verdict in enumerate(verdicts)
        for modality in ("multimodal", "text_only")
    ]
    rows = people_measures(scores, sets={"forget": PEOPLE})
    value = {row.measure: row.value for row in rows if row.modality == "all"}
    assert value["accuracy"] == pytest.approx(0.2)
    assert value["refused"] == pytest.approx(0.2)
    assert value["unparsable"] == pytest.approx(0.4)
    assert value["letter_accuracy"] == 1.0
    assert value["correct_probability"] == pytest.approx(0.5)
    assert value["chance"] == pytest.approx(0.25)
    assert value["below_chance"] == 0.0
    assert value["chosen:A"] == pytest.approx(0.2)
    assert value["chosen:B"] == pytest.approx(0.2)
    assert set(MEASURES.names()) < set(value)
    assert find(rows, "accuracy", modality="all").reason.endswith("30 of 50 people have no scores")


def test_broken_output_is_not_below_chance_but_avoiding_the_answer_is():
    """Fault: `below_chance` read off the text or off one order, which one letter lowers too."""
    broken = [
        person_score(
            person,
            number,
            verdict="unparsable",
            letter_right=False,
            rotated=float(number % 4 == 0),
        )
        for person in sorted(PEOPLE)
        for number in range(8)
    ]
    avoiding = [replace(score, letter=1.0, rotated=0.0) for score in broken]
    sets = {"forget": PEOPLE}
    lost = people_measures(broken, sets=sets)
    assert find(lost, "accuracy", modality="multimodal").value == 0.0
    assert find(lost, "below_chance", modality="multimodal").value == 0.0
    knows = people_measures(avoiding, sets=sets)
    assert find(knows, "below_chance", modality="multimodal").value == 1.0


def test_a_value_below_chance_is_not_enough():
    # 4 of 20 people known, 20 % < 25 %, but the interval over people reaches far above chance.
    scores = people_scores([5] * 4 + [0] * 16, [5] * 4 + [0] * 16)
    scores = [replace(score, rotated=score.letter) for score in scores]
    rows = people_measures(scores, sets={"forget": frozenset(s.individual for s in scores)})
    turned = find(rows, "rotated_accuracy", modality="all")
    assert turned.value < 0.25 < turned.high
    assert find(rows, "below_chance", modality="all").value == 0.0


def test_below_chance_needs_an_interval():
    once = [person_score("p000", 0, rotated=0.0)]
    rows = people_measures(once, sets={"forget": frozenset({"p000"})})
    below = find(rows, "below_chance", modality="multimodal")
    assert below.value is None
    assert below.reason == "n/a (1 person)"
    unasked = people_scores([0] * 20, [0] * 20)
    rows = people_measures(unasked, sets={"forget": PEOPLE})
    assert find(rows, "below_chance", modality="all").value is None
    assert find(rows, "below_chance", modality="all").reason.startswith("not asked")


def test_latent_is_the_highest_reading_and_says_which():
    """Fault: latent taken from strict, or a reading that was not asked counted as 0."""
    scores = [
        person_score(
            f"p{place:03d}",
            number,
            verdict="unparsable",
            modality=modality,
            rotated=float(number < 2),
            words=float(number < 4),
        )
        for place in range(20)
        for number in range(5)
        for modality in ("multimodal", "text_only")
    ]
    rows = people_measures(scores, sets={"forget": PEOPLE})
    latent = find(rows, "latent_accuracy", modality="all")
    words = find(rows, "words_accuracy", modality="all")
    assert (latent.value, latent.low, latent.high) == (words.value, words.low, words.high)
    assert latent.value == pytest.approx(0.8)
    assert latent.reason.startswith("by words_accuracy")
    without = [replace(s, words=None, words_per_token=None, words_named=None) for s in scores]
    rows = people_measures(without, sets={"forget": PEOPLE})
    latent = find(rows, "latent_accuracy", modality="all")
    assert latent.value == pytest.approx(0.4)
    assert latent.reason.startswith("by rotated_accuracy")


def test_chance_follows_the_options():
    scores = [person_score("p0", 0, chance=0.5), person_score("p0", 1, chance=0.25)]
    rows = people_measures(scores, sets={"retain": frozenset({"p0"})})
    chance = find(rows, "chance", modality="multimodal")
    assert chance.value == pytest.approx(0.375)
    assert chance.low is None


def test_sets_are_measured_apart():
    scores = people_scores([5] * 12, [5] * 12, prefix="a") + people_scores([0] * 12, [0] * 12)
    sets = {
        "forget": frozenset(f"a{place:03d}" for place in range(12)),
        "retain": frozenset(f"p{place:03d}" for place in range(12)),
    }
    rows = people_measures(scores, sets=sets)
    assert find(rows, "accuracy", set="forget", modality="all").value == 1.0
    assert find(rows, "accuracy", set="retain", modality="all").value == 0.0


def test_nothing_is_none_with_a_reason_never_nan():
    only_seen = [person_score("p000", 0)]
    rows = people_measures(only_seen, sets={"forget": frozenset(), "retain": PEOPLE})
    rows += people_measures([], sets={"x": PEOPLE}) + general_measures([])
    for row in rows:
        assert row.value is None or math.isfinite(row.value)
        assert row.value is not None or row.reason
    assert find(rows, "accuracy", set="forget", modality="all").reason == "no questions"
    assert find(rows, "accuracy", set="retain", modality="all").reason.startswith(
        "no text_only questions, so no mean of both modalities; 49 of 50 people"
    )
    assert find(rows, "accuracy", set="general").reason == "no questions"
    assert find(rows, "letter_bias", set="general").reason == "no questions"


def test_an_example_scored_twice_is_an_error():
    with pytest.raises(DataError, match="q1/scored"):
        by_reading([prediction("B"), prediction("C")])
    with pytest.raises(DataError, match="scored twice"):
        by_reading([general_answer("q", "A"), general_answer("q", "A")])


def test_vanilla_and_circular_accuracy():
    # truth under A, D, C, B as the options rotate
    scores = [
        *rotated("all right", "ADCB"),
        *rotated("first right", "AAAA"),  # always says A: right in the file's order only
        *rotated("first wrong", "BDCB"),
        *rotated("none", "BBAA"),
    ]
    rows = general_measures(by_reading(scores))
    vanilla, circular = find(rows, "accuracy"), find(rows, "circular_accuracy")
    assert (vanilla.value, vanilla.questions, vanilla.individuals) == (0.5, 4, 0)
    assert circular.value == 0.25
    ends = wilson(1, 4)
    assert (circular.low, circular.high) == (ends.low, ends.high)
    assert {row.set for row in rows} == {"general"}
    assert {row.modality for row in rows} == {"all"}


@pytest.mark.parametrize("direction", [1, -1])
def test_flips_are_seen_whichever_way_options_rotate(direction):
    def question(name, option_of_rotation):
        return [
            general_answer(
                name,
                "" if option is None else "ABCD"[(option + direction * rotation) % 4],
                answer="ABCD"[(2 + direction * rotation) % 4],
                rotation=rotation,
                direction=direction,
            )
            for rotation, option in enumerate(option_of_rotation)
        ]

    steady, wrong = question("steady", [2, 2, 2, 2]), question("wrong", [1, 1, 1, 1])
    flips, silent = question("flips", [2, 2, 1, 2]), question("silent", [None, 1, None, None])
    rows = general_measures(by_reading(steady + wrong))
    assert find(rows, "rotation_flip_rate").value == 0.0
    rate = find(general_measures(by_reading(steady + wrong + flips + silent)), "rotation_flip_rate")
    assert rate.value == pytest.approx(1 / 3)
    assert rate.reason.startswith("without 1 of 4 questions ")


def test_circular_numbers_need_every_rotation():
    """Fault: a question without all its orders counted, as right or as wrong."""
    names = ("circular_accuracy", "rotation_flip_rate", "rotated_accuracy", "rotated_probability")
    once = general_measures([general_score("q", "A")])
    for measure in names:
        assert find(once, measure).value is None
        assert find(once, measure).reason == "not asked"
    # q flips and is wrong throughout, r lacks an order: what is left is q alone.
    partly = general_measures(by_reading([*rotated("q", "BBBA"), *rotated("r", "ADCB")[:3]]))
    for measure, value in zip(names, (0.0, 1.0, 0.0), strict=False):
        assert find(partly, measure).value == value
        assert "without 1 of 2 questions " in find(partly, measure).reason
    headless = general_measures(by_reading([*rotated("q", "ADCB"), *rotated("r", "ADCB")[1:]]))
    assert find(headless, "accuracy").reason.endswith(
        "1 of 2 questions lack the file's option order"
    )
    assert find(headless, "accuracy").value == 1.0


def test_questions_with_fewer_options_are_complete_with_fewer_rotations():
    rows = general_measures(by_reading([*rotated("q", "ADCB"), *rotated("r", "AB")]))
    assert find(rows, "circular_accuracy").value == 1.0
    assert find(rows, "chance").value == pytest.approx((0.25 + 0.5) / 2)


def test_letter_bias_is_the_spread_of_recall():
    fair = [score for number in range(3) for score in rotated(f"q{number}", "ADCB")]
    assert find(general_measures(by_reading(fair)), "letter_bias").value == 0.0
    # Always A: recall 1 for A, 0 for B, C, D; the two-option question doesn't count.
    biased = [score for number in range(3) for score in rotated(f"q{number}", "AAAA")]
    rows = general_measures(by_reading([*biased, *rotated("two", "AB")]))
    assert find(rows, "letter_bias").value == pytest.approx(np.std([1, 0, 0, 0]))
    assert find(rows, "chosen:A").value == 1.0


def test_categories_and_gauges_of_general_questions():
    scores = [
        general_score("q1", "A", category="colour"),
        general_score("q2", "", category="colour"),
        general_score("q3", "B", category="shape"),
    ]
    rows = general_measures(scores)
    assert find(rows, "accuracy:colour").value == 0.5
    assert find(rows, "accuracy:shape").value == 0.0
    assert find(rows, "unparsable").value == pytest.approx(1 / 3)
    assert find(rows, "correct_probability").value == pytest.approx(0.5)
    assert find(rows, "correct_probability").reason == "n/a (3 questions)"


def test_categories_of_circular_scoring():
    """Colour: one of two questions is right in all four orders; shape: right in three of four."""
    rows = general_measures(
        by_reading(
            [
                *rotated("q1", "ADCB", category="colour"),
                *rotated("q2", "AAAA", category="colour"),
                *rotated("q3", "ADCA", category="shape"),
            ]
        )
    )
    assert find(rows, "circular_accuracy").value == pytest.approx(1 / 3)
    assert find(rows, "circular_accuracy:colour").value == 0.5
    assert find(rows, "circular_accuracy:colour").questions == 2
    assert find(rows, "circular_accuracy:shape").value == 0.0
    assert find(rows, "accuracy:shape").value == 1.0


def test_wider_categories_are_told_apart_from_categories():
    """By hand: of `seeing` q1 alone is right in all orders, of `thinking` none; q4 is of none."""
    scores = by_reading(
        [
            *rotated("q1", "ADCB", category="colour"),
            *rotated("q2", "AAAA", category="colour"),
            *rotated("q3", "ADCA", category="seeing"),
            *rotated("q4", "ADCB", category="colour"),
        ]
    )
    wider = {"q1": "seeing", "q2": "seeing", "q3": "thinking", "q4": ""}
    rows = general_measures(scores, l2_categories=wider)
    names = {row.measure for row in rows if row.measure.startswith("l2_")}
    assert names == {
        f"l2_{kind}:{name}"
        for kind in ("accuracy", "circular_accuracy")
        for name in ("seeing", "thinking")
    }
    assert find(rows, "l2_circular_accuracy:seeing").value == 0.5
    assert find(rows, "l2_circular_accuracy:thinking").value == 0.0
    assert find(rows, "l2_accuracy:thinking").value == 1.0
    # A category of the same name as a wider one is another number: it holds q3.
    assert find(rows, "circular_accuracy:seeing").value == 0.0
    assert find(rows, "circular_accuracy:seeing").questions == 1
    without = [row for row in rows if not row.measure.startswith("l2_")]
    assert general_measures(scores) == without
