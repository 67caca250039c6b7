"""Memory and operations of one counted layer, held against what whole models really keep and do."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from meta_models import kept_bytes, known, llama, with_lora
from pulse_unlearn.config import ModelSettings
from pulse_unlearn.estimate import counts
from pulse_unlearn.estimate.counts import Adapter, Asked, Batch
from pulse_unlearn.estimate.sizes import SizedModel, Stack, describe
from pulse_unlearn.models.families import FAMILIES

SEVEN, THIRTEEN = "llava-hf/llava-1.5-7b-hf", "llava-hf/llava-1.5-13b-hf"
WIDE = 4096
TOKENS = 640
TINY = {
    "model_type": "llava",
    "text_config": {
        "model_type": "llama",
        "vocab_size": 50,
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "tie_word_embeddings": True,
    },
    "vision_config": {
        "model_type": "clip_vision_model",
        "hidden_size": 4,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 3,
        "patch_size": 1,
    },
    "multimodal_projector_bias": False,
    "tie_word_embeddings": True,
}
PRODUCTS = 2 * (2 * 64 + 2 * 32 + 3 * 128)
"""Of the language model for one token: q and o, k and v, gate, up and down, in two layers."""
TOWER = 4 * 16 + 2 * 32


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY), encoding="utf-8")

    def made(**chosen) -> tuple[SizedModel, ModelSettings]:
        settings = ModelSettings(source=str(tmp_path), **chosen)
        return describe(settings), settings

    return made


def first_of(make, layers: int, width: int) -> Stack:
    """Return layers like the first of the model that `make` makes, on the meta device."""
    with torch.device("meta"):
        return Stack(make().layers[0], layers, width)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("adapted", [True, False])
def test_a_7b_model_keeps_exactly_what_is_counted_of_a_layer(dtype, adapted):
    """Three layers of LLaVA-1.5-7B's width on the meta device, eager attention, LoRA of rank 16."""
    make = partial(llama, 3, WIDE, 11008, 32, dtype=dtype, attention="eager")
    with torch.device("meta"):
        model = with_lora(make(), 16) if adapted else make()
    settings = ModelSettings(dtype=dtype, attention="eager")
    adapter = Adapter("llm", 16) if adapted else None
    expected = counts.stack_bytes(first_of(make, 3, WIDE), TOKENS, settings, adapter)
    assert kept_bytes(model.train(), TOKENS, WIDE) == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_fused_attention_keeps_exactly_what_is_counted(dtype):
    """On the meta device fused attention is taken apart, so this one is small and real."""
    make = partial(llama, 2, 64, 160, 4, dtype=dtype, attention="sdpa")
    settings = ModelSettings(dtype=dtype, attention="sdpa")
    expected = counts.stack_bytes(first_of(make, 2, 64), 96, settings, Adapter("llm", 4))
    assert kept_bytes(with_lora(make(), 4).train(), 96, 64) == expected


def test_a_full_update_keeps_exactly_what_is_counted():
    make = partial(llama, 3, WIDE, 11008, 32, dtype="bfloat16", attention="eager")
    with torch.device("meta"):
        model = make().train().requires_grad_(True)
    settings = ModelSettings(dtype="bfloat16", attention="eager")
    full = Adapter("llm", 1, update="full")
    expected = counts.stack_bytes(first_of(make, 3, WIDE), TOKENS, settings, full)
    assert kept_bytes(model, TOKENS, WIDE) == expected


def test_checkpointing_keeps_one_input_a_layer_and_one_layer_in_full():
    settings = ModelSettings(dtype="bfloat16", gradient_checkpointing=True)
    adapter, stack = Adapter("llm", 16), known(SEVEN, dtype="bfloat16").language
    layer = counts.count_layer(stack, adapter).kept(10)
    # The last norm, sines and cosines, the mask.
    ends = 10 * (4 * 4096 + 4 + 2 * 128 * 2) + 100 * 2
    expected = 32 * 10 * 4096 * 2 + layer + ends
    assert counts.stack_bytes(stack, 10, settings, adapter) == expected


def test_dropout_keeps_a_byte_for_each_number_it_may_drop(tiny):
    model, _ = tiny(dtype="bfloat16")
    plain, dropping = (
        counts.count_layer(model.language, Adapter("llm", 2, dropout)).kept(1)
        for dropout in (0.0, 0.1)
    )
    # Inputs of q, k, v (8 each), o (8), gate and up (8 each), down (16).
    assert dropping - plain == 3 * 8 + 8 + 2 * 8 + 16


