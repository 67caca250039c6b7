"""Membership: known people are told from never-learned ones, and never-known people are not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special

from pulse_unlearn.evaluation.membership import (
    auc_ends,
    mean_likelihood,
    membership_measures,
    min_k,
    told_apart,
)
from pulse_unlearn.records import Cell, Measurement, Result
from pulse_unlearn.report.estimates import Numbers
from pulse_unlearn.report.never_knew import membership_table
from pulse_unlearn.scenarios import ScoreStage
from simulated_models import Design, Model, ask
from test_scenarios import plan

ROWS = {
    (modality, measure)
    for modality in ("multimodal", "text_only", "all")
    for measure in (
        *("membership_auc", "membership_p"),
        *("membership_mink_auc", "membership_mink_p"),
    )
}
STRANGERS = Design(people=20)


def measured(model, *, seed, people=30, strangers=STRANGERS):
    rows = membership_measures(
        ask(model, Design(people=people), seed=seed),
        ask(Model(), strangers, seed=seed + 1000),
        of_set="forget",
    )
    return {(one.modality, one.measure): one for one in rows}


def test_a_model_that_knows_tells_them_apart():
    found = measured(Model(knows=1.0), seed=1)
    assert {*found} == ROWS
    for modality in ("multimodal", "text_only", "all"):
        auc = found[modality, "membership_auc"]
        assert auc.value > 0.95
        assert auc.low > 0.8
        assert found[modality, "membership_p"].value < 0.01
        assert auc.individuals == 30


def test_a_model_that_hides_its_letters_alone_is_told_apart_as_well():
    # The positive control: at chance with options shown, it says what it knows in words.
    found = measured(Model(knows=0.0, knows_words=0.9), seed=2)
    assert found["all", "membership_auc"].low > 0.5


def test_a_model_that_never_knew_does_not():
    # Over seeds the interval holds 0.5 as often as it says.
    found = [measured(Model(), seed=seed)["all", "membership_auc"] for seed in range(6)]
    assert sum(one.low <= 0.5 <= one.high for one in found) >= 5
    assert 0.35 < np.mean([one.value for one in found]) < 0.65


def test_min_k_looks_at_the_least_likely_tokens_alone():
    """By hand: a fifth of 9 tokens are two, one of the third answer and one of the second's."""
    answers = [(-1.0, 5), (-4.0, 3), (-6.0, 1)]
    assert min_k(answers) == pytest.approx((-6.0 - 4.0) / 2)
    assert min_k([(-1.0, 1), (-2.0, 1)]) == -2.0
    assert mean_likelihood(answers) == pytest.approx(-11 / 3)


def test_min_k_tells_them_apart_and_nobody_in_a_model_that_never_knew():
    known = measured(Model(knows=1.0), seed=1)["all", "membership_mink_auc"]
    assert known.low > 0.7
    found = [measured(Model(), seed=seed)["all", "membership_mink_auc"] for seed in range(6)]
    assert sum(one.low <= 0.5 <= one.high for one in found) >= 5
    hidden = measured(Model(knows=0.0, knows_words=0.9), seed=2)["all", "membership_mink_auc"]
    assert hidden.low > 0.5


def test_what_was_pushed_below_strangers_is_told_apart_too():
    scores = np.random.default_rng(0).normal(size=(2, 30))
    auc, p_value = told_apart((scores[0] - 2.0).tolist(), scores[1].tolist())
    assert auc.high < 0.4
    assert p_value.value < 0.01


def test_intervals_and_p_values_hold_where_there_is_no_difference():
    draw = np.random.default_rng(5)
    found = [told_apart([*draw.normal(size=25)], [*draw.normal(size=15)]) for _ in range(200)]
    assert np.mean([auc.low <= 0.5 <= auc.high for auc, _ in found]) >= 0.92
    assert np.mean([p_value.value < 0.05 for _, p_value in found]) <= 0.09


def test_intervals_hold_near_one():
    draw = np.random.default_rng(6)
    true = float(special.ndtr(2.0 / np.sqrt(2)))
    found = [told_apart([*draw.normal(2.0, 1, 25)], [*draw.normal(size=15)])[0] for _ in range(200)]
    assert np.mean([auc.low <= true <= auc.high for auc in found]) >= 0.91


