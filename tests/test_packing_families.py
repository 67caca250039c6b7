"""Packs against plain sequences for every family that packs: methods, scopes, updates, batches."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import tiny_families as tiny
from method_cases import LOSSES, OTHER_FORMS, variants_of
from pulse_unlearn.config import LoraSettings
from pulse_unlearn.evaluation.predict import predict
from pulse_unlearn.methods import build_method
from pulse_unlearn.models.adapters import AdapterStack, add_trainable, prepare, prepare_full
from pulse_unlearn.models.families import FAMILIES, SCOPE_PARTS
from pulse_unlearn.models.fast.packed import Packed
from pulse_unlearn.models.forward import Plain
from pulse_unlearn.training.objectives import Unlearning, weighted_sum
from pulse_unlearn.training.references import References
from pulse_unlearn.training.steps import StepData

PACKED = [name for name, family in FAMILIES if not family.unpackable]
TOLERANCE = 1e-5
SETTINGS = {
    "npo": {"beta": 0.5, "retain_weight": 0.5},
    "ga_klr": {"weight": 0.7},
    "rmu": {"layer": -1},
    **OTHER_FORMS,
}
QUESTIONS = [
    replace(one, example_id=f"{one.example_id}{more}", prompt=one.prompt + more)
    for one in tiny.mixed()
    for more in ("", " Say it.", "\nC. Cy")
]
"""Three questions on each of three pictures of different shapes, six without; odd lengths."""

BATCHES = st.lists(st.sampled_from(QUESTIONS), min_size=1, max_size=5)
"""Packs of one as well, mixed ones, and the same question twice."""


def test_these_families_are_packed():
    assert PACKED == [
        "idefics3",
        "internvl",
        "llava",
        "llava_next",
        "llava_onevision",
        "smolvlm",
    ]


@cache
def prepared(name, scope, update):
    """A model whose trained tensors have moved, so that the reference is another."""
    family, base = FAMILIES.get(name), tiny.model(name)
    if update == "full":
        made = prepare_full(base, AdapterStack(), family=family, scope=scope)
    else:
        lora = LoraSettings(rank=2, alpha=4.0)
        made = prepare(
            base,
            AdapterStack(),
            how="merged",
            fresh=lambda model: add_trainable(model, family, scope, lora=lora, seed=0),
        )
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tensor in trained(made.model).values():
            tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator))
    return made


encoder = cache(tiny.encoder)


def trained(model):
    return {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}


def told(made, backend, method, data):
    """The answers' log-probs, each term's values, the loss and all gradients."""
    made.model.zero_grad(set_to_none=True)
    view = backend.answer_log_probs(data.forget, tokens="with_end")
    chosen = build_method(method, SETTINGS.get(method, {}))
    if chosen.needs.alternative or chosen.needs.options:
        # Another option, which answers in other words do not have.
        lettered = [replace(one, answer=one.options[0].letter) for one in data.forget]
        data = replace(data, forget=tuple(lettered))
    references, variants = References(made, backend), variants_of(QUESTIONS)
    terms = Unlearning(backend, chosen, "with_end", references, 0, variants).terms(data)
    loss = weighted_sum(terms, data)
    if loss.requires_grad:  # not of text alone where the projector or the tower is trained
        loss.backward()
    found = {"log-probs": view.log_probs[view.mask], "loss": loss}
    found |= {term.name: term.values for term in terms}
    gradients = {name: tensor.grad for name, tensor in trained(made.model).items()}
    return {name: value.detach() for name, value in found.items()}, gradients


def assert_same(packed, plain):
    assert packed.keys() == plain.keys()
    for name, value in plain.items():
        if value is None:  # the projector's, of a batch without a picture
            assert packed[name] is None, name
            continue
        scale = max(1.0, float(value.abs().max()))
        gap = float((packed[name] - value).abs().max())
        assert gap <= TOLERANCE * scale, f"{name} differs by {gap:.2g} at {scale:.2g}"


def agree(name, method, scope, update, forget, retain, budget):
    made = prepared(name, scope, update)
    data = StepData(tuple(forget), tuple(retain))
    plain, expected = told(made, Plain(made.model, encoder(name)), method, data)
    backend = Packed(made.model, encoder(name), budget=budget)
    packed, gradients = told(made, backend, method, data)
    assert_same(packed, plain)
    assert_same(gradients, expected)


every_packed = pytest.mark.parametrize("name", PACKED)
every_scope = pytest.mark.parametrize("scope", SCOPE_PARTS)
some = hypothesis_settings(max_examples=2)
budgets = st.integers(1, 700)


@every_packed
@every_scope
@pytest.mark.parametrize("method", ["ga_klr", "npo", "rmu"])  # a view of each kind
@some
@given(forget=BATCHES, retain=BATCHES, budget=budgets)
def test_low_rank_updates_have_the_gradients_of_plain_sequences(
    name, scope, method, forget, retain, budget
):
    agree(name, method, scope, "lora", forget, retain, budget)


@every_packed
@every_scope
@some
@given(method=st.sampled_from(LOSSES), forget=BATCHES, retain=BATCHES, budget=budgets)
def test_full_updates_have_the_gradients_of_plain_sequences(
    name, scope, method, forget, retain, budget
):
    agree(name, method, scope, "full", forget, retain, budget)


@every_packed
def test_answers_are_those_of_plain_sequences(name):
    made = prepared(name, "projector+llm", "lora")
    plain, packed = (
        predict(backend, QUESTIONS, batch_size=7, max_new_tokens=4, on_batch=lambda *_: None)
        for backend in (
            Plain(made.model, encoder(name)),
            Packed(made.model, encoder(name), budget=600),
        )
    )
    assert [one.text for one in packed] == [one.text for one in plain]
    for one, other in zip(packed, plain, strict=True):
        assert one.option_log_probs == pytest.approx(other.option_log_probs, abs=TOLERANCE)


def test_a_system_sentence_is_one_more_part_of_the_common_beginning():
    """Beside questions without one, as people's are beside general ones."""
    made = prepared("llava", "projector+llm", "lora")
    said = [
        replace(one, example_id=f"s{one.example_id}", system="Ann is polite.") for one in QUESTIONS
    ]
    mixed = [one for pair in zip(said, QUESTIONS, strict=True) for one in pair]
    backends = (
        Plain(made.model, encoder("llava")),
        Packed(made.model, encoder("llava"), budget=600),
    )
    plain, packed = (
        predict(backend, mixed, batch_size=7, max_new_tokens=4, on_batch=lambda *_: None)
        for backend in backends
    )
    assert [one.text for one in packed] == [one.text for one in plain]
    for one, other in zip(packed, plain, strict=True):
        assert one.option_log_probs == pytest.approx(other.option_log_probs, abs=TOLERANCE)
    for one, other in zip(plain[::2], plain[1::2], strict=True):
        assert one.option_log_probs != pytest.approx(other.option_log_probs, abs=1e-3)
    agree("llava", "npo", "projector+llm", "lora", mixed[:8], said[3:7], 300)
    agree("llava", "ga_klr", "projector+llm", "lora", said[:5], mixed[4:10], 80)


@every_packed
def test_checkpointing_activations_changes_no_gradient(name):
    """Packed and recomputed on the way back, against neither."""
    family = FAMILIES.get(name)
    base = tiny.model(name)
    made = prepare_full(base, AdapterStack(), family=family, scope="projector+llm")
    made.model.train()
    layer = made.model.get_submodule(family.language_model).layers[0]
    passes = []
    layer.mlp.register_forward_pre_hook(lambda *_: passes.append(1))
    data = StepData(tuple(QUESTIONS[:4]), tuple(QUESTIONS[8:11]))
    found = []
    for backend in (
        Plain(made.model, encoder(name)),
        Packed(made.model, encoder(name), budget=100),
    ):
        found.append((*told(made, backend, "ga_klr", data), len(passes)))
        passes.clear()
        made.model.gradient_checkpointing_enable({"use_reentrant": False})
    (plain, expected, once), (packed, gradients, again) = found
    # Log-probs, forget, retain and the reference; on the way back forget and retain again.
    assert (once, again) == (4, 6)
    assert_same(packed, plain)
    assert_same(gradients, expected)