def test_training_memory_by_hand(tiny):
    model, settings = tiny(dtype="bfloat16", attention="eager")
    batch = Batch(sequences=3, longest=5, pictures=2, patches=10, answer=2)
    memory = counts.training_memory(
        model, settings, adapter=Adapter("projector", 2), frozen=7, batch=batch
    )
    # Embeddings, five norms; class token, patches, ten places, norms of the tower; the projector.
    language = PRODUCTS + 50 * 8 + 5 * 8
    tower = TOWER + 4 * 4 + 8 + 4 + 4 * (1 + 3 + 10 + 4 + 4)
    assert model.parameters == language + tower + 4 * 8 + 8 * 8
    assert memory["weights"] == 2 * model.parameters
    assert memory["frozen adapters"] == 7 * 4
    trained = 4 * 2 * ((4 + 8) + (8 + 8))
    assert (memory["trained adapter"], memory["gradients"]) == (trained, trained)
    assert (memory["optimiser"], memory["copies"]) == (2 * trained, 2 * trained)
    # A layer of the language model, gradients passing through, for one sequence of five tokens.
    norms, mlp, qkv = 2 * (4 * 8 + 4), 3 * 16 * 2, (8 + 2 * 4) * 2
    layer = 5 * (norms + mlp + qkv) + 25 * 2 * (4 + 2)
    ends = 5 * (4 * 8 + 4 + 2 * 4 * 2)
    assert memory["activations"] == 3 * (2 * layer + ends)
    assert memory["answers"] == 3 * 3 * 50 * (2 + 12)
    # A layer of the tower: both norms, q, k, v, the MLP's two, attention in float32 and as it is.
    seen = 10 * (2 * (4 * 2 + 2 * 4) + 3 * 4 * 2 + 2 * 8 * 2) + 100 * 2 * (4 + 2)
    assert memory["pictures"] == pytest.approx(3 * 2 * seen, rel=0.05)
    assert memory["reserve"] == round(0.1 * (sum(memory.values()) - memory["reserve"]))


def test_an_adapter_on_the_tower_keeps_the_towers_activations_too(tiny):
    model, settings = tiny(dtype="bfloat16")
    batch = Batch(sequences=3, longest=5, pictures=2, patches=10, answer=1)
    of = {
        scope: counts.training_memory(
            model, settings, adapter=Adapter(scope, 2), frozen=0, batch=batch
        )["activations"]
        for scope in ("projector", "vision")
    }
    eyes = counts.stack_bytes(model.tower, 10, settings, Adapter("vision", 2))
    assert of["vision"] - of["projector"] == 3 * 2 * eyes


def test_asking_memory_by_hand(tiny):
    model, settings = tiny(dtype="float32", attention="eager")
    batch = Batch(sequences=3, longest=5, pictures=0, patches=0, answer=4)
    memory = counts.asking_memory(model, settings, frozen=0, batch=batch, generated=6)
    assert memory["keys and values"] == 3 * (5 + 6) * 2 * (2 * 4) * 4  # layers x (key and value)
    # No more than what training through frozen weights keeps of a layer.
    layer = 5 * (2 * (4 * 8 + 4) + 3 * 16 * 4 + (8 + 2 * 4) * 4) + 25 * 2 * 4
    assert memory["one layer"] == 3 * layer
    assert memory["options"] == 3 * 4 * 50 * 16
    assert memory["pictures"] == 0
    assert "trained adapter" not in memory


def test_every_part_of_the_memory_has_its_formula(tiny):
    model, settings = tiny()
    one = Batch(longest=5, answer=1)
    adapter = Adapter("llm", 2)
    trained = counts.training_memory(model, settings, adapter=adapter, frozen=0, batch=one)
    asked = counts.asking_memory(model, settings, frozen=0, batch=one, generated=1)
    assert {*trained, *asked} == {*counts.FORMULAS}


@pytest.mark.parametrize(("dtype", "width"), [("bfloat16", 2), ("float32", 4)])
def test_a_full_update_holds_all_in_the_models_dtype_and_no_weight_twice(dtype, width, tiny):
    model, settings = tiny(dtype=dtype, attention="eager")
    batch = Batch(sequences=1, longest=5, pictures=0, patches=0, answer=1)
    full = Adapter("llm", 2, update="full")
    found, asked = (
        counts.training_memory(
            model, settings, adapter=full, frozen=0, batch=batch, reference=reference
        )
        for reference in (False, True)
    )
    tensors = PRODUCTS + 50 * 8 + 5 * 8
    assert counts.trained_parameters(model, full) == tensors
    assert found["weights"] == model.parameters * width
    assert (found["trained adapter"], found["gradients"]) == (0, tensors * width)
    assert (found["optimiser"], found["copies"]) == (2 * tensors * width, 2 * tensors * width)
    assert (found["reference"], asked["reference"]) == (0, tensors * width)
    # Each linear layer's input in the model's dtype (q, k, v share theirs, gate and up too), and
    # what the two norms multiply by their weight.
    frozen = counts.count_layer(model.language, None).kept(5)
    kept = counts.count_layer(model.language, full).kept(5)
    assert kept - frozen == 5 * width * (8 + 8 + 8 + 16 + 2 * 8)


