"""The last layer's MLP and the head run where a pass is asked, once a place, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import tiny_models as tiny
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.fast.passes import last_mlp_at

FACE = tiny.face(0)
ASKED = [replace(tiny.example(k, words=k % 3, shown=True), picture=FACE) for k in range(4)]
"""Four questions on one face, of four options each."""


@pytest.fixture
def model():
    found = tiny.prepared("projector+llm").model
    return found.eval()


def tokens_through(model: nn.Module, work) -> dict[str, int]:
    """How many positions the MLPs of both layers and the head are applied to."""
    inner = model.get_base_model()
    layers = inner.model.language_model.layers
    watched = {"first": layers[0].mlp.gate_proj, "last": layers[-1].mlp.gate_proj}
    found: dict[str, int] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda module, args, name=name: found.update({name: args[0][..., 0].numel()})
        )
        for name, module in {**watched, "head": inner.lm_head}.items()
    ]
    work()
    for hook in hooks:
        hook.remove()
    return found


def test_training_asks_the_answers_places_only(model):
    reader = Packed(model, tiny.encoder(), budget=64)
    found = tokens_through(model, lambda: reader.answer_log_probs(ASKED, tokens="with_end"))
    # A letter and the end of turn, each predicted one place before it stands.
    assert found["last"] == found["head"] == 2 * len(ASKED)
    assert found["first"] > 16 + 2 * len(ASKED)


def test_scoring_reads_a_prompts_end_once_and_behind_each_letter(model):
    reader = Packed(model, tiny.encoder(), budget=64)
    found = tokens_through(model, lambda: reader.generate(ASKED, max_new_tokens=1))
    assert found["last"] == found["head"] == (1 + 4) * len(ASKED)


def test_what_is_asked_is_what_the_whole_layer_gives(model):
    language_model = model.get_base_model().model.language_model
    hidden = torch.randn(2, 5, language_model.config.hidden_size)
    mlp = language_model.layers[-1].mlp
    whole = mlp(hidden)
    rows, places = torch.tensor([[0, 0, 1], [1, 4, 2]])
    with last_mlp_at(language_model, torch.stack([rows, places])):
        found = mlp(hidden)
    assert_close(found[rows, places], whole[rows, places])
    assert found.abs().sum(-1).count_nonzero() == 3
    assert_close(mlp(hidden), whole)


def test_a_place_that_two_questions_ask_gets_its_gradient_once(model):
    """The same question twice ends at one place; its loss counts twice and no more."""
    gradients = []
    for examples, weight in ((ASKED[:1] * 2, 1.0), (ASKED[:1], 2.0)):
        model.zero_grad()
        view = Packed(model, tiny.encoder(), budget=64).answer_log_probs(
            examples, tokens="with_end"
        )
        (weight * view.log_probs.gather(-1, view.labels.unsqueeze(-1)).sum()).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for twice, once in zip(*gradients, strict=True):
        assert_close(twice, once, atol=1e-6, rtol=1e-5)


def test_a_checkpointed_layer_is_left_as_it_is(model):
    """It runs a second time when gradients are worked out, behind the pass."""
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    reader = Packed(model, tiny.encoder(), budget=64)
    found = tokens_through(model, lambda: reader.answer_log_probs(ASKED, tokens="with_end"))
    assert found["last"] == found["first"]


def test_a_model_whose_layers_have_no_mlp_is_left_as_it_is():
    other = nn.Module()
    other.layers = nn.ModuleList([nn.Linear(2, 2)])
    before = other.layers[0].forward
    with last_mlp_at(other, torch.zeros(2, 1, dtype=torch.long)):
        assert other.layers[0].forward == before
    with last_mlp_at(nn.Module(), torch.zeros(2, 1, dtype=torch.long)):
        pass


def test_an_mlp_that_says_more_than_a_tensor_is_left_as_it_is(model):
    language_model = model.get_base_model().model.language_model
    mlp = language_model.layers[-1].mlp
    plain = mlp.forward
    mlp.forward = lambda hidden: (plain(hidden), "which experts")
    hidden = torch.randn(2, 5, language_model.config.hidden_size)
    with last_mlp_at(language_model, torch.zeros(2, 1, dtype=torch.long)):
        found, routed = mlp(hidden)
    assert_close(found, plain(hidden))
    assert routed == "which experts"
