"""Differences of few seeds: simulated methods that scatter differently, equal ones and others."""

from __future__ import annotations

import importlib.util
import math
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pulse_unlearn.evaluation.comparisons import SURE, holm
from pulse_unlearn.leaderboard.few_seeds import MODERATED_FROM, NO_PRIOR, Prior, p_values, prior_of

SCRIPT = Path(__file__).parents[1] / "bench" / "few_seeds.py"
SPEC = importlib.util.spec_from_file_location("few_seeds_bench", SCRIPT)
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)
METHODS, SEEDS, RUNS = 36, 3, 40


def boards(means, generator):
    """Boards of METHODS x SEEDS scores, as `bench/few_seeds.py` simulates them."""
    return bench.boards(RUNS, means, SEEDS, 0.7, generator)


def sure_pairs(board, *, entries):
    """Return which pairs are sure, and the signs of their mean differences."""
    gaps = np.array([one - other for one, other in combinations(board, 2)])
    corrected = holm(p_values(gaps.tolist(), entries=entries))
    return np.array([p < SURE for p in corrected]), np.sign(gaps.mean(1))


def test_methods_that_do_not_differ_are_seldom_told_apart():
    """Mutation: one variance for all, `Prior(variances.mean(), math.inf)`."""
    generator = np.random.default_rng(1)
    null = boards(np.zeros(METHODS), generator)
    wrong = sum(sure_pairs(board, entries=METHODS)[0].any() for board in null)
    assert wrong <= 5  # 2 are expected at 5 %, and more than 5 in one of 70 such tests


def test_three_seeds_tell_methods_apart_that_a_t_test_does_not():
    """Mutation: NO_PRIOR always."""
    generator = np.random.default_rng(2)
    means = np.linspace(0, 0.8, METHODS)
    order = np.sign([one - other for one, other in combinations(means, 2)])
    found, plain = [], []
    for board in islice(boards(means, generator), 20):
        sure, signs = sure_pairs(board, entries=METHODS)
        assert not (sure & (signs != order)).any()
        found.append(sure.mean())
        plain.append(sure_pairs(board, entries=2)[0].mean())
    assert np.mean(found) > 0.15
    assert np.mean(plain) < 0.05


@pytest.mark.parametrize(("degrees", "expected"), [(3.0, 0.1), (8.0, 0.2)])
def test_the_prior_is_found_again(degrees, expected):
    """`expected` is how far it may be off, as a share."""
    generator = np.random.default_rng(3)
    true = 0.04 * degrees / generator.chisquare(degrees, 20_000)
    own = true * generator.chisquare(2, 20_000) / 2
    found = prior_of(own, np.full(len(own), 2.0))
    assert found.degrees == pytest.approx(degrees, rel=expected)
    assert found.variance == pytest.approx(0.04, rel=0.05)


def test_scores_that_end_at_0_say_nothing_of_the_scatter_of_others():
    """Mutation: variances of 0 count as very small ones: one board's ranks were all 1 to 36."""
    own = np.random.default_rng(5).chisquare(2, 400) / 2
    with_zeros = np.array([*own, *[0.0] * 60])
    assert prior_of(with_zeros, np.full(460, 2.0)) == prior_of(own, np.full(400, 2.0))


def test_variances_that_scatter_as_chance_does_are_one():
    """Of equal true variances the prior has many degrees of freedom, or infinitely many."""
    own = np.random.default_rng(4).chisquare(2, 5_000) / 2
    found = prior_of(own, np.full(len(own), 2.0))
    assert found.degrees > 50
    assert Prior(0.5, math.inf).moderate(100.0, 2) == (0.5, math.inf)


def test_few_entries_are_tested_by_their_own_spread_alone():
    one, other = (0.3, 0.5, 0.45), (0.1, 0.2, 0.3)
    gaps = [[a - b for a, b in zip(one, other, strict=True)]] * 3
    expected = stats.ttest_rel(one, other).pvalue
    assert p_values(gaps, entries=MODERATED_FROM - 1) == pytest.approx([expected] * 3)


def test_what_cannot_be_known_is_none():
    gaps = [[0.1], [], [0.2, 0.2], [0.0, 0.0], [0.1, 0.3]]
    assert p_values(gaps, entries=2)[:4] == [None, None, None, 1.0]
    # Half of the variances that there are is 0: no prior either.
    assert prior_of(np.array([0.0, 0.0, 1.0]), np.full(3, 2.0)) == NO_PRIOR
    assert p_values([[0.2, 0.2]] * 3, entries=METHODS) == [None] * 3


def test_a_spread_of_nothing_is_moderated_where_others_scatter():
    gaps = [[0.2, 0.2, 0.2], *([0.1 + x, 0.1 - x, 0.1] for x in np.linspace(0.01, 0.2, 30))]
    found = p_values(gaps, entries=METHODS)[0]
    assert found is not None
    assert 0 < found < 0.2