@pytest.mark.parametrize(("quantise", "each"), [("8bit", 1.0), ("4bit", 0.5625)])
def test_fewer_bits_are_those_of_the_language_models_linear_layers(quantise, each):
    settings = ModelSettings(dtype="bfloat16", quantise=quantise, frozen_adapters="stacked")
    batch, model = Batch(sequences=1, longest=5, answer=1), known(THIRTEEN, dtype="bfloat16")
    memory = counts.asking_memory(model, settings, frozen=0, batch=batch, generated=4)
    # 40 layers of q, k, v, o and three of the MLP.
    linear = 40 * (4 * 5120**2 + 3 * 5120 * 13824)
    assert memory["weights"] == 2 * (model.parameters - linear) + round(each * linear)


def test_a_full_update_passes_back_twice(tiny):
    """By its inputs and by its weights; with checkpointing forward once more."""
    model, _ = tiny()
    asked = Asked(questions=1, tokens=10)
    full = Adapter("llm", 1, update="full")
    forward = counts.forward_operations(model, asked)
    for checkpointing, passes in ((False, 3), (True, 4)):
        found = counts.training_operations(model, asked, adapter=full, checkpointing=checkpointing)
        assert found == passes * forward


@pytest.mark.parametrize(("name", "weights"), [(SEVEN, 14.13), (THIRTEEN, 26.70)])
def test_half_precision_takes_two_bytes_a_parameter(name, weights):
    settings = ModelSettings(dtype="bfloat16", gradient_checkpointing=True)
    batch = Batch(sequences=8, longest=650, pictures=1, patches=577, answer=2)
    memory = counts.training_memory(
        known(name, dtype="bfloat16"),
        settings,
        adapter=Adapter("projector+llm", 128),
        frozen=0,
        batch=batch,
    )
    assert memory["weights"] / 1e9 == pytest.approx(weights, abs=0.005)
    assert sum(memory.values()) > memory["weights"]


def test_operations_are_those_torch_counts():
    make = partial(llama, 2, 64, 160, 4, dtype="float32", attention="eager")
    tokens = 24
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        make()(inputs_embeds=torch.zeros(1, tokens, 64), use_cache=False)
    expected = 2 * counts.count_layer(first_of(make, 2, 64), None).forward(tokens)
    # torch counts the products that turn positions to angles as well.
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_training_passes_once_forward_and_once_back(tiny):
    """Attention's two products have four on the way back: by each of their two factors."""
    model, _ = tiny(attention="eager")
    asked = Asked(questions=1, tokens=10, squares=100, answers=2)
    forward = counts.forward_operations(model, asked)
    linear, attention, head = 2 * PRODUCTS * 10, 4 * 2 * 8 * 100, 2 * 8 * 50 * 2
    assert forward == linear + attention + head
    through, on = (
        counts.training_operations(model, asked, adapter=Adapter(scope, 3), checkpointing=False)
        for scope in ("projector", "llm")
    )
    assert through == 2 * (linear + head) + 3 * attention
    lora = 2 * 3 * (2 * 16 + 2 * 12 + 3 * 24)
    assert on - through == 2 * 3 * lora * 10
    again = counts.training_operations(
        model, asked, adapter=Adapter("projector", 3), checkpointing=True
    )
    # The head is no layer, and not passed anew.
    assert again == through + linear + attention


def test_a_frozen_tower_is_passed_forward_once(tiny):
    model, _ = tiny(attention="eager")
    eyes = Asked(pictures=1, patches=10, patch_squares=100)
    linear, attention = 2 * TOWER * 10, 4 * 1 * 4 * 100
    assert counts.forward_operations(model, eyes) == linear + attention
    frozen = counts.training_operations(model, eyes, adapter=Adapter("llm", 3), checkpointing=False)
    assert frozen == linear + attention
    full = Adapter("vision", 3, update="full")
    trained = counts.training_operations(model, eyes, adapter=full, checkpointing=False)
    assert trained == 3 * (linear + attention)


@pytest.mark.parametrize("name", [name for name, _ in FAMILIES])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_layers_of_every_family_can_be_counted(name, attention, tmp_path):
    import tiny_families

    tiny_families.built(name).config.save_pretrained(tmp_path)
    model = describe(ModelSettings(source=str(tmp_path), attention=attention))
    for stack in (model.language, model.tower):
        for adapter in (None, Adapter("all", 2), Adapter("all", 2, update="full")):
            found = counts.count_layer(stack, adapter)
            linear = sum(m.weight.numel() for m in stack.layer.modules() if hasattr(m, "weight"))
            assert 0 < found.forward(10) <= found.backward(10)
            assert found.forward(1) == pytest.approx(2 * linear, rel=0.5)
            assert found.kept(10) > 0


def test_sums_add_up():
    one = Asked(1, 2, 3, 4, 5, 6, 7)
    assert (one + one) == one.times(2) == Asked(2, 4, 6, 8, 10, 12, 14)
