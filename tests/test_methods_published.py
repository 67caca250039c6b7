"""Published losses against closed forms, and against numbers that numpy alone computed."""

from __future__ import annotations

import importlib.util
import json
import math
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from method_cases import LOSSES, OTHER_FORMS, REPRESENTATIVES
from pulse_unlearn.methods import METHODS, AnswerView, OptionView, Views, build_method, losses

GOLDEN = Path(__file__).parent / "golden" / "methods"
EXPECTED = json.loads((GOLDEN / "losses.json").read_text(encoding="utf-8"))
BATCHES = ("forget", "retain", "alternative", "decoupled")
OPTIONS = ("options", "option_words")
SETTINGS = {
    "npo": [{"retain_kl_weight": 1.0}],
    "jensun": [{"retain_target": "labels"}],
    **{name: [chosen] for name, chosen in OTHER_FORMS.items()},
}
"""Settings that change what a method needs."""


def made_views(logits, needs=None):
    """Views of the golden inputs; of the reference only as much as a method asked for."""
    made = {}
    for batch in BATCHES:
        aside = batch == "alternative" and needs is not None and needs.aside
        if batch != "forget" and not (getattr(needs, batch) or aside):
            continue
        labels = torch.tensor(EXPECTED["inputs"][f"{batch}_labels"])
        lengths = torch.tensor(EXPECTED["lengths"][batch])
        mask = torch.arange(labels.shape[1]) >= labels.shape[1] - lengths.unsqueeze(1)
        made[batch] = AnswerView(logits[batch].log_softmax(-1), labels, mask)
        told = torch.tensor(EXPECTED["inputs"][f"{batch}_reference"], dtype=torch.float64)
        frozen, extent = told.log_softmax(-1), getattr(needs, f"{batch}_reference", None)
        if extent == "answer":  # one number a token, as the loop gives it
            frozen = frozen.gather(-1, labels.unsqueeze(-1))
            labels = torch.zeros_like(labels)
        if extent:
            made[f"{batch}_reference"] = AnswerView(frozen, labels, mask)
    for forms in OPTIONS:
        if getattr(needs, forms):
            counts = torch.tensor(EXPECTED["options"][forms])
            some = 1 if needs.options == "one" else counts.shape[1]
            mask = torch.arange(4) < counts.unsqueeze(-1)
            made[forms] = OptionView(logits[forms][:, :some], mask[:, :some])
    if needs.drawn:
        made["drawn"] = torch.tensor(EXPECTED["drawn"])
    if needs.aside:
        made["aside"] = made.pop("alternative")
    if needs.letters:
        made["letters"] = torch.zeros(2, logits["forget"].shape[-1], dtype=torch.bool)
        for row, letters in enumerate(EXPECTED["letters"]):
            made["letters"][row, letters] = True
    return Views(**made)


def golden_logits():
    return {
        batch: torch.tensor(EXPECTED["inputs"][batch], dtype=torch.float64, requires_grad=True)
        for batch in (*BATCHES, *OPTIONS)
    }


@pytest.mark.parametrize("case", EXPECTED["cases"].values(), ids=EXPECTED["cases"])
def test_values_and_gradients_are_those_of_independent_code(case):
    method, logits = build_method(case["method"], case["settings"]), golden_logits()
    terms = method.terms(made_views(logits, method.needs))
    assert [(term.weight, term.over) for term in terms] == [
        (term["weight"], term["over"]) for term in case["terms"]
    ]
    for term, expected in zip(terms, case["terms"], strict=True):
        assert term.values.tolist() == pytest.approx(expected["values"], abs=1e-6)
    sum(term.weight * term.values.sum() for term in terms).backward()
    for batch in (*BATCHES, *OPTIONS):
        expected, found = case["gradients"].get(batch), logits[batch].grad
        if expected is None:
            assert found is None or not found.any()
        else:
            torch.testing.assert_close(found, torch.tensor(expected).double(), atol=1e-6, rtol=0)


def test_every_method_that_is_a_loss_on_log_probs_has_golden_numbers():
    tested = {case["method"] for case in EXPECTED["cases"].values()}
    procedures = {name for name, method in METHODS if hasattr(method, "run")}
    # RMU is a loss on hidden states, and GA+KLR is compared with KL minimisation below.
    assert set(LOSSES) - procedures - tested == {"rmu", "ga_klr"}


