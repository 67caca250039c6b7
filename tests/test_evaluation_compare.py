import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pulse_unlearn.errors import ConfigError, DataError
from pulse_unlearn.evaluation.compare import (
    across_seeds,
    detectable_difference,
    holm,
    paired_difference,
)
from pulse_unlearn.evaluation.intervals import clustered_mean, unseen_share
from synthetic_scores import general_score, people_scores, person_score


def test_paired_difference_is_the_t_interval_over_people():
    better = people_scores([5, 4, 3, 4, 5] * 4, [3, 4, 3, 5, 4] * 4)
    worse = people_scores([3, 4, 1, 2, 4] * 4, [3, 2, 2, 5, 1] * 4)
    found = paired_difference(better, worse)
    gaps = np.array([2, 2, 3, 2, 4] * 4) / 10  # per person, both modalities, of 10 questions
    low, high = stats.t.interval(0.95, 19, gaps.mean(), stats.sem(gaps))
    assert found.value == pytest.approx(0.26)
    assert found.low == pytest.approx(low)
    assert found.high == pytest.approx(high)
    assert (found.questions, found.individuals) == (200, 20)
    assert found.p_value == pytest.approx(1 / 10_001)  # no flip of 10,000 comes near


def test_the_other_way_round_is_the_negative():
    a = people_scores([5, 1, 3, 2] * 5, [1, 2, 3, 4] * 5)
    b = people_scores([2, 2, 4, 1] * 5, [3, 2, 0, 4] * 5)
    one, other = paired_difference(a, b), paired_difference(b, a)
    assert one.value == pytest.approx(-other.value)
    assert one.low == pytest.approx(-other.high)
    assert one.p_value == other.p_value
    seen = paired_difference(a, b, modality="multimodal")
    assert seen.value == pytest.approx((3 - 1 - 1 + 1) / 20)


@pytest.mark.parametrize(("people", "expected"), [(1, 1.0), (3, 2 / 8), (5, 2 / 32)])
def test_the_sign_flip_p_value_is_exact_for_few_people(people, expected):
    # Every person differs by the same: only all signs alike are as extreme, 2 of 2^people.
    found = paired_difference(
        people_scores([5] * people, [5] * people), people_scores([0] * people, [0] * people)
    )
    assert found.p_value == pytest.approx(expected)
    assert found.low is None
    assert found.reason.startswith("n/a (")


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
        p_values.append(paired_difference(a, b, modality="multimodal", permutations=500).p_value)
    assert 0.01 <= np.mean(np.array(p_values) <= 0.05) <= 0.1
    assert 0.4 <= np.mean(np.array(p_values) <= 0.5) <= 0.62


def test_general_questions_are_their_own_clusters():
    a = [general_score(f"q{number}", "A" if number < 30 else "B") for number in range(40)]
    b = [general_score(f"q{number}", "A" if number < 20 else "B") for number in range(40)]
    found = paired_difference(a, b)
    gaps = [float(10 <= 0 or 20 <= number < 30) for number in range(40)]
    reference = clustered_mean(gaps, list(range(40)), bounds=(-1, 1))
    assert (found.value, found.low, found.high) == (0.25, reference.low, reference.high)
    assert (found.questions, found.individuals) == (40, 0)


def test_differences_that_cannot_be_had():
    assert paired_difference([], []).reason == "no questions"
    assert paired_difference([], []).value is None
    seen = [person_score("p0", 0)]
    assert paired_difference(seen, seen).reason.startswith("no text_only questions")
    with pytest.raises(DataError, match="one side only"):
        paired_difference(seen, [person_score("p1", 0)])
    with pytest.raises(ConfigError, match="did you mean 'accuracy'"):
        paired_difference(seen, seen, measure="acuracy", modality="multimodal")


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


def test_across_seeds_by_hand():
    first = people_scores([5] * 10 + [0] * 10, [5] * 20)  # (0.5 + 1) / 2
    second = people_scores([5] * 20, [5] * 10 + [0] * 10)
    third = people_scores([0] * 20, [0] * 20)
    found = across_seeds({1: first, 2: second, 3: third})
    assert found.by_seed == pytest.approx({1: 0.75, 2: 0.75, 3: 0.0})
    assert found.value == pytest.approx(0.5)
    assert found.spread == pytest.approx(math.sqrt(0.375 / 2))
    assert found.low < 0.5 < found.high
    assert found.individuals == 20
    assert found == across_seeds({1: first, 2: second, 3: third})


def test_more_runs_over_the_same_people_are_not_more_people():
    scores = people_scores([5, 0, 3, 2] * 10, [4, 0, 1, 5] * 10)
    one = across_seeds({0: scores})
    five = across_seeds(dict.fromkeys(range(5), scores))
    assert one.reason == "single seed"
    assert one.spread is None
    assert five.spread == 0.0
    assert five.high - five.low == pytest.approx(one.high - one.low)
    known = clustered_mean(
        [float(score.verdict == "correct") for score in scores],
        [score.individual for score in scores],
        strata=[score.modality for score in scores],
    )
    assert one.high - one.low == pytest.approx(known.high - known.low, rel=0.1)


def test_other_people_in_every_seed():
    by_seed = {
        seed: people_scores([5, 0, 3] * 5, [5, 1, 2] * 5, prefix=f"s{seed}") for seed in range(3)
    }
    found = across_seeds(by_seed)
    assert found.individuals == 45
    assert found.low < found.value < found.high


def test_across_seeds_without_numbers():
    assert across_seeds({}).reason == "no seeds"
    assert across_seeds({4: []}).reason == "seed 4: no questions"
    few = across_seeds({0: people_scores([5] * 3, [5] * 3)})
    assert (few.value, few.low) == (1.0, None)
    assert few.reason == "single seed; n/a (3 people)"
    alike = across_seeds({0: people_scores([0] * 50, [0] * 50)})
    assert (alike.low, alike.high) == (0.0, pytest.approx(unseen_share(50)))
