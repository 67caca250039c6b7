"""Contrasts over seeds: paired, corrected within each seed, seen only if they repeat."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pulse_unlearn.evaluation.comparisons import (
    Gaps,
    agreement,
    contrast,
    correct_family,
)
from pulse_unlearn.evaluation.intervals import clustered_mean, mean_over_seeds
from synthetic_scores import paired_difference, people_scores


def gaps(*values: float, stratum: str = "") -> Gaps:
    """One number a person."""
    names = tuple(f"p{place}" for place in range(len(values)))
    return Gaps(tuple(map(float, values)), names, (stratum,) * len(values))


def alike(value: float, people: int = 8) -> Gaps:
    """Every person differs by as much: of 2^8 signs only all alike are as extreme, p = 1/128."""
    return gaps(*([value] * people))


NOTHING = gaps(0.5, -0.5, 0.5, -0.5, 0.5, -0.5, 0.5, -0.5)


def one(by_seed) -> str:
    """What a contrast that is looked at alone shows."""
    (found,) = correct_family([contrast("x", by_seed)])
    return found.settled


# --- what counts as seen


@pytest.mark.parametrize(
    ("by_seed", "settled"),
    [
        ({}, "not tested"),
        ({0: alike(0.5)}, "too few runs"),
        ({0: alike(0.5), 1: alike(0.5)}, "too few runs"),
        ({0: alike(0.5), 1: alike(0.1), 2: alike(0.9)}, "seen"),
        ({0: alike(-0.5), 1: alike(-0.1), 2: alike(-0.9)}, "opposite"),
        ({0: alike(0.5), 1: alike(-0.5), 2: alike(0.5)}, "not settled"),
        ({0: alike(0.5), 1: NOTHING, 2: alike(0.5)}, "not settled"),
        ({0: NOTHING, 1: NOTHING, 2: NOTHING}, "not settled"),
        ({0: alike(0.5), 1: alike(0.5), 2: gaps()}, "too few runs"),
        ({3: alike(0.5), 1: alike(0.5), 2: alike(0.5), 7: alike(0.5)}, "seen"),
        ({3: alike(0.5), 1: alike(0.5), 2: alike(0.5), 7: alike(0.0)}, "not settled"),
    ],
)
def test_a_contrast_is_seen_only_if_every_run_shows_it(by_seed, settled):
    """Fault: a finding from one run or two, from a mean, or from a majority."""
    assert one(by_seed) == settled


def test_many_seeds_that_agree_on_average_are_not_enough():
    """Fault: the mean over seeds tested in place of each seed."""
    by_seed = {seed: alike(0.5) for seed in range(9)} | {9: alike(-0.01)}
    found = contrast("x", by_seed)
    assert found.over_seeds.low > 0
    assert found.settled == "not settled"


def test_a_seed_without_numbers_is_left_out():
    """Fault: an empty run counted as a run, or as a difference of 0."""
    found = contrast("x", {0: alike(0.5), 1: gaps()})
    assert list(found.by_seed) == [0]
    assert (found.over_seeds.value, found.over_seeds.count) == (0.5, 1)
    empty = contrast("x", {0: gaps()})
    assert (empty.settled, empty.over_seeds.value) == ("not tested", None)


# --- numbers of a run and over runs


def test_the_numbers_of_a_run_are_those_of_a_paired_comparison():
    """Fault: another unit, weight or test than `paired_difference` has."""
    a = people_scores([5, 1, 3, 2] * 5, [1, 2, 3, 4] * 5)
    b = people_scores([2, 2, 4, 1] * 5, [3, 2, 0, 4] * 5)
    whole = paired_difference(a, b)
    values = tuple(
        float(x.verdict == "correct") - float(y.verdict == "correct")
        for x, y in zip(a, b, strict=True)
    )
    taken = Gaps(values, tuple(s.individual for s in a), tuple(s.modality for s in a))
    found = contrast("x", {4: taken}).by_seed[4]
    assert found.value == pytest.approx(whole.value)
    assert (found.low, found.high, found.p_value) == (whole.low, whole.high, whole.p_value)


def test_strata_weigh_alike_whatever_their_sizes():
    """Fault: a modality with more questions decides.

    Ten people; with the image one question each, gap 1; by name three, gap -1/2 on average.
    Value (1 - 1/2) / 2; as questions it would be (10 - 15) / 40 < 0.
    """
    names = [f"p{place}" for place in range(10)]
    by_name = [(-1.0, -0.5, 0.0) for _ in names]
    values = (*(1.0 for _ in names), *(value for row in by_name for value in row))
    clusters = (*names, *(name for name in names for _ in range(3)))
    strata = ("image",) * 10 + ("name",) * 30
    found = contrast("x", {0: Gaps(values, clusters, strata)}).by_seed[0]
    assert found.value == pytest.approx(0.25)
    assert found.value > 0 > np.mean(values)
    assert found.p_value == pytest.approx(2 / 2**10)
    exact = clustered_mean(values, clusters, strata=strata, bounds=(-1.0, 1.0))
    assert (found.low, found.high) == (exact.low, exact.high)


def test_the_sign_flip_weighs_strata_alike():
    """Fault: p of the sum over questions, where the value is the mean of two modalities.

    Person i: one question with the image, gap i / 10; three by name, gap -1/10 each. The terms are
    i / 10 - 1/10, i = 1..8; as plain sums they would be i / 10 - 3/10.
    """
    names = [f"p{place}" for place in range(1, 9)]
    values = (*(place / 10 for place in range(1, 9)), *([-0.1] * 24))
    clusters = (*names, *(name for name in names for _ in range(3)))
    found = contrast("x", {0: Gaps(values, clusters, ("image",) * 8 + ("name",) * 24)}).by_seed[0]

    def exact(terms):
        signs = np.array(list(itertools.product((-1, 1), repeat=8)))
        return np.mean(np.abs(signs @ np.array(terms)) >= sum(terms))

    assert found.p_value == exact(range(8)) == 4 / 2**8
    assert exact([place - 3 for place in range(1, 9)]) > 0.05


def test_the_sign_flip_turns_whole_people():
    """Fault: questions flipped one by one: 24 questions of 3 people would make p tiny."""
    names = tuple(f"p{place % 3}" for place in range(24))
    found = contrast("x", {0: Gaps((0.5,) * 24, names, ("",) * 24)}).by_seed[0]
    assert found.p_value == pytest.approx(2 / 2**3)
    assert found.low is None


def tesmean_over_seeds_is_the_t_interval_of_the_runs():
    """Fault: questions of all runs thrown together, as if one run said what another would."""
    values = {0: 0.2, 1: 0.5, 2: 0.3}
    found = contrast("x", {seed: alike(value) for seed, value in values.items()})
    expected = mean_over_seeds([0.2, 0.5, 0.3], bounds=(-1.0, 1.0))
    assert found.over_seeds == expected
    half = 4.302652729911275 * np.std([0.2, 0.5, 0.3], ddof=1) / math.sqrt(3)
    assert found.over_seeds.high - found.over_seeds.value == pytest.approx(half)
    swapped = contrast("x", {seed: alike(values[seed]) for seed in (2, 0, 1)})
    assert list(swapped.by_seed) == [0, 1, 2]
    assert swapped.over_seeds.value == pytest.approx(expected.value)


def test_runs_that_agree_to_the_digit_fall_back_on_their_own_intervals():
    """Fault: "no run has an interval of its own" said of runs that have one each."""
    people = [0.2, 0.8] * 10
    found = contrast("x", {seed: gaps(*people) for seed in range(3)})
    assert all(gap.low is not None for gap in found.by_seed.values())
    assert found.over_seeds.low is not None
    assert found.over_seeds.low < 0.5 < found.over_seeds.high


# --- families


def test_the_correction_is_within_each_seed():
    """Fault: p-values of all seeds in one family, which makes three runs worse than two.

    Each p is 1/128 = 0.0078: six of them pass at 0.047, seven fail at 0.055.
    """
    runs = {seed: alike(0.5) for seed in range(3)}
    six = correct_family([contrast(str(number), runs) for number in range(6)])
    assert {one.settled for one in six} == {"seen"}
    assert six[0].by_seed[2].p_value == pytest.approx(6 / 128)
    seven = correct_family([contrast(str(number), runs) for number in range(7)])
    assert {one.settled for one in seven} == {"not settled"}
    assert seven[0].by_seed[0].p_value == pytest.approx(7 / 128)


def test_a_seed_counts_only_the_contrasts_it_has():
    """Fault: a correction for contrasts that a run does not hold."""
    both = correct_family(
        [
            contrast("a", {0: alike(0.5), 1: alike(0.5)}),
            contrast("b", {1: alike(0.5)}),
            contrast("none", {}),
        ]
    )
    assert both[0].by_seed[0].p_value == pytest.approx(1 / 128)
    assert both[0].by_seed[1].p_value == pytest.approx(2 / 128)
    assert [one.label for one in both] == ["a", "b", "none"]
    assert both[2].by_seed == {}


def test_settling_changes_nothing_but_p_values():
    """Fault: values swapped between contrasts or seeds where p-values are sorted."""
    family = [
        contrast("weak", {0: NOTHING, 1: alike(0.25)}),
        contrast("strong", {0: alike(0.5), 1: alike(-0.75)}),
    ]
    weak, strong = correct_family(family)
    for before, after in zip(family, (weak, strong), strict=True):
        assert (after.label, after.over_seeds) == (before.label, before.over_seeds)
        for seed, gap in before.by_seed.items():
            new = after.by_seed[seed]
            assert (new.value, new.low, new.high) == (gap.value, gap.low, gap.high)
    # Holm: the smaller times two, the larger (1) stays.
    assert strong.by_seed[0].p_value == pytest.approx(2 / 128)
    assert weak.by_seed[0].p_value == 1.0
    assert correct_family([]) == ()


@given(st.lists(st.sampled_from(["seen", "opposite", "not settled", "too few runs", "not tested"])))
def test_together_is_what_all_say(kinds):
    """Fault: a finding of the paper granted because one method of three shows it."""
    made = {
        "seen": {seed: alike(0.5) for seed in range(3)},
        "opposite": {seed: alike(-0.5) for seed in range(3)},
        "not settled": {0: alike(0.5), 1: alike(-0.5), 2: alike(0.5)},
        "too few runs": {0: alike(0.5)},
        "not tested": {},
    }
    told = agreement([contrast(str(n), made[kind]) for n, kind in enumerate(kinds)])
    tested = {kind for kind in kinds if kind != "not tested"}
    expected = "not tested" if not tested else "not settled"
    assert told == (tested.pop() if len(tested) == 1 else expected)


def test_families_of_nothing_are_seldom_seen():
    """Fault: the level spent anew in each seed, so that luck in any of them suffices."""
    generator = np.random.default_rng(2)
    seen = once = 0
    for _ in range(60):
        family = correct_family(
            [
                contrast(str(place), {seed: gaps(*generator.normal(0, 1, 9)) for seed in range(3)})
                for place in range(4)
            ]
        )
        seen += any(one.settled in ("seen", "opposite") for one in family)
        once += any(one.by_seed[0].p_value < 0.05 for one in family)
    assert seen == 0
    assert once <= 8
