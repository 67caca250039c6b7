"""Losses against numbers derived by hand, and the traps of published code."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from method_cases import LOSSES, views_of
from pulse_unlearn.methods import AnswerView, build_method, losses


def view(probabilities, labels, mask=None):
    """Build a view from probabilities [B, A, V]."""
    log_probs = torch.tensor(probabilities, dtype=torch.float64).log()
    labels = torch.tensor(labels)
    mask = torch.ones_like(labels, dtype=torch.bool) if mask is None else torch.tensor(mask)
    return AnswerView(log_probs, labels, mask)


def random_view(seed, *, examples=3, answer=4, vocabulary=7, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(examples, answer, vocabulary, generator=generator).double()
    labels = torch.randint(vocabulary, (examples, answer), generator=generator)
    lengths = torch.randint(1, answer + 1, (examples,), generator=generator)
    # Right-aligned answers, as the encoder makes them.
    mask = torch.arange(answer).unsqueeze(0) >= answer - lengths.unsqueeze(1)
    return AnswerView(torch.log_softmax(logits, -1), labels, mask)


def test_nll_by_hand():
    # p(answer) = 1/2 then 1/4: sum = ln 8, mean = ln 8 / 2.
    one = view([[[0.5, 0.5], [0.75, 0.25]]], [[0, 1]])
    assert losses.sum_nll(one).item() == pytest.approx(math.log(8))
    assert losses.mean_nll(one).item() == pytest.approx(math.log(8) / 2)
    assert losses.gradient_ascent(one).item() == pytest.approx(-math.log(8) / 2)


def test_masked_positions_do_not_count():
    # The first position is padding; only p = 1/4 counts.
    one = view([[[0.5, 0.5], [0.75, 0.25]]], [[0, 1]], [[False, True]])
    assert losses.sum_nll(one).item() == pytest.approx(math.log(4))
    assert losses.mean_nll(one).item() == pytest.approx(math.log(4))


def test_kl_by_hand_and_its_direction():
    # reference p = (1/2, 1/2), current q = (1/4, 3/4):
    # KL(p||q) = 1/2 ln 2 + 1/2 ln(2/3); KL(q||p) = 1/4 ln(1/2) + 3/4 ln(3/2).
    current, reference = view([[[0.25, 0.75]]], [[0]]), view([[[0.5, 0.5]]], [[0]])
    forward = losses.kl_divergence(current, reference, direction="reference_to_current")
    backward = losses.kl_divergence(current, reference, direction="current_to_reference")
    assert forward.item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert backward.item() == pytest.approx(0.25 * math.log(0.5) + 0.75 * math.log(1.5))


def test_kl_is_a_mean_over_answer_tokens_not_a_sum():
    current = view([[[0.25, 0.75], [0.25, 0.75]]], [[0, 0]])
    reference = view([[[0.5, 0.5], [0.5, 0.5]]], [[0, 0]])
    one_token = 0.5 * math.log(2) + 0.5 * math.log(2 / 3)
    both = losses.kl_divergence(current, reference, direction="reference_to_current")
    assert both.item() == pytest.approx(one_token)


def test_npo_by_hand():
    # NLL = ln 4, reference NLL = ln 2, so the margin is ln 2; with beta = 1:
    # 2 softplus(-ln 2) = 2 ln(1 + 1/2).
    current, reference = view([[[0.25, 0.75]]], [[0]]), view([[[0.5, 0.5]]], [[0]])
    assert losses.npo(current, reference, beta=1.0).item() == pytest.approx(2 * math.log(1.5))


def test_npo_sums_over_the_answer_before_the_logistic():
    # Two tokens of margin ln 2 each make 2 ln 2 in all: 2 ln(1 + 1/4), not 2 x 2 ln(1 + 1/2).
    current = view([[[0.25, 0.75], [0.25, 0.75]]], [[0, 0]])
    reference = view([[[0.5, 0.5], [0.5, 0.5]]], [[0, 0]])
    assert losses.npo(current, reference, beta=1.0).item() == pytest.approx(2 * math.log(1.25))


@pytest.mark.parametrize("beta", [0.1, 0.4, 1.0, 5.0])
def test_npo_at_the_reference_is_two_over_beta_ln_two(beta):
    here = random_view(1)
    assert torch.allclose(
        losses.npo(here, here, beta=beta), torch.full((3,), 2 / beta * math.log(2)).double()
    )


def test_npo_gradient_tends_to_that_of_ascent():
    # d/dNLL (2/b) softplus(-b m) = -2 sigmoid(-b m) -> -1 as b -> 0; ascent on the sum has -1.
    reference = random_view(2)
    logits = torch.randn(3, 4, 7, dtype=torch.float64, requires_grad=True)
    here = AnswerView(torch.log_softmax(logits, -1), reference.labels, reference.mask)
    (slow,) = torch.autograd.grad(
        losses.npo(here, reference, beta=1e-7).sum(), logits, retain_graph=True
    )
    (ascent,) = torch.autograd.grad((-losses.sum_nll(here)).sum(), logits)
    assert torch.allclose(slow, ascent, atol=1e-5)


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000))
def test_kl_is_never_negative_and_zero_at_itself(seed):
    first, second = random_view(seed), random_view(seed + 1)
    second = AnswerView(second.log_probs, first.labels, first.mask)
    for direction in ("reference_to_current", "current_to_reference"):
        assert (losses.kl_divergence(first, second, direction=direction) >= -1e-12).all()
        same = losses.kl_divergence(first, first, direction=direction)
        assert torch.allclose(same, torch.zeros(3).double(), atol=1e-12)


@settings(max_examples=50)
@given(seed=st.integers(0, 10_000))
def test_a_masked_loss_equals_the_loss_on_the_cut_tensor(seed):
    whole, other = random_view(seed, examples=1), random_view(seed + 1, examples=1)
    reference = AnswerView(other.log_probs, whole.labels, whole.mask)
    start = int((~whole.mask).sum())

    def cut(part):
        return AnswerView(part.log_probs[:, start:], part.labels[:, start:], part.mask[:, start:])

    for loss in (losses.sum_nll, losses.mean_nll, losses.gradient_ascent):
        assert torch.allclose(loss(whole), loss(cut(whole)))
    assert torch.allclose(
        losses.npo(whole, reference, beta=0.5), losses.npo(cut(whole), cut(reference), beta=0.5)
    )
    assert torch.allclose(
        losses.kl_divergence(whole, reference, direction="reference_to_current"),
        losses.kl_divergence(cut(whole), cut(reference), direction="reference_to_current"),
    )


@pytest.mark.parametrize("name", LOSSES)
def test_every_method_keeps_gradients_finite_in_bfloat16_and_at_certain_answers(name):
    logits = torch.tensor([[[80.0, -80.0, 0.0]], [[-80.0, 80.0, 0.0]]], dtype=torch.bfloat16)
    logits.requires_grad_()
    labels, mask = torch.tensor([[0], [0]]), torch.ones(2, 1, dtype=torch.bool)
    here = AnswerView(torch.log_softmax(logits.float(), -1), labels, mask, logits)
    frozen = AnswerView(here.log_probs.detach().flip(0), labels, mask, logits.detach().flip(0))
    terms = build_method(name, {}).terms(views_of(here, frozen))
    total = sum(term.weight * term.values.sum() for term in terms)
    total.backward()
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", LOSSES)
def test_every_method_returns_one_value_per_example_whatever_their_order(name):
    here, frozen = random_view(5), random_view(6)
    here = replace(here, hidden=here.log_probs)
    frozen = replace(frozen, labels=here.labels, mask=here.mask, hidden=frozen.log_probs)
    order = torch.tensor([2, 0, 1])

    def shuffled(part):
        hidden = part.hidden[order]
        return AnswerView(part.log_probs[order], part.labels[order], part.mask[order], hidden)

    method = build_method(name, {})
    plain = method.terms(views_of(here, frozen))
    moved = method.terms(views_of(shuffled(here), shuffled(frozen)))
    for one, other in zip(plain, moved, strict=True):
        assert one.values.shape == (3,)
        assert torch.allclose(one.values[order], other.values)


@pytest.mark.parametrize("name", LOSSES)
def test_every_method_says_what_it_needs(name):
    """A method that runs on what it asked for, and on nothing else, has told the truth."""
    method, here = build_method(name, {}), random_view(7)
    needs = method.needs
    here = replace(here, hidden=here.log_probs if needs.hidden_layer is not None else None)
    assert method.terms(views_of(here, here, needs))


def test_dpo_by_hand():
    # The alternative stayed at ln 2; the forget answer went from ln 2 to ln 4: margin ln 2.
    here, reference = view([[[0.5, 0.5]]], [[1]]), view([[[0.5, 0.5]]], [[1]])
    worse, was = view([[[0.25, 0.75]]], [[0]]), view([[[0.5, 0.5]]], [[0]])
    value = losses.dpo(here, reference, worse, was, beta=1.0).item()
    assert value == pytest.approx(2 * math.log(1.5))
    # An alternative that became likelier counts the same: 2 ln 2 in all.
    likelier = view([[[0.0, 1.0]]], [[1]])
    both = losses.dpo(likelier, reference, worse, was, beta=1.0).item()
    assert both == pytest.approx(2 * math.log(1.25))


def test_hidden_distances_are_means_over_dimensions_then_positions():
    hidden = torch.tensor([[[1.0, 3.0], [5.0, 5.0]], [[2.0, 2.0], [0.0, 0.0]]])
    mask = torch.tensor([[True, False], [True, True]])
    here = AnswerView(torch.zeros(2, 2, 1), torch.zeros(2, 2, dtype=torch.long), mask, hidden)
    # (1 + 9) / 2 = 5 where the second place is no answer; (4 + 0) / 2 = 2.
    assert losses.hidden_distance(here, torch.zeros(2)).tolist() == [5.0, 2.0]
    assert losses.hidden_distance(here, hidden).tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="hidden states"):
        losses.hidden_of(view([[[0.5, 0.5]]], [[0]]))
