import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from pulse_unlearn.evaluation.intervals import (
    Design,
    OverSeeds,
    clustered_mean,
    few_clusters,
    join_reasons,
    mean_of_strata,
    mean_over_seeds,
    unseen_share,
    wilson,
)
from pulse_unlearn.evaluation.relative import ratio_interval

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
    # Ten people, two questions each; five know both, five know none. Person means 0 and 1: their
    # variance s^2 = 10 * 0.25 / 9, that of the mean V = s^2 / 10 = 1/36. If a person's answers
    # were all alike: W = 0.25 / 10. Of 20 answers 10 are of the rarer kind, 0.2 are added.
    # Wilson at 1/2: half width t / (2 sqrt(n + t^2)), t_9 = 2.2621571628.
    variance = (10 / 36 + 0.2 * 0.025) / 10.2
    half = 2.2621571628 / (2 * math.sqrt(0.25 / variance + 2.2621571628**2))
    values = [1.0, 1.0] * 5 + [0.0, 0.0] * 5
    people = [f"p{number // 2}" for number in range(20)]
    estimate = clustered_mean(values, people)
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(0.5 - half)  # 0.1992
    assert estimate.high == pytest.approx(0.5 + half)
    assert estimate.reason == "only 10 people: read the interval with care"


def test_independent_questions_would_have_given_a_narrower_interval():
    values = [1.0, 1.0] * 15 + [0.0, 0.0] * 15
    people = [f"p{number // 2}" for number in range(60)]
    honest, naive = clustered_mean(values, people), wilson(30, 60)
    assert honest.high - honest.low > 1.3 * (naive.high - naive.low)


@given(st.lists(st.integers(0, 5), min_size=20, max_size=40), st.data())
def test_two_modalities_are_the_mean_of_means_with_the_variance_of_person_means(first, data):
    second = data.draw(st.lists(st.integers(0, 3), min_size=len(first), max_size=len(first)))
    values, people, strata = [], [], []
    for person, (seen, read) in enumerate(zip(first, second, strict=True)):
        values += [1.0] * seen + [0.0] * (5 - seen) + [1.0] * read + [0.0] * (3 - read)
        people += [person] * 8
        strata += ["multimodal"] * 5 + ["text_only"] * 3
    estimate = clustered_mean(values, people, strata=strata)
    per_person = np.array(first) / 5 / 2 + np.array(second) / 3 / 2
    assert estimate.value == pytest.approx(per_person.mean())
    gaps = clustered_mean(values, people, strata=strata, bounds=(-1.0, 1.0))
    if per_person.std() > 1e-9:
        low, high = stats.t.interval(0.95, len(first) - 1, per_person.mean(), stats.sem(per_person))
        assert max(low, -1.0) >= gaps.low - 1e-12
        assert min(high, 1.0) <= gaps.high + 1e-12
        shares = np.mean(first) / 5, np.mean(second) / 3
        low, high = wilson_by_quadratic(shares, (5, 3), len(first), stats.sem(per_person) ** 2)
        assert estimate.low == pytest.approx(low, abs=1e-9)
        assert estimate.high == pytest.approx(high, abs=1e-9)


def wilson_by_quadratic(shares, each, people, variance):
    """Return the p for which (v - p)^2 = t^2 p (1 - p) / n, each stratum having `each` questions.

    n = v (1 - v) / variance, mixed with that of answers which are alike within a person.
    """
    value = np.mean(shares)
    rest = sum(p * (1 - p) / (k * people) for p, k in zip(shares, each, strict=True)) / 4
    weight_squares = sum(1 / (k * people) for k in each) / 4
    rarer = min(value, 1 - value) * value * (1 - value) / rest
    alike = rest / weight_squares / people
    number = value * (1 - value) * (rarer + 0.2) / (rarer * variance + 0.2 * alike)
    t2 = stats.t.ppf(0.975, people - 1) ** 2 / number
    ends = np.roots([1 + t2, -2 * value - t2, value**2])
    return sorted(ends.real)


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


