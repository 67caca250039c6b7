"""Probes: a letter is read off hidden states that hold it, and not off states that do not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny_models as tiny
from pulse_unlearn.evaluation.probe import LetterProbe
from pulse_unlearn.leaderboard.entries import _attacks
from pulse_unlearn.models.states import last_states
from pulse_unlearn.report.estimates import RETAIN_MODEL, Numbers
from pulse_unlearn.report.hidden import probed_table
from pulse_unlearn.scenarios import ProbeStage
from pulse_unlearn.scenarios.probing import PROBED
from test_report_rules import GA, result
from test_scenarios import conditions, operations, plan

LETTERS = "ABCD"


def states_of(generator, truths, *, hold):
    """States in which a direction of its own stands for each letter, or which hold nothing."""
    noise = generator.normal(size=(len(truths), 20))
    if hold:
        noise[np.arange(len(truths)), [LETTERS.index(one) for one in truths]] += 3.0
    return noise


def read_off(*, hold, known=300, asked=200, one_letter=False):
    generator = np.random.default_rng(0)
    learned = ["A"] * known if one_letter else list(generator.choice([*LETTERS], size=known))
    truths = list(generator.choice([*LETTERS], size=asked))
    probe = LetterProbe.fit(states_of(generator, learned, hold=True), learned)
    states = states_of(generator, truths, hold=hold)
    found = [probe.log_scores(one, LETTERS) for one in states]
    hits = [LETTERS[int(np.argmax(one))] == truth for one, truth in zip(found, truths, strict=True)]
    return np.mean(hits), found


def test_what_states_hold_is_read_and_what_they_do_not_is_at_chance():
    """The positive control and its opposite: a probe of known people finds nothing in noise."""
    assert read_off(hold=True)[0] > 0.9
    assert 0.15 < read_off(hold=False)[0] < 0.35


def test_scores_are_log_probabilities_of_the_letters_shown():
    _, found = read_off(hold=True, asked=3)
    assert [np.exp(one).sum() for one in found] == pytest.approx([1.0] * 3)
    _, found = read_off(hold=True, asked=3, one_letter=True)
    for one in found:  # the others were never true, and tie
        assert one[0] >= one[1] == one[2] == one[3]


def test_states_are_those_of_the_last_token_whatever_stands_beside_it():
    """Fails where padding is read, or examples come back in another order."""
    model, encoder, examples = tiny.base(), tiny.encoder(), tiny.mixed()
    count = len(examples)
    together = last_states(model, encoder, examples, layers=[0, -1], batch_size=count)
    alone = [last_states(model, encoder, [one], layers=[0, -1], batch_size=1) for one in examples]
    assert together.shape[:2] == (count, 2)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(together[:, 0], together[:, 1])


def test_a_probe_learns_from_people_who_are_not_forgotten_beside_the_retain_model():
    protocol = plan("evaluations={retain_model: {}, probing: {depths: [0.5, 1]}}")
    (operation,) = operations(protocol, "finetuned")
    stage = protocol.stage("seed0/finetuned/ga/probe50")
    assert isinstance(stage, ProbeStage)
    assert (stage.ask, stage.chain) == ((operation.forget,), operation.chain)
    assert stage.learn == (operation.retain, *(group for _, group in operation.unseen))
    assert operation.forget not in stage.learn
    assert not {*operation.forget.ids} & {one for group in stage.learn for one in group.ids}
    found = [f"{PROBED}@0.5", f"{RETAIN_MODEL}+{PROBED}@0.5"]
    found += [f"{PROBED}@1", f"{RETAIN_MODEL}+{PROBED}@1"]
    assert conditions(protocol, "finetuned", "ga", 1) == ["plain", *found]
    assert {f"{PROBED}@0.5", f"{PROBED}@1"} < {*conditions(protocol, "finetuned", "ga", 0)}
    control = protocol.stage("seed0/retain-model/probe50")
    assert replace(control, name=stage.name, chain=stage.chain) == stage
    assert protocol.stage("seed0/finetuned/target/probe100").chain == operation.target
    (row,) = (
        one
        for one in protocol.evaluations
        if one.cell == replace(operation.cell, condition=f"{PROBED}@1")
    )
    assert row.control == "seed0/retain-model/probe100"


def test_the_table_has_a_column_for_each_depth_and_the_worst_counts_on_the_leaderboard():
    def rows(place, value):
        return [result(place, "forget", "latent_accuracy", value)]

    control = replace(GA, condition=f"{RETAIN_MODEL}+{PROBED}@0.75")
    numbers = Numbers(
        [
            result(GA, "forget", "accuracy", 0.3),
            *rows(GA, 0.3),
            *rows(GA.at(0), 0.9),
            *rows(replace(GA.at(0), condition=RETAIN_MODEL), 0.25),
            *rows(replace(GA, condition=f"{PROBED}@0.75"), 0.8),
            *rows(replace(GA, condition=f"{PROBED}@1"), 0.35),
            *rows(control, 0.22),
            *rows(replace(control, condition=f"{RETAIN_MODEL}+{PROBED}@1"), 0.27),
        ]
    )
    table = probed_table(numbers)
    assert table.columns == ("as it answers", "layer at 75 %", "layer at 100 %")
    assert {row.heads[1]: [cell.value for cell in row.cells] for row in table.rows} == {
        "retain model": ["25.0", "22.0", "27.0"],
        "GA": ["30.0", "80.0", "35.0"],
    }
    assert dict(_attacks(numbers, GA, 0, 0.25)) == pytest.approx({PROBED: 0.58})
