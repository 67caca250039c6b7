import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pulse_unlearn.errors import ConfigError, DataError
from pulse_unlearn.evaluation.comparisons import detectable_difference, equivalent, holm
from pulse_unlearn.evaluation.intervals import clustered_mean, unseen_share
from synthetic_scores import (
    gaps_of,
    general_score,
    half_width,
    paired_difference,
    people_scores,
    person_score,
)


def test_paired_difference_is_the_widened_t_interval_over_people():
    better = people_scores([5, 4, 3, 4, 5] * 4, [3, 4, 3, 5, 4] * 4)
    worse = people_scores([3, 4, 1, 2, 4] * 4, [3, 2, 2, 5, 1] * 4)
    found = paired_difference(better, worse)
    half = half_width(gaps_of(better, worse, 5))
    assert found.value == pytest.approx(0.26)
    assert found.low == pytest.approx(0.26 - half)
    assert found.high == pytest.approx(0.26 + half)
    assert found.p_value == pytest.approx(1 / 10_001)  # no flip of 10,000 comes near


def test_the_other_way_round_is_the_negative():
    a = people_scores([5, 1, 3, 2] * 5, [1, 2, 3, 4] * 5)
    b = people_scores([2, 2, 4, 1] * 5, [3, 2, 0, 4] * 5)
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.value == pytest.approx(-other.value)
    assert one.low == pytest.approx(-other.high)
    assert one.p_value == other.p_value
    seen = paired_difference(*([s for s in x if s.modality == "multimodal"] for x in (a, b)))
    assert seen.value == pytest.approx((3 - 1 - 1 + 1) / 20)


@pytest.mark.parametrize(("people", "expected"), [(1, 1.0), (3, 2 / 8), (5, 2 / 32)])
def test_the_sign_flip_p_value_is_exact_for_few_people(people, expected):
    # Every person differs by the same: only all signs alike are as extreme, 2 of 2^people.
    found = paired_difference(
        people_scores([5] * people, [5] * people), people_scores([0] * people, [0] * people)
    )
    assert found.p_value == pytest.approx(expected)
    assert found.low is None


def test_mixed_signs_by_hand():
    # Gaps 3, 2, -1 (in tenths): |sum| = 4; of 8 sign patterns 6 and 4 reach it, both ways: 4/8.
    a, b = people_scores([3, 2, 0], [0, 0, 0]), people_scores([0, 0, 1], [0, 0, 0])
    assert paired_difference(a, b).p_value == pytest.approx(0.5)


def test_no_difference():
    same = people_scores([3, 2, 4, 1] * 13, [2, 2, 1, 0] * 13)
    found = paired_difference(same, same)
    assert found.value == 0.0
    assert found.p_value == 1.0
    assert found.high == pytest.approx(unseen_share(52))
    assert found.low == pytest.approx(-unseen_share(52))


def test_p_values_are_uniform_when_nothing_differs():
    generator = np.random.default_rng(7)
    p_values = []
    for _ in range(150):
        a, b = (people_scores(generator.integers(0, 3, 16), [0] * 16, each=2) for _ in range(2))
        gap = paired_difference(a[: 2 * 16], b[: 2 * 16], permutations=500)
        p_values.append(gap.p_value)
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.1
    assert 0.4 <= np.mean(np.array(p_values) <= 0.5) <= 0.62


def test_general_questions_are_their_own_clusters():
    a = [general_score(f"q{number}", "A" if number < 30 else "B") for number in range(40)]
    b = [general_score(f"q{number}", "A" if number < 20 else "B") for number in range(40)]
    found = paired_difference(a, b)
    gaps = [float(10 <= 0 or 20 <= number < 30) for number in range(40)]
    reference = clustered_mean(gaps, list(range(40)), bounds=(-1, 1))
    assert (found.value, found.low, found.high) == (0.25, reference.low, reference.high)


def test_differences_that_cannot_be_had():
    seen = [person_score("p0", 0)]
    with pytest.raises(DataError, match="one side only"):
        paired_difference(seen, [person_score("p1", 0)])
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        paired_difference(seen, seen, measure="acuracy")


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04 -> 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.01, None, 0.04]) == (0.02, None, 0.04)
    assert holm([0.7, 0.9]) == (1.0, 1.0)
    assert holm([]) == ()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_keeps_the_order_and_lies_between_none_and_bonferroni(p_values):
    adjusted = holm(p_values)
    for p_value, new in zip(p_values, adjusted, strict=True):
        assert p_value <= new <= min(1.0, len(p_values) * p_value) + 1e-15
    ranked = sorted(range(len(p_values)), key=lambda place: p_values[place])
    assert [adjusted[place] for place in ranked] == sorted(adjusted)