@given(st.lists(st.floats(0, 1), min_size=20, max_size=60))
def test_intervals_stay_inside_the_possible_and_mirror(values):
    people = [number // 2 for number in range(len(values))]
    estimate = clustered_mean(values, people)
    mirrored = clustered_mean([1 - value for value in values], people)
    if estimate.low is None:
        assert len(set(people)) < 10
        return
    assert 0.0 <= estimate.low <= estimate.value + 1e-12
    assert estimate.value - 1e-12 <= estimate.high <= 1.0
    assert mirrored.low == pytest.approx(1 - estimate.high, abs=1e-6)
    assert mirrored.high == pytest.approx(1 - estimate.low, abs=1e-6)


def test_the_interval_is_asymmetric_where_few_are_right():
    estimate = clustered_mean([1.0] + [0.0] * 29, list(range(30)))
    # One answer a person: V = 30/29 W, mixed 1 : 0.2; n hardly differs from 30, t from z.
    number = 30 * 1.2 / (30 / 29 + 0.2)
    t2 = stats.t.ppf(0.975, 29) ** 2
    ends = np.roots([1 + t2 / number, -2 / 30 - t2 / number, 1 / 900])
    assert (estimate.low, estimate.high) == pytest.approx(tuple(sorted(ends)))  # 0.0054, 0.178


def test_differences_of_one_answer_a_person_keep_the_t_interval():
    gaps = [1.0] * 6 + [0.0] * 20 + [-1.0] * 4
    estimate = clustered_mean(gaps, list(range(30)), bounds=(-1.0, 1.0))
    low, high = stats.t.interval(0.95, 29, 2 / 30, stats.sem(gaps))
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def single(shares, total):
    """Return before and after of `total` questions: right both times, only after, only before."""
    both, gained, lost = shares
    before = [1.0] * both + [0.0] * gained + [1.0] * lost
    after = [1.0] * (both + gained) + [0.0] * lost
    rest = [0.0] * (total - len(before))
    return np.array(before + rest), np.array(after + rest)


@pytest.mark.parametrize("shares", [(20, 5, 60), (2, 0, 80), (80, 2, 3), (40, 30, 10)])
def test_independent_ratios_are_nam_and_blackwelders(shares):
    before, after = single(shares, 100)
    both, gained, lost = (share / 100 for share in shares)
    found = ratio_interval(before, after, list(range(100)))
    value = (both + gained) / (both + lost)
    assert found.value == pytest.approx(value)
    # One question a person: the variance is 100/99 of the independent one, mixed with it 1 : 0.2
    # per answer of the rarer kind.
    spread = value * (gained + lost)
    rarer = 100 * min(spread, both + gained, 1 - both - gained)
    number = 100 * (rarer + 0.2) / (rarer * 100 / 99 + 0.2)
    t2 = stats.t.ppf(0.975, 99) ** 2
    for ratio in (found.low, found.high):
        # Their closed form of the likeliest share of `only after` (after = ratio times before).
        b = both + gained - ratio**2 * (both + lost + 2 * gained)
        root = (both + gained - ratio**2 * (both + lost)) ** 2 + 4 * ratio**2 * gained * lost
        only_after = (-b + math.sqrt(root)) / (2 * ratio * (ratio + 1))
        only_before = ratio * only_after - (ratio - 1) * (both + gained + lost)
        gap = both + gained - ratio * (both + lost)
        assert gap**2 == pytest.approx(
            t2 * ratio * (only_after + only_before) / number, rel=1e-5, abs=1e-12
        )
    assert found.low < value < found.high


@pytest.mark.parametrize("shares", [(20, 10, 50), (0, 2, 80), (5, 0, 70), (70, 3, 5)])
def test_ratios_over_chance_by_a_general_optimiser(shares):
    # At its ends the interval's variance is that of the likeliest shares with that ratio.
    before, after = single(shares, 100)
    found = ratio_interval(before, after, list(range(100)), chance=np.full(100, 0.25))
    start, rest = before.mean() - 0.25, after.mean() - 0.25
    assert found.value == pytest.approx(rest / start)
    seen = np.array([*shares, 100 - sum(shares)]) / 100
    cells = np.array([(1, 1), (1, 0), (0, 1), (0, 0)]) - 0.25  # after, before

    def per_question(ratio):
        return cells[:, 0] - ratio * cells[:, 1]

    spread = float(seen @ per_question(found.value) ** 2)
    rarer = 100 * min(spread, after.mean(), 1 - after.mean())
    number = 100 * (rarer + 0.2) / (rarer * 100 / 99 + 0.2)
    for ratio in (found.low, found.high):
        term = per_question(ratio)
        likeliest = optimize.minimize(
            lambda p: -np.sum(special.xlogy(seen, np.maximum(p, 1e-12))),
            np.full(4, 0.25),
            bounds=[(0, 1)] * 4,
            constraints=[
                {"type": "eq", "fun": lambda p: p.sum() - 1},
                {"type": "eq", "fun": lambda p, term=term: p @ term},
            ],
            options={"ftol": 1e-14, "maxiter": 500},
        )
        allowed = stats.t.ppf(0.975, 99) ** 2 * float(likeliest.x @ term**2) / number
        assert (rest - ratio * start) ** 2 == pytest.approx(allowed, rel=1e-3)


def test_ratio_of_modalities_is_that_of_the_means_of_means():
    people = [number // 6 for number in range(120)]
    strata = ["multimodal", "multimodal", "multimodal", "multimodal", "text_only", "text_only"] * 20
    before = np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.0] * 20)  # (0.75 + 0.5) / 2
    after = np.array(([1.0, 0.0, 0.0, 0.0, 1.0, 0.0] + [0.0] * 6) * 10)  # (0.125 + 0.25) / 2
    found = ratio_interval(before, after, people, strata=strata)
    assert found.value == pytest.approx(0.1875 / 0.625)
    assert found.low < found.value < found.high
    taken = ratio_interval(before, after, people, strata=strata, chance=np.full(120, 0.1))
    assert taken.value == pytest.approx(0.0875 / 0.525)