@pytest.mark.parametrize(("value", "members", "others"), [(0.5, 20, 20), (0.9, 50, 12)])
def test_ends_solve_the_equation_they_come_from(value, members, others):
    for end in auc_ends(value, members, others):
        first, second = end / (2 - end), 2 * end**2 / (1 + end)
        each = (members + others) / 2 - 1
        spread = end * (1 - end) + each * (first - end**2) + each * (second - end**2)
        assert (value - end) ** 2 == pytest.approx(1.959964**2 * spread / (members * others), 1e-4)


def test_perfect_separation_still_has_an_open_end():
    low, high = auc_ends(1.0, 20, 20)
    assert 0.7 < low < 0.95
    assert high == pytest.approx(1.0)


def test_ties_count_half():
    auc, p_value = told_apart([1.0] * 12, [1.0] * 12)
    assert auc.value == 0.5
    assert p_value.value == 1.0


def test_with_few_people_there_is_a_value_and_no_interval():
    found = measured(Model(knows=1.0), seed=3, people=5)
    auc, p_value = found["all", "membership_auc"], found["all", "membership_p"]
    assert auc.value > 0.9
    assert (auc.low, p_value.value) == (None, None)
    assert "5 people" in auc.reason


def test_without_questions_in_words_there_is_nothing_to_measure():
    found = measured(Model(), seed=4, strangers=Design(people=20, words=False))
    assert {one.value for one in found.values()} == {None}
    assert all(one.reason for one in found.values())


def test_strangers_are_fictional_people_whom_the_target_never_learned():
    protocol = plan("evaluations={retain_model: {}, membership: {people: 15}}")
    taught = [stage for stage in protocol.stages if stage.kind == "finetune"]
    learned = {one for stage in taught for one in stage.learn.ids}
    assert protocol.never_learned
    for scored, name in protocol.never_learned.items():
        stage, own = protocol.stage(name), protocol.stage(scored)
        assert isinstance(stage, ScoreStage)
        assert stage.chain == own.chain
        [group] = stage.ask
        assert len(group.ids) == 15
        if own.chain and "finetune" in own.chain[0]:
            assert not learned & {*group.ids}
    operations = protocol.operations
    asked = {*protocol.never_learned}
    assert {one.before for one in operations} <= asked
    assert {one.after for one in operations if one.cell.scenario == "finetuned"} <= asked
    assert any(name.endswith("retain-model/score") for name in asked)
    assert not [one for one in protocol.evaluations if one.cell.condition == "membership"]


def test_where_everybody_was_learned_it_is_left_out_and_said():
    half = "{forget: 60, retain: 60}"
    protocol = plan(
        "finetune.individuals=120",
        f"scenarios={{finetuned: {half}, pretrained: {{forget: 20, retain: 25}}}}",
        "evaluations={membership: {}}",
    )
    scenarios = {protocol.stage(one).chain for one in protocol.never_learned}
    assert all("finetune" not in name for chain in scenarios for name in chain)
    assert any("membership: left out for ga in finetuned" in note for note in protocol.notes)


def test_the_table_has_before_retain_model_and_methods():
    def rows(value, *, request=1, condition="plain"):
        cell = Cell("finetuned", "ga", "projector+llm", 0, request, condition)
        numbers = (("membership_auc", value), ("membership_p", 0.02))
        return [
            Result(cell, Measurement("forget", "all", name, found, 0.1, 0.9, 50, 10))
            for name, found in numbers
        ]

    numbers = Numbers(
        [
            *rows(0.97, request=0),
            *rows(0.52, request=0, condition="retain_model"),
            *rows(0.81),
        ]
    )
    table = membership_table(numbers)
    told = {row.heads[1]: (row.cells[2].value, row.cells[2].interval) for row in table.rows}
    assert told == {
        "before": ("0.97", "0.10 – 0.90"),
        "retain model": ("0.52", "0.10 – 0.90"),
        "GA": ("0.81", "0.10 – 0.90"),
    }
    assert table.rows[0].cells[2].beside == ("p = 0.020",)
    assert membership_table(Numbers([])) is None