def test_detectable_difference_by_hand():
    # t_49: 2.0095752371 (97.5 %) and 0.8490183993 (80 %); sqrt(0.5 / 500) and sqrt(0.5 / 50)
    quantiles = stats.t.ppf(0.975, 49) + stats.t.ppf(0.8, 49)
    assert quantiles == pytest.approx(2.8585936, abs=1e-6)
    independent = detectable_difference(50, 500, rho=0.0, power=0.8)
    assert independent == pytest.approx(quantiles * math.sqrt(0.001))
    identical = detectable_difference(50, 500, rho=1.0, power=0.8)
    assert identical == pytest.approx(quantiles * 0.1)
    assert independent < detectable_difference(50, 500, rho=0.3, power=0.8) < identical
    assert detectable_difference(1164, 1164, rho=0.0, power=0.8) == pytest.approx(0.058, abs=1e-3)
    assert detectable_difference(2, 2, rho=0.0, power=0.8) == 1.0
    assert detectable_difference(1, 10) == 1.0
    assert detectable_difference(5, 0) == 1.0


def test_the_design_detects_what_it_says_it_does():
    effect = detectable_difference(40, 200, rho=0.0, power=0.8)
    generator = np.random.default_rng(11)
    people = np.repeat(np.arange(40), 5).tolist()
    runs, hits = 600, 0
    for _ in range(runs):
        draw = generator.random(200)
        gaps = (draw < 0.25 + effect / 2).astype(float) - (draw > 0.75 + effect / 2)
        hits += clustered_mean(gaps, people, bounds=(-1.0, 1.0)).low > 0
    assert 0.75 <= hits / runs <= 0.87


def asked(strict, words=None, *, people=20, modality=None):
    """`people` with 5 questions in each modality, of which so many are right by each reading."""
    return [
        person_score(
            f"p{place:03d}",
            number,
            right=number < strict(place),
            words=None if words is None else float(number < words(place)),
            modality=kind,
        )
        for place in range(people)
        for kind in ([modality] if modality else ["multimodal", "text_only"])
        for number in range(5)
    ]


def test_equivalent_needs_the_whole_interval_of_every_reading_within_the_margin():
    """Fault: a difference that is not significant taken for equivalence; one reading forgotten."""
    level, other = asked(lambda place: 2 + place % 2), asked(lambda place: 2 + (place + 1) % 2)
    # Equal means, gaps of +-20 points over 20 people; plain t: t_19 0.2 / sqrt(19) = 0.0793.
    ordered = [sorted(scores, key=lambda score: score.modality) for scores in (level, other)]
    half = half_width(gaps_of(*ordered, 5), level=0.9)
    assert half == pytest.approx(stats.t.ppf(0.95, 19) * 0.2 / math.sqrt(19), rel=0.05)
    assert equivalent(level, other, margin=half + 1e-6)
    assert not equivalent(level, other, margin=half - 1e-6)
    assert equivalent(level, level, margin=0.15)
    same = asked(lambda place: 2, lambda place: 2)
    assert equivalent(same, same, margin=0.15)
    assert not equivalent(same, asked(lambda place: 2, lambda place: 3), margin=0.15)
    # Words were asked on one side only: nothing can be said about them.
    assert equivalent(same, asked(lambda place: 2), margin=0.15)


def test_few_people_are_never_equivalent():
    """Fault: no interval taken for an interval inside the margin."""
    few = asked(lambda place: 2, people=9)
    assert not equivalent(few, few, margin=0.5)
    assert not equivalent([], [], margin=0.5)


def test_a_reading_asked_in_one_modality_alone_must_be_alike_too():
    """Fault: words asked by name alone have no mean of both modalities, and so go untested."""
    known, unknown = (
        [
            replace(score, words=None, words_per_token=None, words_named=None)
            if score.modality == "multimodal"
            else score
            for score in asked(lambda place: 2, lambda place, right=right: right)
        ]
        for right in (4, 1)
    )
    assert not equivalent(known, unknown, margin=0.15)