def test_nothing_left_and_nothing_lost():
    before = np.array([1.0, 1.0, 0.0, 1.0] * 25)
    people = [number // 4 for number in range(100)]
    gone = ratio_interval(before, 0 * before, people)
    assert (gone.value, gone.low, gone.reason) == (0.0, 0.0, "no variation seen")
    # As many answers as people, 25: gap^2 = t^2 / 25 * r (only after + only before), r being the
    # upper end and the two shares Nam and Blackwelder's.
    t2 = stats.t.ppf(0.975, 24) ** 2 / 25
    ratio = gone.high
    only_after = (ratio**2 * 0.75 + ratio**2 * 0.75) / (2 * ratio * (ratio + 1))
    only_before = ratio * only_after - (ratio - 1) * 0.75
    assert (0.75 * ratio) ** 2 == pytest.approx(t2 * ratio * (only_after + only_before))
    kept = ratio_interval(before, before, people)
    assert kept.value == 1.0
    assert kept.low < 1.0 < kept.high
    assert kept.reason == "no variation seen"


def test_ratios_that_cannot_be_had():
    right, people = np.ones(40), [number // 2 for number in range(40)]
    assert ratio_interval(np.array([]), np.array([]), []).reason == "no questions"
    none = ratio_interval(0 * right, right, people)
    assert (none.value, none.low) == (None, None)
    assert none.reason == "not above zero before: nothing to lose"
    guessed = ratio_interval(0.25 * right, right, people, chance=0.25 * right)
    assert (guessed.value, guessed.reason) == (None, "not above chance before: nothing to lose")
    hardly = np.array([1.0, 0.0, 0.0, 0.0] * 9 + [1.0, 1.0, 0.0, 0.0])
    unsure = ratio_interval(hardly, right - hardly, people, chance=0.25 * right)
    assert unsure.value == pytest.approx((0.725 - 0.25) / 0.025)
    assert (unsure.low, unsure.high) == (None, None)
    assert unsure.reason == "no interval: hardly above chance before"
    few = ratio_interval(right[:8], right[:8], people[:8])
    assert (few.value, few.low, few.reason) == (1.0, None, "n/a (4 people)")
    some = ratio_interval(right[:30], np.array([1.0, 0.0] * 15), people[:30])
    assert some.reason.endswith("only 15 people: read the interval with care")


def tesmean_over_seeds_by_hand():
    # mean 0.5, sd 0.1, t_2 = 4.30265: half width 4.30265 * 0.1 / sqrt(3)
    found = mean_over_seeds([0.4, 0.5, 0.6], bounds=(0.0, 1.0))
    assert (found.value, found.spread, found.count) == (
        pytest.approx(0.5),
        pytest.approx(0.1),
        3,
    )
    assert found.high - 0.5 == pytest.approx(4.302652729911275 * 0.1 / math.sqrt(3))
    assert found.low == pytest.approx(1 - found.high)
    assert found.reason == ""
    cut = mean_over_seeds([0.0, 0.1, 0.2], bounds=(0.0, 1.0))
    assert (cut.low, cut.value) == (0.0, pytest.approx(0.1))


def test_one_run_or_none_has_no_interval():
    one = mean_over_seeds([0.4], sampling=[0.1], bounds=(0.0, 1.0))
    assert one == OverSeeds(0.4, None, None, None, 1, "one run")
    assert mean_over_seeds([], bounds=(0.0, 1.0)) == OverSeeds(None, None, None, None, 0, "no runs")


def test_runs_that_agree_fall_back_on_their_own_intervals():
    found = mean_over_seeds([0.0, 0.0, 0.0, 0.0], sampling=[0.06, 0.08, 0.05], bounds=(0.0, 1.0))
    assert (found.low, found.high, found.spread) == (0.0, pytest.approx(0.04), 0.0)
    assert found.reason == "no variation between runs"
    bare = mean_over_seeds([1.0, 1.0], bounds=(0.0, 1.0))
    assert (bare.value, bare.low, bare.high) == (1.0, None, None)
    assert bare.reason == "no variation between runs; no run has an interval of its own"


def test_the_same_people_in_every_run_are_not_more_people():
    # between runs 4.30265 * 0.1 / sqrt(3) = 0.24841, the people 0.06 on average
    found = mean_over_seeds(
        [0.4, 0.5, 0.6], sampling=[0.05, 0.06, 0.07], bounds=(0.0, 1.0), same_people=True
    )
    between = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert found.high - 0.5 == pytest.approx(math.sqrt(between**2 + 0.06**2))
    alike = mean_over_seeds([0.5, 0.5], sampling=[0.05, 0.07], bounds=(0.0, 1.0), same_people=True)
    assert (alike.low, alike.high) == (pytest.approx(0.44), pytest.approx(0.56))
    bare = mean_over_seeds([0.4, 0.6], bounds=(0.0, 1.0), same_people=True)
    assert (bare.low, bare.reason) == (None, "no run has an interval of its own")


def test_sums_and_weights():
    design = Design.of(["b", "a", "b"], ["x", "y", "y"])
    assert design.per_person(np.array([1.0, 2.0, 4.0])).tolist() == [5.0, 2.0]
    assert design.weights.tolist() == [0.5, 0.25, 0.25]
    assert mean_of_strata([1.0, 2.0, 4.0], ["x", "y", "y"]) == 2.0


def test_reasons():
    assert join_reasons("", "a", "b", "a") == "a; b"
