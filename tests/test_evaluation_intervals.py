import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pulse_unlearn.evaluation.intervals import (
    clustered_mean,
    few_clusters,
    join_reasons,
    percentiles,
    resample_counts,
    stratified_weights,
    sum_by,
    unseen_share,
    wilson,
)

Z2 = 3.841458820694124  # z^2 for 95 %


def test_wilson_at_the_ends_is_the_closed_form():
    ends = wilson(0, 10)
    assert ends.low == 0.0
    assert ends.high == pytest.approx(Z2 / (10 + Z2))  # 0.2775
    mirrored = wilson(10, 10)
    assert mirrored.low == pytest.approx(10 / (10 + Z2))
    assert mirrored.high == 1.0


def test_wilson_in_the_middle():
    # n = k + k: centre 1/2, half width z sqrt(n/4 + z^2/4) / (n + z^2) = z / (2 sqrt(n + z^2))
    ends = wilson(50, 100)
    half = math.sqrt(Z2) / (2 * math.sqrt(100 + Z2))
    assert ends.low == pytest.approx(0.5 - half)  # 0.4038
    assert ends.high == pytest.approx(0.5 + half)  # 0.5962


@given(total=st.integers(1, 3000), share=st.floats(0, 1))
def test_wilson_is_scipys(total, share):
    right = round(total * share)
    ends = wilson(right, total)
    reference = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert ends.low == pytest.approx(reference.low, abs=1e-9)
    assert ends.high == pytest.approx(reference.high, abs=1e-9)
    assert ends.low <= right / total <= ends.high


def test_wilson_of_nothing():
    ends = wilson(0, 0)
    assert (ends.low, ends.high, ends.reason) == (None, None, "no questions")


def test_clustered_mean_by_hand():
    # Ten people, two questions each; five know both, five know none. Person means 0 and 1:
    # s^2 = 10 * 0.25 / 9, standard error sqrt(s^2 / 10) = 1/6, t_9 = 2.2621571628.
    values = [1.0, 1.0] * 5 + [0.0, 0.0] * 5
    people = [f"p{number // 2}" for number in range(20)]
    estimate = clustered_mean(values, people)
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(0.5 - 2.2621571628 / 6)
    assert estimate.high == pytest.approx(0.5 + 2.2621571628 / 6)
    assert estimate.reason == "only 10 people: read the interval with care"


def test_independent_questions_would_have_given_a_narrower_interval():
    values = [1.0, 1.0] * 15 + [0.0, 0.0] * 15
    people = [f"p{number // 2}" for number in range(60)]
    honest, naive = clustered_mean(values, people), wilson(30, 60)
    assert honest.high - honest.low > 1.3 * (naive.high - naive.low)


@given(st.lists(st.integers(0, 5), min_size=20, max_size=40), st.data())
def test_two_modalities_are_the_mean_of_means_with_the_t_interval_of_person_means(first, data):
    second = data.draw(st.lists(st.integers(0, 3), min_size=len(first), max_size=len(first)))
    values, people, strata = [], [], []
    for person, (seen, read) in enumerate(zip(first, second, strict=True)):
        values += [1.0] * seen + [0.0] * (5 - seen) + [1.0] * read + [0.0] * (3 - read)
        people += [person] * 8
        strata += ["multimodal"] * 5 + ["text_only"] * 3
    estimate = clustered_mean(values, people, strata=strata)
    per_person = np.array(first) / 5 / 2 + np.array(second) / 3 / 2
    assert estimate.value == pytest.approx(per_person.mean())
    if per_person.std() > 1e-9:
        low, high = stats.t.interval(0.95, len(first) - 1, per_person.mean(), stats.sem(per_person))
        assert estimate.low == pytest.approx(max(low, 0.0), abs=1e-12)
        assert estimate.high == pytest.approx(min(high, 1.0), abs=1e-12)


def test_the_paper_sees_questions_we_see_people():
    # 25 people x 8 questions, knowledge of a person U-shaped: coverage of the 95 % intervals.
    generator = np.random.default_rng(20250701)
    people = np.repeat(np.arange(25), 8).tolist()
    covered, naive, runs = 0, 0, 1500
    for _ in range(runs):
        knowledge = generator.beta(0.5, 0.5, size=25)  # mean 0.5
        values = (generator.random((25, 8)) < knowledge[:, None]).astype(float).ravel()
        estimate = clustered_mean(values, people)
        covered += estimate.low <= 0.5 <= estimate.high
        ends = wilson(values.sum(), values.size)
        naive += ends.low <= 0.5 <= ends.high
    assert 0.93 <= covered / runs <= 0.965
    assert naive / runs < 0.72


@pytest.mark.parametrize("count", [1, 5, 9])
def test_fewer_than_ten_people_get_no_interval(count):
    estimate = clustered_mean([1.0] * count, list(range(count)))
    assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)
    assert estimate.reason == f"n/a ({count} {'person' if count == 1 else 'people'})"


def test_twenty_people_need_no_note():
    assert few_clusters(20) == ""
    assert few_clusters(19) == "only 19 people: read the interval with care"
    assert few_clusters(1, "questions") == "n/a (1 question)"


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (0.0, 0.0, Z2 / (50 + Z2)),
        (1.0, 50 / (50 + Z2), 1.0),
        # a share of Z2 / (50 + Z2) = 0.0713 might be all wrong or all right
        (0.5, 0.5 * 50 / (50 + Z2), 1 - 0.5 * 50 / (50 + Z2)),
    ],
)
def test_no_variation_is_no_certainty(value, low, high):
    values = [1.0, 1.0] * 50 if value == 1 else [0.0, 2 * value] * 50
    estimate = clustered_mean(values, [number // 2 for number in range(100)])
    assert estimate.value == value
    assert estimate.low == pytest.approx(low)
    assert estimate.high == pytest.approx(high)
    assert estimate.reason == "no variation seen"


def test_the_unseen_share_is_wilsons_end_for_none():
    assert unseen_share(50) == pytest.approx(wilson(0, 50).high)


def test_no_values_no_number():
    estimate = clustered_mean([], [])
    assert (estimate.value, estimate.low, estimate.reason) == (None, None, "no questions")


def test_intervals_stay_inside_the_possible():
    estimate = clustered_mean([1.0] + [0.0] * 29, list(range(30)))
    assert estimate.low == 0.0
    assert 1 / 30 < estimate.high < 0.11


def test_sums_and_weights():
    assert sum_by(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"]).tolist() == [5.0, 2.0]
    assert stratified_weights(["x", "y", "y"]).tolist() == [0.5, 0.25, 0.25]


def test_resampling_is_the_seeds_alone():
    first = resample_counts(12, resamples=50, seed=3)
    assert first.shape == (50, 12)
    assert (first.sum(axis=1) == 12).all()
    assert (first == resample_counts(12, resamples=50, seed=3)).all()
    assert (first != resample_counts(12, resamples=50, seed=4)).any()
    assert (first != resample_counts(12, resamples=50, seed=3, stream=1)).any()


def test_percentiles_and_reasons():
    assert percentiles(np.arange(1001.0)) == pytest.approx((25.0, 975.0))
    assert join_reasons("", "a", "b", "a") == "a; b"
