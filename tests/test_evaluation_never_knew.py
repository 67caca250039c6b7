"""A model against one that never knew: equivalence in every reading, distance of distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy import stats

from pulse_unlearn.errors import DataError
from pulse_unlearn.evaluation.comparisons import pair_by_question
from pulse_unlearn.evaluation.measures import READINGS
from pulse_unlearn.evaluation.never_knew import PROBABILITIES, ks_test, never_knew_measures
from pulse_unlearn.records import Measurement, QuestionScore
from simulated_models import Design, Model, ask
from synthetic_scores import person_score

FULL = Design(each=5)
ask = cache(ask)


def scored(values: Sequence[Sequence[float]], modality="multimodal") -> list[QuestionScore]:
    """A question for each number, which is the true option's probability, person by person."""
    return [
        person_score(f"p{person}", number, modality=modality, probability=value)
        for person, row in enumerate(values)
        for number, value in enumerate(row)
    ]


def people_of(scores: Sequence[QuestionScore]) -> frozenset[str]:
    return frozenset(score.individual for score in scores)


def measured(
    now: Sequence[QuestionScore], never: Sequence[QuestionScore], margin: float = 0.1
) -> dict[tuple[str, str, str], Measurement]:
    sets = {"forget": people_of(now), "retain": people_of(now)}
    rows = never_knew_measures(now, never, sets=sets, margin=margin)
    return {(one.set, one.modality, one.measure): one for one in rows}


def test_the_distance_is_scipys_and_the_p_value_that_of_swapping_whole_people():
    generator = np.random.default_rng(3)
    now, then = generator.beta(2, 4, (10, 3)), generator.beta(2, 2, (10, 3))
    distance, p_value = ks_test(pair_by_question(scored(then), scored(now)), "correct_probability")

    def distances(signs, axis):
        swap = np.reshape(signs, (-1, 10, 1)) > 0
        pairs = zip(np.where(swap, now, then), np.where(swap, then, now), strict=True)
        found = [stats.ks_2samp(*map(np.ravel, pair), method="asymp").statistic for pair in pairs]
        return np.reshape(found, np.shape(signs)[:-1])

    swapped = stats.permutation_test(
        (np.ones(10),), distances, permutation_type="samples", alternative="greater"
    )
    assert distance.value == pytest.approx(swapped.statistic)
    assert p_value.value == pytest.approx(swapped.pvalue)  # both try all 1,024 swaps


def test_the_p_value_keeps_its_level_where_a_persons_answers_are_alike():
    """Two independent samples' p-value rejects in a third of the cases here."""
    generator = np.random.default_rng(0)
    ours, naive, runs = 0, 0, 60
    for _ in range(runs):
        now, then = (
            np.clip(generator.uniform(0, 1, (20, 1)) + generator.normal(0, 0.02, (20, 8)), 0, 1)
            for _ in range(2)
        )
        pairing = pair_by_question(scored(then), scored(now))
        ours += ks_test(pairing, "correct_probability")[1].value < 0.05
        naive += stats.ks_2samp(now.ravel(), then.ravel(), method="asymp").pvalue < 0.05
    assert ours <= 8  # 3 expected; 9 or more of 60 have a chance of 0.3 % at a level of 5 %
    assert naive >= 15


def test_modalities_weigh_alike_in_the_distance():
    image, name = np.full((12, 1), 0.2), np.full((12, 9), 0.9)
    then = scored(image) + scored(name, "text_only")
    now = scored(image + 0.5) + scored(name, "text_only")
    distance, _ = ks_test(pair_by_question(then, now), "correct_probability")
    assert distance.value == pytest.approx(0.5)  # a tenth if questions weighed alike


def test_who_never_knew_is_like_the_control_and_who_knows_is_not():
    never = ask(Model(), FULL, seed=1, world=9)
    alike = measured(ask(Model(), FULL, seed=2, world=9), never, margin=0.15)
    knows = measured(ask(Model(0.9), FULL, seed=3, world=9), never, margin=0.15)
    broken = measured(ask(Model(0.9, says="junk"), FULL, seed=4, world=9), never, margin=0.15)
    at = ("forget", "all")
    assert alike[(*at, "like_never_known")].value == 1
    assert knows[(*at, "like_never_known")].value == 0
    # Output that is broken hides nothing: it is below the control as given, above it in the rest.
    assert broken[(*at, "accuracy_from_never_knew")].high < -0.15
    assert broken[(*at, "rotated_accuracy_from_never_knew")].low > 0.15
    assert "rotated_accuracy" in broken[(*at, "like_never_known")].reason
    for name in PROBABILITIES:
        assert alike[(*at, f"{name}_ks_p")].value > 0.01
        assert knows[(*at, f"{name}_ks_p")].value < 0.01
        assert knows[(*at, f"{name}_ks")].value > alike[(*at, f"{name}_ks")].value + 0.3


def test_a_reading_is_equivalent_if_its_whole_interval_is_within_the_margin():
    never, now = (ask(Model(), FULL, seed=seed, world=9) for seed in (1, 2))
    gap = measured(now, never)[("forget", "all", "rotated_accuracy_from_never_knew")]
    edge = max(-gap.low, gap.high)
    for margin, within in ((edge + 1e-6, 1), (edge - 1e-6, 0)):
        found = measured(now, never, margin)
        assert found[("forget", "all", "rotated_accuracy_equivalent")].value == within
        every = [found[("forget", "all", f"{name}_equivalent")].value for name in READINGS]
        assert found[("forget", "all", "like_never_known")].value == min(every)


def test_only_forget_sets_are_held_against_it_and_missing_questions_are_an_error():
    never, now = (ask(Model(), FULL, seed=seed, world=9) for seed in (1, 2))
    assert {of_set for of_set, _, _ in measured(now, never)} == {"forget"}
    # What the control was asked besides does not matter, what it was not asked does.
    stranger = replace(never[0], question_id="else", individual="else")
    assert measured(now, [*never, stranger]) == measured(now, never)
    with pytest.raises(DataError, match=now[0].question_id):
        measured(now, never[1:])


def test_few_people_have_values_and_no_verdict():
    few = scored([[0.2, 0.3]] * 5)
    found = measured(few, scored([[0.5, 0.6]] * 5))
    assert found[("forget", "multimodal", "correct_probability_ks")].value == 1
    for name in ("correct_probability_ks_p", "accuracy_equivalent", "like_never_known"):
        row = found[("forget", "multimodal", name)]
        assert (row.value, row.reason) == (None, "n/a (5 people)")
    row = found[("forget", "all", "like_never_known")]
    assert (row.value, row.reason) == (
        None,
        "no text_only questions, so no mean of both modalities",
    )