def test_the_golden_numbers_are_those_of_their_script():
    spec = importlib.util.spec_from_file_location("make_losses", GOLDEN / "make.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    again = json.loads(json.dumps(script.document()))
    assert again["inputs"] == EXPECTED["inputs"]
    assert again["cases"].keys() == EXPECTED["cases"].keys()
    for name, case in again["cases"].items():
        for term, stored in zip(case["terms"], EXPECTED["cases"][name]["terms"], strict=True):
            assert term["values"] == pytest.approx(stored["values"], abs=1e-12)


def test_representatives_need_all_that_losses_need():
    """Or a costly case that `method_cases` calls slow would be the only one of its kind."""

    def needed(names):
        every = [build_method(n, s) for n in names for s in ({}, *SETTINGS.get(n, ()))]
        asked = {
            (part.name, getattr(method.needs, part.name))
            for method in every
            for part in fields(method.needs)
            if part.name != "letters"  # which marks entries of what is there already
        }
        # Whether it is a refusal or an option, an alternative takes the same way; so do orders.
        alike = ("alternative", "options")
        return {(part, bool(what) if part in alike else what) for part, what in asked}

    assert needed(LOSSES) == needed(REPRESENTATIVES)


# --- closed forms, one answer of two tokens: p is the label's probability, e the label's one-hot


@pytest.fixture
def one():
    logits = torch.tensor([[[1.0, -0.5, 0.2], [0.3, 0.1, -2.0]]], dtype=torch.float64)
    logits.requires_grad_()
    labels = torch.tensor([[0, 2]])
    view = AnswerView(logits.log_softmax(-1), labels, torch.ones(1, 2, dtype=torch.bool))
    probabilities = logits.detach().softmax(-1)
    one_hot = torch.nn.functional.one_hot(labels, 3).double()
    p = (probabilities * one_hot).sum(-1, keepdim=True)
    return logits, view, probabilities, one_hot, p


def gradient(value, logits):
    return torch.autograd.grad(value.sum(), logits)[0]


@pytest.mark.parametrize(("confidence", "doubt"), [(0.0, 0.0), (1.0, 0.0), (5.0, 1.0), (0.5, 2.0)])
def test_weighted_ascent_scales_each_tokens_gradient_by_its_weight(one, confidence, doubt):
    logits, view, probabilities, one_hot, p = one
    value = losses.weighted_ascent(view, confidence=confidence, doubt=doubt)
    weight = p**confidence * (1 - p) ** doubt
    assert value.item() == pytest.approx((weight * p.log()).sum().item() / 2, abs=1e-12)
    expected = -weight * (probabilities - one_hot) / 2
    torch.testing.assert_close(gradient(value, logits), expected, atol=1e-12, rtol=0)


def test_weights_of_0_powers_are_ascent(one):
    _, view, *_ = one
    plain = losses.weighted_ascent(view, confidence=0.0)
    torch.testing.assert_close(plain, losses.gradient_ascent(view))


def test_simnpo_has_ascents_gradient_times_two_sigmoid(one):
    logits, view, probabilities, one_hot, p = one
    value = losses.simnpo(view, beta=2.5, margin=0.5)
    nll = -p.log().sum().item() / 2
    assert value.item() == pytest.approx(0.8 * math.log1p(math.exp(-2.5 * (nll - 0.5))))
    weight = 2 / (1 + math.exp(2.5 * (nll - 0.5)))
    expected = -weight * (probabilities - one_hot) / 2
    torch.testing.assert_close(gradient(value, logits), expected, atol=1e-12, rtol=0)


def test_self_distillation_is_least_where_the_answer_is_lowered_by_beta(one):
    logits, view, probabilities, one_hot, _ = one
    target = (logits.detach() - 3.0 * one_hot).softmax(-1)
    expected = (probabilities - target) / 2
    frozen = AnswerView(view.log_probs.detach(), view.labels, view.mask)
    value = losses.self_distillation(view, frozen, beta=3.0)
    torch.testing.assert_close(gradient(value, logits), expected, atol=1e-12, rtol=0)
    there = AnswerView(target.log(), view.labels, view.mask)
    entropy = -(target * target.log()).sum(-1).mean().item()
    assert losses.self_distillation(there, frozen, beta=3.0).item() == pytest.approx(entropy)


def test_cross_entropy_unlearning_moves_mass_from_the_answer_in_proportion(one):
    logits, view, probabilities, one_hot, p = one
    value = losses.cross_entropy_unlearning(view)
    # p - target: p at the label, and -p_v p / (1 - p) elsewhere.
    expected = torch.where(one_hot == 1, p, -probabilities * p / (1 - p)) / 2
    torch.testing.assert_close(gradient(value, logits), expected, atol=1e-12, rtol=0)


def test_cross_entropy_unlearning_comes_to_rest_when_the_answer_is_forgotten():
    norms = []
    for logit in (0.0, -5.0, -40.0):
        logits = torch.tensor([[[logit, 0.5, 0.0]]], dtype=torch.float64, requires_grad=True)
        view = AnswerView(logits.log_softmax(-1), torch.tensor([[0]]), torch.tensor([[True]]))
        norms.append(gradient(losses.cross_entropy_unlearning(view), logits).norm().item())
    assert norms[0] > norms[1] > norms[2]
    assert norms[2] < 1e-15


def test_js_to_labels_runs_from_0_to_ln_2_and_rests_at_both_ends(one):
    logits, view, probabilities, one_hot, p = one
    expected = 0.5 * (p / (1 + p)).log() * p * (one_hot - probabilities) / 2
    value = losses.js_to_labels(view)
    torch.testing.assert_close(gradient(value, logits), expected, atol=1e-12, rtol=0)
    ends = []
    for logit in (-60.0, 60.0):
        sure = torch.tensor([[[logit, 0.0]]], dtype=torch.float64, requires_grad=True)
        end = AnswerView(sure.log_softmax(-1), torch.tensor([[0]]), torch.tensor([[True]]))
        value = losses.js_to_labels(end)
        ends.append(value.item())
        assert gradient(value, sure).abs().max() < 1e-20
    assert ends == pytest.approx([math.log(2), 0.0], abs=1e-12)


def test_js_divergence_is_symmetric_bounded_and_that_to_labels_at_certainty(one):
    _, view, _, one_hot, _ = one
    sure = AnswerView((one_hot + 1e-300).log(), view.labels, view.mask)
    torch.testing.assert_close(losses.js_divergence(view, sure), losses.js_to_labels(view))
    torch.testing.assert_close(losses.js_divergence(view, sure), losses.js_divergence(sure, view))
    assert losses.js_divergence(view, view).item() == pytest.approx(0.0, abs=1e-15)
    away = AnswerView(sure.log_probs.roll(1, -1), view.labels, view.mask)
    assert losses.js_divergence(sure, away).item() == pytest.approx(math.log(2))


def test_kl_minimisation_is_ga_klr_as_it_is_by_default():
    """Value for value: two names of one loss, one with more settings."""
    found = []
    for name in ("kl_min", "ga_klr"):
        method = build_method(name, {})
        found.append(method.terms(made_views(golden_logits(), method.needs)))
    assert build_method("kl_min", {}).needs == build_method("ga_klr", {}).needs
    for mine, other in zip(*found, strict=True):
        assert (mine.name, mine.weight, mine.over) == (other.name, other.weight, other.over)
        assert torch.equal(mine.values, other.values)


@pytest.mark.parametrize("case", EXPECTED["cases"].values(), ids=EXPECTED["cases"])
def test_what_stands_outside_the_mask_changes_nothing(case):
    """Padding and prompts are no part of any loss, whatever the model says there."""
    method, found = build_method(case["method"], case["settings"]), []
    for noise in (0.0, 7.0):
        logits = golden_logits()
        views = made_views(logits, method.needs)
        for batch in BATCHES:
            view = getattr(views, batch)
            if view is not None:
                away = ~view.mask.unsqueeze(-1) * torch.tensor([noise, 0, -noise, 0, 1]).double()
                logits[batch] = (logits[batch] + away).detach().requires_grad_()
        for forms in OPTIONS:
            view = getattr(views, forms)
            if view is not None:
                away = torch.zeros_like(logits[forms])
                away[:, : view.mask.shape[1]] = ~view.mask * noise
                logits[forms] = (logits[forms] + away).detach().requires_grad_()
        terms = method.terms(made_views(logits, method.needs))
        sum(term.weight * term.values.sum() for term in terms).backward()
        found.append(([t.values for t in terms], {b: one.grad for b, one in logits.items()}))
    (values, gradients), (others, moved) = found
    assert all(torch.equal(one, other) for one, other in zip(values, others, strict=True))
    for batch in (*BATCHES, *OPTIONS):
        if gradients[batch] is not None:
            torch.testing.assert_close(gradients[batch], moved[batch], atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_zero_or_less_need_nothing_or_are_refused(name):
    settings = type(build_method(name, {})).model_fields
    for weight in (key for key in settings if key.endswith("weight")):
        with pytest.raises(ValidationError):
            build_method(name, {weight: -1.0})
    if "retain_weight" not in settings or name == "rmu":
        return
    try:
        method = build_method(name, {"retain_weight": 0.0})
    except ValidationError:
        return  # without its retain term it would be another method
    assert not method.needs.retain
    assert all(
        term.over == "forget" for term in method.terms(made_views(golden_logits(), method.needs))
    )
