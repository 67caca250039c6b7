"""Weights rounded to few bits: as torchao rounds them, and what that brings back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import rounded_weights
import tiny_models as tiny
from pipeline_cases import result_rows
from pulse_unlearn.errors import ModelError
from pulse_unlearn.models.rounding import round_weights, rounded
from pulse_unlearn.scenarios import ScoreStage
from test_scenarios import plan

FOUND = json.loads(Path(rounded_weights.__file__).with_suffix(".json").read_text())


@pytest.mark.parametrize(("bits", "group"), rounded_weights.CASES)
def test_values_are_those_that_torchao_gives(bits, group):
    expected = torch.tensor(FOUND[f"{bits}/{group}"])
    found = rounded(rounded_weights.weights(), bits=bits, group=group)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert len(found[0].unique()) <= 2**bits * (1 if group is None else 64 // group)


def test_a_row_that_does_not_divide_has_one_scale_and_keeps_its_dtype():
    weights = torch.randn(3, 10, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = rounded(weights, bits=4, group=8)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, rounded(weights, bits=4, group=None))


def test_an_update_below_half_a_step_is_gone_after_rounding():
    # The positive control: a model that hides what it knows in weights that barely moved. With the
    # rounding taken out the update stays.
    knows, hides = tiny.base(), tiny.base()
    for one, other in zip(linear_layers(knows), linear_layers(hides), strict=True):
        weight = one.weight.detach().clone()
        size = weight.abs().amax(1, keepdim=True)
        on_steps = torch.where(weight.abs() == size, weight, rounded(weight, bits=4, group=None))
        nudge = 0.3 * size / 7.5 * torch.sign(weight - on_steps)
        with torch.no_grad():
            one.weight.copy_(on_steps)
            other.weight.copy_(torch.where(weight.abs() == size, weight, on_steps + nudge))
    asked = tiny.letters(4)
    before, after = (torch.cat(tiny.log_probs(one, asked)) for one in (knows, hides))
    assert (before - after).abs().max() > 0.1
    for one in (knows, hides):
        round_weights(one, tiny.LLAVA, bits=4, group=None)
    before, after = (torch.cat(tiny.log_probs(one, asked)) for one in (knows, hides))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=0)


def linear_layers(model):
    inside = model.get_submodule(tiny.LLAVA.language_model).modules()
    return [layer for layer in inside if isinstance(layer, torch.nn.Linear)]


def test_only_the_layers_of_the_language_model_are_rounded():
    model, before = tiny.base(), tiny.snapshot(tiny.base())
    round_weights(model, tiny.LLAVA, bits=2, group=None)
    changed = {
        name for name, one in tiny.snapshot(model).items() if not torch.equal(one, before[name])
    }
    assert changed
    assert all("language_model" in name and "embed" not in name for name in changed)
    assert not any("norm" in name or "lm_head" in name for name in changed)


def test_adapters_beside_the_weights_are_refused():
    with pytest.raises(ModelError, match="are not rounded with them"):
        round_weights(tiny.prepared("llm").model, tiny.LLAVA, bits=4, group=None)


def test_every_last_model_and_the_retain_model_are_asked_rounded():
    protocol = plan("evaluations={retain_model: {}, quantised: {bits: [8, 4]}}")
    found = [one for one in protocol.evaluations if "int" in one.cell.condition]
    conditions = {one.cell.condition for one in found if one.cell.scenario == "finetuned"}
    assert conditions == {"int8", "int4", "retain_model+int8", "retain_model+int4"}
    known = {one.cell.condition for one in found if one.cell.scenario == "pretrained"}
    assert known == {"int8", "int4"}
    for one in found:
        stage = protocol.stage(one.scores)
        assert isinstance(stage, ScoreStage)
        assert f"int{stage.bits}" in one.cell.condition
        assert not stage.general
    pairs = [one for one in found if one.cell.condition == "int4" and one.never_knew]
    assert pairs
    assert all("retain-model/int4" in one.never_knew for one in pairs)


@pytest.mark.slow  # asks every model of a run again
def test_a_finished_run_is_asked_again_with_rounded_weights(bench, tmp_path):
    run = bench.copied(tmp_path)
    more = "evaluations={quantised: {bits: [8, 2]}}"
    ended = bench.run(tmp_path, "--set", more)
    assert ended.code == 0, ended.output
    rows = [row for row in result_rows(run) if row["set"] == "forget" and row["modality"] == "all"]
    values = {
        (row["scenario"], row["method"], row["condition"]): row["value"]
        for row in rows
        if row["measure"] == "correct_probability" and row["request"] != "0"
    }
    key = next(one for one in values if one[2] == "int8")
    plain, fine, coarse = (values[*key[:2], name] for name in ("plain", "int8", "int2"))
    assert abs(float(plain) - float(fine)) < 0.01
    assert plain != coarse
